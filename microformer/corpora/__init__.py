"""Text, from where it lies to token tensors on disk.

named, hub, fetching    corpora that have a name, and bringing them here whole
tasks                   made texts with known answers
formats, reading        files, folders, archives and standard input as one text in pieces
parts, splitting        a long text in parts, each read and encoded once; what is for training and what is held out
preparing, prepared     making the set of tensors, and opening it
overlap, room           how much validation is in the training part too; what a preparation takes

Names are brought in when they are first used: a process that only reads and encodes does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microformer.corpora.named import CORPORA, NamedCorpus, every, stored
    from microformer.corpora.prepared import Prepared, load_prepared
    from microformer.corpora.preparing import choose_source, ensure_prepared, prepare, what_to_prepare
    from microformer.corpora.reading import Source

__all__ = [
    "CORPORA",
    "NamedCorpus",
    "Prepared",
    "Source",
    "choose_source",
    "ensure_prepared",
    "every",
    "load_prepared",
    "prepare",
    "stored",
    "what_to_prepare",
]

_HOMES = {
    "named": ("CORPORA", "NamedCorpus", "every", "stored"),
    "prepared": ("Prepared", "load_prepared"),
    "preparing": ("choose_source", "ensure_prepared", "prepare", "what_to_prepare"),
    "reading": ("Source",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"microformer.corpora.{home}"), name)
    raise AttributeError(f"module 'microformer.corpora' has no attribute {name!r}")
