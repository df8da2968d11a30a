"""The folder we are in and the user's cache: settings, corpora, room, prepared data, runs. Reads; what it writes, to
see whether it can, is a file without a name that is gone at once."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from microformer import files, own_code, runs, settings
from microformer.errors import DataError, FileError, MicroformerError
from microformer.pipeline.doctor.findings import Around, Finding, mend, note, ok, size
from microformer.settings import Settings

# What is read and hashed in one go without keeping anybody waiting.
_HASHED = 2_000_000_000
_RUNS_SECONDS = 8.0
_WITHOUT_CACHE = "mend it, or its disk; until then corpora are fetched, and the machine is timed, each time anew."
_SHOWN = 5  # damaged runs that are told one by one


def settings_file(around: Around) -> Iterator[Finding]:
    """Whether config.py can be followed, and what it changes."""
    there = Path("config.py").is_file()
    chosen = settings.resolve()
    own_code.read(one for found in settings.own_components(chosen).values() for one in found)
    changed = {name.upper(): value for name, value in chosen.flat().items() if value != Settings().flat()[name]}
    listed = ", ".join(f"{name} = {value!r}" for name, value in list(changed.items())[:8])
    more = f" and {len(changed) - 8} more" if len(changed) > 8 else ""
    if not there:
        yield ok("no config.py here: the defaults")
    else:
        yield ok(f"config.py: {f'{listed}{more}' if changed else 'all at their defaults'}")


def settings_here(around: Around) -> Settings:
    """What config.py says, or the defaults where it can't be followed; that is told elsewhere."""
    if "settings" not in around.fatal:
        with suppress(MicroformerError):
            return settings.resolve()
    return Settings()


def room(around: Around) -> Iterator[Finding]:
    """Whether runs, data and the cache can be written, and whether there is room."""
    needed = _size_of_a_run(settings_here(around))
    cached = f"the cache ({_at_home(files.cache_folder())})"
    places = {"runs/": runs.RUNS, "data/": Path("data"), cached: files.cache_folder()}
    well: dict[tuple[int, str], list[str]] = {}
    ill: dict[Finding, list[str]] = {}  # said of all names together
    for name, place in places.items():
        there = next(folder for folder in (place, *place.absolute().parents) if folder.is_dir())
        worse, hint = (note, _WITHOUT_CACHE) if name == cached else (mend, "")
        free = shutil.disk_usage(there).free
        try:
            _try_to_write(there)
        except FileError as error:
            reason = error.sentence.rpartition(": ")[2].rstrip(".")
            ill.setdefault(worse(f"can't be written: {reason}.", hint or error.hint), []).append(name)
            continue
        if free < needed:
            said = (
                f"can be written, but {size(free)} are free, and a run of the settings here takes up to {size(needed)}."
            )
            ill.setdefault(
                worse(said, "free some space on that disk; SNAPSHOTS = False makes runs smaller."), []
            ).append(name)
        else:
            well.setdefault((there.stat().st_dev, size(free)), []).append(name)
    for finding, names in ill.items():
        yield replace(finding, said=f"{_listed(names)} {finding.said}")
    for (_device, free), names in well.items():
        yield ok(f"{_listed(names)} can be written; {free} free")


def corpus(around: Around) -> Iterator[Finding]:
    """Whether the text that a training here would read is at hand, and what was fetched before is what it should be."""
    from microformer import corpora
    from microformer.corpora import named
    from microformer.pipeline.preparing import source_of

    folder = os.environ.get(named.MIRROR)
    if folder and not Path(folder).is_dir():
        yield note(f"{named.MIRROR} names {folder}, which is no folder.", "mend it, or unset it.")
    source = source_of(settings_here(around))
    if not source.corpus:
        yield from _own_text(source)
    elif (place := corpora.stored(source.corpus)) is not None:
        yield ok(f"{source}: at hand in {_at_home(place.parent)}")
    elif (about := named.named(source.corpus)).url or about.hub:
        without = f"; without a network it takes {named.FALLBACK}" if not source.explicit else ""
        yield ok(f"{source}: not here yet; the first training fetches it ({size(about.bytes)}){without}")
    else:
        yield ok(f"{source}: made here when it is wanted")
    for one in corpora.CORPORA.values():
        place = corpora.stored(one.name) if one.sha256 else None
        if place is None or files.sha256(place) == one.sha256:
            continue
        cached = files.cache_folder() in place.parents
        yield (note if cached else mend)(
            f"{files.shown(place)} is not the corpus {one.name}: its SHA-256 is another.",
            "it is fetched anew when it is wanted; or delete it."
            if cached
            else f"replace it by the file of {one.url}.",
        )


