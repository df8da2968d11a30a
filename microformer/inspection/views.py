"""The views: what each of the page's questions is answered with. A function a view; a closed table at the end.

Each is handed a Question (the run, the text's trace, the request's own fields) and gives plain words and arrays, in
nats, as frames.py packs them. What a model can't show is a sentence, `why`, and no error. The numbers are those of the
Python functions beside this file. Knows no server.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from microformer import devices
from microformer.errors import MicroformerError, RunError
from microformer.inspection import anatomy, following, generating, probes
from microformer.inspection.activations import TraceError
from microformer.inspection.attribution import direct_logit_attribution
from microformer.inspection.heads import DEFINITIONS, head_scores
from microformer.inspection.knockout import effect, knock_out_map
from microformer.inspection.lens import logit_lens
from microformer.inspection.likeliest import entropy, through_layers
from microformer.inspection.probes import Probe
from microformer.inspection.shelf import Shelf, chosen, stamp
from microformer.inspection.trace import Trace, spelled, trace
from microformer.inspection.words import AskedError, Words
from microformer.inspection.worker import Stop, Stopped
from microformer.models.spec import ModelSpec
from microformer.runs import Run

Answer = tuple[dict[str, Any], dict[str, Any]]
Thing = TypeVar("Thing")

# The largest side of a small map, and how many of the likeliest tokens are told.
SMALL = 48
LIKELIEST = 10
_PATTERNS = ("pattern", "scores", "weighted")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        shelf: where runs and traces are found.
        words: the request's fields.
        stop: says whether nobody waits any more; for what takes long.
    """

    shelf: Shelf
    words: Words
    stop: Stop

    @property
    def name(self) -> str:
        """The run's."""
        return self.words.text("run", most=200)

    @property
    def checkpoint(self) -> str:
        """The checkpoint's label."""
        return self.words.checkpoint()

    @property
    def folder(self) -> Run:
        """The run, without weights."""
        return self.shelf.run(self.name)

    @property
    def loaded(self) -> tuple[Hashable, Run]:
        """The run with its weights, and the key of what belongs to them."""
        return self.shelf.loaded(self.name, self.checkpoint)

    @property
    def text(self) -> str:
        return self.words.text("text")

    @property
    def trace(self) -> Trace:
        """Of the text, with the edits."""
        return self.shelf.trace(self.name, self.checkpoint, self.text, self.words.texts("edits"))

    @property
    def unedited(self) -> Trace:
        """Of the text, without edits."""
        return self.shelf.trace(self.name, self.checkpoint, self.text, ())

    @property
    def probe(self) -> Probe | None:
        """The probe that is meant; None where it is a checkpoint."""
        step = self.checkpoint.removeprefix("probe-")
        return None if step == self.checkpoint else probes.read(self.folder, int(step))

    @property
    def operations(self) -> float:
        """About how many multiplications a product of matrices takes for a text that fills the context."""
        info = self.folder.info
        spec = ModelSpec.from_json(info["model"])
        return spec.max_seq_len * info["parameters"] / (6 * spec.depth)

    def answer(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """An answer about the weights that is the same each time."""
        stamped, _ = self.loaded
        return self.shelf.answer((stamped, key), make)


@dataclass(frozen=True)
class View:
    """A view.

    Args:
        give: answers a question.
        long: whether it takes so long, or is looked at so late, that others may go by.
        of_probe: answers of a probe, which has no weights; None where it can't.
    """

    give: Callable[[Question], Answer]
    long: bool = False
    of_probe: Callable[[Question, Probe], Answer] | None = None

    def answer(self, question: Question) -> Answer:
        """The words and arrays, or the sentence why there are none.

        Raises:
            MicroformerError: the question can't be answered as it is.
            Stopped: nobody waits for it.
        """
        with torch.no_grad(), devices.threads_for(question.operations):
            if question.words.has("checkpoint") and (probe := question.probe) is not None:
                if self.of_probe is None:
                    return {"why": "A probe has no weights to compute this with: choose a snapshot."}, {}
                return self.of_probe(question, probe)
            try:
                return self.give(question)
            except _Why as why:
                return {"why": str(why)}, {}


class _Why(Exception):
    """A view that this model can't give, and the sentence."""


class _why:
    """Inside, what a model does not have is a sentence of the view's."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TraceError):
            raise _Why(f"{error.sentence} {error.hint}".strip()) from error


# ------------------------------------------------------------------------------------------------------------ the model


def _model(question: Question) -> Answer:
    run, label = question.folder, question.checkpoint
    info, spec, vocabulary = run.info, run.spec, spelled(run.tokenizer, range(run.tokenizer.vocab_size))
    there = following.checkpoints(run)
    data: dict[str, Any] = {
        "name": run.name, "checkpoint": label, "step": _step(run, label), "layers": spec.depth,
        "heads": spec.num_heads, "context": spec.max_seq_len, "vocab_size": spec.vocab_size,
        "vocabulary": vocabulary, "default_text": default_text(run), "spec": info["model"],
        "parameters": info["parameters"], "val_loss": _val_loss(run), "ended": (info["ended"] or {}).get("how"),
        "checkpoints": there["checkpoints"], "folders": there["folders"], "probes": run.probes,
        "settings": info["settings"], "own": list(info.get("code", {})),
    }  # fmt: skip
    try:
        model = question.loaded[1].model
    except RunError as error:
        if there["checkpoints"]:
            raise
        why = f"{error.sentence} The page shows it as soon as there is one."
        return {**data, "anatomy": {"boxes": []}, "can": dict.fromkeys(VIEWS, why), "why_not": why}, {}
    data["anatomy"] = {"boxes": anatomy.boxes(model)}
    data["can"] = question.answer("can", lambda: _can(question.loaded[1]))
    return data, {}


def _model_of_probe(question: Question, probe: Probe) -> Answer:
    plain = Question(question.shelf, Words({**question.words.fields, "checkpoint": "best"}), question.stop)
    data, arrays = _model(plain)
    why = "A probe has no weights to compute this with: choose a snapshot."
    can = {name: data["can"].get(name) if view.of_probe else why for name, view in VIEWS.items()}
    return {**data, "checkpoint": question.checkpoint, "step": probe.step, "can": can, "probe_text": probe.text}, arrays


def _can(run: Run) -> dict[str, str | None]:
    """Of each view why this model can't give it; None where it can. Tried on two tokens."""
    seen = trace(run, torch.arange(2) % run.spec.vocab_size)
    found: dict[str, str | None] = dict.fromkeys(VIEWS)
    tries: dict[str, Callable[[], Any]] = {
        "maps": lambda: _of_every_layer(seen, "pattern"),
        "head_scores": lambda: _scores(run),
        "lens": lambda: logit_lens(seen),
        "attribution": lambda: direct_logit_attribution(seen, 0, 0),
    }
    for name, attempt in tries.items():
        try:
            with run.explained(), _why():
                attempt()
        except _Why as why:
            found[name] = str(why)
    return {**found, "head": found["maps"]}


def _step(run: Run, label: str) -> int | None:
    """The step of a checkpoint; None where there is none."""
    try:
        return int(run.checkpoint(chosen(run, label)).name.rpartition("-")[2])
    except RunError:
        return None


def _val_loss(run: Run) -> float | None:
    """The best validation loss so far, in nats a token."""
    found = (run.info.get("figures") or {}).get("val_loss")
    measured = [] if found is not None else [row["val_loss"] for row in _rows(run) if "val_loss" in row]
    return found if found is not None else min(measured, default=None)


def _rows(run: Run) -> list[dict[str, Any]]:
    path = run.folder / "metrics.jsonl"
    try:
        return following.rows_of(path.read_bytes())
    except OSError:
        return []


def default_text(run: Run) -> str:
    """A text that suits a run: what its probes read, else what it wrote at its end, else some of its vocabulary."""
    for step in run.probes[-1:]:
        try:
            return probes.read(run, step).text
        except (RunError, ValueError):
            pass  # being replaced
    try:
        wrote = (run.folder / "samples.txt").read_bytes().decode("utf-8", "ignore").partition("\n\n")[2].strip("\n")
    except OSError:
        wrote = ""
    ids = run.tokenizer.encode(wrote[:400], "skip")[: min(64, run.spec.max_seq_len)]
    if len(ids) > 1:
        return run.tokenizer.decode(ids.tolist())
    texts = (run.tokenizer.decode([one]) for one in range(min(run.tokenizer.vocab_size, 200)))
    usable = [one for one in texts if one.isprintable() and one.strip() and "\ufffd" not in one]
    return "".join(usable[:16]) or "\n"


# ------------------------------------------------------------------------------------------------------------- the text


def _text(question: Question) -> Answer:
    seen = question.trace
    ids, log_p = seen.ids, seen.logits.float().log_softmax(-1)
    of, before = ids[1:], log_p[:-1]
    said = before.gather(1, of[:, None])
    top = log_p.topk(min(LIKELIEST, log_p.shape[-1]))
    data = {"tokens": seen.tokens, "left_out": seen.left_out, "note": _note(seen)}
    return data, {
        "ids": ids,
        "losses": _first(seen.losses),
        "probability": _first(said[:, 0].exp()),
        "rank": torch.cat([torch.tensor([-1]), (before > said).sum(-1) + 1]),
        "entropy": _first(entropy(before)),
        "top_ids": top.indices,
        "top_p": top.values.exp(),
        "last_logits": seen.logits[-1],
    }


def _text_of_probe(question: Question, probe: Probe) -> Answer:
    data = {"tokens": probe.tokens, "left_out": 0, "note": "The probe's own text.", "probe": True}
    nan = torch.full((len(probe.ids),), float("nan"))
    last = probe["lens_top_ids"][-1], probe["lens_top_p"][-1]
    return data, {
        "ids": probe.ids,
        "losses": _first(probe["losses"]),
        "probability": _first((-probe["losses"]).exp()),
        "rank": torch.full_like(probe.ids, -1),
        "entropy": nan,
        "top_ids": last[0][:, None],
        "top_p": last[1][:, None],
    }


def _note(seen: Trace) -> str:
    """What is to be said of the text, if anything is."""
    if not seen.left_out:
        return ""
    spec = seen.model.spec
    most = f"its context of {spec.max_seq_len:,}" if not spec.carries else "what is traced of a text"
    return f"The model reads the first {len(seen.ids):,} tokens: {seen.left_out:,} are past {most}."


def _first(values: Tensor) -> Tensor:
    """Values of all tokens but the first, with NaN for it: nothing stands before it."""
    return torch.cat([values.new_full((1,), float("nan")), values])


# -------------------------------------------------------------------------------------------------------- the attention


def _maps(question: Question) -> Answer:
    what, seen = question.words.one_of("what", _PATTERNS, "pattern"), question.trace
    found, missing = _of_every_layer(seen, what)
    return _small(found, missing, seen.model.spec.num_heads, len(seen.remembered))


def _of_every_layer(seen: Trace, what: str) -> tuple[list[Tensor | None], dict[int, str]]:
    """A pattern a layer, or None and why; a _Why where no layer has one."""
    found: list[Tensor | None] = []
    missing: dict[int, str] = {}
    for layer in range(seen.model.spec.depth):
        try:
            found.append(getattr(seen, what)(layer))
        except TraceError as error:
            found.append(None)
            missing[layer] = f"{error.sentence} {error.hint}".strip()
    if len(missing) == len(found):
        raise _Why(missing[0])
    return found, missing


def _small(found: list[Tensor | None], missing: Mapping[int, str], heads: int, remembered: int) -> Answer:
    """Maps of at most SMALL on a side, as bytes between each head's least and largest."""
    shape = next(one.shape for one in found if one is not None)
    length, keys = shape[-2:]
    block = -(-max(length, keys) // SMALL)
    size = -(-length // block), -(-keys // block)
    thumbs = torch.zeros(len(found), heads, *size, dtype=torch.uint8)
    low, high = torch.zeros(2, len(found), heads)
    zeros: list[list[float] | None] = [None] * len(found)
    allowed = torch.ones(length, keys, dtype=torch.bool).tril(keys - length)
    for layer, one in enumerate(found):
        if one is None:
            continue
        masked = one.isneginf()
        filled = one.masked_fill(masked, float("inf"))
        low[layer] = filled.amin((-2, -1)).clamp_max(0.0)
        high[layer] = one.amax((-2, -1))
        span = (high[layer] - low[layer]).clamp_min(1e-30)[:, None, None]
        shares = (one.nan_to_num(neginf=0.0, nan=0.0) - low[layer][:, None, None]) / span
        shares = shares.masked_fill(masked, 0.0).nan_to_num(0.0)
        padded = F.pad(shares, (0, size[1] * block - keys, 0, size[0] * block - length))
        pooled = F.max_pool2d(padded[None], block)[0] if block > 1 else padded
        # What is not zero is seen, however small it is beside the largest.
        thumbs[layer] = torch.where(pooled > 0, (255 * pooled).round().clamp(1, 255), 0.0).to(torch.uint8)
        zeros[layer] = ((one == 0) & allowed).sum((-2, -1)).div(allowed.sum()).tolist()
    data = {"layers": len(found), "heads": heads, "size": list(size), "block": block, "remembered": remembered}
    return {**data, "zeros": zeros, "missing": dict(missing)}, {"thumbs": thumbs, "scale": high, "low": low}


def _maps_of_probe(question: Question, probe: Probe) -> Answer:
    if question.words.one_of("what", _PATTERNS, "pattern") != "pattern":
        return {"why": "A probe holds patterns alone: choose a snapshot for the rest."}, {}
    if "pattern" not in probe.tensors:
        return {"why": "This model's attention shows no pattern."}, {}
    missing = dict.fromkeys(probe.missing, "This layer's attention shows no pattern.")
    found = [None if layer in missing else one for layer, one in enumerate(probe.patterns)]
    return _small(found, missing, probe["pattern"].shape[1], probe.remembered)


def _head(question: Question) -> Answer:
    what, seen = question.words.one_of("what", _PATTERNS, "pattern"), question.trace
    layer, head = _place(question, seen.model.spec.depth, seen.model.spec.num_heads)
    with _why():
        values = getattr(seen, what)(layer)[head]
    return {"remembered": len(seen.remembered), "labels": list(seen.remembered)}, {"values": values}


def _head_of_probe(question: Question, probe: Probe) -> Answer:
    if question.words.one_of("what", _PATTERNS, "pattern") != "pattern" or "pattern" not in probe.tensors:
        return _maps_of_probe(question, probe)
    layer, head = _place(question, *probe["pattern"].shape[:2])
    if layer in probe.missing:
        return {"why": "This layer's attention shows no pattern."}, {}
    labels = [f"memory {i}" for i in range(probe.remembered)]
    return {"remembered": probe.remembered, "labels": labels}, {"values": probe.patterns[layer, head]}


def _place(question: Question, layers: int, heads: int) -> tuple[int, int]:
    return question.words.whole("layer", 0, layers - 1), question.words.whole("head", 0, heads - 1)


def _head_scores(question: Question) -> Answer:
    with _why():
        scores = question.answer("head_scores", lambda: _scores(question.loaded[1]))
    return {"names": list(scores), "definitions": DEFINITIONS}, dict(scores)


def _scores(run: Run) -> dict[str, Tensor]:
    return head_scores(run.model, beginning=run.tokenizer.beginning)


def _head_scores_of_probe(question: Question, probe: Probe) -> Answer:
    scores = probe.head_scores
    if not scores:
        return {"why": "This model's attention shows no pattern to score."}, {}
    return {"names": [name for name in DEFINITIONS if name in scores], "definitions": DEFINITIONS}, scores


# ------------------------------------------------------------------------------------------------------------ the edits


def _effect(question: Question) -> Answer:
    before, after = question.unedited, question.trace
    found = effect(before, after)
    return {}, {"before": _first(found.before), "after": _first(found.after), "kl": found.kl}


def _knock_out(question: Question) -> Answer:
    seen = question.trace
    if len(seen.ids) < 2:
        raise AskedError("one token alone has no loss.", "give a text of two tokens or more.")
    with _why():
        found = knock_out_map(seen, stop=question.stop)
    if found is None:
        raise Stopped
    return {"unit": "nats a token"}, {"heads": found.heads, "attn": found.attn, "mlps": found.mlps}


# ------------------------------------------------------------------------------------------------------------- the lens


def _lens(question: Question) -> Answer:
    seen = question.trace
    with _why():
        return {}, through_layers(seen)


def _lens_of_probe(question: Question, probe: Probe) -> Answer:
    names = ("top_ids", "top_p", "target_p", "entropy", "norms")
    if "lens_top_ids" not in probe.tensors:
        return {"why": "This model has no logit lens."}, {}
    return {}, {name: probe[f"lens_{name}"] for name in names}


def _attribution(question: Question) -> Answer:
    seen, words = question.trace, question.words
    position = words.whole("position", 0, len(seen.ids) - 1)
    most = seen.model.spec.vocab_size - 1
    token = words.whole("token", 0, most)
    rival = words.whole("rival", 0, most) if words.has("rival") else None
    with _why():
        labels, values = direct_logit_attribution(seen, position, token, rival)
    logits = seen.logits[position]
    data = {"labels": list(labels), "logit": float(logits[token])}
    return {**data, "rival_logit": None if rival is None else float(logits[rival])}, {"values": values}


# ------------------------------------------------------------------------------------------------- what it says next


def _next(question: Question) -> Answer:
    seen = question.trace
    last = len(seen.ids) - 1
    position = question.words.whole("position", 0, last) if question.words.has("position") else last
    return {}, {"logits": seen.logits[position]}


def _generate(question: Question) -> Answer:
    seen, words = question.trace, question.words
    spec = seen.model.spec
    sampler = generating.sampler(words)
    made = words.ids("generated", spec.vocab_size, most=10_000)
    count, seed = words.whole("count", 1, 64, usual=1), words.whole("seed", 0, 2**63 - 1, usual=0)
    found = generating.further(seen, made, count, sampler, seed, LIKELIEST, question.stop)
    tokens = spelled(question.loaded[1].tokenizer, found["ids"].tolist())
    return {"tokens": tokens, "ended": found.pop("ended")}, found


def _flow(question: Question) -> Answer:
    cache = question.trace.cache
    names = list(cache)
    stats = torch.stack([_figures(cache[name]) for name in names])
    return {"taps": [{"name": name, "shape": list(cache[name].shape)} for name in names]}, {"stats": stats}


def _figures(values: Tensor) -> Tensor:
    """Mean, standard deviation, least and largest, of what is not −inf (a score where nothing is looked at)."""
    values = values.float()
    values = values[~values.isneginf()]
    if not values.numel():
        return torch.full((4,), float("nan"))
    return torch.stack([values.mean(), values.std(correction=0), values.min(), values.max()])


# ------------------------------------------------------------------------------------------------------------- the time


def _time(question: Question) -> Answer:
    run = question.folder
    steps = following.snapshots(run.index)
    data: dict[str, Any] = {
        "rows": [following.shown(row) for row in _rows(run)], "snapshots": steps, "probes": run.probes,
    }  # fmt: skip
    points = _points_of_probes(run) or _points_of_snapshots(question, steps)
    data |= {"points": [step for step, _ in points], "from": "probes" if run.probes else "snapshots"}
    if not points:
        return {**data, "from": None}, {}
    arrays: dict[str, Any] = {"loss": torch.tensor([one["loss"] for _, one in points])}
    for name in ("previous_token", "induction", "first_token"):
        if all(name in one for _, one in points):
            arrays[name] = torch.stack([one[name] for _, one in points])
    return data, arrays


def _points_of_probes(run: Run) -> list[tuple[int, dict[str, Any]]]:
    points = []
    for step in run.probes:
        try:
            probe = probes.read(run, step)
        except (MicroformerError, ValueError):
            continue  # cut back while it was read
        points.append((step, {**probe.head_scores, "loss": float(probe["losses"].mean())}))
    return points


def _points_of_snapshots(question: Question, steps: list[int]) -> list[tuple[int, dict[str, Any]]]:
    """Measured on the spot: once for each, and given up where nobody waits."""
    points = []
    for step in steps:
        if question.stop():
            raise Stopped
        run = Run(question.folder.folder, str(step), question.shelf.trust_code)
        key = stamp(run.checkpoint(str(step))), "point"

        def measure(run: Run = run) -> dict[str, Any]:
            with run.explained():
                seen = trace(run, default_text(run))
                try:
                    scores = _scores(run)
                except TraceError:
                    scores = {}
                return {**scores, "loss": float(seen.losses.mean()) if len(seen.ids) > 1 else float("nan")}

        points.append((step, question.shelf.answer(key, measure)))
    return points


VIEWS: dict[str, View] = {
    "model": View(_model, of_probe=_model_of_probe),
    "text": View(_text, of_probe=_text_of_probe),
    "maps": View(_maps, of_probe=_maps_of_probe),
    "head": View(_head, of_probe=_head_of_probe),
    "head_scores": View(_head_scores, of_probe=_head_scores_of_probe),
    "effect": View(_effect),
    "knock_out": View(_knock_out, long=True),
    "lens": View(_lens, of_probe=_lens_of_probe),
    "attribution": View(_attribution),
    "next": View(_next),
    "generate": View(_generate, long=True),
    "flow": View(_flow, long=True),
    "time": View(_time, long=True),
}


def find(name: str) -> View:
    """The view of a name.

    Raises:
        AskedError: there is none.
    """
    if name not in VIEWS:
        raise AskedError(f"there is no view {name[:100]!r}.", f"there are: {', '.join(VIEWS)}.", status=404)
    return VIEWS[name]
