"""From settings to prepared data. Knows which corpus is meant; reading and encoding it is the corpora's."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from microformer import corpora
from microformer.corpora.prepared import MANIFEST, copied, read_manifest
from microformer.corpora.preparing import Progress, locked, not_again
from microformer.corpora.reading import STANDARD_INPUT
from microformer.errors import DataError, RunError, notice
from microformer.runs import Run
from microformer.settings import Settings
from microformer.tokenization import KINDS

DATA = Path("data")
APART = DATA / ".prepared"


def prepare(chosen: Settings, inputs: Sequence[str] = (), progress: Progress | None = None) -> corpora.Prepared:
    """Prepares what the settings and `inputs` (files, folders, or `-`) name, whatever was prepared before.

    Raises:
        MicroformerError: a text that can't be read, is too short, or can't be written down; see `corpora.prepare`.
    """
    source = source_of(chosen, inputs)
    return corpora.prepare(DATA, source, **how_to_prepare(chosen), workers=chosen.data.workers, progress=progress)


def source_of(chosen: Settings, inputs: Sequence[str] = ()) -> corpora.Source:
    """What `prepare` reads."""
    otherwise = corpora.choose_source(DATA, None, chosen.data.corpus)
    asked = _limited(chosen, corpora.Source.files(*inputs)) if inputs else _asked(chosen, otherwise)
    return corpora.choose_source(DATA, asked, chosen.data.corpus)


def prepared_data(chosen: Settings, progress: Progress | None = None) -> corpora.Prepared:
    """The prepared data that the settings want, made first if it is not there. Errors as for `prepare`."""
    return corpora.ensure_prepared(
        DATA,
        explicit=_asked(chosen, _otherwise(chosen, DATA)),
        default_corpus=chosen.data.corpus,
        **how_to_prepare(chosen),
        workers=chosen.data.workers,
        progress=progress,
    )


def prepared_apart(chosen: Settings, folder: Path = Path(), inputs: Sequence[str] = ()) -> corpora.Prepared:
    """The prepared data that the settings want, in a folder called by its fingerprint, `data/.prepared/…`, where it
    stays what it is whatever is prepared in data/ later. What lies in data/ is left alone.

    Args:
        folder: where data/ is, and where the paths in the settings begin.
        inputs: files and the like to read, in place of the settings' corpus.

    Raises:
        MicroformerError: as for `prepare`.
    """
    data, apart = folder / DATA, folder / APART
    how = how_to_prepare(chosen, folder)
    if inputs:
        explicit = _limited(chosen, corpora.Source.files(*inputs, base=folder))
    else:
        explicit = _asked(chosen, _otherwise(chosen, data), folder)
    with locked(apart):
        source, reason = corpora.what_to_prepare(data, explicit=explicit, default_corpus=chosen.data.corpus, **how)
        if reason is None:
            with locked(data):
                return _apart(data, apart)
        source = replace(source, explicit=True)
        if STANDARD_INPUT in source.inputs:
            raise not_again(reason)
        for manifest in sorted(apart.glob(f"[0-9a-f]*/{MANIFEST}")):
            _, why = corpora.what_to_prepare(manifest.parent, explicit=source, default_corpus="", **how)
            if why is None:
                with suppress(DataError):  # damaged: it is made again
                    return corpora.load_prepared(manifest.parent)
        notice(f"preparing {source} for a comparison.")
        # It can be gone on with there, if it is stopped on the way.
        said = json.dumps([source.to_dict(folder), how], sort_keys=True)
        new = apart / f"new-{hashlib.sha256(said.encode()).hexdigest()[:10]}"
        corpora.prepare(new, source, **how, workers=chosen.data.workers)
        found = _apart(new, apart)
        shutil.rmtree(new, ignore_errors=True)
        return found


def _apart(found: Path, apart: Path) -> corpora.Prepared:
    """A set at the place of its fingerprint, opened; put there first, if it isn't there whole.

    Raises:
        DataError: the set is damaged.
    """
    place = apart / corpora.load_prepared(found).fingerprint
    if read_manifest(place) is not None:
        with suppress(DataError):
            return corpora.load_prepared(place)
    shutil.rmtree(place, ignore_errors=True)
    copied(found, place)
    return corpora.load_prepared(place)


def apart_of(fingerprint: str) -> corpora.Prepared:
    """The data of a fingerprint, as `prepared_apart` left it.

    Raises:
        DataError: there is none, or it is damaged.
    """
    return corpora.load_prepared(APART / fingerprint)


def data_of(run: Run) -> corpora.Prepared:
    """The data that a run was trained on: in data/, or in the place of its fingerprint.

    Raises:
        RunError: what lies in data/ is another.
        DataError: nothing lies there, or it is damaged.
    """
    fingerprint = run.info["data"]["fingerprint"]
    current = read_manifest(DATA)
    elsewhere = fingerprint and (current is None or current["fingerprint"] != fingerprint)
    if elsewhere and read_manifest(APART / fingerprint) is not None:
        return apart_of(fingerprint)
    data = corpora.load_prepared(DATA)
    if fingerprint is None:  # imported: its own data is elsewhere, and any text may be read by it
        check_tokenizer(data, run)
        return data
    check_same(data, fingerprint, f"the run {run.name!r}")
    return data


def check_tokenizer(data: corpora.Prepared, run: Run) -> None:
    """Raises RunError where the data has another tokenizer than the run."""
    if data.tokenizer.to_dict() != run.tokenizer.to_dict():
        raise RunError(
            f"what is prepared in {DATA} ({data.corpus}) is not in the tokens of the run {run.name!r}.",
            f"prepare a text with its tokenizer: microformer prepare --tokenizer {run.folder.as_posix()}/tokenizer.json"
            " --input FILE; or, for eval, name one: --text FILE.",
        )


def check_same(data: corpora.Prepared, fingerprint: str, whose: str) -> None:
    """Raises RunError where the data has another fingerprint."""
    if data.fingerprint != fingerprint:
        raise RunError(
            f"{whose} was trained on other data than what is prepared in {DATA} now ({data.corpus}).",
            "prepare the same text with the same tokenizer and split again: microformer prepare.",
        )


def _otherwise(chosen: Settings, data: Path) -> corpora.Source:
    """What is read where the user names no corpus."""
    manifest = read_manifest(data)
    if manifest and (remembered := corpora.Source.from_dict(manifest["source"], data)).explicit:
        return remembered
    return corpora.choose_source(data, None, chosen.data.corpus)


def _asked(chosen: Settings, otherwise: corpora.Source, base: Path = Path()) -> corpora.Source | None:
    """The corpus that the user asked for, by flag or config; None if they left it to what lies in data/.

    Args:
        otherwise: what is read where they name none; an encoding of their own is about its files.
        base: where paths begin.
    """
    data = chosen.data
    if "corpus" in chosen.explicit:
        # A name wins over a file that happens to be called so; ./name means the file.
        a_name = data.corpus in corpora.CORPORA or not (
            (base / data.corpus).exists() or corpora.Source.is_input(data.corpus)
        )
        named = corpora.Source.named(data.corpus) if a_name else corpora.Source.files(data.corpus, base=base)
        return _limited(chosen, named)
    limits = {"text_field", "max_documents", "max_bytes"} | ({"encoding"} if otherwise.inputs else set())
    if limits & set(chosen.explicit):
        return _limited(chosen, replace(otherwise, explicit=True))
    return None


def _limited(chosen: Settings, source: corpora.Source) -> corpora.Source:
    """The source as the settings say that it is to be read."""
    data = chosen.data
    encoding = source.encoding if source.corpus else data.encoding
    limits = {"max_documents": data.max_documents, "max_bytes": data.max_bytes}
    return replace(source, encoding=encoding, text_field=data.text_field, **limits)


def how_to_prepare(chosen: Settings, base: Path = Path()) -> dict[str, Any]:
    """Tokenizer, size and split, as `corpora.prepare` takes them; None for what the settings leave alone.

    Args:
        base: where a tokenizer's path begins.
    """
    data, explicit = chosen.data, chosen.explicit
    return {
        "tokenizer": data.tokenizer if data.tokenizer in KINDS else os.path.join(base, data.tokenizer),
        "vocab_size": chosen.model.vocab_size if "vocab_size" in explicit else None,
        "val_fraction": data.val_fraction if "val_fraction" in explicit else None,
        "test_fraction": data.test_fraction if "test_fraction" in explicit else None,
        "unknown": data.unknown,
    }
