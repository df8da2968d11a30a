"""The trial: a batch learned by heart, a training stopped and gone on with, text with and without the cache.

Small and always the same, on made tokens: what fails here is not the fault of anybody's text or settings.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from microformer import devices, files, generation, runs
from microformer.errors import SettingsError
from microformer.models.model import Microformer
from microformer.pipeline.doctor.findings import Around, Finding, mend, note, ok
from microformer.pipeline.doctor.here import settings_here
from microformer.pipeline.doctor.machine import chosen_here
from microformer.settings import Settings, model_spec
from microformer.training import schedules
from microformer.training.averaging import Average
from microformer.training.batches import Shuffled
from microformer.training.budgets import Budget
from microformer.training.loop import Loop, Plan
from microformer.training.observers import Observer, Row
from microformer.training.optimizers import Optimizer, Recipe

STEPS = 20
# Nats a token at which a batch counts as learned by heart. The default model comes to some thousandths.
BAR = 0.05
_ROWS, _LENGTH, _VOCAB = 4, 64, 65
_REPORT = "put the report below into a bug report."


def overfit(around: Around) -> Iterator[Finding]:
    """The default model learns one batch by heart in 20 steps at its default rate, where and how a training here would
    compute; then it writes the batch down again, with the cache and without."""
    try:
        compute = chosen_here(settings_here(around))
    except SettingsError:  # told elsewhere
        compute = chosen_here(Settings())
    began = time.perf_counter()
    model, first, last = learned(compute)
    where = f"{compute.device}, {compute.precision}"
    said = f"one batch in {STEPS} steps: loss {first:.2f} → {last:.4f} nats a token ({where}"
    if last <= BAR:
        yield ok(f"{said}, {time.perf_counter() - began:.1f} s; the bar is {BAR})")
        yield _written(model)
        return
    plain = replace(compute, device="cpu", precision="float32")
    _, _, exact = learned(plain)
    if exact <= BAR and plain != compute:
        yield mend(
            f"{said}); the bar is {BAR}, and on the CPU in float32 it comes to {exact:.4f}.",
            f"set {'PRECISION' if compute.device == 'cpu' else 'DEVICE'} = "
            f'"{"float32" if compute.device == "cpu" else "cpu"}" here, and put the report below into a bug report.',
        )
    else:
        yield mend(f"{said}); the bar is {BAR}: training doesn't work here.", _REPORT)


def resume(around: Around) -> Iterator[Finding]:
    """A training of four steps, and one of two that is stopped, saved, and gone on with from its files for two more:
    equal to the last bit."""
    began = time.perf_counter()
    assert around.scratch is not None
    root = around.scratch / "runs"
    whole, rows = _trained(runs.create("whole", "", root), stop_after=4)
    run = runs.create("stopped", "", root)
    _, before = _trained(run, stop_after=2)
    halves, after = _trained(run, stop_after=4)
    different = _different(whole, halves) or ("losses" if rows != before + after else "")
    if different:
        yield mend(f"a training that was stopped and resumed has other {different} than one that ran through.", _REPORT)
    else:
        yield ok(f"4 steps, and 2 and 2 from a checkpoint: equal to the bit ({time.perf_counter() - began:.1f} s)")


def learned(compute: devices.Compute) -> tuple[Microformer, float, float]:
    """The default model after 20 steps on one batch, its loss before them and after, in nats a token."""
    chosen = Settings()
    model = Microformer(model_spec(chosen, vocab_size=_VOCAB), seed=1).to(compute.device)
    model.compute_dtype = compute.torch_dtype
    training = chosen.training
    recipe = Recipe(
        training.optimizer, training.learning_rate, training.weight_decay, training.momentum,
        (training.beta_1, training.beta_2), compute.torch_dtype,
    )  # fmt: skip
    optimizer, ids = Optimizer(model, recipe), _rows().to(compute.device)
    losses = []
    before = torch.get_num_threads()
    torch.set_num_threads(compute.threads)
    try:
        for step in range(STEPS + 1):
            loss, _ = model.loss_and_state(ids[:, :-1], ids[:, 1:], None, None)
            losses.append(loss.item())
            if step < STEPS:
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), training.grad_clip)
                optimizer.step()
    finally:
        torch.set_num_threads(before)
    return model, losses[0], losses[-1] if math.isfinite(losses[-1]) else math.inf


def _rows() -> Int[Tensor, "batch pos"]:
    """Rows of which each token can be known from those before it: every row has each token once, and begins with
    another. Else a loss of 0 could not be reached."""
    generator = torch.Generator().manual_seed(1)
    return torch.stack([torch.randperm(_VOCAB, generator=generator) for _ in range(_ROWS)])[:, : _LENGTH + 1]


def _written(model: Microformer) -> Finding:
    """Whether the model writes a row that it learned, with the cache and without."""
    model = model.cpu().eval()
    model.compute_dtype = torch.float32
    row = _rows()[0].tolist()
    greedy = generation.Sampler(temperature=0.0)
    cached, anew = (
        [step[0] for step in generation.stream(model, [row[:1]], greedy, _LENGTH - 1, use_cache=use_cache)]
        for use_cache in (True, False)
    )
    right = sum(one == wanted for one, wanted in zip(anew, row[1:], strict=False))
    if cached != anew:
        at = next(i for i, pair in enumerate(zip(cached, anew, strict=True)) if pair[0] != pair[1])
        return mend(f"with the cache token {at + 1} is another than without it.", _REPORT, "generate")
    said = f"{len(anew)} tokens, with the cache as without it; {right} of them as they were learned"
    if right < len(anew):
        return note(said, _REPORT, "generate")
    return ok(said, "generate")


def _trained(run: runs.Run, stop_after: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """A tiny training of four steps in a run folder, gone on with from its last checkpoint if there is one, and stopped
    and saved after so many. Gives all that a checkpoint holds, and the rows that were logged, times aside."""
    sizes = {"embed_dim": 32, "num_heads": 4, "num_layers": 2, "ff_dim": 48, "max_seq_len": 16, "dropout": 0.1}
    model = Microformer(model_spec(Settings().changed(sizes), vocab_size=_VOCAB), seed=1)
    text = torch.randint(_VOCAB, (500,), generator=torch.Generator().manual_seed(2))
    rows: list[dict[str, Any]] = []

    def save(which: str) -> None:
        if which == "last":
            run.write_checkpoint("last", loop.position.step, fill)

    def fill(folder: Path) -> None:
        tensors, plain = loop.state()
        runs.save_weights(model, folder / "model.safetensors")
        runs.save_tensors(tensors, folder / "training.safetensors")
        files.write_json(folder / "training.json", plain)

    loop = Loop(
        model=model,
        optimizer=Optimizer(model, Recipe("muon", "auto", 0.2, 0.95, (0.9, 0.95))),
        average=Average(model, 0.9),
        batches=Shuffled(text, 16, seed=3),
        schedule=schedules.build("cosine", 0.25, 0.4),
        budget=Budget(steps=4),
        plan=Plan(batch_size=4, log_every=1, snapshots=False),
        device="cpu",
        evaluate=None,
        save=save,
        observers=[_Rows(rows)],
        asked_to_stop=lambda: loop.position.step >= stop_after,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        if run.index["last"] is not None:
            folder = run.checkpoint("last")
            runs.load_weights(model, folder / "model.safetensors")
            loop.load_state(
                runs.load_tensors(folder / "training.safetensors"), files.read_json(folder / "training.json")
            )
        loop.run()
        state, _ = loop.state()
    return {**state, **{f"weights/{name}": one.detach() for name, one in model.named_parameters()}}, rows


class _Rows(Observer):
    """Keeps what was measured, times aside."""

    def __init__(self, rows: list[dict[str, Any]]):
        self.rows = rows

    def on_row(self, row: Row) -> None:
        self.rows.append({name: value for name, value in row.items() if name not in ("seconds", "tokens_per_second")})


def _different(one: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """The first part of a checkpoint in which two differ; "" where they are equal to the bit."""
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other or not torch.equal(one[name], other[name]):
            return f"{name.partition('/')[0]} ({name})"
    return ""
