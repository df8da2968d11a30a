"""Text, from where it lies to token tensors on disk.

named, fetching    corpora that have a name, and bringing them here whole
tasks              made texts with known answers
reading            files, folders and standard input as one text in chunks
prepare, prepared  making the set of tensors, and opening it
"""

from microformer.corpora.named import CORPORA, NamedCorpus, every, stored
from microformer.corpora.prepare import choose_source, ensure_prepared, prepare, why_prepare
from microformer.corpora.prepared import Prepared, load_prepared
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
    "why_prepare",
]
