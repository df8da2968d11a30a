"""ONNX: what onnxruntime makes of the file is what the model makes, at every length and for any number of texts."""

import sys
from dataclasses import replace

import onnxruntime
import pytest
import tokenizers
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument
from small_runs import without_checks

from microformer import tokenization
from microformer.errors import SettingsError
from microformer.exchange import onnx
from microformer.models.kernels import Kernel
from microformer.models.model import Microformer
from microformer.settings import Settings, model_spec
from microformer.templates.attention import MyAttention

VOCAB = 65
# Together they hold every component.
CASES = {
    # Longer than what is attended to in blocks, and than what norms take for few numbers.
    "default": {"max_seq_len": 300},
    "gpt2": {
        "positions": "learned", "norm": "layernorm", "feedforward": "gelu_tanh relu", "bias": True, "qk_norm": False,
        "tie_embeddings": True,
    },
    "gpt1, linear and own attention": {
        "positions": "sinusoidal", "norm": "layernorm", "feedforward": "gelu", "bias": True, "qk_norm": False,
        "norm_placement": "post", "attention": "linear mine.py:MyAttention",
    },
    "patterns": {
        "num_layers": 5, "num_kv_heads": 2, "positions": "alibi", "norm_placement": "sandwich", "feedforward": "geglu",
        "attention": "window(8,sinks=2) strided(8) fixed(8,columns=2) topk(5) sigmoid",
    },
    "exact zeros": {
        "attention": "entmax15 sparsemax", "positions": "t5", "score_cap": 5.0, "feedforward": "relu2",
        "residual_scalars": True,
    },
    "memory tokens": {
        "num_layers": 1, "attention": "differential", "positions": "none", "feedforward": "moe", "memory": "tokens(3)",
        "num_kv_heads": 2, "parallel": True, "loops": 2, "ngrams": 3, "ngram_entries": 500, "output_gate": True,
        "embed_scale": 2.0,
    },
}  # fmt: skip
EVERY_CASE = pytest.mark.parametrize("case", CASES)
KNOWN = tokenization.train("char", ["".join(map(chr, range(0x3B1, 0x3B1 + VOCAB)))])
OWN = {"MyAttention": MyAttention}
TOLERANCE = 1e-4
# The oldest PyTorch's exporter can't; it is refused, which is tested everywhere.
EXPORTS = pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="this PyTorch can't export")


def model_of(**settings):
    """A model with nothing left at 0 or 1: each of its numbers would be missed."""
    small = {"embed_dim": 32, "num_heads": 4, "num_layers": 2, "ff_dim": 48, "max_seq_len": 64}
    spec = model_spec(Settings().changed({**small, **settings}), VOCAB)
    model = Microformer(spec.with_own(lambda slot, own: replace(own, made=OWN[own.name])), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def write(path, model):
    with without_checks():
        onnx.write(path, model, KNOWN)


class Runtime:
    """onnxruntime with a file."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def logits(self, ids):
        (logits,) = self.session.run(["logits"], {"ids": ids.numpy()})
        return torch.from_numpy(logits)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A case's model, and onnxruntime with the file that was written of it; once each."""
    made = {}

    def of(case):
        if case not in made:
            path = tmp_path_factory.mktemp("onnx") / "model.onnx"
            model = model_of(**CASES[case])
            write(path, model)
            made[case] = model, Runtime(path)
        return made[case]

    return of


def random_ids(batch, length):
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(length))


@EXPORTS
@EVERY_CASE
def test_logits_are_the_models_for_any_batch_and_length(exported, case):
    model, runtime = exported(case)

    for batch in (1, 3):
        for length in (1, 2, 7, model.spec.max_seq_len):
            ids = random_ids(batch, length)
            with torch.no_grad():
                ours = model(ids).logits
            torch.testing.assert_close(runtime.logits(ids), ours, rtol=0, atol=TOLERANCE)
            assert ours.std() > 0.1  # or the tolerance would forgive everything


