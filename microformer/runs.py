"""The run folder: its one reader and writer. Everything after training reads it, and nothing else.

    runs/<name>/
      run.json         what the run is and how it ended
      tokenizer.json   everything needed to turn text into ids and back
      metrics.jsonl    one line a logged step
      tags.json        words that the user gave it
      code/            the files of the user's own components, if there are any
      tensorboard/, wandb/  what a tracker keeps, if there is one
      probes/          what the model did with one text, every so many steps; a file a step
      checkpoints/     index.json names the folder of `last`, of `best`, and of each snapshot

A checkpoint is written whole as a new folder; then the index, a small file, is replaced. So at every instant the index
names whole checkpoints only, and what a killed writer left is swept away by the next one, who holds the lock.
"""

import json
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microformer import files, own_code, tokenization
from microformer.errors import CodeError, FileError, RunError, nearest
from microformer.models.grammar import Own
from microformer.models.spec import ModelSpec
from microformer.pictures import Curves
from microformer.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from microformer.models.model import Microformer

FORMAT = 2  # 1 had the weights of blocks under other names
RUNS = Path("runs")
# best_of_last: what was best when `last` was written, and is so again for who goes on from there.
_INDEX = {"last": None, "best": None, "best_of_last": None, "snapshots": []}
_START = "last-0000000"
_INFO = ("settings", "model", "parameters", "data", "legs", "ended")
# What a run that is being deleted is called meanwhile; a folder of this name is no run.
_DELETED = ".deleted"
# What curves are drawn against: what each row of metrics has.
ACROSS = ("step", "tokens", "seconds")
# Of the figures, those that are no model's: what a loss is held against.
BASELINES = ("uniform", "unigram", "the task's entropy")


