"""GGUF: what llama.cpp makes of the file is what the model here makes. llama.cpp itself is asked, by way of xllamacpp.

It shows no logits, but the log-probabilities of all tokens, which are compared with log_softmax of ours: the same but
for a number that would be added to all logits alike.
"""

import json
import random
import sys
import unicodedata
import urllib.request

import pytest
import torch
import xllamacpp
from gguf import GGUFReader, GGUFWriter
from tokenizers import models, normalizers, pre_tokenizers
from torch.nn import functional as F

from microformer import tokenization
from microformer.errors import SettingsError
from microformer.exchange import gguf
from microformer.models.model import Microformer
from microformer.settings import Settings, model_spec
from microformer.tokenization.bpe import BpeTokenizer, byte_level
from microformer.tokenization.byte import shown_bytes

TEXT = "Hello, world!\nThe quick brown fox's 12 jumps over é, 漢字 and 👩‍👩‍👧 lazily; it's 5 o'clock."
# What a tokenizer could stumble over: marks after spaces, kinds of spaces, control characters, what vocabularies and
# llama.cpp write for bytes, spaces and special tokens.
ODD = (
    TEXT + " . , ! ? don't  'LL 'm ３４ ½²\n\n \t\r\n x  y   \u00a0\u3000\u2028\x85 ▁▁ ĠÃ© ÿÿ \\x41 \\n \\ <0x0A> "
    "<s></s> [UNK] <|unused0|> \x00\x01\x7f\ufeff\u200be\u0301 اَلْعَرَبِيَّةُ हिन्दी \U0010ffff"
)
GPT2 = {"positions": "learned", "norm": "layernorm", "feedforward": "gelu_tanh", "qk_norm": False}
LLAMA = {"qk_norm": False}
CASES = {
    "default": ("char", {}),
    "qwen3, few heads of keys, tied, other angles": (
        "char",
        {"num_heads": 4, "num_kv_heads": 2, "tie_embeddings": True, "positions": "rope(base=500, stretch=3)"},
    ),
    "llama": ("byte", LLAMA),
    "llama with biases and few heads of keys": (
        "bpe",
        {**LLAMA, "bias": True, "num_heads": 4, "num_kv_heads": 2, "norm": "rmsnorm(eps=0.01)"},
    ),
    "gpt2 with biases, tied": ("bpe", {**GPT2, "bias": True, "tie_embeddings": True, "norm": "layernorm(eps=0.01)"}),
    "gpt2": ("char", GPT2),
}
TOLERANCE = 1e-4
# On a CPU llama.cpp takes GELU from a table in half precision.
WITH_GELU = 1e-3


def tokenizer_of(kind, documents=False):
    return tokenization.train(kind, [ODD * 20], 320 if kind == "bpe" else None, documents=documents)