@EXPORTS
@EVERY_CASE
def test_more_tokens_than_the_context_fail(exported, case):
    model, runtime = exported(case)

    with pytest.raises((Fail, InvalidArgument)):
        runtime.logits(random_ids(2, model.spec.max_seq_len + 1))


@EXPORTS
def test_the_tokenizer_is_in_the_file(exported):
    _, runtime = exported("gpt2")
    inside = tokenizers.Tokenizer.from_str(runtime.session.get_modelmeta().custom_metadata_map["tokenizer"])
    assert inside.encode("αβγ").ids == [0, 1, 2]
    assert inside.decode([2, 1]) == "γβ"


@EXPORTS
def test_the_likeliest_text_is_the_same(exported):
    model, runtime = exported("default")

    def text(logits):
        ids = torch.tensor([[1]])
        for _ in range(40):
            ids = torch.cat([ids, logits(ids)[:, -1:].argmax(-1)], dim=1)
        return ids[0].tolist()

    with torch.no_grad():
        ours = text(lambda ids: model(ids).logits)
    assert text(runtime.logits) == ours
    assert len(set(ours)) > 1


@EXPORTS
def test_the_model_stays_as_it_was_and_nothing_is_said(tmp_path, capfd):
    model = model_of(num_layers=1, dropout=0.5).train()
    model.blocks[0].requires_grad_(False)
    model.compute_dtype = torch.bfloat16
    before = {name: one.clone() for name, one in model.state_dict().items()}

    write(tmp_path / "model.onnx", model)

    assert all(module.training for module in model.modules())
    assert [name for name, one in model.named_parameters() if one.requires_grad] == [
        name for name in before if not name.startswith("blocks.0.")
    ]
    assert model.compute_dtype == torch.bfloat16
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert __file__.rsplit("tests", 1)[0].encode() not in (tmp_path / "model.onnx").read_bytes()
    assert capfd.readouterr() == ("", "")
    ids = random_ids(2, 9)
    model.compute_dtype = torch.float32
    with torch.no_grad():
        ours = model.eval()(ids).logits  # without dropout, and in float32
    torch.testing.assert_close(Runtime(tmp_path / "model.onnx").logits(ids), ours, rtol=0, atol=TOLERANCE)


class Counting(Kernel):
    """An attention whose formula hangs on numbers."""

    def pattern(self, scores):
        return torch.softmax(scores * 2 if scores.max() > 5 else scores, dim=-1)


OWN["Counting"] = Counting


@EXPORTS
def test_an_own_component_that_python_decides_in_is_refused_by_name(tmp_path):
    model = model_of(attention="softmax mine.py:Counting")

    with pytest.raises(SettingsError, match=r"ATTENTION mine.py:Counting can't be written down as ONNX \(") as refused:
        write(tmp_path / "model.onnx", model)

    assert "no `if` on a size or a number" in refused.value.hint
    assert len(refused.value.sentence) < 300
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("memory", ["xl(8)", "compressive(4)", "recurrent(2)", "knn(8, k=2)"])
def test_a_memory_that_goes_over_is_refused(tmp_path, memory):
    with pytest.raises(SettingsError, match=f"MEMORY {memory.split('(')[0]}.* goes over") as refused:
        write(tmp_path / "model.onnx", model_of(memory=memory))

    assert "MEMORY = 'none' or 'tokens'" in refused.value.hint


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_told_with_what_installs_it(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(SettingsError, match="takes the packages onnx and onnxscript") as refused:
        write(tmp_path / "model.onnx", model_of())

    assert refused.value.hint == 'pip install "microformer[onnx]"'


def test_more_weights_than_a_file_holds_are_refused(tmp_path, monkeypatch):
    model = model_of()
    monkeypatch.setattr(onnx, "_MOST_BYTES", 4 * model.num_parameters() - 1)

    with pytest.raises(SettingsError, match="one ONNX file holds less than 2"):
        write(tmp_path / "model.onnx", model)


def test_a_pytorch_that_cannot_export_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.compiler, "is_exporting", raising=False)

    with pytest.raises(SettingsError, match="can't export") as refused:
        write(tmp_path / "model.onnx", model_of())

    assert refused.value.hint == "pip install -U torch"