def data(around: Around) -> Iterator[Finding]:
    """Whether the prepared data are what they were when they were made, and what a training here would train on."""
    from microformer import corpora
    from microformer.corpora.prepared import MANIFEST, read_manifest

    folder = Path("data")
    if files.held(folder / ".lock"):
        yield ok("a preparation is at work in data/ just now")
        return
    if read_manifest(folder) is None:
        if (folder / MANIFEST).exists() or (folder / "train.pt").exists():
            yield note("the last preparation was not finished.", "the next one goes on with it: microformer prepare.")
        else:
            yield ok("nothing is prepared in data/ yet; the first training does it")
    else:
        found = corpora.load_prepared(folder)
        _check_hashes(found)
        tokens = sum(len(part) for part in (found.train, found.val, found.test) if part is not None)
        yield ok(f"data/: {found.corpus}, {tokens:,} tokens, as they were made (fingerprint {found.fingerprint[:12]})")
    apart = sorted((folder / ".prepared").glob(f"*/{MANIFEST}"))
    whole = 0
    for manifest in apart:
        try:
            _check_hashes(corpora.load_prepared(manifest.parent))
            whole += 1
        except MicroformerError as error:
            yield note(
                error.sentence, f"delete the folder {files.shown(manifest.parent)}; it is made again when wanted."
            )
    if whole:
        yield ok(f"data/.prepared/: {whole} more, as they were made")


def all_runs(around: Around) -> Iterator[Finding]:
    """Whether every run can be read, which are being written, and which were stopped."""
    every = runs.all_runs()[::-1]
    began, looked = time.monotonic(), 0
    damaged: list[Finding] = []
    written, stopped = [], []
    for run in every:
        if time.monotonic() - began > _RUNS_SECONDS:
            break
        looked += 1
        if files.held(run.folder / ".lock"):
            written.append(run.name)
            continue
        try:
            _check_run(run)
            ended = run.info["ended"]
            if ended is None or ended["how"] == "interrupted":
                stopped.append(run.name)
        except MicroformerError as error:
            damaged.append(mend(f"{run.name}: {error.sentence}", error.hint))
        except Exception as error:  # what a hand-edited run.json can lead to
            damaged.append(mend(f"{run.name} can't be read: {type(error).__name__} {error}.", "restore or delete it."))
    half = [path.name for path in runs.RUNS.glob("*") if (path / "checkpoints").is_dir() and path.suffix != ".deleted"]
    half = sorted(set(half) - {run.name for run in every})
    if not every:
        yield ok("none here yet")
    elif not damaged:
        whole = "all can be read" if looked == len(every) else f"the latest {looked} can be read"
        yield ok(f"{len(every)}: {whole}{f'; being written now: {_names(written)}' if written else ''}")
    yield from damaged[:_SHOWN]
    if len(damaged) > _SHOWN:
        yield mend(f"and {len(damaged) - _SHOWN} more are damaged.", "microformer runs lists those that are not.")
    if stopped:
        yield note(
            f"stopped before their end: {_names(stopped)}.",
            f"go on with one: microformer train --resume --run {stopped[0]}",
        )
    if half:
        yield note(f"in runs/, and no runs: {_names(half)}.", "they were stopped before they began; delete them.")


def _own_text(source: Any) -> Iterator[Finding]:
    """Whether the user's own files are there. source: a `corpora.Source` of files."""
    from microformer.corpora.reading import expanded

    if source.local:
        found = expanded(source)
        yield ok(f"{source}: {size(sum(path.stat().st_size for path in found))}")
    else:
        yield ok(f"{source}: comes from elsewhere, and is not looked at")


def _check_hashes(found: Any) -> None:
    """Raises DataError where large tensors are not what they were: those that are opened on trust in their time."""
    for name, record in found.manifest["files"].items():
        path = found.folder / name
        if record["bytes"] <= _HASHED and files.sha256(path) != record["sha256"]:
            raise DataError(
                f"{files.shown(path)} is not what was prepared: its contents changed.",
                "prepare it again: microformer prepare.",
            )


def _check_run(run: runs.Run) -> None:
    """Raises what a later use of the run would, as far as that can be seen without building the model."""
    from microformer.models.spec import ModelSpec

    ModelSpec.from_json(run.info["model"])
    _ = run.settings, run.tokenizer, run.metrics
    index = run.index
    for name in {index["last"], index["best"], *index["snapshots"]} - {None}:
        folder = run.folder / "checkpoints" / name
        runs.tensors_header(folder / "model.safetensors")
        if name == index["last"]:
            runs.tensors_header(folder / "training.safetensors")
            files.read_json(folder / "training.json")
    for step in run.probes:
        runs.tensors_header(run.folder / "probes" / f"step-{step:07d}.safetensors")


def _size_of_a_run(chosen: Settings) -> int:
    """About the most bytes that a run takes: weights in float32, in each snapshot, at the best, and three times in the
    last checkpoint, with the optimizer's memory."""
    model = chosen.model
    layer = 4 * model.embed_dim**2 + 3 * model.embed_dim * model.ff_dim
    parameters = model.num_layers * layer + 2 * model.vocab_size * model.embed_dim
    kept = (20 if chosen.training.snapshots else 0) + 1 + 2 * 3  # `last` is there twice while it is replaced
    return kept * 4 * parameters


def _try_to_write(folder: Path) -> None:
    """Raises FileError where a file can't be written there, or not to its end."""
    with files.explained(folder, "write into"), tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())


def _at_home(path: Path) -> str:
    """A path as a user would say it: ~ for their own folder."""
    return f"~/{path.relative_to(Path.home()).as_posix()}" if Path.home() in path.parents else str(path)


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _names(found: list[str]) -> str:
    return ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
