"""WordPiece: a word is cut from the left into the longest pieces that are in the vocabulary; ## marks those that go on.

Schuster and Nakajima 2012, "Japanese and Korean Voice Search"; as in Devlin et al. 2019, "BERT". The pieces are learned
as byte-pair encoding's are, by joining the most frequent pairs.
"""

import json
import unicodedata
from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, decoders, models, trainers

from microformer.tokenization.pieces import LONGEST_WORD, SPACE, PieceTokenizer, backend

_GOES_ON = "##"


class WordPieceTokenizer(PieceTokenizer):
    """Longest match first."""

    kind = "wordpiece"

    @classmethod
    def _learned(cls, chunks: Iterable[str], alphabet: str, vocab_size: int) -> tokenizers.Tokenizer:
        learning = backend(models.WordPiece(max_input_chars_per_word=LONGEST_WORD))
        # Given as special tokens the characters have ids before anything is counted; else the order in which a hash
        # table lists them would decide between pairs that are equally frequent.
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size, min_frequency=2, special_tokens=_characters(alphabet), show_progress=False
        )
        learning.train_from_iterator(chunks, trainer)
        vocab = json.loads(learning.to_str())["model"]["vocab"]
        return backend(models.WordPiece(vocab, max_input_chars_per_word=LONGEST_WORD))

    @staticmethod
    def _text_of(token: str) -> str:
        return token.removeprefix(_GOES_ON) if len(token) > len(_GOES_ON) else token

    def _unmarked(self) -> list[decoders.Decoder]:
        return [decoders.Replace(Regex(f"^{_GOES_ON}(?=.)"), "")]

    @staticmethod
    def _fewest(alphabet: str) -> int:
        return len(_characters(alphabet))


def _characters(alphabet: str) -> list[str]:
    """Every character as a token, and, where it can stand inside a word, as one that goes on."""
    first = [SPACE if character == " " else character for character in alphabet]
    inside = [one for one in alphabet if one not in " \n\r\t" and not _punctuation(one)]
    return [*first, *(_GOES_ON + one for one in inside)]


def _punctuation(character: str) -> bool:
    """What `tokenizers` calls so: marks that always stand alone."""
    return unicodedata.category(character).startswith("P") or (
        character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    )
