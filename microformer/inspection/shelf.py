"""What was loaded or computed and will be asked for again: runs, traces, small answers; as many as fit.

A run is looked up by its name in a list, never by a path. What is kept is kept under the checkpoint's own folder, size
and time, so that a checkpoint that training replaced is loaded anew. Knows no server.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from microformer import runs
from microformer.errors import DataError, MicroformerError, RunError, nearest
from microformer.inspection.trace import Trace, trace
from microformer.inspection.words import AskedError
from microformer.runs import Run

Thing = TypeVar("Thing")

_MODELS = 4
_TRACES = 8
_TRACE_BYTES = 500e6
_ANSWERS = 64


class Kept(Generic[Thing]):
    """The things last used.

    Args:
        most: how many.
        most_bytes: how large they may be together; the one last used is kept whatever its size.
        size: of a thing, in bytes; asked again, for things grow when they are used.
    """

    def __init__(self, most: int, most_bytes: float = float("inf"), size: Callable[[Thing], int] = lambda _: 0):
        self.most, self.most_bytes, self.size = most, most_bytes, size
        self.things: OrderedDict[Hashable, Thing] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """The thing of this key, made if it isn't there."""
        if key not in self.things:
            made = make()
            self.things[key] = made
        self.things.move_to_end(key)
        sizes = [self.size(one) for one in self.things.values()]
        while len(self.things) > 1 and (len(self.things) > self.most or sum(sizes) > self.most_bytes):
            self.things.popitem(last=False)
            del sizes[0]
        return self.things[key]


class Shelf:
    """The runs of a folder, and one that may lie elsewhere.

    Args:
        root: the folder of all runs.
        given: the run that was named at the start, which is shown first; None for the latest.
        checkpoint: of it, likewise.
        trust_code: whether own components are run even if nothing was trained with them on this machine.
    """

    def __init__(self, root: Path, given: Run | None = None, checkpoint: str = "best", trust_code: bool = False):
        self.root, self.given, self.checkpoint, self.trust_code = root, given, checkpoint, trust_code
        self._models: Kept[Run] = Kept(_MODELS)
        self._traces: Kept[Trace] = Kept(_TRACES, _TRACE_BYTES, _bytes)
        self._answers: Kept[Any] = Kept(_ANSWERS)
        self._listed: dict[Path, tuple[int, dict[str, Any]]] = {}

    def folders(self) -> dict[str, Path]:
        """Every run's folder by its name, the one last written to first."""
        try:
            every = runs.all_runs(self.root)
        except FileNotFoundError:  # one was deleted while they were listed
            every = runs.all_runs(self.root)
        found = {run.name: run.folder for run in reversed(every)}
        if self.given is not None:
            found[self.given.name] = self.given.folder
        return found

    def run(self, name: str, checkpoint: str = "best") -> Run:
        """A run of the list, as it is on the disk now; its weights are not loaded.

        Raises:
            AskedError: there is none of this name.
        """
        found = self.folders()
        if name not in found:
            meant = nearest(name, found)
            hint = f"did you mean {meant!r}?" if meant else "reload the page for the list."
            raise AskedError(f"there is no run {name!r}.", hint, status=404)
        return Run(found[name], checkpoint, self.trust_code)

    def loaded(self, name: str, checkpoint: str) -> tuple[Hashable, Run]:
        """A run with the weights of a checkpoint, and the key of what belongs to them.

        Raises:
            MicroformerError: there is no such checkpoint, or it can't be used.
        """
        while True:
            run = self.run(name, checkpoint)
            run = Run(run.folder, chosen(run, checkpoint), self.trust_code)
            key = stamp(run.checkpoint(run.chosen))

            def load(run: Run = run) -> Run:
                _ = run.model, run.tokenizer
                return run

            found = self._models.get(key, load)
            # A training that goes on may have replaced the checkpoint while it was loaded.
            if stamp(run.checkpoint(run.chosen)) == key:
                return key, found
            self._models.things.pop(key, None)

    def trace(self, name: str, checkpoint: str, text: str, edits: tuple[str, ...]) -> Trace:
        """The trace of a text, edited or not."""
        key, run = self.loaded(name, checkpoint)

        def make() -> Trace:
            with run.explained():
                try:
                    return trace(run, text, edits)
                except DataError as error:  # its hint is for the command line
                    raise AskedError(
                        error.sentence, "change the text: the model knows what it learned from."
                    ) from error

        return self._traces.get((key, text, edits), make)

    def answer(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """A small answer that is the same each time."""
        return self._answers.get(key, make)

    def listing(self) -> dict[str, Any]:
        """The runs in words: name, parameters, val_loss, steps, how it ended, and why it can't be looked into."""
        found, listed = self.folders(), {}
        for name, folder in found.items():
            try:
                changed = (folder / "run.json").stat().st_mtime_ns
            except OSError:
                continue  # deleted since it was listed
            before = self._listed.get(folder)
            # What is in the way may be taken out of it without run.json's changing: a code may become trusted.
            same = before is not None and before[0] == changed and before[1]["why"] is None
            listed[folder] = before if before and same else (changed, self._described(self.run(name)))
        self._listed = listed
        chosen = self.given.name if self.given is not None else next(iter(found), None)
        return {"runs": [one for _, one in listed.values()], "chosen": chosen, "checkpoint": self.checkpoint}

    def _described(self, run: Run) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(("parameters", "val_loss", "steps", "ended", "why"))
        row["name"] = run.name
        try:
            info = run.info
            ended, figures = info["ended"] or {}, info.get("figures") or {}
            row |= {"parameters": info["parameters"], "val_loss": figures.get("val_loss")}
            row |= {"steps": ended.get("step"), "ended": ended.get("how")}
            _ = run.code  # whether its own components may be run
        except MicroformerError as error:
            row["why"] = f"{error.sentence} {error.hint}".strip()
        return row


def chosen(run: Run, label: str) -> str:
    """The label of the checkpoint that is meant: before a training first validates, its newest snapshot is the best."""
    index = run.index
    if label in ("best", "last") and index["last"] is None and index[label] is None and index["snapshots"]:
        return max(index["snapshots"]).removeprefix("step-")
    return label


def stamp(checkpoint: Path) -> Hashable:
    """What tells a checkpoint from another that had the same name.

    Raises:
        RunError: its weights are gone.
    """
    path = checkpoint / "model.safetensors"
    try:
        found = path.stat()
    except OSError:
        raise RunError(f"{path} is missing.", "it is being replaced, or was deleted; ask again.") from None
    return str(path), found.st_size, found.st_mtime_ns, found.st_ino


def _bytes(thing: Any) -> int:
    # What a trace has computed so far lies among its attributes.
    match thing:
        case Trace():
            return sum(_bytes(value) for value in vars(thing).values() if not isinstance(value, Trace))
        case Tensor():
            return thing.nbytes
        case dict():
            return sum(map(_bytes, thing.values()))
        case tuple():
            return sum(map(_bytes, thing))
    return 0
