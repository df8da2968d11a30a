"""Byte-level BPE: equal to the library that it stands on, whatever the text, and of a size that makes sense."""

import json
import random

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from microformer import tokenization
from microformer.errors import SettingsError
from microformer.tokenization import cutting

WORDS = ["the", "then", "there", "a", "about", "it's", "we'll", "1999", "--", "...", "é", "生", "🙂"]
TEXT = " ".join(random.Random(0).choices(WORDS, k=3000))
TOKENIZER = tokenization.train("bpe", [TEXT], 280)
LIBRARY = tokenizers.Tokenizer.from_str(json.dumps(TOKENIZER.to_dict()["tokenizer"]))

awkward = st.one_of(
    st.sampled_from(
        [*WORDS, " ", "  ", "\n", "\r\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2028", "\u3000"]
    ),
    st.characters(exclude_categories=["Cs"]),
)
awkward_text = st.lists(awkward, max_size=60).map("".join)


@pytest.fixture
def small_pieces(monkeypatch):
    """Cuts texts of a few characters as texts of megabytes are cut."""
    monkeypatch.setattr(cutting, "PIECE", 4)
    monkeypatch.setattr(cutting, "LONGEST", 10**6)


def in_pieces_of(text, length):
    return [text[start : start + length] for start in range(0, len(text), length)]


def joined(tokenizer, chunks):
    return np.concatenate([np.empty(0, tokenizer.dtype), *tokenizer.encode_chunks(chunks)]).tolist()


@given(awkward_text)
def test_cutting_a_text_into_pieces_changes_no_id(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "PIECE", 4)
        assert TOKENIZER.encode(text).tolist() == LIBRARY.encode(text).ids


@given(awkward_text, st.integers(1, 9))
def test_a_stretch_without_a_place_to_cut_is_cut_alike_however_it_comes(text, length):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "PIECE", 3)
        patch.setattr(cutting, "LONGEST", 5)
        whole = TOKENIZER.encode(text).tolist()
        assert joined(TOKENIZER, in_pieces_of(text, length)) == whole
        assert TOKENIZER.decode(whole) == text


def test_training_on_pieces_learns_what_training_on_the_whole_does(small_pieces):
    assert tokenization.train("bpe", in_pieces_of(TEXT, 7), 280).to_dict() == TOKENIZER.to_dict()


def test_a_word_of_two_million_characters_is_encoded_and_given_back():
    text = "x" * 2_000_000

    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_frequent_words_become_one_token_with_the_space_before_them():
    ids = TOKENIZER.encode(" the the")

    assert [TOKENIZER.decode([token_id]) for token_id in ids] == [" the", " the"]


def test_a_size_below_the_bytes_is_refused_with_the_smallest_possible():
    with pytest.raises(SettingsError, match="BPE vocabulary of 100 is too small: its smallest is 256"):
        tokenization.train("bpe", [TEXT], 100)

    assert tokenization.train("bpe", [TEXT], 256).vocab_size == 256


def test_a_size_above_what_the_text_gives_is_refused_with_the_largest_possible():
    with pytest.raises(
        SettingsError, match=r"BPE vocabulary of 30000 is more than this text has: its pairs give (\d+)"
    ):
        tokenization.train("bpe", [TEXT], 30_000)


def test_a_size_left_alone_suits_the_text():
    random_text = "".join(random.Random(0).choices("abcdefgh ", k=1_000_000))

    assert tokenization.train("bpe", [random_text]).vocab_size == 1024
    assert tokenization.train("bpe", [random_text[:10_000]]).vocab_size == 512
    assert tokenization.train("bpe", ["abc"]).vocab_size == 256


def test_a_size_left_alone_learns_the_same_first_pairs_as_a_size_that_was_asked():
    random_text = "".join(random.Random(0).choices("abcdefgh ", k=100_000))

    chosen, asked = tokenization.train("bpe", [random_text]), tokenization.train("bpe", [random_text], 512)

    assert chosen.to_dict() == asked.to_dict()
