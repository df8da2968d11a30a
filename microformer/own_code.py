"""A user's own components: finding their files, running them, and trusting them. Knows no training and no run folder.

    ATTENTION = "my_attention.py:MyAttention"        a file that stands alone, and a class in it

A file that the user names on the command line or in config.py is run as any program of theirs is. The copy in a run
folder is run only where the user trained with the same file on this machine, whose hash is then in a list of their own,
or where they say so: nothing inside a folder that somebody sends can vouch for itself. What is run is what was hashed.
"""

import ast
import hashlib
import linecache
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType

from microformer import devices, files
from microformer.errors import CodeError, MicroformerError, nearest
from microformer.models.grammar import Own
from microformer.models.spec import ModelSpec

# Of what a file may import: what is there wherever Microformer is.
_AT_HAND = {*sys.stdlib_module_names, "torch", "microformer", "numpy", "jaxtyping"}


@dataclass(frozen=True)
class Code:
    """The files of own components, as they were read.

    Args:
        sources: each file's bytes, by its name.
        places: where each was read.
    """

    sources: Mapping[str, bytes] = field(default_factory=dict)
    places: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Each file's SHA-256, in hex, by its name."""
        return {name: hashlib.sha256(source).hexdigest() for name, source in sorted(self.sources.items())}

    def loaded(self, own: Own, base: type) -> Own:
        """The component with its class, whose file is run for it; its `file` is the file's name alone.

        Args:
            base: what a component of its slot is a subclass of.

        Raises:
            CodeError: the file can't be run, has no such class, or it is not of this slot.
        """
        name, place = own.file_name, self.places.get(own.file_name)
        if place is None:
            raise CodeError(f"{own} is named, and the code for it is missing.", "restore it, or start a new run.")
        module = self._module(name)
        found = {one: value for one, value in vars(module).items() if isinstance(value, type)}
        found = {one: value for one, value in found.items() if value.__module__ == module.__name__}
        made = found.get(own.name)
        if made is None:
            meant = nearest(own.name, found)
            hint = f"did you mean {meant}?" if meant else f"it has: {', '.join(found) or 'no class at all'}."
            raise CodeError(f"{place} has no class {own.name!r}.", hint)
        if not issubclass(made, base):
            raise CodeError(
                f"{self.where(made)}: {own.name} is no {base.__name__}.",
                f"from {base.__module__} import {base.__name__}, and class {own.name}({base.__name__}).",
            )
        if base is not object and (missing := sorted(getattr(made, "__abstractmethods__", ()))):
            raise CodeError(
                f"{self.where(made)}: {own.name} has no method {missing[0]!r}.",
                f"{base.__module__}.{base.__name__} says what it is given and gives.",
            )
        return replace(own, file=name, made=made)

    def joined(self, other: "Code", names: set[str]) -> "Code":
        """This and some files of another.

        Raises:
            CodeError: two of one name differ.
        """
        for name in names & self.sources.keys():
            if self.sources[name] != other.sources[name]:
                raise _two_of_one_name(self.places[name], other.places[name])
        sources = {name: other.sources[name] for name in names}
        places = {name: other.places[name] for name in names}
        return Code({**sources, **self.sources}, {**places, **self.places})

    def where(self, made: type) -> str:
        """File and line at which a class begins."""
        name = next(one for one in self.sources if self._module_name(one) == made.__module__)
        tree = ast.parse(self.sources[name])
        line = next((n.lineno for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == made.__name__), 1)
        return f"{self.places[name]}, line {line}"

    def copy(self, folder: Path) -> None:
        """Writes the files into a run's folder for them."""
        for name, source in self.sources.items():
            with files.atomic_file(folder / name) as partial:
                partial.write_bytes(source)

    def trust(self) -> None:
        """Adds the files to the user's list."""
        for name, digest in self.hashes.items():
            files.write_text(trusted() / digest, f"{name}\n")

    def check_trusted(self, whose: str) -> None:
        """Raises CodeError where a file is not in the user's list. whose: what it came with, for the error."""
        for name, digest in self.hashes.items():
            if not (trusted() / digest).is_file():
                raise CodeError(
                    f"{whose} has code of its own, {name}, that nothing was trained with on this machine.",
                    f"read {self.places[name]} first; if you trust it, add --trust-code (from Python trust_code=True).",
                )

    @contextmanager
    def explained(self, blamed: Iterable[type] = ()) -> Iterator[None]:
        """Turns what goes wrong in one of the files into a CodeError that points at its line.

        Args:
            blamed: classes of which one is at fault where nothing in the files was being executed.
        """
        try:
            yield
        except Exception as error:
            told, blamed = isinstance(error, MicroformerError), list(blamed)
            if isinstance(error, CodeError) or (told and not blamed) or devices.out_of_memory(error):
                raise
            places = {str(place) for place in self.places.values()}
            lines = [f"{at.filename}, line {at.lineno}" for at in _frames(error) if at.filename in places]
            where = lines[-1] if lines else self.blamed(blamed)
            if not where:
                raise
            if isinstance(error, MicroformerError):
                raise CodeError(f"{where}: {error.sentence}", error.hint) from error
            raise CodeError(
                f"{where}: {type(error).__name__}: {_in_a_line(error)}.",
                "mend it in your own file, for a run keeps its copy; --debug shows where it came from.",
            ) from error

    def blamed(self, classes: Iterable[type]) -> str:
        """Where classes begin of which one is at fault."""
        return " or ".join(f"{self.where(one)} ({one.__name__})" for one in dict.fromkeys(classes))

    def _module(self, name: str) -> ModuleType:
        source, place, called = self.sources[name], self.places[name], self._module_name(name)
        if called in sys.modules:
            return sys.modules[called]
        self._check_alone(name)
        module = ModuleType(called)
        module.__file__ = str(place)
        # Dataclasses look their module up there, and tracebacks and PyTorch's compiler the lines of its source.
        sys.modules[called] = module
        lines = source.decode("utf-8", "replace").splitlines(True)
        linecache.cache[str(place)] = (len(source), None, lines, str(place))
        try:
            with self.explained():
                exec(compile(source, str(place), "exec"), module.__dict__)
        except SystemExit as error:
            del sys.modules[called]
            raise CodeError(f"{place} ends the program while it is run: {error!r}.", "take that out.") from error
        except BaseException:
            del sys.modules[called]
            raise
        return module

    def _module_name(self, name: str) -> str:
        place = self.places[name]
        digest = hashlib.sha256(str(place.absolute()).encode("utf-8", "surrogateescape") + self.sources[name])
        return f"own_{place.stem}_{digest.hexdigest()[:12]}"

    def _check_alone(self, name: str) -> None:
        """Raises CodeError where a file is no Python, or wants another that would not be there with the run."""
        place = self.places[name]
        try:
            tree = ast.parse(self.sources[name])
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            raise CodeError(
                f"{place}{f', line {line}' if line else ''}: {getattr(error, 'msg', error)}.", "mend that line."
            ) from error
        wanted: list[tuple[int, str]] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted += [(node.lineno, one.name) for one in node.names]
            if isinstance(node, ast.ImportFrom):
                wanted.append((node.lineno, "." * node.level + (node.module or "")))
        for line, module in wanted:
            if module.partition(".")[0] not in _AT_HAND:
                raise CodeError(
                    f"{place}, line {line}: {module!r} can't be imported, for a component's file goes into the run "
                    "folder alone.",
                    "it may import Python's own library, torch, numpy, jaxtyping and microformer.",
                )


