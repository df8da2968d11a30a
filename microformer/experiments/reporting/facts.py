"""What a report says of a run in words and figures. Reads run.json, the metrics and the files of code; no weights."""

import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from microformer.errors import MicroformerError
from microformer.runs import Run
from microformer.settings import BUDGETS, GROUPS, Settings, each_setting

# What is chosen for the machine where nobody says: it stands with the machine.
_CHOSEN = ("device", "precision", "threads")


@dataclass(frozen=True)
class Measured:
    """A loss beside others.

    Args:
        name: whose.
        nats, bits: a token's and a character's.
        share: of the largest beside it, for a bar.
        own: whether it is the run's.
    """

    name: str
    nats: float
    bits: float | None
    share: float
    own: bool = False


def lead(run: Run) -> str:
    """What it is, in a line."""
    info, spec = run.info, run.info["model"]
    layers = len(spec["layers"])
    text = f"{layers} layer{'s' * (layers != 1)}, {spec['embed_dim']} wide, context {spec['max_seq_len']}"
    return f"{text}: {info['parameters']:,} parameters, on {info['data']['corpus']}"


def ending(run: Run) -> str:
    """How it ended, in a sentence."""
    ended = run.info["ended"]
    if not ended:
        latest = run.latest
        came = f"{latest['step']:,} steps in {_time(latest['seconds'])}" if latest else "no steps"
        said = {"training": f"Is being trained: {came} so far.", "killed": f"Was killed after {came}."}
        return said.get(run.state, f"Has not ended: {came} so far.")
    if ended["how"] == "imported":
        return f"Imported: {run.info.get('imported', 'another program’s model')}."
    took = f"{ended['step']:,} steps in {_time(ended['seconds'])}"
    match ended["how"]:
        case "finished":
            return f"Finished after {took}."
        case "interrupted":
            return f"Interrupted after {took}."
        case "diverged":
            return f"Diverged at step {ended['step']:,}: its loss or its gradient was no number."
    return f"Ended after {took}: {ended['how']}."


def headline(run: Run) -> dict[str, Any]:
    """The main figures, of the best validation; of a run that has not ended, so far."""
    # Of a run that goes on after it was resumed they are those before.
    figures = (run.info.get("figures") or {}) if run.info["ended"] else {}
    loss, bits, step = figures.get("val_loss"), figures.get("bits_per_char"), figures.get("best_step")
    if not figures:
        validated = [(row["val_loss"], row["step"]) for row in run.metrics if "val_loss" in row]
        loss, step = min(validated, default=(None, None))
    numbers = {
        "loss": loss,
        "bits": bits,
        "perplexity": None if loss is None else math.exp(min(loss, 700.0)),
        "exact_match": figures.get("exact_match"),
        "train_loss": figures.get("train_loss", run.latest.get("train_loss")),
    }
    # Whoever made the file: a number is a number here.
    found: dict[str, Any] = {name: None if number is None else float(number) for name, number in numbers.items()}
    return {**found, "step": None if step is None else int(step)}


def beside(run: Run) -> list[Measured]:
    """The baselines and the run's own loss, the highest first."""
    figures = run.info.get("figures") or {}
    losses = {name: float(loss) for name, loss in run.baselines.items()}
    own = headline(run)["loss"]
    if own is None or not losses:
        return []
    scale, top = figures.get("bits_per_nat"), max(*losses.values(), own)
    found = [(name, loss, False) for name, loss in losses.items()] + [("this model", own, True)]
    found.sort(key=lambda one: -one[1])
    return [
        Measured(name, loss, loss * scale if scale else None, max(loss, 0.0) / top if top > 0 else 0.0, mine)
        for name, loss, mine in found
    ]


def warned(run: Run) -> list[str]:
    """What a reader should be told of a run that did not go well."""
    from microformer.pipeline.report import judged

    ended, figures = run.info["ended"], run.info.get("figures") or {}
    if not ended or ended["how"] in ("interrupted", "imported") or "unigram" not in figures:
        return []
    return judged(run)


def settings(run: Run) -> tuple[list[dict[str, Any]], list[tuple[str, list[dict[str, Any]]]]]:
    """(those that are not at their defaults, all by group), each with its default and what it is."""
    said, defaults = run.info["settings"], Settings().flat()
    rows: dict[str, list[dict[str, Any]]] = {group: [] for group in GROUPS}
    for group, name, field in each_setting():
        value = said.get(name, defaults[name])
        changed = value != defaults[name]
        rows[group].append(
            {
                "name": name.upper(), "value": written(value), "default": written(defaults[name]), "changed": changed,
                "about": field.metadata["about"],
            }
        )  # fmt: skip
    # Where one budget was asked for the others are 0, which says nothing.
    quiet = [name.upper() for name in (*_CHOSEN, *(name for name in BUDGETS if not said.get(name)))]
    changed = [row for one in rows.values() for row in one if row["changed"] and row["name"] not in quiet]
    return changed, list(rows.items())


