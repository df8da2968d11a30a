"""Probes: small pictures of a model at work, which change nothing of how it is trained."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from small_runs import TINY, book, info, resume, rows, stopped_at, train, without_picture_and_sample

from microformer import load_run, runs
from microformer.inspection import probes, trace
from microformer.inspection.heads import head_scores
from microformer.inspection.likeliest import through_layers
from microformer.models.model import Microformer
from microformer.settings import Settings, model_spec
from microformer.training.loop import Loop


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed")
    (folder / "book.txt").write_text(book())
    return folder


@pytest.fixture(autouse=True)
def here(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    without_picture_and_sample(monkeypatch)


def weights(run, which="last"):
    return (load_run(run).checkpoint(which) / "model.safetensors").read_bytes()


def names(run):
    return [path.name for path in sorted(Path("runs", run, "probes").iterdir())]


def test_a_probe_is_written_at_powers_of_two_every_so_many_steps_and_at_the_end():
    train("--run", "steps", probe_steps=5, max_steps=13)

    assert load_run("steps").probes == [1, 2, 4, 5, 8, 10, 13]
    assert names("steps")[0] == "step-0000001.safetensors"


def test_none_is_written_where_none_is_wanted():
    train("--run", "none", probe_steps=0)

    assert load_run("none").probes == []
    assert not Path("runs", "none", "probes").exists()


def test_the_end_is_probed_too_where_patience_ended_it():
    train("--run", "patient", probe_steps=50, max_steps=40, learning_rate=1.0, eval_every=1, patience=1)

    ended = info("patient")["ended"]["step"]
    assert ended < 40
    assert load_run("patient").probes[-1] == ended


@pytest.mark.parametrize(
    "kind", [{}, {"averaging": 0.9}, {"dropout": 0.3, "attention_dropout": 0.2}, {"memory": "xl(8)"}]
)
def test_training_is_the_same_to_the_bit_with_probes_and_without(kind):
    name = "-".join(map(str, kind)) or "plain"
    train("--run", f"{name}-0", probe_steps=0, **kind)
    train("--run", f"{name}-1", probe_steps=1, **kind)

    assert len(load_run(f"{name}-1").probes) == 12
    assert rows(f"{name}-0") == rows(f"{name}-1")
    for which in ("best", "last"):
        assert weights(f"{name}-0", which) == weights(f"{name}-1", which)


def test_a_resumed_run_has_the_probes_of_one_that_never_stopped(monkeypatch):
    often = {"probe_steps": 3, "checkpoint_every": 4, "max_steps": 14}
    train("--run", "whole", **often)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(7))
        train("--run", "parted", **often)
    # As if it had been killed later than its last checkpoint: what came after is forgotten.
    runs.Run(Path("runs/parted")).write_probe(9, {"ids": torch.zeros(1)}, {})
    assert resume("--run", "parted") == 0

    assert names("whole") == names("parted")
    for name in names("whole"):
        assert Path("runs/whole/probes", name).read_bytes() == Path("runs/parted/probes", name).read_bytes()


def test_probe_steps_may_change_on_the_way(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopped_at(5))
        train("--run", "changed", probe_steps=5, max_steps=12)
    assert resume("--run", "changed", probe_steps=0) == 0

    assert load_run("changed").probes == [1, 2, 4, 5]


def test_a_probe_says_what_a_trace_says(monkeypatch):
    train("--run", "told", probe_steps=4, averaging=0.5)
    run = load_run("told", "8")  # a snapshot holds the averaged weights, as a probe does

    probe = probes.read(run, 8)

    seen = trace(run, probe.ids.long())
    assert (probe.tokens, probe.text) == (seen.tokens, "".join(seen.tokens))
    torch.testing.assert_close(probe["losses"], seen.losses)
    whole = torch.stack([seen.pattern(0)])
    assert (probe.patterns - whole).abs().max() <= whole.max() / 255
    assert ((probe.patterns > 0) == (whole > 0)).all()
    for name, wanted in through_layers(seen).items():
        torch.testing.assert_close(probe[f"lens_{name}"], wanted.to(probe[f"lens_{name}"].dtype), equal_nan=True)
    for name, wanted in head_scores(run.model, rows=1).items():
        torch.testing.assert_close(probe.head_scores[name], wanted)


@pytest.mark.parametrize(
    "kind",
    [
        {"attention": "linear", "positions": "none"},
        {"attention": "window(4) linear", "num_layers": 2, "positions": "none"},
        {"memory": "recurrent(tokens=2)"},
        {"memory": "compressive"},
        {"norm_placement": "post"},
        {"attention": "differential"},
        {"parallel": True, "loops": 2},
        {"feedforward": "moe"},
    ],
    ids=str,
)
def test_every_kind_of_model_can_be_looked_at(kind, capsys):
    small = {name: TINY[name] for name in ("embed_dim", "num_heads", "ff_dim")}
    spec = model_spec(Settings().changed({**small, **kind}), 30, 16)
    model = Microformer(spec).train()
    ids = torch.arange(16) % 30
    before = {name: one.clone() for name, one in model.state_dict().items()}
    state = torch.get_rng_state()

    tensors, said = probes.look(model, ids)

    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert tensors["losses"].shape == (15,)
    assert tensors["pattern"].shape[:3] == (spec.depth, 2, 16)
    assert said["missing"] == []


def test_a_kernel_without_a_pattern_leaves_patterns_out(monkeypatch):
    from microformer.models.kernels.softmax import Softmax

    monkeypatch.setattr(Softmax, "tap_names", ())
    monkeypatch.setattr(Softmax, "looked_at", lambda self, tap: False)
    spec = model_spec(Settings().changed({"embed_dim": 16, "num_heads": 2}), 30, 16)

    tensors, said = probes.look(Microformer(spec), torch.arange(16))

    assert said["missing"] == [0, 1]
    assert "pattern" not in tensors
    assert not [name for name in tensors if name.startswith("score_")]
    assert "lens_top_ids" in tensors


def test_a_probe_that_fails_is_told_once_and_training_goes_on(monkeypatch, capsys):
    def fail(*_):
        raise OSError("no room")

    train("--run", "unharmed", probe_steps=0)
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "write_probe", fail)
        assert train("--run", "failing", probe_steps=1) == 0

    assert capsys.readouterr().err.count("no more: OSError: no room") == 1
    assert weights("failing") == weights("unharmed")


def test_a_failure_inside_puts_everything_back(monkeypatch):
    def fail(*_, **__):
        raise ValueError("broken")

    monkeypatch.setattr(probes, "head_scores", fail)
    train("--run", "inside-0", probe_steps=0, averaging=0.9, dropout=0.2)
    train("--run", "inside-1", probe_steps=2, averaging=0.9, dropout=0.2)

    assert load_run("inside-1").probes == []
    assert weights("inside-0") == weights("inside-1")


def test_there_are_never_many():
    kept: list[int] = []
    for step in range(1, 5001):
        if step % 3 == 0 or step.bit_count() == 1:
            kept.append(step)
            dropped = set(probes.superfluous(kept, 3, step))
            kept = [one for one in kept if one not in dropped]
            assert len(kept) <= 151
    assert {1, 2, 4, 1024, 4096} <= set(kept)
    # Those that are left are spread over the whole training.
    assert max(after - before for before, after in pairwise(kept)) <= 96


def test_of_many_heads_fewer_tokens_are_kept():
    small = Microformer(model_spec(Settings(), 30))
    large = Microformer(model_spec(Settings().changed({"num_layers": 24, "num_heads": 16, "embed_dim": 32}), 30))

    assert probes.length(small) == 64
    assert 24 * 16 * probes.length(large) ** 2 <= 300_000


def test_a_probe_is_whole_or_not_there(monkeypatch):
    train("--run", "killed", probe_steps=4)
    folder = Path("runs/killed/probes")
    (folder / "step-0000099.safetensors.123-abc.partial").write_bytes(b"half")

    run = load_run("killed")
    assert 99 not in run.probes
    with run.lock():
        pass
    assert not list(folder.glob("*.partial"))


def test_a_damaged_probe_is_told(monkeypatch):
    train("--run", "damaged", probe_steps=4)
    Path("runs/damaged/probes/step-0000004.safetensors").write_bytes(b"half")

    with pytest.raises(runs.RunError, match="can't be read as safetensors"):
        probes.read(load_run("damaged"), 4)
    with pytest.raises(runs.RunError, match="has no probe of step 3"):
        probes.read(load_run("damaged"), 3)
