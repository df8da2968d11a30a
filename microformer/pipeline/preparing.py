"""From settings to prepared data. Knows which corpus is meant; reading and encoding it is the corpora's."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from microformer import corpora
from microformer.corpora.prepared import read_manifest
from microformer.corpora.preparing import Progress
from microformer.errors import RunError
from microformer.runs import Run
from microformer.settings import Settings

DATA = Path("data")


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
    manifest = read_manifest(DATA)
    otherwise = corpora.Source.from_dict(manifest["source"], DATA) if manifest else corpora.Source()
    if not otherwise.explicit or not manifest:
        otherwise = corpora.choose_source(DATA, None, chosen.data.corpus)
    return corpora.ensure_prepared(
        DATA,
        explicit=_asked(chosen, otherwise),
        default_corpus=chosen.data.corpus,
        **how_to_prepare(chosen),
        workers=chosen.data.workers,
        progress=progress,
    )


def data_of(run: Run) -> corpora.Prepared:
    """The data that a run was trained on.

    Raises:
        RunError: what lies in data/ is another.
        DataError: nothing lies there, or it is damaged.
    """
    data = corpora.load_prepared(DATA)
    if run.info["data"]["fingerprint"] is None:  # imported: its own data is elsewhere, and any text may be read by it
        check_tokenizer(data, run)
        return data
    check_same(data, run.info["data"]["fingerprint"], f"the run {run.name!r}")
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


def _asked(chosen: Settings, otherwise: corpora.Source) -> corpora.Source | None:
    """The corpus that the user asked for, by flag or config; None if they left it to what lies in data/.

    Args:
        otherwise: what is read where they name none; an encoding of their own is about its files.
    """
    data = chosen.data
    if "corpus" in chosen.explicit:
        # A name wins over a file that happens to be called so; ./name means the file.
        a_name = data.corpus in corpora.CORPORA or not (
            Path(data.corpus).exists() or corpora.Source.is_input(data.corpus)
        )
        return _limited(chosen, corpora.Source.named(data.corpus) if a_name else corpora.Source.files(data.corpus))
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


def how_to_prepare(chosen: Settings) -> dict[str, Any]:
    """Tokenizer, size and split, as `corpora.prepare` takes them; None for what the settings leave alone."""
    data, explicit = chosen.data, chosen.explicit
    return {
        "tokenizer": data.tokenizer,
        "vocab_size": chosen.model.vocab_size if "vocab_size" in explicit else None,
        "val_fraction": data.val_fraction if "val_fraction" in explicit else None,
        "test_fraction": data.test_fraction if "test_fraction" in explicit else None,
        "unknown": data.unknown,
    }
