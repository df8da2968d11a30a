"""Runs that begin at weights which are there: another run's (`train --from`), or another program's (`import`).

Both begin as a run folder with a checkpoint that training goes on from, so that nothing after knows the difference.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from microformer import devices, exchange, files, runs, settings, tokenization
from microformer.errors import RunError, SettingsError, notice
from microformer.models.spec import Learned, ModelSpec
from microformer.pipeline.describing import described, now
from microformer.runs import Run
from microformer.settings import ModelSettings, Settings
from microformer.training.loop import Position, start_state
from microformer.training.optimizers import usual_rate

# What of a trained model may be otherwise in another training: it touches no weights.
_FREE = ("dropout", "attention_dropout", "ngram_dropout")
# What a trained model's rate is of one that begins anew.
_GENTLER = 0.1


def source(name: str, trust_code: bool) -> Run:
    """The run to begin with.

    Raises:
        RunError: there is none, or another program's model is there.
    """
    try:
        return runs.find(name, trust_code=trust_code)
    except RunError:
        if not Path(name).exists():
            raise
        raise RunError(f"{name} is no run.", f"make one of it: microformer import {name}") from None


def from_run(source: Run, chosen: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings of a training that begins at a run's weights: the model and the tokenizer are the run's.

    Args:
        chosen: as resolved without it.
        given: what the command line said of them.

    Raises:
        SettingsError: another model, or another tokenizer, was asked for.
    """
    model = settings.model_values(source.spec)
    for name in given:
        free = name in (*_FREE, "max_seq_len")
        if name in model and not free and given[name] != model[name]:
            raise SettingsError(
                f"--from goes on with the model of {source.name!r}, and its {name.upper()} is {model[name]}.",
                f"leave it out; only {', '.join(one.upper() for one in _FREE)} and a smaller MAX_SEQ_LEN may differ.",
            )
    if "tokenizer" in given or "vocab_size" in given:
        raise SettingsError(f"--from goes on with the tokenizer of {source.name!r}.", "leave the tokenizer out.")
    kept = {name: getattr(chosen.model, name) for name in (*_FREE, "max_seq_len") if name in chosen.explicit}
    if kept.get("max_seq_len", 0) > source.spec.max_seq_len:
        if "max_seq_len" in given:
            raise SettingsError(
                f"the model of {source.name!r} has a context of {source.spec.max_seq_len}, and "
                f"{kept['max_seq_len']} is more.",
                "leave MAX_SEQ_LEN out, or give a smaller one.",
            )
        del kept["max_seq_len"]  # a config's, which is about other models
    unread = {name: ModelSettings.__dataclass_fields__[name].default for name in ("vocab_size", "ngram_entries")}
    tokenizer = {"tokenizer": (source.folder / "tokenizer.json").as_posix()}
    changed = chosen.changed({**unread, **model, **kept, **tokenizer})
    training = changed.training
    if training.learning_rate == "auto":
        rate = _GENTLER * usual_rate(training.optimizer, source.spec.embed_dim)
        changed = changed.changed({"learning_rate": float(f"{rate:.3g}")})
        notice(f"LEARNING_RATE is {rate:.3g}: a tenth of what is usual, for the model is trained already.")
    return changed


def weights_of(source: Run, model: ModelSpec) -> dict[str, Tensor]:
    """A run's weights for a model that may have a smaller context: learned positions beyond it are left away."""
    weights = {name: one.detach() for name, one in source.model.named_parameters()}
    if isinstance(model.positions, Learned) and model.places is not None:
        weights["positions.table.weight"] = weights["positions.table.weight"][: model.places]
    return weights


def import_model(path: str, name: str | None = None, tokenizer: Path | None = None, heads: int | None = None) -> Run:
    """A run folder of another program's model, to be used like one that was trained here.

    Args:
        path, tokenizer, heads: what it is read from; see `exchange.read`.
        name: the run's; None for one made from the path's.

    Raises:
        MicroformerError: it can't be read, or the name is taken.
    """
    if name is not None:
        runs.check_free(name)
    found = exchange.read(path, tokenizer, heads)
    try:
        chosen = Settings().changed({**found.settings, "tokenizer": "char", **settings.model_values(found.spec)})
    except SettingsError as error:
        raise RunError(
            f"the {found.format} {path} was trained by settings that can't be here: {error.sentence}",
            "take them out of it, or mend them.",
        ) from error
    # In float32, so that its figures are those of where it comes from.
    tokens = chosen.training.batch_size * found.spec.max_seq_len
    compute = devices.choose(precision="float32", width=found.spec.embed_dim, tokens=tokens)
    chosen = chosen.changed({one: getattr(compute, one) for one in ("device", "precision", "threads")})
    run = runs.create(name, Path(path).resolve().name if Path(path).exists() else path.rpartition("/")[2])
    chosen = chosen.changed({"tokenizer": (run.folder / "tokenizer.json").as_posix()})
    ended = {"how": "imported", "at": now(), "step": found.step, "seconds": 0.0}
    with run.lock():
        tokenization.save(found.tokenizer, run.folder / "tokenizer.json")
        write_start(run, found.parameters, chosen, found.step, found.optimizer)
        run.write_info(
            described(
                chosen,
                found.spec,
                sum(one.numel() for one in found.parameters.values()),
                {"fingerprint": None, "corpus": found.format, "train": None, "val": None, "test": None},
                compute=compute.reason,
                imported=found.format,
                ended=ended,
            )
        )
    return Run(run.folder)


def write_start(
    run: Run,
    weights: Mapping[str, Tensor],
    chosen: Settings,
    step: int = 0,
    optimizer: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes the checkpoint that a run begins from.

    Args:
        step: how many steps made these weights.
        optimizer: what it remembers of them, as an `Optimizer` has it.
    """
    rows, length = chosen.training.batch_size, chosen.model.max_seq_len
    position = Position(step=step, samples=step * rows, tokens=step * rows * length)
    tensors, plain = start_state(position, chosen.training.seed, dict(optimizer or {}))

    def fill(folder: Path) -> None:
        runs.save_tensors(weights, folder / "model.safetensors")
        runs.save_tensors(tensors, folder / "training.safetensors")
        files.write_json(folder / "training.json", plain)

    run.write_checkpoint("last", step, fill)