@dataclass(frozen=True)
class Run:
    """A run as its folder has it. Reads; what writes is named so.

    Args:
        folder: runs/<name>.
        chosen: the checkpoint that `model` is: best, last, or a snapshot's step.
        trust_code: whether its own components are run even if nothing was trained with them on this machine.
    """

    folder: Path
    chosen: str = "best"
    trust_code: bool = False

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def info(self) -> dict[str, Any]:
        """run.json, as it was when first asked for.

        Raises:
            RunError: it is of another format, or damaged.
        """
        info = files.read_json(self.folder / "run.json")
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise RunError(
                f"{self.folder / 'run.json'} is not of format {FORMAT}.",
                "it was made by another version of Microformer.",
            )
        for name in _INFO:
            if name not in info:
                raise RunError(
                    f"{self.folder / 'run.json'} is damaged: it lacks {name!r}.", "restore it, or delete that run."
                )
        return info

    @cached_property
    def settings(self) -> Settings:
        """The settings as resolved when the run began."""
        return Settings().changed(self.info["settings"])

    @cached_property
    def code(self) -> own_code.Code:
        """The files of its own components, whose classes may be run.

        Raises:
            CodeError: one is missing, not what it was trained with, or not to be trusted.
        """
        recorded = self.info.get("code", {})
        if not isinstance(recorded, dict):
            raise RunError(f"{self.folder / 'run.json'} is damaged: its code is no table.", "restore it.")
        code = own_code.read([Own(name, "") for name in recorded], self.folder / "code")
        if code.hashes != recorded:
            changed = next((name for name, digest in code.hashes.items() if digest != recorded.get(name)), "")
            raise CodeError(
                f"{self.folder / 'code' / changed} is not the code that the run {self.name!r} was trained with.",
                "restore it; to go on with another, start a new run.",
            )
        if not self.trust_code:
            code.check_trusted(f"the run {self.name!r}")
        return code

    @cached_property
    def spec(self) -> ModelSpec:
        """What the model is, with the classes of its own components.

        Raises:
            CodeError: they can't be used, or must not be run.
        """
        spec = ModelSpec.from_json(self.info["model"])
        return own_code.bound(spec, self.code) if spec.own else spec

    def explained(self) -> AbstractContextManager[None]:
        """Inside, an error in one of the model's own components is told with its file and line."""
        return self.code.explained() if self.spec.own else nullcontext()

    @cached_property
    def tokenizer(self) -> tokenization.Tokenizer:
        """Text to ids and back.

        Raises:
            DataError: it can't be read.
            RunError: it is of another vocabulary than the model.
        """
        tokenizer = tokenization.load(self.folder / "tokenizer.json")
        vocab_size = ModelSpec.from_json(self.info["model"]).vocab_size
        if tokenizer.vocab_size != vocab_size:
            raise RunError(
                f"{self.folder / 'tokenizer.json'} has {tokenizer.vocab_size} tokens, and the model {vocab_size}.",
                "it is another run's; restore it.",
            )
        return tokenizer

    @cached_property
    def model(self) -> "Microformer":
        """The chosen checkpoint's model, on the CPU, in eval mode.

        Raises:
            RunError: there is no such checkpoint, or it is damaged or of another shape.
        """
        from microformer.models.model import Microformer

        with self.explained():
            model = Microformer(self.spec)
        while True:
            folder = self.checkpoint(self.chosen)
            try:
                load_weights(model, folder / "model.safetensors")
                return model.eval()
            except RunError:
                if folder == self.checkpoint(self.chosen):
                    raise  # else a training that goes on has just replaced it by a newer one

    @property
    def metrics(self) -> list[dict[str, float | int]]:
        """The rows of metrics.jsonl; a line that a kill cut short is left out."""
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = files.read_text(path).split("\n")[:-1]
        try:
            return [json.loads(line) for line in lines if line]
        except json.JSONDecodeError as error:
            raise RunError(f"{path} is damaged: a line is not JSON.", "restore it, or take that line out.") from error

    @property
    def latest(self) -> dict[str, float | int]:
        """The last row of metrics.jsonl, found from its end; empty where there is none yet.

        Raises:
            RunError: it is damaged.
        """
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return {}
        with files.explained(path, "read"), open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4096))
            lines = file.read().split(b"\n")[:-1]
        try:
            return json.loads(lines[-1]) if lines else {}
        except ValueError as error:
            raise RunError(f"{path} is damaged: its last line is not JSON.", "take that line out.") from error

    def curves(self, x: str = "step") -> Curves:
        """Its losses as they went, beside the baselines; a notebook draws them.

        Args:
            x: step, tokens, or seconds.

        Raises:
            RunError: x is none of these, or metrics.jsonl is damaged.
        """
        check_across(x)
        rows = self.metrics
        series = {
            name: [(row[x], row[key]) for row in rows if key in row]
            for name, key in (("training", "train_loss"), ("validation", "val_loss"))
        }
        validation = series["validation"]
        return Curves(
            {name: points for name, points in series.items() if points},
            x_label=x,
            y_label="loss (nats per token)",
            baselines=self.baselines,
            best=min(validation, key=lambda point: point[1]) if validation else None,
        )

    @property
    def baselines(self) -> dict[str, float]:
        """What its loss is held against, in nats a token, by name; empty before it ended for the first time."""
        figures = self.info.get("figures") or {}
        return {name: figures[name] for name in BASELINES if figures.get(name) is not None}

    @property
    def tags(self) -> tuple[str, ...]:
        """The words that the user gave it, sorted.

        Raises:
            RunError: tags.json is damaged.
        """
        path = self.folder / "tags.json"
        tags = files.read_json(path) if path.is_file() else []
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise RunError(f"{path} is damaged: it is no list of words.", "restore it, or delete that file.")
        return tuple(sorted(set(tags)))

    def write_tags(self, tags: Collection[str]) -> None:
        """Replaces its tags. Apart from run.json, which a training may be writing.

        Raises:
            RunError: one is no word.
        """
        for tag in tags:
            if not re.fullmatch(r"\w[\w.+-]{0,49}", tag):
                raise RunError(
                    f"{tag!r} can't be a tag.", "use letters, digits, '.', '_', '+' and '-', such as keep or lr-sweep."
                )
        files.write_json(self.folder / "tags.json", sorted(set(tags)))

    @property
    def index(self) -> dict[str, Any]:
        """Which checkpoints there are: the folder's name for `last` and `best`, or None; a list for `snapshots`.

        Raises:
            RunError: it is damaged.
        """
        path = self.folder / "checkpoints" / "index.json"
        if not path.is_file() and any(one.is_dir() for one in path.parent.glob("*-*")):
            # It is written before the first checkpoint, so it was there.
            raise RunError(f"{path} is missing, and checkpoints are there.", "restore it, or delete that run.")
        index = files.read_json(path) if path.is_file() else _INDEX
        if not isinstance(index, dict) or index.keys() != _INDEX.keys():
            raise RunError(f"{path} is damaged: it is no index of checkpoints.", "restore it, or delete that run.")
        return dict(index)

    def checkpoint(self, which: str) -> Path:
        """The folder of a checkpoint: `best` (`last` where nothing was validated), `last`, or a snapshot's step.

        Raises:
            RunError: there is none.
        """
        index = self.index
        found = index["best"] or index["last"] if which == "best" else index["last"] if which == "last" else None
        if found is None and (step := which.removeprefix("step-")).isdecimal():
            found = next((one for one in index["snapshots"] if one == f"step-{int(step):07d}"), None)
        if found is None:
            there = [label for label in ("best", "last") if index[label]] + [
                str(int(one.removeprefix("step-"))) for one in index["snapshots"]
            ]
            hint = (
                f"there are: {', '.join(there)}."
                if there
                else f"train it: microformer train --run {self.name} --resume"
            )
            raise RunError(f"the run {self.name!r} has no checkpoint {which!r}.", hint)
        return self.folder / "checkpoints" / found

    @property
    def probes(self) -> list[int]:
        """The steps of which there is a probe, in their order."""
        found = (
            re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in (self.folder / "probes").glob("step-*")
        )
        return sorted(int(one[1]) for one in found if one)

    def probe(self, step: int) -> tuple[dict[str, "Tensor"], dict[str, str]]:
        """A step's probe: its tensors by name, and the words of its header.

        Raises:
            RunError: there is none, or it can't be read.
        """
        path = self._probe(step)
        if not path.is_file():
            raise RunError(f"the run {self.name!r} has no probe of step {step:,}.", "choose another step.")
        return load_tensors(path), tensors_header(path)

    def _probe(self, step: int) -> Path:
        return self.folder / "probes" / f"step-{step:07d}.safetensors"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for one writer, and sweeps away what a killed one left half-made.

        Raises:
            RunError: another training holds it.
        """
        from filelock import FileLock, Timeout

        # Long enough for the look of `files.held`.
        lock = FileLock(self.folder / ".lock", timeout=0.3)
        with files.explained(self.folder):
            try:
                lock.acquire()
            except Timeout:  # an OSError too, but not one to be told as such
                raise RunError(
                    f"another training is writing into the run {self.name!r}.",
                    "wait for its end, or choose another --run.",
                ) from None
        try:
            files.sweep(self.folder)
            files.sweep(self.folder / "probes")
            yield
        finally:
            lock.release()

    @property
    def state(self) -> str:
        """How it ended; `training` while it is trained, `killed` where that was cut short, `not ended` where nobody can
        tell which: in a folder that can't be written to."""
        if self.info["ended"]:
            return self.info["ended"]["how"]
        return {True: "training", False: "killed", None: "not ended"}[files.held(self.folder / ".lock")]

    @property
    def size(self) -> int:
        """Bytes in its folder."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*") if not path.is_dir())

    def delete(self) -> None:
        """Removes the folder and all that is in it; of a link the link alone.

        Raises:
            RunError: a training is writing into it.
            FileError: it may not be removed.
        """
        with self.lock():
            pass
        with files.explained(self.folder, "delete"):
            if self.folder.is_symlink():
                self.folder.unlink()
                return
            # First under a name that is no run's: killed on the way, it leaves no half of one. (Windows would not
            # rename it while its lock is open.)
            doomed = self.folder.with_name(f"{self.folder.name}.{secrets.token_hex(3)}{_DELETED}")
            self.folder.rename(doomed)
            for left in doomed.parent.glob(f"*{_DELETED}"):
                shutil.rmtree(left, ignore_errors=left != doomed)

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replaces run.json."""
        files.write_json(self.folder / "run.json", {"format": FORMAT, **info})
        self.__dict__.pop("info", None)

    def append_metrics(self, row: Mapping[str, float | int]) -> None:
        """Adds a line to metrics.jsonl."""
        path = self.folder / "metrics.jsonl"
        with files.explained(path), open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row) + "\n")

    def write_probe(self, step: int, tensors: Mapping[str, "Tensor"], about: Mapping[str, str]) -> None:
        """Writes a step's probe, in the place of one that is there.

        Args:
            about: words for the file's header.

        Raises:
            FileError: it could not be written.
        """
        with files.atomic_file(self._probe(step)) as partial:
            save_tensors(tensors, partial, about)

    def drop_probes(self, steps: Iterable[int]) -> None:
        """Removes the probes of some steps."""
        for step in steps:
            self._probe(step).unlink(missing_ok=True)

    def cut_back(self, step: int) -> None:
        """Forgets what came after a step: it will be made again."""
        path = self.folder / "metrics.jsonl"
        if path.is_file():
            kept = [json.dumps(row) + "\n" for row in self.metrics if row["step"] <= step]
            files.write_text(path, "".join(kept))
        self.drop_probes([one for one in self.probes if one > step])
        index = self.index
        index["snapshots"] = [one for one in index["snapshots"] if int(one.removeprefix("step-")) <= step]
        index["best"] = index["best_of_last"]
        if step == 0:  # but for weights that it began from
            index = {**_INDEX, "last": index["last"] if index["last"] == _START else None}
        self._switch(index)

    def write_checkpoint(self, label: str, step: int, fill: Callable[[Path], None]) -> None:
        """Writes a checkpoint whole, then lets the index name it.

        Args:
            label: `last`, `best`, or `snapshot` (which adds to the others of its kind).
            step: the step it is of.
            fill: writes its files into the folder it is handed.

        Raises:
            FileError: it could not be written; the checkpoint before it is untouched.
        """
        index = self.index
        name = f"step-{step:07d}" if label == "snapshot" else f"{label}-{step:07d}"
        if name in (index["last"], index["best"], *index["snapshots"]):
            return  # the same step of the same run: what is there is the same to the bit
        target = self.folder / "checkpoints" / name
        shutil.rmtree(target, ignore_errors=True)  # whole, but of a run that was killed before the index named it
        with files.atomic_folder(target) as folder:
            fill(folder)
        if label == "snapshot":
            index["snapshots"] = [*index["snapshots"], name]
        else:
            index[label] = name
        if label == "last":
            index["best_of_last"] = index["best"]
        self._switch(index)

    def _switch(self, index: dict[str, Any]) -> None:
        folder = self.folder / "checkpoints"
        files.write_json(folder / "index.json", index)
        files.sweep(folder)
        named = {index["last"], index["best"], index["best_of_last"], *index["snapshots"]}
        for left in folder.iterdir():
            if left.is_dir() and left.name not in named:
                shutil.rmtree(left, ignore_errors=True)


