"""nanoGPT's and minGPT's checkpoints: their numbers, their training gone on with, and what may be wrong with them.

Neither is a package that can be installed. The model here has the names and layouts of their files, and its numbers are
those of Hugging Face's GPT-2; upstream nanoGPT itself is run by benchmarks/originals.py.
"""

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
import transformers
from small_runs import book, command, info, rows, without_picture_and_sample
from torch.testing import assert_close

from microformer import load_run
from microformer.pipeline.starting import weights_of
from microformer.runs import load_tensors
from microformer.training.optimizers import Optimizer, Recipe

TEXT = book()
ALPHABET = sorted(set(TEXT))
LENGTH = 16
ARGUMENTS = {
    "n_layer": 2, "n_head": 4, "n_embd": 48, "block_size": LENGTH, "bias": True, "vocab_size": len(ALPHABET),
    "dropout": 0.0,
}  # fmt: skip
CONFIG = {
    "dataset": "book", "learning_rate": 2e-3, "max_iters": 40, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99,
    "grad_clip": 1.0, "decay_lr": True, "warmup_iters": 5, "min_lr": 2e-4, "batch_size": 4,
    "gradient_accumulation_steps": 2, "eval_interval": 10,
}  # fmt: skip
ACROSS = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_picture_and_sample(monkeypatch)
    Path("data").mkdir()
    Path("data/corpus.txt").write_text(TEXT)
    Path("out").mkdir()
    return tmp_path


def gpt2(kind, tied=True):
    """Hugging Face's GPT-2 of this shape, weights and biases all different."""
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=48, n_layer=2, n_head=4, n_positions=LENGTH, vocab_size=len(ALPHABET), activation_function=kind,
            tie_word_embeddings=tied, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.05 * torch.randn(one.shape))
    return model


def as_linears(model, tied=True):
    """Its weights as torch.nn.Linear lays them out, in nanoGPT's order."""
    weights = {name: one.detach() for name, one in model.named_parameters()}
    weights = {name: (one.T.contiguous() if name.endswith(ACROSS) else one) for name, one in weights.items()}
    head = model.transformer.wte.weight if tied else model.lm_head.weight
    return {**weights, "lm_head.weight": head.detach()}


