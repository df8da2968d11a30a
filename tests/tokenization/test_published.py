"""Published vocabularies: the ids are those of Hugging Face's own classes, on text that is hard on them."""

import json
import random
import shutil
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from small_runs import book, command, info, train, without_picture_and_sample
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from microformer import generate, load_run, tokenization
from microformer.errors import DataError
from microformer.tokenization import cutting

TEXT = topics["types"] + " Été à Zürich, naïve 生きる べき 🙂 don't we'll 1999 ... -- it's\n" * 5
AWKWARD = [
    "the", "The", " types", "été", "e\u0301te\u0301", "Zürich", "生きる", "日本", "🙂", "🙂\u200d↔️", "\x00", "\x07",
    "\u200b", "\ufeff", "\r\n", "\n", "\t", "  ", "\xa0", "\u3000", "\x85", "don't", "WE'LL", "1999", "...", "#",
    "<|endoftext|>",
    "<unk>", "</w>", "ﬁ", "ß", "İ", "ſ", "x" * 300,
]  # fmt: skip
awkward_text = st.lists(st.one_of(st.sampled_from(AWKWARD), st.characters(exclude_categories=["Cs"])), max_size=30).map(
    "".join
)


def write(folder, vocab, merges, names=("vocab.json", "merges.txt")):
    folder.mkdir()
    (folder / names[0]).write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    (folder / names[1]).write_text("#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in merges), "utf-8")
    return folder


def learned(tokenizer, trainer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer.train_from_iterator([TEXT], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A folder as GPT-2's, and transformers' tokenizer for it."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_ = pre_tokenizers.ByteLevel.alphabet()
    vocab, merges = learned(backend, trainers.BpeTrainer(vocab_size=500, initial_alphabet=bytes_, show_progress=False))
    vocab["<|endoftext|>"] = len(vocab)
    return write(tmp_path_factory.mktemp("gpt2") / "it", vocab, merges), transformers.GPT2Tokenizer(vocab, merges)


@pytest.fixture(scope="module")
def gpt1(tmp_path_factory):
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder("</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    vocab, merges = learned(backend, trainer)
    return write(tmp_path_factory.mktemp("gpt1") / "it", vocab, merges), transformers.OpenAIGPTTokenizer(vocab, merges)


@given(text=awkward_text)
def test_gpt2s_ids_are_hugging_faces_however_the_text_is_cut(gpt2, text):
    folder, oracle = gpt2
    tokenizer = tokenization.train(str(folder), [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "PIECE", 5)
        ids = tokenizer.encode(text).tolist()

    assert ids == oracle.encode(text)
    assert tokenizer.decode(ids) == text


@given(text=awkward_text)
def test_gpt1s_ids_are_hugging_faces_however_the_text_is_cut(gpt1, text):
    folder, oracle = gpt1
    tokenizer = tokenization.train(str(folder), [])
    text = text.replace("<unk>", "")  # theirs takes it for the token, ours for what is written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "PIECE", 5)
        ids = tokenizer.encode(text, unknown="replace").tolist()

    assert ids == oracle.encode(text)


def test_gpt1_gives_back_words_with_a_space_between_and_names_what_it_never_saw(gpt1):
    tokenizer = tokenization.train(str(gpt1[0]), [])

    ids = tokenizer.encode("The Types  aren't\nÉté.").tolist()
    assert tokenizer.decode(ids) == "the types aren ' t ete ."
    decoder = tokenizer.decoder()
    assert "".join(map(decoder.push, ids)) + decoder.finish() == tokenizer.decode(ids)
    with pytest.raises(DataError, match="lacks 1 character of this text: 'Ж'"):
        tokenizer.encode("the Ж types")
    assert tokenizer.decode(tokenizer.encode("the Ж types", unknown="skip")) == "the types"
    assert tokenizer.kind == "gpt1"


def test_any_ids_of_gpt1_decode_alike_one_by_one_and_together(gpt1):
    tokenizer, draw = tokenization.train(str(gpt1[0]), []), random.Random(0)

    for _ in range(50):
        ids = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(8))]
        decoder = tokenizer.decoder()
        assert "".join(map(decoder.push, ids)) + decoder.finish() == tokenizer.decode(ids)


def test_a_saved_published_tokenizer_is_the_same_when_loaded(gpt1, gpt2, tmp_path):
    for folder, _ in (gpt1, gpt2):
        tokenizer = tokenization.train(str(folder), [])
        tokenization.save(tokenizer, tmp_path / "kept.json")
        for again in (tokenization.load(tmp_path / "kept.json"), tokenization.train(str(tmp_path / "kept.json"), [])):
            text = "the types <|endoftext|> of a list"
            assert again.encode(text, "replace").tolist() == tokenizer.encode(text, "replace").tolist()
            assert again.to_dict() == tokenizer.to_dict()


def test_hugging_faces_one_file_and_openais_names_are_read_too(gpt1, gpt2, tmp_path):
    for folder, oracle in (gpt1, gpt2):
        tokenizer = tokenization.train(str(folder), [])
        theirs = tmp_path / f"theirs-{tokenizer.kind}"
        oracle.save_pretrained(theirs)
        assert (theirs / "tokenizer.json").is_file()
        assert tokenization.train(str(theirs), []).encode("the types of it").tolist() == oracle.encode(
            "the types of it"
        )
    named = tmp_path / "openai"
    named.mkdir()
    (named / "encoder.json").write_bytes((gpt2[0] / "vocab.json").read_bytes())
    (named / "vocab.bpe").write_bytes((gpt2[0] / "merges.txt").read_bytes())
    assert tokenization.train(str(named), []).encode("the types").tolist() == gpt2[1].encode("the types")


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_what_this_program_trained_has_the_same_ids_in_transformers(kind, tmp_path):
    tokenizer = tokenization.train(kind, [TEXT])
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer.to_dict()["tokenizer"]), "utf-8")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))

    for text in (TEXT, "  the types\n\n of 生きる 🙂 été e\u0301"):
        assert theirs.encode(text) == tokenizer.encode(text).tolist()
    assert tokenization.train(str(tmp_path), []).encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


