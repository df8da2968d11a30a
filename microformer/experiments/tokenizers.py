"""Tokenizers beside one another on one text: how many tokens each makes of it, how fast, and what a small model makes
of those. Data and trainings are kept like a comparison's, so that nothing is done twice.

Losses in nats a token can't be compared between tokenizers; bits a byte of the text can.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from microformer import corpora, pictures
from microformer.errors import MicroformerError, SettingsError
from microformer.experiments.arms import Arm
from microformer.experiments.cells import code_hash, train_one
from microformer.pipeline.preparing import prepared_apart
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
    rows = []
    for spelt in tokenizers:
        kind, size = _kind_and_size(spelt)
        changes = {"tokenizer": kind} | ({"vocab_size": size} if size else {})
        settings = chosen.changed(changes)
        row: dict[str, Any] = {"tokenizer": spelt}
        try:
            data = prepared_apart(settings, inputs=inputs)
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
            row |= _trained(spelt, settings, seeds, data)
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


def _trained(spelt: str, settings: Settings, seeds: Sequence[int], data: corpora.Prepared) -> dict[str, Any]:
    code, cells = code_hash(), []
    for seed in seeds:
        cells.append(train_one(Arm(spelt), seed, settings.changed({"seed": seed}), Path(), code, data=data))
        if cells[-1].failed:
            raise MicroformerError(f"{spelt} can't be trained: {cells[-1].failed}", "leave it out: --tokenizers.")
    return {
        "parameters": cells[-1].parameters,
        "bits_per_byte": [cell.bits_per_byte for cell in cells],
        "seconds_trained": _mean([cell.seconds for cell in cells]),
    }


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