def moments_after(weights, step=7):
    """Parameters, the optimizer as nanoGPT makes it, and its state after a step with some gradients."""
    parameters = {name: torch.nn.Parameter(one.clone()) for name, one in weights.items() if name != "lm_head.weight"}
    groups = [
        {"params": [one for one in parameters.values() if one.dim() >= 2], "weight_decay": 0.1},
        {"params": [one for one in parameters.values() if one.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.99))
    for at in range(step):
        _with_gradients(parameters, at)
        optimizer.step()
    return parameters, optimizer


def _with_gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for one in parameters.values():
        one.grad = 0.1 * torch.randn(one.shape, generator=generator)


def checkpoint(weights, optimizer=None, step=0, **changed):
    return {
        "model": weights,
        "optimizer": optimizer.state_dict() if optimizer else None,
        "model_args": ARGUMENTS,
        "iter_num": step,
        "best_val_loss": torch.tensor(3.0),
        "config": CONFIG,
        **changed,
    }


def meta(folder):
    folder.mkdir(parents=True, exist_ok=True)
    ids = {character: at for at, character in enumerate(ALPHABET)}
    what = {"vocab_size": len(ids), "itos": dict(enumerate(ALPHABET)), "stoi": ids}
    (folder / "meta.pkl").write_bytes(pickle.dumps(what))


def ids_of(run):
    return torch.tensor(run.tokenizer.encode(TEXT[:LENGTH]).tolist())[None]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_nanogpt_checkpoint_has_its_logits_here_and_its_settings(compiled, here):
    theirs = gpt2("gelu")
    prefix = "_orig_mod." if compiled else ""
    weights = {prefix + name: one for name, one in as_linears(theirs).items()}
    torch.save(checkpoint(weights), "out/ckpt.pt")
    meta(here / "data" / "book")

    assert command("import", "out/ckpt.pt", "--run", "nano") == 0

    run = load_run("nano")
    assert_close(run.model(ids_of(run)).logits, theirs(ids_of(run)).logits, rtol=0, atol=1e-5)
    said = info("nano")["settings"]
    assert (said["learning_rate"], said["max_steps"], said["beta_2"], said["warmup"]) == (2e-3, 40, 0.99, 5.0)
    assert (said["batch_size"], said["accumulate"], said["eval_every"]) == (8, 2, 10)
    assert said["final_rate"] == pytest.approx(0.1)
    assert "".join(ALPHABET) == run.tokenizer.alphabet


def test_its_training_goes_on_with_the_same_moments_to_the_same_weights(here):
    weights = as_linears(gpt2("gelu"))
    parameters, optimizer = moments_after(weights)
    now = {name: one.detach() for name, one in parameters.items()} | {"lm_head.weight": weights["lm_head.weight"]}
    torch.save(checkpoint(now, optimizer, step=7), "out/ckpt.pt")
    meta(Path("out"))
    assert command("import", "out", "--run", "nano") == 0

    run = load_run("nano")
    ours = Optimizer(run.model, Recipe("adamw", 2e-3, 0.1, 0.95, (0.9, 0.99)))
    kept = load_tensors(run.checkpoint("last") / "training.safetensors")
    ours.load_state_dict({name[10:]: one for name, one in kept.items() if name.startswith("optimizer/")})
    _with_gradients(parameters, 99)
    generator = torch.Generator().manual_seed(99)
    for name in parameters:  # the same gradients, in the order of their names there
        gradient = 0.1 * torch.randn(parameters[name].shape, generator=generator)
        run.model.get_parameter(OURS(name)).grad = gradient
    optimizer.step()
    ours.step()
    for name, one in parameters.items():
        assert_close(run.model.get_parameter(OURS(name)).detach(), one.detach(), rtol=0, atol=1e-6)


def OURS(theirs):
    for old, new in (
        ("transformer.wte.", "embed."), ("transformer.wpe.", "positions.table."), ("transformer.h.", "blocks."),
        ("ln_1.weight", "residual_1.norm.gain"), ("ln_1.bias", "residual_1.norm.bias"),
        ("ln_2.weight", "residual_2.norm.gain"), ("ln_2.bias", "residual_2.norm.bias"),
        ("attn.c_attn", "attention.W_QKV"), ("attn.c_proj", "attention.W_O"), ("mlp.c_fc", "feedforward.W_in"),
        ("mlp.c_proj", "feedforward.W_out"), ("transformer.ln_f.weight", "norm.gain"),
        ("transformer.ln_f.bias", "norm.bias"),
    ):  # fmt: skip
        theirs = theirs.replace(old, new)
    return theirs


def test_it_is_resumed_evaluated_and_fine_tuned(here, capsys):
    weights = as_linears(gpt2("gelu"))
    _, optimizer = moments_after(weights)
    torch.save(checkpoint(weights, optimizer, step=7), "out/ckpt.pt")
    meta(Path("out"))
    assert command("import", "out", "--run", "nano") == 0
    before = load_run("nano").model.get_parameter("embed.weight").clone()

    assert command("train", "--resume", "--run", "nano", "--log-every", "1") == 0  # to its own 40 steps
    assert [row["step"] for row in rows("nano") if "train_loss" in row] == list(range(8, 41))
    assert not torch.equal(load_run("nano").model.get_parameter("embed.weight"), before)
    assert info("nano")["ended"]["how"] == "finished"
    assert info("nano")["data"]["fingerprint"]
    assert command("eval", "nano") == 0
    assert command("train", "--resume", "--run", "nano", "--max-steps", "44") == 0
    assert info("nano")["ended"]["step"] == 44

    capsys.readouterr()
    assert command("train", "--from", "nano", "--run", "tuned", "--max-steps", "3", "--optimizer", "adamw") == 0
    told = capsys.readouterr()
    assert "LEARNING_RATE is 0.0004: a tenth of what is usual" in told.err
    assert info("tuned")["from"] == {"run": "nano", "checkpoint": "best"}
    assert rows("tuned")[0]["train_loss"] < math.log(len(ALPHABET)) - 0.3  # of a model that knows something
    assert command("generate", "tuned", "--prompt", "The", "--max-new-tokens", "5") == 0


@pytest.mark.parametrize("tied", [False, True])
def test_a_mingpt_state_dict_has_its_logits_here(tied, here, capsys):
    theirs = gpt2("gelu_new", tied)
    weights = as_linears(theirs, tied)
    if tied:
        del weights["lm_head.weight"]
    weights |= {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, LENGTH, LENGTH).tril() for i in range(2)}
    torch.save(weights, "out/model.pt")

    assert command("import", "out", "--tokenizer", "data/corpus.txt") == 2
    assert "does not say into how many heads its width of 48 is divided" in capsys.readouterr().err
    Path("out/config.json").write_text(json.dumps({"model": {"n_head": 4, "model_type": None}}))
    assert command("import", "out", "--run", "unnamed") == 2
    assert "comes without its vocabulary" in capsys.readouterr().err

    assert command("import", "out", "--run", "min", "--tokenizer", "data/corpus.txt") == 0
    run = load_run("min")
    assert_close(run.model(ids_of(run)).logits, theirs(ids_of(run)).logits, rtol=0, atol=1e-5)
    Path("out/config.json").unlink()
    assert command("import", "out", "--run", "said", "--tokenizer", "data/corpus.txt", "--num-heads", "4") == 0
    assert load_run("said").spec == run.spec


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it["model"].pop("transformer.h.1.mlp.c_fc.weight"), "lacks the tensor 'transformer.h.1.mlp.c_fc"),
        (lambda it: it["model"].update(odd=torch.ones(2)), "a tensor too many, 'odd'"),
        (lambda it: it["model_args"].pop("n_head"), "its model_args lack n_head"),
        (lambda it: it["model_args"].update(n_layer=3), "lacks the tensor 'transformer.h.2."),
        (lambda it: it["model_args"].update(block_size=99), "in shape [16, 48], where its configuration says [99, 48]"),
        (lambda it: it.update(optimizer={"state": {0: {}}, "param_groups": []}), "has moments of 1 parameters, and 28"),
        (lambda it: it.pop("model"), "is no model that can be read"),
        (lambda it: it.update(config={**CONFIG, "eval_interval": 0}), "settings that can't be here: EVAL_EVERY 0"),
        (lambda it: it.update(config=5), "it holds what a model's file does not"),
        (lambda it: it["model"].update({5: torch.ones(2)}), "it holds what a model's file does not"),
        (lambda it: it["model"].update({"transformer.wpe.weight": "a text"}), "it holds what a model's file does not"),
        (lambda it: it["model_args"].update(dropout=3), "can't be had here: DROPOUT 3.0 is not a share"),
        (lambda it: it["model_args"].update(n_layer=10**9), "NUM_LAYERS 1001 can't be"),
        (lambda it: it["model"]["transformer.wte.weight"].fill_(float("nan")), "that are not finite"),
    ],
)
def test_a_checkpoint_that_is_wrong_is_refused_by_what_is_wrong_with_it(change, said, here, capsys):
    found = checkpoint(as_linears(gpt2("gelu")), model_args=dict(ARGUMENTS))
    change(found)
    torch.save(found, "out/ckpt.pt")
    meta(Path("out"))

    assert command("import", "out/ckpt.pt") == 2

    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


