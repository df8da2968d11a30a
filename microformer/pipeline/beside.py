"""What goes beside a training: probes, trackers and diagnostics, joined to one another and to the loop.

The rooms that do it don't know each other: training hands on figures, inspection draws what it sees, and trackers take
both.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

import torch
from torch import Tensor

from microformer import corpora, files, generation, trackers
from microformer.errors import DivergedError, notice
from microformer.inspection import diagnostics, probes
from microformer.inspection.activations import TraceError
from microformer.inspection.heads import pattern_entropy
from microformer.inspection.mosaic import mosaic
from microformer.inspection.trace import Trace
from microformer.models.model import Microformer
from microformer.pipeline import report
from microformer.runs import Run
from microformer.training.norms import Norms
from microformer.training.observers import Observer
from microformer.training.tracking import Tracking

# How long a sample for the trackers is, in tokens.
_SAMPLE = 40
# How long a training that fails waits for them, in seconds.
_IN_HASTE = 3.0


class Beside:
    """Looks on while a run trains.

    Args:
        run, model, data: what is trained, and on what.
        averaged: while inside, the model holds the weights that are kept, as for a snapshot.
        more: trackers beside those that the settings name.
    """

    def __init__(
        self,
        run: Run,
        model: Microformer,
        data: corpora.Prepared,
        averaged: Callable[[], AbstractContextManager[None]],
        more: Sequence[trackers.Tracker] = (),
    ):
        training = run.settings.training
        held_out = data.train if data.val is None else data.val
        self.run, self.model, self.averaged = run, model, averaged
        counted = data.counted(held_out[: data.example])
        self.question = held_out[: data.example][~counted] if counted is not None else None  # of a task
        self.trackers = trackers.Trackers([*trackers.build(_named(training.trackers)), *more])
        norms = Norms(model)
        self.tracking = Tracking(self.trackers, norms, training.probe_steps, self._sample)
        looked_at = held_out[: probes.LENGTH].long()
        self.probing = probes.Probing(run, model, looked_at, training.probe_steps, averaged, self._show)
        self.observers: list[Observer] = [self.probing]
        if self.trackers or training.diagnostics:
            self.observers.append(norms)
        if self.trackers:
            self.observers.append(self.tracking)
        if training.diagnostics:
            ids = diagnostics.texts(held_out, model.spec.max_seq_len)
            self.observers.append(diagnostics.Diagnosing(model, ids, norms, training.probe_steps, self._tell))

    def begin(self, step: int) -> None:
        """Begins the trackers, where the loop stands at a step."""
        rows = self.run.metrics if self.trackers else ()
        self.trackers.begin(trackers.About(self.run.name, self.run.folder, self.run.info, step, rows))

    def end(self, how: str) -> None:
        """Ends them, with what the run wrote last. It may take `lanes.LIMIT` seconds."""
        path = self.run.folder / "samples.txt"
        if self.trackers and path.is_file():
            self.trackers.text(int(self.run.metrics[-1]["step"]), "samples/end", files.read_text(path))
        self.trackers.end(how)

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self.trackers.end("diverged" if isinstance(error, DivergedError) else type(error).__name__, _IN_HASTE)

    def _tell(self, step: int, sentence: str) -> None:
        notice(f"step {step:,}, {sentence}")
        self.trackers.text(step, "diagnostics", sentence)

    def _show(self, step: int, seen: Trace) -> None:
        self.tracking.carefully(self._show_patterns, step, seen)

    def _show_patterns(self, step: int, seen: Trace) -> None:
        """Hands a probe's patterns to the trackers: a picture, and each head's entropy, the mean over queries."""
        found: dict[int, Tensor] = {}
        for layer in range(self.model.spec.depth):
            try:
                found[layer] = seen.pattern(layer).cpu()
            except TraceError:  # this layer has none
                continue
        if not found:
            return
        none = torch.full_like(next(iter(found.values())), torch.nan)
        patterns = torch.stack([found.get(layer, none) for layer in range(self.model.spec.depth)])
        entropy = pattern_entropy(patterns).mean(-1).tolist()
        heads = [(layer, head) for layer in found for head in range(patterns.shape[1])]
        self.trackers.scalars(
            step, {f"attention_entropy/L{layer}H{head}": entropy[layer][head] for layer, head in heads}
        )
        drawn = patterns.float().numpy()
        self.trackers.image(step, "attention", lambda: mosaic(drawn))
        if step == 1:
            self.trackers.text(step, "attention/text", seen_text(self.run, seen))

    def _sample(self) -> str:
        """A text of the model as it stands."""
        tokenizer = self.run.tokenizer
        prompt = tokenizer.encode(report.first_words(self.run)).tolist() if self.question is None else self.question
        ids = [*tokenizer.beginning, *(int(one) for one in prompt)]
        training, precision = self.model.training, self.model.compute_dtype
        self.model.eval()
        self.model.compute_dtype = torch.float32  # of one token at a time it is the faster one
        try:
            with self.averaged():
                new = generation.stream(self.model, [ids], generation.Sampler(), _SAMPLE)
                made = [one for (one,) in new if one is not None]
        finally:
            self.model.compute_dtype = precision
            self.model.train(training)
        return tokenizer.decode(ids + made)


def seen_text(run: Run, seen: Trace) -> str:
    """The text that the pictures of attention are of."""
    return run.tokenizer.decode(seen.ids.tolist())


def check(names: str) -> None:
    """Raises SettingsError where TRACKERS names one whose package is missing."""
    trackers.check(_named(names))


def _named(names: str) -> list[str]:
    return [] if names == "none" else names.split()
