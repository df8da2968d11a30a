"""Other programs' tokenizers, run as their tokenizer.json says: Llama's kind, which cuts no words."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from small_runs import book, command, info, train, without_picture_and_sample
from tokenizers import decoders, models, normalizers, processors, trainers

from microformer import generate, load_run, tokenization
from microformer.errors import DataError
from microformer.tokenization import Padded, WithEnd

TEXT = book() + " Été, naïve — 漢字!\n"
AWKWARD = st.lists(
    st.one_of(st.sampled_from(["the", " the", "  ", "\n", "漢字", "🙂", "\u200d", "é", "▁", "</s>", "<0x0A>"]),
              st.characters(exclude_categories=["Cs"])), max_size=20,
).map("".join)  # fmt: skip


def as_llama():
    """Pairs of characters over the whole text with ▁ for spaces, bytes for what it lacks, <s> before a text."""
    special = ["<unk>", "<s>", "</s>"]
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special + bytes_, show_progress=False)
    made.train_from_iterator([line for line in TEXT.split("\n") if line], trainer)
    plain = json.loads(made.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]  # the bytes are tokens like others
    made = tokenizers.Tokenizer.from_str(json.dumps(plain))
    made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", made.token_to_id("<s>"))])
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("llama")
    as_llama().save(str(where / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (where / "tokenizer_config.json").write_text(json.dumps(about))
    return where


@pytest.fixture(scope="module")
def both(folder):
    return tokenization.load_published(folder), transformers.AutoTokenizer.from_pretrained(folder)


@given(text=AWKWARD)
def test_ids_and_texts_are_those_of_transformers(both, text):
    ours, theirs = both
    ids = ours.encode(text).tolist()
    if "</s>" not in text:  # there it is the token, and ours splits documents at it
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]


@given(text=AWKWARD, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_a_text_in_chunks_is_the_whole_text(both, text, cuts):
    places = sorted(cut % (len(text) + 1) for cut in cuts)
    chunks = [text[first:last] for first, last in zip([0, *places], [*places, len(text)], strict=True)]
    made = [int(token) for part in both[0].encode_chunks(chunks) for token in part]
    assert made == both[0].encode(text).tolist()


@given(ids=st.lists(st.integers(0, 419), max_size=30))
def test_ids_one_by_one_give_the_text_of_all_and_never_half_a_character(both, ids):
    inner = both[0].inner
    ids = [token for token in ids if token < inner.vocab_size]
    decoder = inner.decoder()
    pieces = [decoder.push(token) for token in ids]
    whole = inner.decode(ids)
    assert "".join([*pieces, decoder.finish()]) == whole
    if "\ufffd" not in whole:
        assert "\ufffd" not in "".join(pieces)


def test_what_ends_a_text_ends_a_document_and_what_begins_one_stands_before_a_prompt(both):
    ours, theirs = both
    assert isinstance(ours, WithEnd)
    assert ours.kind == "huggingface"
    assert ours.end_of_document == theirs.eos_token_id
    assert ours.beginning == (theirs.bos_token_id,)
    assert Padded(ours, 500).beginning == ours.beginning
    again = tokenization.from_dict(json.loads(json.dumps(Padded(ours, 500).to_dict())))
    assert again.to_dict() == Padded(ours, 500).to_dict()
    assert again.encode("the cat").tolist() == ours.encode("the cat").tolist()


def test_a_llama_of_theirs_writes_here_what_it_writes_there(folder, both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_picture_and_sample(monkeypatch)
    ours, theirs = both
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, vocab_size=len(theirs),
            max_position_embeddings=64, bos_token_id=theirs.bos_token_id, eos_token_id=theirs.eos_token_id,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.1 * torch.randn(one.shape))
    model.save_pretrained("theirs")
    theirs.save_pretrained("theirs")

    assert command("import", "theirs", "--run", "llama") == 0

    prompt = theirs("the cat sat", return_tensors="pt")
    made = model.generate(**prompt, max_new_tokens=15, do_sample=False, pad_token_id=0)[0]
    run = load_run("llama")
    written = generate(run, "the cat sat", max_new_tokens=15, temperature=0.0)
    assert written == theirs.decode(made, skip_special_tokens=True)
    Path("book.txt").write_text(TEXT, "utf-8")
    assert train("--run", "other", tokenizer=str(folder), max_steps=2) == 0
    assert info("other")["model"]["vocab_size"] == ours.vocab_size
    assert command("export", "llama", "--to", "huggingface", "--output", "out") == 0
    again = transformers.AutoTokenizer.from_pretrained("out")
    assert again("the cat sat")["input_ids"] == theirs("the cat sat")["input_ids"]
    assert (again.bos_token, again.eos_token, again.unk_token) == ("<s>", "</s>", "<unk>")
    assert command("export", "llama", "--to", "gguf", "--output", "out.gguf") == 2  # cut in another way than GPT-2's


def test_a_byte_level_bpe_that_cuts_in_another_way_than_gpt_2_s_is_not_taken_for_one(tmp_path):
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\d{1,3}|\s+|[^\s\d]+"), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    made.save(str(tmp_path / "tokenizer.json"))

    ours = tokenization.load_published(tmp_path)

    assert ours.kind == "huggingface"
    assert ours.encode(TEXT).tolist() == made.encode(TEXT).ids
    assert ours.decode(ours.encode(TEXT)) == TEXT


def test_it_is_not_trained_here_and_a_broken_one_is_refused():
    with pytest.raises(DataError, match="can't be built"):
        tokenization.from_dict({"kind": "huggingface", "tokenizer": {"model": {}}})
    empty = tokenizers.Tokenizer(models.BPE())
    with pytest.raises(DataError, match="has no tokens"):
        tokenization.from_dict({"kind": "huggingface", "tokenizer": json.loads(empty.to_str())})
