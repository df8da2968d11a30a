"""Unigram: of all ways to cut a word into pieces of the vocabulary the most probable one, by the pieces' own shares.

    the cut x₁ … xₙ of a word with the highest Σ log p(xᵢ)

Kudo 2018, "Subword Regularization", section 3.2; as in SentencePiece, T5 and XLNet. The vocabulary begins with all
frequent runs of characters and loses, round by round, those that the text's probability suffers least from.
"""

import json
from collections.abc import Iterable

import tokenizers
from tokenizers import models, trainers

from microformer.tokenization.pieces import SPACE, PieceTokenizer, backend

_UNKNOWN = "<unk>"


class UnigramTokenizer(PieceTokenizer):
    """The most probable cut."""

    kind = "unigram"

    @classmethod
    def _learned(cls, chunks: Iterable[str], alphabet: str, vocab_size: int) -> tokenizers.Tokenizer:
        learning = backend(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size + 1,  # the unknown, which the library wants while it learns
            initial_alphabet=[SPACE if one == " " else one for one in alphabet],
            unk_token=_UNKNOWN,
            special_tokens=[_UNKNOWN],
            show_progress=False,
        )
        learning.train_from_iterator(chunks, trainer)
        vocab = json.loads(learning.to_str())["model"]["vocab"]
        # Sums that several cores make differ in their last digits, and so would the order of what is equally frequent.
        scored = sorted((-round(score, 6), token) for token, score in vocab if token != _UNKNOWN)
        return backend(models.Unigram([(token, -score) for score, token in scored], None, False))

    @staticmethod
    def _text_of(token: str) -> str:
        return token

    @staticmethod
    def _fewest(alphabet: str) -> int:
        return len(alphabet)