def model_of(tokenizer, **settings):
    """A model with nothing left at 0 or 1: each of its numbers would be missed."""
    small = {"embed_dim": 32, "num_heads": 2, "num_layers": 2, "ff_dim": 48, "max_seq_len": 64}
    model = Microformer(model_spec(Settings().changed({**small, **settings}), tokenizer.vocab_size)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


class LlamaCpp:
    """llama.cpp with a model, which it computes in float32 throughout."""

    def __init__(self, path):
        asked = xllamacpp.CommonParams()
        asked.model.path = str(path)
        asked.verbosity, asked.warmup, asked.fit_params = -1, False, False
        asked.n_ctx, asked.n_parallel, asked.n_gpu_layers = 64, 1, 0
        asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
        asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        asked.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(asked)

    def complete(self, ids, length, **options):
        said = self.server.handle_completions(
            {"prompt": ids, "n_predict": length, "temperature": 0, "cache_prompt": False, **options}
        )
        return said["choices"][0]

    def log_probabilities(self, ids, vocab_size):
        """Of every next token at every position. [pos vocab]"""
        rows = torch.full((len(ids), vocab_size), torch.nan)
        for i in range(len(ids)):
            # It shows them beside a token that it took, if that is a whole character; one such is pressed on it, and
            # they are those of before.
            shown = self.complete(ids[: i + 1], 1, n_probs=vocab_size, logit_bias=[[ids[0], 1e4]])
            for one in shown["logprobs"]["content"][0]["top_logprobs"]:
                rows[i, one["id"]] = one["logprob"]
        return rows

    def ids(self, text, **options):
        return self._asked("/tokenize", {"content": text, "add_special": True, **options})["tokens"]

    def text(self, ids):
        return self._asked("/detokenize", {"tokens": ids})["content"]

    def text_of_prompt(self, ids):
        """As `text`, but by llama_detokenize, which has ways of its own with spaces."""
        return self._asked("/completion", {"prompt": ids, "n_predict": 1})["prompt"]

    def _asked(self, what, body):
        asked = urllib.request.Request(
            self.server.listening_address + what, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=30) as answer:
            return json.load(answer)


def exported(folder, model, tokenizer, name="small", **changed):
    """llama.cpp with the model as it is exported. changed: parameters in place of the model's."""
    gguf.write(folder / "model.gguf", model.spec, {**dict(model.named_parameters()), **changed}, tokenizer, name)
    return LlamaCpp(folder / "model.gguf")


@torch.no_grad()
def ours(model, ids):
    return model(torch.tensor([ids])).logits[0].log_softmax(-1)


@torch.no_grad()
def greedy(model, ids, length):
    """The likeliest tokens, and by how much each was likelier than the next."""
    ids, leads = list(ids), []
    for _ in range(length):
        best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        ids.append(int(best.indices[0]))
        leads.append(float(best.values[0] - best.values[1]))
    return ids[-length:], min(leads)


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_gives_the_same_logits_and_the_same_text(tmp_path, case):
    kind, settings = CASES[case]
    tokenizer = tokenizer_of(kind)
    model = model_of(tokenizer, **settings)
    ids = tokenizer.encode(TEXT).tolist()[:40]

    tolerance = WITH_GELU if "gelu_tanh" in settings.values() else TOLERANCE

    theirs = exported(tmp_path, model, tokenizer)

    expected = ours(model, ids)
    assert expected.std() > 0.3  # or all would be near any other
    assert (theirs.log_probabilities(ids, tokenizer.vocab_size) - expected).abs().max() < tolerance
    generated, lead = greedy(model, ids[:20], 40)
    assert lead > tolerance  # or the two might differ by right
    assert theirs.complete(ids[:20], 40)["text"] == tokenizer.decode(generated)


def _neighbours(model):
    """Queries and keys with their rows so that Llama's being moved puts them as they are here."""
    name, wide = "blocks.0.attention.W_QKV.weight", model.spec.d_head
    rows = model.get_parameter(name).detach()
    turned = rows.unflatten(0, (-1, wide // 2, 2)).transpose(1, 2).flatten(0, 2)
    untouched = 2 * model.spec.embed_dim  # the values
    return {name: torch.cat([turned[:untouched], rows[untouched:]])}


def test_rows_in_another_order_would_be_noticed(tmp_path):
    tokenizer = tokenizer_of("char")
    model = model_of(tokenizer, **LLAMA)
    ids = tokenizer.encode(TEXT).tolist()[:40]

    theirs = exported(tmp_path, model, tokenizer, **_neighbours(model))

    assert (theirs.log_probabilities(ids, tokenizer.vocab_size) - ours(model, ids)).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize(("label", "value"), [("add_layer_norm_rms_eps", 1e-5), ("add_rope_freq_base", 9000.0)])
def test_another_epsilon_or_base_would_be_noticed(tmp_path, monkeypatch, label, value):
    tokenizer = tokenizer_of("char")
    model = model_of(tokenizer, **LLAMA, norm="rmsnorm(eps=0.01)")
    ids = tokenizer.encode(TEXT).tolist()[:40]
    right = getattr(GGUFWriter, label)
    monkeypatch.setattr(GGUFWriter, label, lambda writer, _: right(writer, value))

    theirs = exported(tmp_path, model, tokenizer)

    assert (theirs.log_probabilities(ids, tokenizer.vocab_size) - ours(model, ids)).abs().max() > TOLERANCE


def test_all_of_gpt2s_difference_is_llama_cpps_table_for_gelu(tmp_path):
    """No file can change it; on a GPU there is none."""
    tokenizer = tokenizer_of("char")
    model = model_of(tokenizer, **GPT2, bias=True)
    ids = tokenizer.encode(TEXT).tolist()[:40]
    theirs = exported(tmp_path, model, tokenizer).log_probabilities(ids, tokenizer.vocab_size)

    exact = (theirs - ours(model, ids)).abs().max()
    for block in model.blocks:
        block.feedforward.act = lambda x: F.gelu(x.half().float(), approximate="tanh").half().float()

    assert (theirs - ours(model, ids)).abs().max() < exact / 4


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "padded char", "padded bpe"])
def test_llama_cpp_gives_a_text_the_same_ids_and_the_ids_the_same_text(tmp_path, kind, documents):
    tokenizer = tokenizer_of(kind.removeprefix("padded "), documents)
    over = range(tokenizer.vocab_size, tokenizer.vocab_size + 7) if kind.startswith("padded") else range(0)
    if over:
        tokenizer = tokenization.Padded(tokenizer, over.stop)

    theirs = exported(tmp_path, model_of(tokenizer), tokenizer)

    draw = random.Random(1)
    for text in [ODD, *("".join(draw.choice(ODD) for _ in range(40)) for _ in range(20))]:
        ids = tokenizer.encode(text).tolist()
        assert theirs.ids(text) == ids
        assert theirs.text(ids) == text
    assert theirs.text(list(over)) == ""


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_spaces_before_marks_stay(tmp_path, kind):
    text = " Hello , world ! it 's . 12 ' 12 do n't"
    tokenizer = tokenizer_of(kind)

    theirs = exported(tmp_path, model_of(tokenizer), tokenizer)

    assert theirs.text_of_prompt(tokenizer.encode(text).tolist()) == text


def test_gpt2s_way_to_cut_a_text_is_llama_cpps(tmp_path):
    """A vocabulary that joins every byte to its neighbours of some kinds, unless a text is cut between them."""
    shown = shown_bytes()
    kinds = [shown[ord(one)] for one in "a1! \n's"]
    pairs = list(dict.fromkeys(pair for one in kinds for byte in shown for pair in ((one, byte), (byte, one))))
    vocab = {token: i for i, token in enumerate([*shown, *map("".join, pairs)])}
    tokenizer = BpeTokenizer(byte_level(models.BPE(vocab, pairs)))

    theirs = exported(tmp_path, model_of(tokenizer), tokenizer)

    # Letters that Unicode has had for long: the newest are not yet letters to both.
    known = [one for one in map(chr, range(0x3000)) if unicodedata.ucd_3_2_0.category(one) != "Cn"]
    for start in range(0, len(known), 512):
        marked = (f"a{c}a 1{c}1 !{c}! {c} \n{c}\n '{c}'s{c} {c}{c}  {c}" for c in known[start : start + 512])
        text = "".join(marked)
        assert theirs.ids(text) == tokenizer.encode(text).tolist()


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize(("kind", "never"), [("char", []), ("byte", [b"\xff"]), ("bpe", [b"\xff"])])
def test_only_the_end_of_a_document_and_what_no_text_has_end_a_text(tmp_path, kind, never, documents):
    tokenizer = tokenizer_of(kind, documents)
    theirs = exported(tmp_path, model_of(tokenizer), tokenizer)
    start = tokenizer.encode("T").tolist()

    ids = range(tokenizer.vocab_size)
    stops = [i for i in ids if theirs.complete(start, 2, logit_bias=[[i, 1e4]])["finish_reason"] == "stop"]

    if documents:
        assert stops == [tokenizer.end_of_document]
    else:
        assert len(stops) == len(never)
        assert not set(stops) & set(tokenizer.encode(ODD).tolist())


def test_a_character_that_a_vocabulary_lacks_is_left_out(tmp_path):
    tokenizer = tokenization.train("char", ["abc é漢"], documents=True)
    theirs = exported(tmp_path, model_of(tokenizer), tokenizer)

    assert theirs.ids("aXbèc 演é") == tokenizer.encode("abc é").tolist()


def test_a_name_that_llama_cpp_takes_for_another_models_does_no_harm(tmp_path):
    tokenizer = tokenizer_of("char", documents=True)

    assert (
        exported(tmp_path, model_of(tokenizer), tokenizer, "my-Phi-3").ids("Hello")
        == tokenizer.encode("Hello").tolist()
    )


def test_weights_are_in_float32(tmp_path):
    tokenizer = tokenizer_of("char")
    model = model_of(tokenizer)
    gguf.write(tmp_path / "model.gguf", model.spec, dict(model.named_parameters()), tokenizer, "small")

    read = GGUFReader(tmp_path / "model.gguf")

    assert {tensor.tensor_type.name for tensor in read.tensors} == {"F32"}
    assert sum(int(tensor.n_elements) for tensor in read.tensors) == model.num_parameters()


@pytest.mark.parametrize(
    ("settings", "said", "hint"),
    [
        ({**GPT2, "feedforward": "gelu"}, "FEEDFORWARD gelu ", "gelu_tanh"),
        ({**GPT2, "feedforward": "relu"}, "FEEDFORWARD relu ", "gelu_tanh"),
        ({**GPT2, "feedforward": "relu2"}, "FEEDFORWARD relu2 ", "gelu_tanh"),
        ({"feedforward": "geglu"}, "FEEDFORWARD geglu ", "swiglu"),
        ({**GPT2, "norm_placement": "post", "tie_embeddings": True, "ff_dim": 128}, "NORM_PLACEMENT post ", "pre"),
        ({"positions": "alibi"}, "POSITIONS alibi ", "rope"),
        ({"norm": "rmsnorm(eps=0.01)"}, "NORM rmsnorm(eps=0.01) ", "rmsnorm"),
    ],
)
def test_a_model_that_llama_cpp_lacks_is_refused(tmp_path, settings, said, hint):
    tokenizer = tokenizer_of("char")

    with pytest.raises(SettingsError) as error:
        exported(tmp_path, model_of(tokenizer, **settings), tokenizer)

    assert error.value.sentence.startswith(said)
    assert hint in error.value.hint
    assert not any(tmp_path.iterdir())


def _other_bpe(change):
    backend = byte_level(models.BPE({token: i for i, token in enumerate(shown_bytes())}, []))
    change(backend)
    return BpeTokenizer(backend)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tokenization.train("wordpiece", [TEXT * 20]), "of the kind wordpiece"),
        (lambda: tokenization.train("unigram", [TEXT * 20]), "of the kind unigram"),
        (lambda: _other_bpe(lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.ByteLevel())), "a BPE that cuts"),
        (lambda: _other_bpe(lambda one: setattr(one.model, "dropout", 0.1)), "a BPE that cuts"),
        (lambda: _other_bpe(lambda one: setattr(one, "normalizer", normalizers.Lowercase())), "a BPE that cuts"),
        (lambda: _other_bpe(lambda one: one.add_special_tokens(["</s>"])), "a BPE that cuts"),
    ],
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(tmp_path, make, said):
    tokenizer = make()

    with pytest.raises(SettingsError) as error:
        exported(tmp_path, model_of(tokenizer), tokenizer)

    assert said in error.value.sentence
    assert "char, byte or bpe" in error.value.hint


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="256 ids"):
        exported(tmp_path, model_of(tokenizer_of("char")), tokenizer_of("byte"))


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    tokenizer = tokenizer_of("char")
    monkeypatch.setitem(sys.modules, "gguf", None)

    with pytest.raises(SettingsError) as error:
        exported(tmp_path, model_of(tokenizer), tokenizer)

    assert "microformer[gguf]" in error.value.hint
