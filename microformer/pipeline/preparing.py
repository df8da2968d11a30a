"""From settings to prepared data. Knows which corpus is meant; reading and encoding it is the corpora's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microformer import corpora
from microformer.corpora.prepare import Progress
from microformer.corpora.prepared import read_manifest
from microformer.errors import RunError
from microformer.runs import Run
from microformer.settings import Settings

DATA = Path("data")


def prepare(chosen: Settings, inputs: Sequence[str] = (), progress: Progress | None = None) -> corpora.Prepared:
    """Prepares what the settings and `inputs` (files, folders, or `-`) name, whatever was prepared before.

    Raises:
        MicroformerError: a text that can't be read, is too short, or can't be written down; see `corpora.prepare`.
    """
    otherwise = corpora.choose_source(DATA, None, chosen.data.corpus)
    asked = corpora.Source.files(*inputs, encoding=chosen.data.encoding) if inputs else _asked(chosen, otherwise)
    source = corpora.choose_source(DATA, asked, chosen.data.corpus)
    return corpora.prepare(DATA, source, **_how(chosen), progress=progress)


def prepared_data(chosen: Settings, progress: Progress | None = None) -> corpora.Prepared:
    """The prepared data that the settings want, made first if it is not there. Errors as for `prepare`."""
    manifest = read_manifest(DATA)
    otherwise = corpora.Source.from_dict(manifest["source"], DATA) if manifest else corpora.Source()
    if not otherwise.explicit or not manifest:
        otherwise = corpora.choose_source(DATA, None, chosen.data.corpus)
    return corpora.ensure_prepared(
        DATA, explicit=_asked(chosen, otherwise), default_corpus=chosen.data.corpus, **_how(chosen), progress=progress
    )


def data_of(run: Run) -> corpora.Prepared:
    """The data that a run was trained on.

    Raises:
        RunError: what lies in data/ is another.
        DataError: nothing lies there, or it is damaged.
    """
    data = corpora.load_prepared(DATA)
    check_same(data, run.info["data"]["fingerprint"], f"the run {run.name!r}")
    return data


def check_same(data: corpora.Prepared, fingerprint: str, whose: str) -> None:
    """Raises RunError where the data has another fingerprint."""
    if data.fingerprint != fingerprint:
        raise RunError(
            f"{whose} was trained on other data than what is prepared in {DATA} now ({data.corpus}).",
            "prepare the same text with the same tokenizer and split again: microformer prepare.",
        )


def _asked(chosen: Settings, otherwise: corpora.Source) -> corpora.Source | None:
    """The corpus that the user asked for, by flag or config; None if they left it to what lies in data/.

    Args:
        otherwise: what is read where they name none; an encoding of their own is about its files.
    """
    data = chosen.data
    if "corpus" in chosen.explicit:
        # A name wins over a file that happens to be called so; ./name means the file.
        if data.corpus in corpora.CORPORA or not Path(data.corpus).exists():
            return corpora.Source.named(data.corpus)
        return corpora.Source.files(data.corpus, encoding=data.encoding)
    if "encoding" in chosen.explicit and otherwise.inputs:
        return corpora.Source.files(*otherwise.inputs, encoding=data.encoding)
    return None


def _how(chosen: Settings) -> dict[str, Any]:
    size = chosen.model.vocab_size if "vocab_size" in chosen.explicit else None
    return {"tokenizer": chosen.data.tokenizer, "vocab_size": size, "val_fraction": chosen.data.val_fraction}