def check_across(x: str) -> None:
    """Raises RunError where there is no such measure of how far a training has come."""
    if x not in ACROSS:
        raise RunError(f"there are no curves against {x!r}.", f"against one of {', '.join(ACROSS)}.")


def create(name: str | None, stem: str, root: Path = RUNS) -> Run:
    """A new, empty run folder.

    Args:
        name: its name; None for the first free `<stem>-<number>`.
        stem: what the run is about, such as its corpus; made fit for a folder's name.
        root: the folder of all runs.

    Raises:
        RunError: the name is taken, or is no name.
    """
    if name is not None:
        check_free(name, root)
        folder = root / name
        with files.explained(folder):
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        return Run(folder)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(stem).stem).strip("-.") or "run"
    number = 1
    while True:
        folder = root / f"{stem}-{number}"
        number += 1
        with files.explained(folder):
            root.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            (folder / "checkpoints").mkdir()
        return Run(folder)


def check_free(name: str, root: Path = RUNS) -> None:
    """Raises RunError where a run of this name exists, or `name` can't be a folder's name on every system."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name.endswith("."):
        raise RunError(
            f"a run can't be called {name!r}.",
            "use letters, digits, '.', '_' and '-', beginning with a letter or digit; no path.",
        )
    if (root / name / "run.json").exists():
        raise RunError(
            f"there is a run {name!r} already.",
            f"continue it with --resume, choose another --run, or delete {root / name}.",
        )


def find(name: str | None, root: Path = RUNS, checkpoint: str = "best", trust_code: bool = False) -> Run:
    """The run of a name or folder; the one last written to where there is no name. Arguments as a Run's.

    Raises:
        RunError: there is none.
    """
    every = all_runs(root)
    if name is None:
        if not every:
            raise RunError("there is no run yet.", "train one: microformer train")
        return Run(every[-1].folder, checkpoint, trust_code)
    for folder in (root / name, Path(name)):
        if (folder / "run.json").is_file():
            return Run(folder, checkpoint, trust_code)
    meant = nearest(name, [run.name for run in every])
    hint = f"did you mean {meant!r}? " if meant else ""
    raise RunError(f"there is no run {name!r}.", f"{hint}`microformer runs` lists them.")


def all_runs(root: Path = RUNS) -> list[Run]:
    """Every run, the one last written to at the end."""
    found = [path.parent for path in root.glob("*/run.json") if path.parent.suffix != _DELETED]
    when = {}
    for folder in found:
        with suppress(FileNotFoundError):  # deleted meanwhile
            when[folder] = (folder / "run.json").stat().st_mtime_ns
    return [Run(folder) for folder in sorted(when, key=lambda folder: (when[folder], folder.name))]


def load_run(name: str | None = None, checkpoint: str = "best", trust_code: bool = False) -> Run:
    """A run to work with: `.model`, `.tokenizer`, `.settings`, `.metrics`.

    Args:
        name: a run's name or folder; None for the latest.
        checkpoint: `best`, `last`, or a snapshot's step.
        trust_code: whether its own components are run even if nothing was trained with them on this machine.

    Raises:
        RunError: there is none.
    """
    return find(name, checkpoint=checkpoint, trust_code=trust_code)


def save_tensors(tensors: Mapping[str, "Tensor"], path: Path, about: Mapping[str, str] | None = None) -> None:
    """Writes named tensors as safetensors.

    Args:
        about: words for the file's header.

    Raises:
        FileError: they can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        path.touch()
        may = path.stat().st_mode
        save_file(plain, path, dict(about)) if about else save_file(plain, path)
        path.chmod(may)  # the library's own file is for its owner alone
    except SafetensorError as error:
        raise FileError(
            f"can't write {path}: {error}.", "free some space on that disk; what was saved before is untouched."
        ) from error