def test_without_its_vocabulary_it_is_asked_for(here, capsys):
    torch.save(checkpoint(as_linears(gpt2("gelu"))), "out/ckpt.pt")
    assert command("import", "out/ckpt.pt") == 2
    told = capsys.readouterr().err
    assert "comes without its vocabulary: there is none in out and data" in told.replace("\\", "/")
    assert "--tokenizer" in told
    assert command("import", "out/ckpt.pt", "--tokenizer", "data/corpus.txt") == 0
    Path("other.txt").write_text("abc")
    assert command("import", "out/ckpt.pt", "--tokenizer", "other.txt") == 2
    assert f"the tokenizer has 3 tokens, and the model knows {len(ALPHABET)}" in capsys.readouterr().err
    Path("other.txt").write_text("".join(ALPHABET[:-2]))
    assert command("import", "out/ckpt.pt", "--tokenizer", "other.txt") == 0
    assert "the vocabulary was padded, or is another model's: 2 of" in capsys.readouterr().err
    assert command("import", "out/ckpt.pt", "--tokenizer", "data/corpus.txt", "--num-heads", "2") == 2
    assert "says its 4 heads itself" in capsys.readouterr().err
    assert command("import", "out/ckpt.pt", "--tokenizer", "out/ckpt.pt") == 2
    assert "--tokenizer takes a folder" in capsys.readouterr().err


def test_learned_positions_beyond_a_smaller_context_are_left_away(here):
    torch.save(checkpoint(as_linears(gpt2("gelu"))), "out/ckpt.pt")
    meta(Path("out"))
    assert command("import", "out", "--run", "nano") == 0

    assert command("train", "--from", "nano", "--run", "short", "--max-seq-len", "9", "--max-steps", "1",
                   "--learning-rate", "0", "--weight-decay", "0") == 0  # fmt: skip

    long, short = load_run("nano"), load_run("short", checkpoint="last")
    assert short.spec.max_seq_len == 9
    assert weights_of(long, short.spec)["positions.table.weight"].shape == (9, 48)
    ids = ids_of(long)[:, :9]
    assert_close(short.model(ids).logits, long.model(ids).logits, rtol=0, atol=1e-5)