def read(components: Iterable[Own], folder: Path | None = None) -> Code:
    """Reads the files of components; runs nothing.

    Args:
        folder: where the files are, under their names alone, such as a run's; None: where they say.

    Raises:
        CodeError: a file is missing, or two of one name differ.
    """
    sources: dict[str, bytes] = {}
    places: dict[str, Path] = {}
    for own in components:
        name = own.file_name
        place = Path(own.file) if folder is None else folder / name
        if not place.is_file():
            near = nearest(name, [path.name for path in place.parent.glob("*.py")])
            raise CodeError(
                f"{own} names {place}, and there is no such file.",
                f"did you mean {place.parent / near}?" if near else "paths begin in the folder that you are in.",
            )
        with files.explained(place, "read"):
            source = place.read_bytes()
        if sources.setdefault(name, source) != source:
            raise _two_of_one_name(places[name], place)
        places.setdefault(name, place)
    return Code(sources, places)


def model_bases() -> dict[str, type]:
    """What a component of each slot of a model is a subclass of."""
    from microformer.models.feedforward import FeedForward
    from microformer.models.kernels import Kernel
    from microformer.models.memory import Memory
    from microformer.models.norms import Norm
    from microformer.models.positions import PositionKind

    return {
        "attention": Kernel, "positions": PositionKind, "feedforward": FeedForward, "norm": Norm, "memory": Memory,
    }  # fmt: skip


def bound(spec: ModelSpec, code: Code) -> ModelSpec:
    """A model's spec with the classes of its own components.

    Raises:
        CodeError: one can't be loaded.
        SettingsError: what a component declares of itself does not go with the rest.
    """
    if not spec.own:
        return spec
    bases = model_bases()
    return spec.with_own(lambda slot, own: code.loaded(own, bases[slot]))


def trusted() -> Path:
    """The user's list: a file for each hash, in a folder that is theirs."""
    import platformdirs

    return Path(platformdirs.user_data_dir("microformer", appauthor=False)) / "trusted"


def _two_of_one_name(one: Path, other: Path) -> CodeError:
    return CodeError(f"{one} and {other} have one name, and a run keeps one file of each.", "rename one of them.")


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Where it was raised, and where it was raised from."""
    frames: list[traceback.FrameSummary] = []
    seen: BaseException | None = error
    while seen is not None:
        frames = list(traceback.extract_tb(seen.__traceback__)) + frames
        seen = seen.__cause__
    return frames


def _in_a_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "it says no more"
