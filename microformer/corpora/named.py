"""The corpora that have a name, and where each is found: a classroom's folder, the user's cache, its publisher.

They are found as files and stay where they are; nothing here reads text. Those published on the Hugging Face hub come
by hub.py.
"""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from microformer import files
from microformer.corpora import hub, tasks
from microformer.corpora.fetching import ByteProgress, fetch
from microformer.corpora.formats import File, members
from microformer.errors import DataError, SettingsError, nearest, notice

FALLBACK = "pydocs"
MIRROR = "MICROFORMER_CORPORA"


@dataclass(frozen=True)
class NamedCorpus:
    """A text known by name.

    Args:
        name: as in CORPUS and --corpus.
        about: what it is, in a line.
        licence: under which it may be used.
        bytes: its size as text, about, where it comes from the hub; 0 if that depends on the machine.
        url: the file that is published; "" if there is none.
        sha256: the checksum of that file.
        hub: for each part of its split (train, val, test) the dataset that it is, as hub.py spells it.
        split: sizes of train, val and test in bytes, where they are agreed on; () for the settings' shares.
        in_articles: whether its rows are lines, to be joined to articles.
    """

    name: str
    about: str
    licence: str
    bytes: int = 0
    url: str = ""
    sha256: str = ""
    hub: tuple[tuple[str, str], ...] = ()
    split: tuple[int, ...] = ()
    in_articles: bool = False

    @property
    def convention(self) -> str:
        """How it is split, in words."""
        if self.split:
            return "/".join(f"{size / 1e6:g}M" for size in self.split)
        if len(self.hub) > 1:
            return "/".join(part for part, _ in self.hub)
        return f"{tasks.HELD_OUT:g} held out" if self.name.startswith(tasks.PREFIX) else "VAL_FRACTION"


_HUNDRED = (90_000_000, 5_000_000, 5_000_000)
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
        name="text8",
        about="the first 100 MB of English Wikipedia's text, as a to z and spaces (Mahoney)",
        licence="CC BY-SA",
        bytes=100_000_000,
        url="https://mattmahoney.net/dc/text8.zip",
        sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        split=_HUNDRED,
    ),
    NamedCorpus(
        name="enwik8",
        about="the first 100 MB of English Wikipedia with its markup (Hutter prize); with TOKENIZER = byte",
        licence="CC BY-SA",
        bytes=100_000_000,
        url="https://mattmahoney.net/dc/enwik8.zip",
        sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        split=_HUNDRED,
    ),
    NamedCorpus(
        name="openwebtext",
        about="eight million web pages, in place of GPT-2's WebText (Gokaslan and Cohen 2019)",
        licence="CC0 for the packaging",
        bytes=39_769_491_688,
        hub=(("", "hf:Skylion007/openwebtext:train:text"),),
    ),
    NamedCorpus(
        name="tinystories",
        about="two million short stories in a small child's words, written by GPT-3.5 and 4 (Eldan and Li 2023)",
        licence="CDLA-Sharing-1.0",
        bytes=1_922_000_000,
        hub=(
            ("train", "hf:roneneldan/TinyStories:train:text"),
            ("val", "hf:roneneldan/TinyStories:validation:text"),
        ),
    ),
    *(
        NamedCorpus(
            name=f"wikitext{size}",
            about=f"Wikipedia's good and featured articles, {words} words, as they were written (Merity et al. 2016)",
            licence="CC BY-SA 3.0",
            bytes=count,
            hub=tuple(
                (part, f"hf:Salesforce/wikitext/wikitext-{size}-raw-v1:{split}:text")
                for part, split in (("train", "train"), ("val", "validation"), ("test", "test"))
            ),
            in_articles=True,
        )
        for size, words, count in ((2, "two million", 13_400_000), (103, "a hundred million", 545_000_000))
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
    corpus = named(name)
    if corpus.hub:
        found = [hub.stored(spelt) for _, spelt in corpus.hub]
        return found[0].parent if found[0] is not None and None not in found else None
    for place in (_mirrored(corpus), _cached(corpus)):
        if place is not None and place.is_file():
            return place
    return None


def find(name: str, progress: ByteProgress | None = None, max_documents: int = 0, max_bytes: int = 0) -> list[File]:
    """The files of a named corpus: from the folder that MICROFORMER_CORPORA names, the cache, else fetched or made.

    Args:
        max_documents, max_bytes: where to stop fetching, of a corpus that comes row by row; 0 for the end.

    Raises:
        SettingsError: there is no such corpus.
        NoNetwork: it would have to be fetched, and can't be.
        DataError: the mirror's file or the server's is another one.
    """
    corpus = named(name)
    if corpus.hub:
        joined = hub.articles if corpus.in_articles else None
        limits = (max_documents, max_bytes)
        # A limit is for what is learned from; what it is measured on stays as published.
        return [
            file
            for part, spelt in corpus.hub
            for file in hub.fetched(spelt, *(limits if part in ("", "train") else (0, 0)), progress, part, joined)
        ]
    path = _file(corpus, progress)
    return [File(path, member) for member in members(path)] if path.suffix == ".zip" else [File(path)]


def _file(corpus: NamedCorpus, progress: ByteProgress | None) -> Path:
    mirrored = _mirrored(corpus)
    if mirrored is not None and mirrored.is_file():
        if corpus.sha256 and files.sha256(mirrored) != corpus.sha256:
            raise DataError(
                f"{mirrored} is not the corpus {corpus.name}: its SHA-256 is another.",
                f"replace it by the file from {corpus.url}, or unset {MIRROR}.",
            )
        return mirrored
    cached = _cached(corpus)
    if corpus.url:
        if not cached.is_file() or files.sha256(cached) != corpus.sha256:
            fetch(corpus.url, cached, corpus.sha256, progress)
    elif not cached.is_file():
        task = tasks.find(corpus.name)
        files.write_text(cached, _python_topics() if task is None else task.text())
    return cached


def _mirrored(corpus: NamedCorpus) -> Path | None:
    folder = os.environ.get(MIRROR)
    if not folder:
        return None
    if not Path(folder).is_dir():
        notice(f"{MIRROR} names {folder}, which is no folder: it is left aside.")
        return None
    return Path(folder) / f"{corpus.name}{_suffix(corpus)}"


def _cached(corpus: NamedCorpus) -> Path:
    # What is made from Python's own files is another text in another Python.
    version = f"-{platform.python_version()}" if corpus.name == FALLBACK else ""
    name = re.sub(r"\W+", "-", corpus.name).strip("-")
    return files.cache_folder() / "corpora" / f"{name}{version}{_suffix(corpus)}"


def _suffix(corpus: NamedCorpus) -> str:
    return ".zip" if corpus.url.endswith(".zip") else ".txt"


def _python_topics() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "this Python comes without its documentation topics, which pydocs is made from.",
            "use a text of your own: microformer prepare --input FILE.",
        ) from error
    return "\n\n".join(topics[title].strip() for title in sorted(topics)) + "\n"
