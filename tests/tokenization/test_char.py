"""The character vocabulary: sorted, readable, and exact about what it lacks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microformer import tokenization
from microformer.errors import DataError


def encoded_by_hand(text):
    return [sorted(set(text)).index(character) for character in text]


@given(st.text(min_size=1))
def test_an_id_is_the_characters_place_in_the_sorted_alphabet(text):
    assert tokenization.train("char", [text]).encode(text).tolist() == encoded_by_hand(text)


def test_an_alphabet_too_large_for_a_byte_takes_a_larger_type():
    text = "".join(map(chr, range(0x21, 0x21 + 300)))
    tokenizer = tokenization.train("char", [text])

    assert tokenizer.dtype == np.int16
    assert tokenizer.encode(text).tolist() == list(range(300))
    assert tokenizer.encode("!#").tolist() == [0, 2]


def test_the_vocabulary_reads_as_a_table_of_characters():
    tokenizer = tokenization.train("char", ["b\n", "a "])

    assert tokenizer.to_dict() == {"kind": "char", "vocab": {"\n": 0, " ": 1, "a": 2, "b": 3}}


@pytest.mark.parametrize("rest", ["", "é"])  # all ASCII, or not
def test_unknown_characters_are_named_once_each_and_the_way_out_is_said(rest):
    tokenizer = tokenization.train("char", ["ab é"])

    with pytest.raises(DataError) as raised:
        tokenizer.encode("ba xyzzy \x00" + rest)

    assert raised.value.sentence == r"the vocabulary lacks 4 different characters of this text: 'x', 'y', 'z', '\x00'."
    assert "--unknown skip" in raised.value.hint


def test_of_many_unknown_characters_a_few_are_named_and_the_rest_counted():
    with pytest.raises(
        DataError, match=r"lacks 7 different characters of this text: 'b', 'c', 'd', 'e', 'f' and 2 more"
    ):
        tokenization.train("char", ["a"]).encode("abcdefgh")


@pytest.mark.parametrize("rest", ["", "é"])
def test_unknown_characters_can_be_skipped(rest):
    tokenizer = tokenization.train("char", ["ab é"])

    assert tokenizer.decode(tokenizer.encode("xaybz" + rest, unknown="skip")) == "ab" + rest


def test_an_empty_text_has_no_vocabulary():
    with pytest.raises(DataError, match="empty"):
        tokenization.train("char", ["", ""])


def test_half_a_character_is_refused_in_training():
    with pytest.raises(DataError, match="udcff"):
        tokenization.train("char", ["a\udcff"])
