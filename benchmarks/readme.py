"""The tables of figures in README.md, from the results that there are."""

import json
import statistics
from typing import Any

import measure as shared
from time_to_loss import A100_LOSS, CPU_LOSS, reached

# What is called in the table, what in the results, and the loss whose time is said beside the whole.
_CURVES = (
    ("`microformer train --config shakespeare_fast`", "Microformer, shakespeare_fast", None),
    ("nanoGPT's CPU recipe", "nanoGPT", None),
    ("the same tuned: bfloat16, batch 32, rate 5e-3", "nanoGPT, tuned", CPU_LOSS),
    ("`microformer train --config shakespeare_char`", "Microformer, shakespeare_char", None),
    ("`microformer train --config shakespeare_3min`", "Microformer, shakespeare_3min", A100_LOSS),
)


def losses() -> str:
    """The table of losses against seconds."""
    curves = _found("time_to_loss")["curves"]
    lines = ["| `python benchmarks/time_to_loss.py` | seconds | loss: mean of 3 seeds (worst) |", "|---|---|---|"]
    for said, name, loss in _CURVES:
        ended = [min(loss for _, _, loss in curve) for curve in curves[name]]
        mean = f"**{statistics.mean(ended):.3f}**" if "Microformer" in name else f"{statistics.mean(ended):.3f}"
        lines.append(f"| {said} | {_seconds(curves[name], loss)} | {mean} ({max(ended):.3f}) |")
    lines.append(f"| nanoGPT's GPU recipe, its README's figure | about 3 minutes of an A100 | {A100_LOSS} |")
    return "\n".join(lines) + "\n"


def figures() -> str:
    """The table of everything else."""
    training, writing = _found("training_speed"), _found("generation_speed")
    float32, bfloat16 = ([training[b][f"Microformer, {p}"] for b in ("48", "12")] for p in ("float32", "bfloat16"))
    memory = []
    for batch in ("48", "12"):
        names = ("Microformer, float32", "Microformer, bfloat16", "nanoGPT, float32")
        ours, half, theirs = (training["memory"][batch][name] for name in names)
        memory.append(f"batch {batch}: {ours:.0f} in float32, {half:.0f} in bfloat16, nanoGPT {theirs:.0f}")
    default, starting, preparing = _found("default_loss"), _found("starting"), _found("preparing")
    ended = [run["loss"] for run in default["runs"]]
    first, command, help_ = (
        starting[what]["median"]
        for what in ("import microformer", "microformer train, to its first step", "microformer --help")
    )
    short, long = preparing["char"], preparing["char, 2 GB"]
    pieces = [preparing[f"bpe, {which} new words"] for which in ("few", "many")]
    text8 = _found("text8_head")
    kneser = next(value for name, value in text8[0].items() if name.startswith("Kneser"))
    rows = [
        ("tokens a second of a training step at nanoGPT's shape, times nanoGPT's in float32",
         f"batch 48: **{bfloat16[0]['ratio']:.1f}** in bfloat16, {float32[0]['ratio']:.1f} in float32; batch 12: "
         f"{bfloat16[1]['ratio']:.1f} and {float32[1]['ratio']:.1f}", "training_speed"),
        ("peak memory of these trainings, MB", "; ".join(memory), "training_speed"),
        ("tokens a second written at that shape, times nanoGPT's",
         f"one text: {_times(writing, 'one stream')}, 64 together: {_times(writing, '64 streams')}; with `--compile` "
         f"{_times(writing, 'one stream', ', compiled')} and {_times(writing, '64 streams', ', compiled')}",
         "generation_speed"),
        ("the default's validation loss after 90 seconds, mean of 3 seeds",
         f"**{statistics.mean(ended):.3f} nats/char** (worst {max(ended):.3f})", "default_loss"),
        ("`microformer train` as it stands, start to sample",
         f"{default['whole']['seconds']:.0f} s, {default['whole']['loss']:.3f} nats/char", "default_loss"),
        ("importing; `microformer --help`; `microformer train` to its first step",
         f"{abs(first):.2f} s; {help_:.2f} s; {command:.1f} s", "starting"),
        ("preparing 100 MB of text",
         f"{statistics.median(short['seconds']):.1f} s, {max(short['anonymous']):.0f} MB of memory of its own; of 2 GB "
         f"{max(long['anonymous']):.0f} MB", "preparing"),
        ("learning 8,192 pieces of 100 MB, and encoding by them",
         f"{pieces[0]['learning']:.0f} to {pieces[1]['learning']:.0f} s; {pieces[1]['encoding']:.0f} to "
         f"{pieces[0]['encoding']:.0f} MB/s", "preparing"),
        ("text8's first 6.9 MB, ten minutes, test part, bits a character, three seeds (Intel Xeon)",
         f"{', '.join(format(one['test'], '.3f') for one in text8)}; 7-grams {kneser:.3f}", "text8_head"),
    ]  # fmt: skip
    lines = [f"| {what} | {figure} | `{command}.py` |" for what, figure, command in rows]
    return "\n".join(["| | figure | `python benchmarks/…` |", "|---|---|---|", *lines]) + "\n"


def _found(name: str) -> Any:
    return json.loads((shared.RESULTS / f"{name}.json").read_text(encoding="utf-8"))["found"]


def _seconds(curves: list[Any], loss: float | None) -> str:
    took = statistics.median(curve[-1][0] for curve in curves)
    said = f"{took:.1f}" if took < 10 else f"{took:.0f}"
    when = [] if loss is None else [reached(curve, loss) for curve in curves]
    known = [seconds for seconds in when if seconds is not None]
    return f"{said}; {statistics.median(known):.0f} to {loss}" if known and len(known) == len(when) else said


def _times(writing: dict[str, Any], what: str, how: str = "") -> str:
    ours, theirs = (writing[what][name]["median"] for name in (f"Microformer, nanoGPT's shape{how}", "nanoGPT"))
    return f"{ours / theirs:.0f}"
