"""Tokenizers beside one another on one text: how many tokens each makes of it, how fast, and what a small model makes
of those. Each has prepared data and runs in a folder of its own, so that nothing is done twice.

Losses in nats a token can't be compared between tokenizers; bits a byte of the text can.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from microformer import corpora, pictures
from microformer.errors import MicroformerError, SettingsError
from microformer.experiments.arms import Arm
from microformer.experiments.cells import code_hash, train_one
from microformer.pipeline import how_to_prepare, source_of
from microformer.pipeline.preparing import DATA
from microformer.runs import Run
from microformer.settings import Settings
from microformer.tokenization import KINDS, LEARNED

USUAL = ("char", "byte", "bpe:512", "bpe:2048", "bpe:8192", "wordpiece:2048", "unigram:2048")


def compared(
    chosen: Settings,
    inputs: Sequence[str],
    tokenizers: Sequence[str] = USUAL,
    seeds: Sequence[int] = (),
    tell: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """A row a tokenizer: `tokenizer`, `vocabulary`, `tokens` and `bytes` of the training part, `bytes_per_token`,
    `seconds` it took to learn and encode, and `refused`, why it can't be made of this text, if it can't. With seeds
    also `parameters`, `bits_per_byte` of the validation part, one a seed, and the `seconds_trained`.

    Args:
        chosen: the settings of data and trainings; tokenizer and size are left aside.
        inputs: files to read, in place of the settings' corpus.
        tokenizers: kinds, with a size where one is wanted: `bpe:2048`.
        seeds: of the trainings; none: nothing is trained.
        tell: called with each row as it is done.

    Raises:
        MicroformerError: a text that can't be read, a kind that there is not.
    """
    source = source_of(chosen, inputs)
    rows = []
    for spelt in tokenizers:
        kind, size = _kind_and_size(spelt)
        folder = DATA / ".prepared" / re.sub(r"\W+", "-", spelt)
        changes = {"tokenizer": kind} | ({"vocab_size": size} if size else {})
        settings = chosen.changed(changes)
        row: dict[str, Any] = {"tokenizer": spelt}
        try:
            how = how_to_prepare(settings)
            wanted = {"explicit": source, "default_corpus": source.corpus, **how}
            if corpora.why_prepare(folder / DATA, **wanted) is None:
                data = corpora.load_prepared(folder / DATA)
            else:
                data = corpora.prepare(folder / DATA, source, **how, workers=settings.data.workers)
        except SettingsError as error:
            rows.append({**row, "refused": error.sentence})
            tell(rows[-1])
            continue
        train = data.manifest["train"]
        row |= {
            "vocabulary": data.tokenizer.vocab_size,
            "tokens": train["tokens"],
            "bytes": train["bytes"],
            "bytes_per_token": train["bytes"] / train["tokens"],
            "seconds": data.manifest["seconds"],
            "refused": None,
        }
        if seeds:
            row |= _trained(settings, seeds, folder, data)
        rows.append(row)
        tell(row)
    return rows


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws bits a byte, or bytes a token where nothing was trained, over the vocabulary's size: SVG and PNG."""
    trained = any("bits_per_byte" in row for row in rows)
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["refused"] is None:
            value = _mean(row["bits_per_byte"]) if trained else row["bytes_per_token"]
            points.setdefault(row["tokenizer"].split(":")[0], []).append((row["vocabulary"], value))
    several = {kind: sorted(found) for kind, found in points.items() if len(found) > 1}
    alone = {f"{kind}, {found[0][0]:,}": found[0][1] for kind, found in points.items() if len(found) == 1}
    what = "bits a byte, of validation" if trained else "bytes a token"
    pictures.loss_curves(
        path.with_suffix(".svg"), path.with_suffix(".png"), several,
        x_label="size of the vocabulary", y_label=what, baselines=alone, title="Tokenizers",
    )  # fmt: skip


def _trained(settings: Settings, seeds: Sequence[int], folder: Path, data: corpora.Prepared) -> dict[str, Any]:
    # The text is remembered with the prepared data, and its path would be another from there.
    base = settings.changed({"corpus": Settings().data.corpus})
    bits, seconds, parameters = [], 0.0, 0
    for seed in seeds:
        cell = train_one(Arm(folder.name), seed, base.changed({"seed": seed}), folder, code_hash())
        if cell.failed:
            raise MicroformerError(f"{folder.name} can't be trained: {cell.failed}", "leave it out: --tokenizers.")
        val, info = data.manifest["val"], Run(cell.run).info
        bits.append(info["figures"]["bits_per_char"] * val["characters"] / val["bytes"])
        seconds += cell.seconds
        parameters = info["parameters"]
    return {"parameters": parameters, "bits_per_byte": bits, "seconds_trained": seconds / len(seeds)}


def _kind_and_size(spelt: str) -> tuple[str, int | None]:
    kind, _, size = spelt.partition(":")
    if kind not in KINDS or (size and (kind not in LEARNED or not size.isdecimal() or int(size) < 2)):
        raise SettingsError(
            f"{spelt!r} is no tokenizer.",
            f"write a kind, {', '.join(KINDS)}, and a size where it is learned: bpe:2048.",
        )
    return kind, int(size) if size else None


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