def test_a_model_is_trained_on_a_published_vocabulary_and_keeps_it(gpt2, gpt1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_picture_and_sample(monkeypatch)
    Path("book.txt").write_text(book())
    for name, (folder, _) in (("two", gpt2), ("one", gpt1)):
        assert train("--run", name, tokenizer=str(folder), max_steps=4) == 0
        assert info(name)["model"]["vocab_size"] == tokenization.train(str(folder), []).vocab_size
        assert generate(load_run(name), "the cat ", max_new_tokens=5).lower().startswith("the cat")
    assert command("eval", "one") == 0
    assert command("eval", "two") == 2  # what is in data/ now has the other's vocabulary


def test_the_text_is_prepared_again_only_where_the_vocabulary_at_the_path_is_another(
    gpt2, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    without_picture_and_sample(monkeypatch)
    Path("book.txt").write_text(book())
    for name in ("here", "there"):
        shutil.copytree(gpt2[0], name)
    assert train(tokenizer="./here", max_steps=1) == 0
    capsys.readouterr()

    assert train(tokenizer="./here", max_steps=1) == 0
    assert train(tokenizer="./there", max_steps=1) == 0  # the same, elsewhere
    assert "preparing" not in capsys.readouterr().err

    (shrunk,) = Path("here").glob("merges.txt")
    shrunk.write_text("\n".join(shrunk.read_text("utf-8").split("\n")[:-20]), "utf-8")
    assert train(tokenizer="./here", max_steps=1) == 0
    assert "./here is another tokenizer than when it was last prepared" in capsys.readouterr().err

    shutil.rmtree("here")
    assert train(tokenizer="./here", max_steps=1) == 0  # what is prepared is all that is left of it
    assert train(tokenizer="char", max_steps=1) == 0
    assert train(tokenizer="./here", max_steps=1) == 2  # and now nothing is


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({}, "holds no tokenizer"),
        ({"vocab.json": "{}"}, "holds no tokenizer"),
        ({"vocab.json": "[1]", "merges.txt": ""}, "is no vocabulary"),
        ({"vocab.json": '{"a": 0, "b": 5}', "merges.txt": ""}, "gaps in its ids"),
        ({"vocab.json": '{"a</w>": 0}', "merges.txt": ""}, "it lacks <unk>"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "a b c\n"}, "is no pair"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "a b\n"}, "don't fit its vocabulary"),
        ({"vocab.json": '{"a', "merges.txt": ""}, "is damaged"),
        ({"tokenizer.json": "{}"}, "holds no tokenizer"),
        ({"tokenizer.json": '{"model": {"type": "WordLevel"}}'}, "can't be built"),
        ({"tokenizer.json": '{"model": {"type": "Unheard-of"}}'}, "can't be built"),
        ({"tokenizer.model": "x"}, "holds no tokenizer that can be read here"),
        ({"tokenizer.json": '{"model": {"type": "BPE", "vocab": {}, "merges": 3}}'}, "can't be built"),
    ],
)
def test_a_folder_that_holds_no_tokenizer_is_refused_with_the_reason(made, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(book())
    Path("theirs").mkdir()
    for name, text in made.items():
        Path("theirs", name).write_text(text)

    assert train(tokenizer="./theirs") == 2

    assert said in capsys.readouterr().err
    assert not Path("data", "manifest.json").exists()


def test_a_path_that_is_not_there_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(book())

    assert train(tokenizer="theirs.json") == 2

    assert "there is no tokenizer theirs.json" in capsys.readouterr().err
