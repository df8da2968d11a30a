"""Encoding word by word from a table gives what the library gives for the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microformer import tokenization
from microformer.tokenization import words
from microformer.tokenization.words import Words, ids_by

TEXT = "To be, or not to be: that's the question.\n\n  «Être ou ne pas être» — 生きるべきか 🙂‍↔️ 12 345\r\n" * 20
BPE = tokenization.train("bpe", [TEXT], 320)
WORDPIECE = tokenization.train("wordpiece", [TEXT], 100)

awkward = st.sampled_from(" \n\r\t\x0b\x1c\x85\xa0\u200d\u3000'stll1!é生🙂")
any_text = st.text(st.one_of(awkward, st.characters(exclude_categories=["Cs"])))


@given(any_text)
def test_bpe_by_words_has_the_ids_that_the_library_gives_for_the_whole(text):
    assert BPE.encode(text).tolist() == BPE._backend.encode(text).ids


@given(st.text(st.sampled_from(sorted(set(TEXT)))))
def test_wordpiece_by_words_has_the_ids_that_the_library_gives_for_the_whole(text):
    assert WORDPIECE.encode(text).tolist() == WORDPIECE._backend.encode(text).ids


def test_a_table_that_is_full_is_begun_anew_and_gives_the_same(monkeypatch):
    monkeypatch.setattr(words, "_MOST", 5)
    asked = []

    def encode(texts):
        asked.extend(texts)
        return ids_by(BPE._backend)(texts)

    table = Words(encode, BPE.dtype)

    ids = np.concatenate(list(table.ids([TEXT[:60], TEXT[60:400], TEXT[:60]])))

    expected = [*BPE.encode(TEXT[:60]), *BPE.encode(TEXT[60:400]), *BPE.encode(TEXT[:60])]
    assert ids.tolist() == expected
    assert asked.count("To") == 2


@pytest.mark.parametrize("length", [64, 65])
def test_only_words_that_may_come_again_are_kept(length):
    asked = []

    def encode(texts):
        asked.extend(texts)
        return ids_by(BPE._backend)(texts)

    table = Words(encode, BPE.dtype)

    for _ in range(2):
        list(table.ids(["x" * length]))

    assert len(asked) == (1 if length == 64 else 2)