def machine(run: Run) -> list[tuple[str, str]]:
    """What it was trained on and with."""
    info, said = run.info, run.info["settings"]
    ended, latest = info["ended"] or {}, run.latest
    seconds = ended.get("seconds", latest.get("seconds"))
    tokens = latest.get("tokens")
    rows = [
        ("computed on", info.get("compute") or ", ".join(str(said[name]) for name in _CHOSEN if name in said)),
        ("threads", str(said.get("threads", ""))),
        ("time", _time(seconds) if seconds else ""),
        ("tokens learned from", f"{tokens:,}" if tokens else ""),
        ("speed", f"{tokens / seconds:,.0f} tokens a second, validations included" if tokens and seconds else ""),
        ("peak memory", f"{ended['memory'] / 1e6:,.0f} MB" if ended.get("memory") else ""),
        ("begun", str(info.get("created") or "")),
        *((name, str(version)) for name, version in (info.get("versions") or {}).items()),
    ]
    return [(name, value) for name, value in rows if value]


def data(run: Run) -> list[tuple[str, str]]:
    """The text it learned from."""
    known = run.info["data"]
    rows = [("corpus", str(known["corpus"]))]
    for split, name in (("train", "to learn from"), ("val", "held out"), ("test", "for a test")):
        if part := known.get(split):
            rows.append((name, f"{part['tokens']:,} tokens, {part['characters']:,} characters"))
    if known.get("fingerprint"):
        rows.append(("fingerprint", known["fingerprint"]))
    return rows


@dataclass(frozen=True)
class Again:
    """How to make a run again.

    Args:
        repeat: the commands that repeat it by its own run.json; none for a model that was not trained here.
        anew: those that begin from nothing but the text and say every setting that is not at its default.
        notes: what has to be known besides.
        file: run.json, as text.
    """

    repeat: list[str]
    anew: list[str]
    notes: list[str]
    file: str


def again(run: Run) -> Again:
    """How to make the run again."""
    info, said, defaults = run.info, run.info["settings"], Settings().flat()
    file = json.dumps(info, indent=2, ensure_ascii=False)
    if "imported" in info and not info["data"].get("fingerprint"):
        return Again([], [], ["It was imported and not trained here: import the same model again."], file)
    name, legs, start = run.name, info["legs"], info.get("from")
    continued = [
        _line(
            "microformer",
            "train",
            "--resume",
            "--run",
            name,
            *_budget(leg),
            *_if(bool(info.get("code")), "--trust-code"),
        )
        for leg in legs[1:]
    ]
    first = dict(legs[0]) if legs else {budget: said.get(budget, 0) for budget in BUDGETS}
    model = {one for group, one, _ in each_setting() if group == "model"}
    flags = []
    for setting, value in said.items():
        taken = start and (setting in model or setting in ("tokenizer", "learning_rate"))
        if setting not in BUDGETS and setting in defaults and value != defaults[setting] and not taken:
            flags += [f"--{setting.replace('_', '-')}", written(value)]
    begin = ["--from", start["run"]] if start else []
    anew = [_line("microformer", "train", "--run", name, *begin, *flags, *_budget(first)), *continued]
    config = f"{run.folder.as_posix()}/run.json"
    repeat = [_line("microformer", "train", "--config", config, "--run", f"{name}-again", *begin)]
    return Again(repeat, anew, _notes(run, len(legs)), file)


def _notes(run: Run, legs: int) -> list[str]:
    info = run.info
    clock = any(leg.get("max_minutes") for leg in info["legs"])
    fingerprint = str(info["data"]["fingerprint"])[:12]
    notes = [
        f"The text must be the same: its fingerprint begins with {fingerprint}, and the first form refuses another."
    ]
    if clock:
        notes.append(
            "Its schedule ran over the clock: schedule.json beside run.json has what it came to, and the first form "
            "follows that; the second takes as many steps as the machine does in that time."
        )
    if legs > 1:
        notes.append(
            f"It was trained in {legs} legs, its budget changed on the way: the second form goes through them, the "
            "first runs in one go."
        )
    elif not clock:
        notes.append("On the same machine, with the same versions and threads, the same numbers come out to the bit.")
    if info.get("from"):
        notes.append(f"It began with the weights of the run {info['from']['run']} ({info['from']['checkpoint']}).")
    if info.get("code"):
        notes.append(
            f"It has code of its own, shown above: {', '.join(info['code'])}. Named with its path, it must lie there; "
            "the repetition takes the copy in the run folder."
        )
    notes.append("The second form is for a folder without a config.py, whose settings would come in besides.")
    return notes


def code(run: Run) -> list[dict[str, Any]]:
    """The files of the user's own that it was trained with; none is run.

    One that is not what run.json says is not shown: of a folder that came from somebody it could be a link to anything.
    """
    found = []
    for name, digest in sorted((run.info.get("code") or {}).items()):
        path, source = run.folder / "code" / name, None
        with suppress(OSError):
            read = path.read_bytes()
            source = read.decode("utf-8", "replace") if hashlib.sha256(read).hexdigest() == digest else None
        found.append({"name": name, "digest": digest, "source": source})
    return found


def tags(run: Run) -> Sequence[str]:
    """Its tags; none where they are damaged."""
    try:
        return run.tags
    except MicroformerError:
        return ()


def written(value: Any) -> str:
    """A setting's value, as the command line has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _budget(leg: dict[str, Any]) -> list[str]:
    return [word for name in BUDGETS if leg.get(name) for word in (f"--{name.replace('_', '-')}", written(leg[name]))]


def _if(holds: bool, *words: str) -> list[str]:
    return list(words) if holds else []


def _line(*words: str) -> str:
    return shlex.join(words)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.1f} minutes"
    return f"{seconds / 3600:,.1f} hours"
