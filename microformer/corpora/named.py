"""The corpora that have a name, and where each is found: a classroom's folder, the user's cache, its publisher.

They are found as files and stay where they are; nothing here reads text.
"""

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from microformer import files
from microformer.corpora import tasks
from microformer.corpora.fetching import fetch
from microformer.errors import DataError, SettingsError, nearest, notice

FALLBACK = "pydocs"
MIRROR = "MICROFORMER_CORPORA"


@dataclass(frozen=True)
class NamedCorpus:
    """A text known by name.

    Args:
        name: as in CORPUS and --corpus; the file is called `<name>.txt`.
        about: what it is, in a line.
        licence: under which it may be used.
        bytes: its size; 0 if that depends on the machine.
        url: where it is published; "" if it is made here.
        sha256: the checksum of the file; "" if it is made here.
    """

    name: str
    about: str
    licence: str
    bytes: int = 0
    url: str = ""
    sha256: str = ""


_TABLE = (
    NamedCorpus(
        name="tinyshakespeare",
        about="40,000 lines from Shakespeare's plays, as char-rnn and nanoGPT use them; 65 different characters",
        licence="public domain",
        bytes=1_115_394,
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    NamedCorpus(
        name="pydocs",
        about="the documentation topics that ship with Python; needs no network, differs between versions of Python",
        licence="PSF-2.0",
    ),
)
CORPORA = {corpus.name: corpus for corpus in _TABLE}


def every() -> list[NamedCorpus]:
    """All corpora that have a name, and the tasks with their usual arguments."""
    return [*CORPORA.values(), *(named(tasks.PREFIX + word) for word in tasks.TASKS)]


def named(name: str) -> NamedCorpus:
    """The corpus of that name.

    Raises:
        SettingsError: there is none.
    """
    if name in CORPORA:
        return CORPORA[name]
    if (task := tasks.find(name)) is not None:
        return NamedCorpus(task.name, task.about, "made here")
    names = [*CORPORA, *(tasks.PREFIX + word for word in tasks.TASKS)]
    meant = nearest(name, names)
    known = f"`microformer corpora` lists them: {', '.join(names)}. Your own text: microformer prepare --input FILE."
    as_a_file = " and no such file" if "." in name or "/" in name or os.sep in name else ""
    raise SettingsError(
        f'there is no corpus "{name}"{as_a_file}.', f'did you mean "{meant}"? {known}' if meant else known
    )


def stored(name: str) -> Path | None:
    """Where the corpus lies on this machine already, unchecked; None if it would have to be fetched or made."""
    for place in (_mirrored(named(name)), _cached(named(name))):
        if place is not None and place.is_file():
            return place
    return None


def find(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The file of a named corpus: from the folder that MICROFORMER_CORPORA names, else the cache, else fetched or made.

    Raises:
        SettingsError: there is no such corpus.
        NoNetwork: it would have to be fetched, and can't be.
        DataError: the mirror's file or the server's is another one.
    """
    corpus = named(name)
    mirrored = _mirrored(corpus)
    if mirrored is not None and mirrored.is_file():
        if corpus.sha256 and files.sha256(mirrored) != corpus.sha256:
            raise DataError(
                f"{mirrored} is not the corpus {name}: its SHA-256 is another.",
                f"replace it by the file from {corpus.url}, or unset {MIRROR}.",
            )
        return mirrored
    cached = _cached(corpus)
    if corpus.url:
        if not cached.is_file() or files.sha256(cached) != corpus.sha256:
            fetch(corpus.url, cached, corpus.sha256, progress)
    elif not cached.is_file():
        task = tasks.find(name)
        files.write_text(cached, _python_topics() if task is None else task.text())
    return cached


def _mirrored(corpus: NamedCorpus) -> Path | None:
    folder = os.environ.get(MIRROR)
    if not folder:
        return None
    if not Path(folder).is_dir():
        notice(f"{MIRROR} names {folder}, which is no folder: it is left aside.")
        return None
    return Path(folder) / f"{corpus.name}.txt"


def _cached(corpus: NamedCorpus) -> Path:
    # What is made from Python's own files is another text in another Python.
    version = f"-{platform.python_version()}" if corpus.name == FALLBACK else ""
    name = re.sub(r"\W+", "-", corpus.name).strip("-")
    return files.cache_folder() / "corpora" / f"{name}{version}.txt"


def _python_topics() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "this Python comes without its documentation topics, which pydocs is made from.",
            "use a text of your own: microformer prepare --input FILE.",
        ) from error
    return "\n\n".join(topics[title].strip() for title in sorted(topics)) + "\n"
