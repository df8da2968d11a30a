"""What holds for every kind of tokenizer: nothing is lost, chunks don't matter, and errors name what is wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microformer import tokenization
from microformer.errors import DataError, FileError, SettingsError
from microformer.tokenization.pieces import normalised

TEXT = "To be, or not to be: that's the question.\n\n  «Être ou ne pas être» — 生きるべきか 🙂‍↔️ 12 345\r\n" * 20
SIZES = {"bpe": 300, "wordpiece": 100}
TOKENIZERS = {kind: tokenization.train(kind, [TEXT], SIZES.get(kind)) for kind in tokenization.KINDS}

own_alphabet = st.text(st.sampled_from(sorted(set(TEXT))))
awkward = st.sampled_from(" \n\r\t\x0b\x1c\x85\xa0\u200d\u3000'stll1!é生🙂")
any_text = st.text(st.one_of(awkward, st.characters(exclude_categories=["Cs"])))
cases = st.one_of(
    st.tuples(st.just("char"), own_alphabet),
    st.tuples(st.just("byte"), any_text),
    st.tuples(st.just("bpe"), any_text),
    # What has no composed form, and no character but those of the text.
    st.tuples(st.sampled_from(["wordpiece", "unigram"]), own_alphabet.filter(lambda text: normalised(text) == text)),
)


def chunks_of(text, cuts):
    ends = sorted(cut % (len(text) + 1) for cut in cuts)
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@given(cases)
def test_decoding_gives_back_what_was_encoded(case):
    kind, text = case

    assert TOKENIZERS[kind].decode(TOKENIZERS[kind].encode(text)) == text


@given(cases, st.lists(st.integers(0, 10_000), max_size=8))
def test_a_text_in_chunks_has_the_ids_of_the_whole(case, cuts):
    kind, text = case
    whole = TOKENIZERS[kind].encode(text)

    pieces = list(TOKENIZERS[kind].encode_chunks(chunks_of(text, cuts)))

    assert np.array_equal(np.concatenate([whole[:0], *pieces]), whole)


@given(cases)
def test_ids_decoded_one_by_one_give_the_text_and_never_half_a_character(case):
    kind, text = case
    decoder = TOKENIZERS[kind].decoder()

    pieces = [decoder.push(int(token_id)) for token_id in TOKENIZERS[kind].encode(text)]

    assert "".join(pieces) + decoder.finish() == text
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")


@given(st.sampled_from(tokenization.KINDS), st.lists(st.integers(0, 1_000_000)))
def test_any_ids_decode_alike_one_by_one_and_together(kind, numbers):
    tokenizer = TOKENIZERS[kind]
    ids = [number % tokenizer.vocab_size for number in numbers]
    decoder = tokenizer.decoder()

    assert "".join(map(decoder.push, ids)) + decoder.finish() == tokenizer.decode(ids)


@given(st.sampled_from(tokenization.KINDS), st.lists(st.integers(0, 10_000), max_size=8))
def test_training_in_chunks_gives_the_tokenizer_of_the_whole_text(kind, cuts):
    in_chunks = tokenization.train(kind, chunks_of(TEXT, cuts), SIZES.get(kind))

    assert in_chunks.to_dict() == TOKENIZERS[kind].to_dict()


@pytest.mark.parametrize("kind", tokenization.KINDS)
def test_training_twice_gives_the_same_tokenizer_whatever_the_hash_seed(kind):
    script = (
        "import json, sys; from microformer import tokenization; text = sys.stdin.buffer.read().decode('utf-8');"
        f"print(json.dumps(tokenization.train({kind!r}, [text], {SIZES.get(kind)}).to_dict()))"
    )

    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", script],
            input=TEXT.encode(),
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert json.loads(run.stdout) == TOKENIZERS[kind].to_dict()


@pytest.mark.parametrize("kind", tokenization.KINDS)
def test_a_saved_tokenizer_is_the_same_when_loaded(kind, tmp_path):
    path = tmp_path / "vocab.json"

    tokenization.save(TOKENIZERS[kind], path)
    loaded = tokenization.load(path)

    assert loaded.kind == kind
    assert loaded.vocab_size == TOKENIZERS[kind].vocab_size
    assert np.array_equal(loaded.encode(TEXT), TOKENIZERS[kind].encode(TEXT))


@pytest.mark.parametrize("kind", tokenization.KINDS)
def test_ids_take_the_smallest_type_that_holds_the_vocabulary(kind):
    ids = TOKENIZERS[kind].encode(TEXT)

    assert ids.dtype == (np.uint8 if TOKENIZERS[kind].vocab_size <= 256 else np.int16)


@pytest.mark.parametrize("kind", tokenization.KINDS)
def test_an_empty_text_has_no_ids_and_no_ids_have_no_text(kind):
    assert len(TOKENIZERS[kind].encode("")) == 0
    assert TOKENIZERS[kind].decode([]) == ""


@pytest.mark.parametrize("kind", tokenization.KINDS)
@pytest.mark.parametrize("wrong", [-1, 100_000])
def test_an_id_that_the_vocabulary_lacks_is_named(kind, wrong):
    with pytest.raises(DataError, match=f"there is no token {wrong}: this vocabulary has ids 0 to"):
        TOKENIZERS[kind].decode([0, wrong])
    with pytest.raises(DataError, match=f"there is no token {wrong}"):
        TOKENIZERS[kind].decoder().push(wrong)


@pytest.mark.parametrize("kind", tokenization.KINDS)
def test_half_a_character_from_a_badly_encoded_command_line_is_named_or_skipped(kind):
    with pytest.raises(DataError, match=r"lacks 1 character of this text: '.udcff'") as raised:
        TOKENIZERS[kind].encode("to \udcffbe")

    assert "--unknown skip" in raised.value.hint
    assert TOKENIZERS[kind].decode(TOKENIZERS[kind].encode("to \udcffbe", unknown="skip")) == "to be"


def test_an_unknown_kind_suggests_the_nearest():
    with pytest.raises(SettingsError, match='no tokenizer "bytes"') as raised:
        tokenization.train("bytes", [TEXT])

    assert '"byte"' in raised.value.hint


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"kind": "sentences"}',
        '{"kind": "char"}',
        '{"kind": "char", "vocab": {"a": 0, "b": 2}}',
        '{"kind": "char", "vocab": {"a": 0, "b": 0}}',
        '{"kind": "char", "vocab": {"a": 0, "bc": 1}}',
        '{"kind": "char", "vocab": {"a": "0"}}',
        '{"kind": "bpe", "tokenizer": {"model": 1}}',
        '{"kind": "bpe", "tokenizer": {"model": {"type": "BPE", "vocab": {"日": 0}, "merges": []}}}',
    ],
)
def test_a_file_that_holds_no_tokenizer_is_named(content, tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=r"vocab\.json: "):
        tokenization.load(path)


def test_a_tokenizer_file_that_is_cut_short_or_missing_is_named(tmp_path):
    path = tmp_path / "vocab.json"
    with pytest.raises(FileError, match=r"vocab\.json"):
        tokenization.load(path)

    path.write_text('{"kind": "ch', encoding="utf-8")
    with pytest.raises(FileError, match=r"vocab\.json is damaged"):
        tokenization.load(path)