def load_tensors(path: Path) -> dict[str, "Tensor"]:
    """Reads named tensors from safetensors; nothing in such a file is ever executed.

    Raises:
        RunError: it is missing, damaged, or another kind of file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _not_safetensors(path, error) from error


def _not_safetensors(path: Path, error: Exception) -> RunError:
    return RunError(
        f"{path} can't be read as safetensors: {error}.",
        "it is missing, cut short or another kind of file; restore it.",
    )


def tensors_header(path: Path) -> dict[str, str]:
    """The words in the header of a safetensors file; errors as for `load_tensors`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _not_safetensors(path, error) from error


def save_weights(model: "Microformer", path: Path) -> None:
    """Writes a model's weights, each once."""
    save_tensors(dict(model.named_parameters()), path)


def load_weights(model: "Microformer", path: Path) -> None:
    """Puts saved weights into a model.

    Raises:
        RunError: a tensor is missing, surplus, or of another shape; or the file can't be read.
    """
    import torch

    tensors = load_tensors(path)
    wanted = dict(model.named_parameters())
    for name in sorted(wanted.keys() ^ tensors.keys()):
        what = "lacks" if name in wanted else "has a surplus"
        raise RunError(
            f"{path} {what} {name!r}: it is of another model.", "run.json and the checkpoint don't belong together."
        )
    with torch.no_grad():
        for name, parameter in wanted.items():
            if parameter.shape != tensors[name].shape:
                raise RunError(
                    f"{path} has {name!r} in shape {tuple(tensors[name].shape)}, not {tuple(parameter.shape)}.",
                    "run.json and the checkpoint don't belong together.",
                )
            parameter.copy_(tensors[name])
