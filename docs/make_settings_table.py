"""Writes the table of all settings into docs/settings.md: `python docs/make_settings_table.py`.

Knows where each setting is read; its default, range and meaning come from microformer.settings.
"""

import re
from pathlib import Path
from typing import get_args

from microformer import settings

PAGE = Path(__file__).parent / "settings.md"
_BEGIN, _END = "<!-- settings: begin -->", "<!-- settings: end -->"

# The file in which a setting comes to bear, under microformer/.
READ_BY = {
    "embed_dim": "models/model.py",
    "num_heads": "models/attention.py",
    "num_layers": "models/spec.py",
    "ff_dim": "models/feedforward/__init__.py",
    "max_seq_len": "models/model.py",
    "vocab_size": "tokenization/bpe.py",
    "attention": "models/kernels/__init__.py",
    "positions": "models/positions/__init__.py",
    "feedforward": "models/feedforward/__init__.py",
    "norm": "models/norms.py",
    "memory": "models/memory/__init__.py",
    "num_kv_heads": "models/attention.py",
    "score_cap": "models/kernels/base.py",
    "attention_dropout": "models/kernels/base.py",
    "output_gate": "models/attention.py",
    "qk_norm": "models/attention.py",
    "norm_placement": "models/residual.py",
    "parallel": "models/model.py",
    "loops": "models/model.py",
    "residual_scalars": "models/residual.py",
    "embed_scale": "models/model.py",
    "tie_embeddings": "models/model.py",
    "bias": "models/linear.py",
    "init": "models/model.py",
    "dropout": "models/model.py",
    "ngrams": "models/ngrams.py",
    "ngram_entries": "models/ngrams.py",
    "ngram_dropout": "models/ngrams.py",
    "corpus": "pipeline/preparing.py",
    "encoding": "corpora/reading.py",
    "text_field": "corpora/formats.py",
    "max_documents": "corpora/parts.py",
    "max_bytes": "corpora/parts.py",
    "tokenizer": "tokenization/__init__.py",
    "unknown": "tokenization/base.py",
    "data_order": "pipeline/training.py",
    "val_fraction": "corpora/splitting.py",
    "test_fraction": "corpora/splitting.py",
    "workers": "corpora/preparing.py",
    "epochs": "training/budgets.py",
    "max_steps": "training/budgets.py",
    "max_minutes": "training/budgets.py",
    "batch_size": "training/loop.py",
    "accumulate": "training/loop.py",
    "optimizer": "training/optimizers.py",
    "learning_rate": "training/optimizers.py",
    "weight_decay": "training/optimizers.py",
    "momentum": "training/muon.py",
    "beta_1": "training/optimizers.py",
    "beta_2": "training/optimizers.py",
    "grad_clip": "training/loop.py",
    "schedule": "training/schedules.py",
    "warmup": "training/schedules.py",
    "decay": "training/schedules.py",
    "final_rate": "training/schedules.py",
    "averaging": "training/averaging.py",
    "eval_every": "training/loop.py",
    "stop_on": "training/observers.py",
    "patience": "training/observers.py",
    "checkpoint_every": "training/loop.py",
    "checkpoint_minutes": "training/loop.py",
    "snapshots": "training/loop.py",
    "log_every": "training/loop.py",
    "probe_steps": "inspection/probes.py",
    "trackers": "trackers/__init__.py",
    "diagnostics": "inspection/diagnostics.py",
    "seed": "pipeline/training.py",
    "device": "devices.py",
    "precision": "devices.py",
    "threads": "devices.py",
    "compile": "devices.py",
}


def tables() -> str:
    """A Markdown table a group, in the order of `--help`."""
    lines: list[str] = []
    for group, kind in settings.GROUPS.items():
        lines += ["", f"### {(kind.__doc__ or '').strip().rstrip('.')}", ""]
        lines += ["| name | default | may be | meaning | comes to bear in |", "|---|---|---|---|---|"]
        for owner, name, field in settings.each_setting():
            if owner == group:
                cells = (
                    f"`{name.upper()}`",
                    f"`{field.default!r}`".replace("'", '"'),
                    _may_be(kind, name, field.metadata),
                    _meaning(field.metadata),
                    f"`{READ_BY[name]}`",
                )
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def written() -> str:
    """The page with the table as the settings have it now."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    after = rest.split(_END)[1]
    return f"{before}{_BEGIN}\n{tables()}\n{_END}{after}"


def _may_be(kind: type, name: str, about: dict) -> str:
    annotation = kind.__annotations__[name]
    words = {"bool": "`True`, `False`", "str": "text", "int": "whole number", "float": "number"}
    if about["several"]:
        return ", ".join(f'`"{word}"`' for word in about["choices"]) + "; several with a space"
    if about["choices"]:
        return ", ".join(f'`"{word}"`' for word in about["choices"])
    plain = next(one for one in (get_args(annotation) or (annotation,)) if isinstance(one, type))
    said = words[plain.__name__]
    least, most = about["least"], about["most"]
    if least is not None and most is not None:
        said += f", {least:,} to {most:,}"
    elif least is not None:
        said += f", {least:,} or more"
    return said + (', `"auto"`' if settings.Auto in get_args(annotation) else "")


def _meaning(about: dict) -> str:
    if about["read_when"] is None:
        return about["about"]
    other, values = about["read_when"]
    return f"{about['about']} (only with `{other.upper()}` {settings.in_words(values).replace(chr(39), '')})"


if __name__ == "__main__":
    text = written()
    assert set(re.findall(r"^\| `([A-Z_0-9]+)`", text, re.M)) >= {name.upper() for name in READ_BY}
    PAGE.write_text(text, encoding="utf-8", newline="\n")
