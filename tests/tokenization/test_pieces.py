"""WordPiece and Unigram: equal to the library that they stand on, and no text is lost but what the page says."""

import json
import random
from pydoc_data.topics import topics

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from microformer import tokenization
from microformer.errors import DataError, SettingsError
from microformer.tokenization import cutting

WORDS = [
    "the", "then", "there", "another", "about", "it's", "we'll", "1999", "--", "...", "été", "生きる", "🙂", "#", "##a",
]  # fmt: skip
TEXT = topics["exprlists"] + topics["types"] + " ".join(random.Random(0).choices(WORDS, k=300)) + "\n\r\n\t "
KINDS = ("wordpiece", "unigram")
TOKENIZERS = {kind: tokenization.train(kind, [TEXT], size) for kind, size in zip(KINDS, (400, 300), strict=True)}
LIBRARIES = {
    kind: tokenizers.Tokenizer.from_str(json.dumps(one.to_dict()["tokenizer"])) for kind, one in TOKENIZERS.items()
}

awkward_text = st.lists(
    st.sampled_from([*WORDS, " ", "  ", "\n", "\r\n", "\t", "▁"]), max_size=60
).map("".join)  # fmt: skip


@given(st.sampled_from(KINDS), awkward_text)
def test_ids_are_the_librarys_however_the_text_is_cut(kind, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "PIECE", 4)
        found = TOKENIZERS[kind].encode(text).tolist()

    assert found == LIBRARIES[kind].encode(text).ids
    assert TOKENIZERS[kind].decode(found) == text.replace("▁", " ")


@pytest.mark.parametrize("kind", KINDS)
def test_frequent_words_become_one_token_with_the_space_before_them(kind):
    tokenizer = TOKENIZERS[kind]

    assert [tokenizer.decode([one]) for one in tokenizer.encode(" the the\n")] == [" the", " the", "\n"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_unicode_has_composed_comes_back_composed(kind):
    tokenizer = TOKENIZERS[kind]

    assert tokenizer.decode(tokenizer.encode("e\u0301te\u0301")) == "été"


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_of_a_million_characters_is_encoded_in_no_time_and_given_back(kind):
    text = "the" * 350_000

    assert TOKENIZERS[kind].decode(TOKENIZERS[kind].encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_characters_that_the_text_never_had_are_named_skipped_or_replaced_alone(kind):
    tokenizer = TOKENIZERS[kind]

    with pytest.raises(DataError, match="lacks 3 different characters of this text: 'Ω', 'ω', 'Ж'"):
        tokenizer.encode("the Ωω there Ж")
    assert tokenizer.decode(tokenizer.encode("theω Жthere", unknown="skip")) == "the there"
    assert tokenizer.decode(tokenizer.encode("ΩTHÈ àbout‰− Ж", unknown="replace")) == " THE about -  "


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_its_characters_do_not_fit_in_is_refused_with_the_smallest_that_does(kind):
    with pytest.raises(SettingsError, match=rf"a {kind} vocabulary of 10 is too small: .* take (\d+)") as raised:
        tokenization.train(kind, [TEXT], 10)

    smallest = int(raised.value.sentence.rsplit(" ", 1)[1].rstrip("."))
    assert 50 < smallest < 200
    if kind == "wordpiece":  # the smallest is no more than its characters
        assert tokenization.train(kind, [TEXT], smallest).vocab_size == smallest


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_above_what_the_text_gives_is_refused_with_the_largest_possible(kind):
    with pytest.raises(SettingsError, match=rf"a {kind} vocabulary of 30000 can't be made of this text: .* give (\d+)"):
        tokenization.train(kind, [TEXT], 30_000)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_text_has_no_vocabulary(kind):
    with pytest.raises(DataError, match="empty"):
        tokenization.train(kind, ["", ""])


@pytest.mark.parametrize("kind", KINDS)
def test_another_kinds_file_is_refused(kind):
    other = next(one for one in KINDS if one != kind)
    plain = TOKENIZERS[other].to_dict() | {"kind": kind}

    with pytest.raises(DataError, match=f"this holds no {kind} tokenizer"):
        tokenization.from_dict(plain)


def test_a_longest_match_is_from_the_left_and_the_most_probable_cut_may_be_another():
    wordpiece, unigram = (TOKENIZERS[kind] for kind in KINDS)
    word = "therefore"

    assert wordpiece.decode(wordpiece.encode(word)) == unigram.decode(unigram.encode(word)) == word
    first = wordpiece.decode(wordpiece.encode(word)[:1])
    assert all(len(first) >= len(piece) for piece in _pieces(wordpiece) if word.startswith(piece))


def _pieces(tokenizer):
    vocab = tokenizer.to_dict()["tokenizer"]["model"]["vocab"]
    return [token for token in vocab if not token.startswith("##")]


@pytest.mark.parametrize("kind", KINDS)
def test_characters_that_only_come_later_can_be_asked_for(kind):
    tokenizer = tokenization.train(kind, [TEXT], alphabet="Ωω")

    assert tokenizer.decode(tokenizer.encode("the ΩωΩ")) == "the ΩωΩ"
