"""The settings: what can be set, what it means, where it was said. Knows no torch, no files but config files.

One word has three spellings: EMBED_DIM in config.py, embed_dim in code, --embed-dim on the command line. The command
line wins over the config file, which wins over the defaults here, their one home.

    resolve(config file, command line) → Settings → model_spec(…) → ModelSpec
"""

import json
import math
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from microformer.errors import SettingsError, nearest
from microformer.files import is_path
from microformer.models import grammar, spec

Auto = Literal["auto"]


def setting(
    default: Any,
    about: str,
    *,
    least: int | float | None = None,
    most: int | float | None = None,
    choices: tuple[str, ...] | None = None,
    several: bool = False,
    own: bool = False,
    path: bool = False,
    read_when: tuple[str, tuple[str | int, ...]] | None = None,
) -> Any:
    """A setting.

    Args:
        default: its value where nobody says another.
        about: one line for `--help` and the docs.
        least, most: the range of a number, both ends allowed.
        choices: the words allowed.
        several: whether more than one of them may be said, with a space between; none stands alone.
        own, path: whether a class in a file of the user's own, or a path, may be named besides.
        read_when: (other setting, its values) with which this one is read at all; None: always.
    """
    metadata = {"about": about, "least": least, "most": most, "choices": choices, "read_when": read_when}
    metadata |= {"several": several, "own": own, "path": path}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelSettings:
    """The model."""

    embed_dim: int = setting(128, "width of the residual stream", least=1, most=65536)
    num_heads: int = setting(4, "attention heads a layer; divides EMBED_DIM", least=1, most=4096)
    num_layers: int = setting(2, "blocks", least=1, most=1000)
    ff_dim: int = setting(256, "width of the feed-forward's middle", least=1, most=2**20)
    max_seq_len: int = setting(128, "context: how many tokens the model sees at once", least=2, most=2**24)
    vocab_size: int = setting(
        100, "overridden at runtime: tokenizers that are learned (bpe, wordpiece, unigram) read it, others decide it",
        least=1, most=2**24, read_when=("tokenizer", ("bpe", "wordpiece", "unigram")),
    )  # fmt: skip
    attention: str = setting("softmax", f"attention of each layer: {', '.join(spec.ATTENTION)}")
    positions: str = setting("rope", f"how order is told: {', '.join(spec.POSITIONS)}; rope(base=10000)")
    feedforward: str = setting("swiglu", f"feed-forward of each layer: {', '.join(spec.FEEDFORWARD)}")
    norm: str = setting("rmsnorm", f"norm: {', '.join(spec.NORM)}")
    memory: str = setting(
        "none", f"what goes over from segment to segment of a text: {', '.join(spec.MEMORY)}; xl(length=128)"
    )
    num_kv_heads: int | Auto = setting(
        "auto", "heads of keys and values, shared by the heads of queries; auto: NUM_HEADS", least=1, most=4096
    )
    score_cap: float = setting(0.0, "attention scores are squeezed between minus and plus this; 0 for no cap", least=0)
    attention_dropout: float = setting(0.0, "share of attention's pattern dropped while training", least=0, most=0.99)
    output_gate: bool = setting(False, "a gate on what attention takes")
    qk_norm: bool = setting(True, "normalise queries and keys in each head")
    norm_placement: str = setting(
        "pre", "norms before each half of a block (pre), after it (post), or both (sandwich)",
        choices=spec.NORM_PLACEMENT,
    )  # fmt: skip
    parallel: bool = setting(False, "attention and feed-forward read the same stream and are added to it together")
    loops: int = setting(1, "times the blocks are gone through, with the same weights", least=1, most=1000)
    residual_scalars: bool = setting(False, "a learned factor for the stream and one for what is added to it")
    embed_scale: float = setting(1.0, "what token embeddings are multiplied by", least=1e-6, most=1e6)
    tie_embeddings: bool = setting(False, "one matrix for embedding and unembedding")
    bias: bool = setting(False, "biases in linear maps and LayerNorms")
    init: str = setting(
        "zero",
        "how weights begin: zero (what writes to the stream at 0), normal (all N(0, 0.02)), scaled (as GPT-2)",
        choices=spec.INIT,
    )
    dropout: float = setting(0.0, "share of activations dropped while training", least=0, most=0.99)
    ngrams: int = setting(
        1, "longest n-grams of tokens with embeddings of their own: 1 for none, 2 for pairs, up to 8", least=1, most=8
    )
    ngram_entries: int = setting(
        16384, "most rows of a table of n-grams; where they are more, they share", least=1, most=2**24,
        read_when=("ngrams", tuple(range(2, 9))),
    )  # fmt: skip
    ngram_dropout: float = setting(
        0.0, "share of n-grams left out while training, so that the layers learn to do without", least=0, most=0.99,
        read_when=("ngrams", tuple(range(2, 9))),
    )  # fmt: skip


@dataclass(frozen=True)
class DataSettings:
    """The data."""

    corpus: str = setting(
        "tinyshakespeare", "a named corpus, a file or a folder; data/corpus.txt comes before the default"
    )
    encoding: str = setting("utf-8", "encoding of the corpus's files")
    text_field: str = setting(
        "", "which field of a row has the text (.jsonl, .csv, .parquet); empty for text, or the only one"
    )
    max_documents: int = setting(0, "most documents that are read; 0 for all", least=0)
    max_bytes: int = setting(0, "most bytes of text that are read, from its beginning; 0 for all", least=0)
    tokenizer: str = setting(
        "char", "what a token is: char, byte, bpe, wordpiece, unigram, or a folder or file with a published one",
        choices=("char", "byte", "bpe", "wordpiece", "unigram"), path=True,
    )  # fmt: skip
    unknown: str = setting(
        "error",
        "what becomes of characters that a vocabulary which is there already lacks: error, skip, replace (é: e)",
        choices=("error", "skip", "replace"),
    )
    data_order: str = setting(
        "auto", "shuffled windows, or streams that read on; auto: streams where a memory is carried, else shuffled",
        choices=("auto", "shuffled", "streams"),
    )  # fmt: skip
    val_fraction: float = setting(
        0.1, "share of the text, at its end, kept for validation; 0 for none", least=0, most=0.9
    )
    test_fraction: float = setting(
        0.0, "share of the text, at its very end, kept for a test; 0 for none", least=0, most=0.9
    )
    workers: int | Literal["auto"] = setting(
        "auto",
        "processes that encode a long text; auto: as many as there are cores, one for characters and bytes",
        least=1,
        most=1024,
    )


@dataclass(frozen=True)
class TrainingSettings:
    """The training."""

    epochs: float = setting(
        3.0, "budget: times through the training text; may be a fraction, 0 for no such limit", least=0, most=10**9
    )
    max_steps: int = setting(0, "budget: optimizer steps; 0 for no such limit", least=0)
    max_minutes: float = setting(
        0.0, "budget: minutes on the clock, the schedule runs over them; 0 for no such limit", least=0, most=10**9
    )
    batch_size: int = setting(32, "sequences a step", least=1, most=2**20)
    accumulate: int = setting(
        1, "parts a batch is computed in, to save memory; divides BATCH_SIZE", least=1, most=2**20
    )
    optimizer: str = setting(
        "muon", "muon (matrices; AdamW for the rest) or adamw", choices=("muon", "adamw"), own=True
    )
    learning_rate: float | Auto = setting(
        "auto", "highest rate; auto: what suits the optimizer and the width", least=0, most=100
    )
    weight_decay: float = setting(
        0.2, "share of the rate by which matrices and embeddings shrink a step", least=0, most=100
    )
    momentum: float = setting(0.95, "Muon's momentum", least=0, most=0.9999, read_when=("optimizer", ("muon",)))
    beta_1: float = setting(0.9, "AdamW's memory of gradients", least=0, most=0.9999)
    beta_2: float = setting(0.95, "AdamW's memory of squared gradients", least=0, most=0.99999)
    grad_clip: float = setting(1.0, "largest norm of the whole gradient; 0 for no limit", least=0)
    schedule: str = setting(
        "cosine", "how the rate falls: cosine, linear, wsd (warm-up, stable, decay), constant",
        choices=("cosine", "linear", "wsd", "constant"), own=True,
    )  # fmt: skip
    warmup: float = setting(
        0.02, "share of the run in which the rate rises from 0; 1 or more: that many steps", least=0, most=10**9
    )
    decay: float = setting(
        0.4, "share of the run, at its end, in which the rate falls", least=0, most=1, read_when=("schedule", ("wsd",))
    )
    final_rate: float = setting(0.0, "share of the highest rate that is left at the end", least=0, most=1)
    averaging: float = setting(
        0.0, "weight averaging: how much of the average a step keeps, such as 0.99; 0 for none", least=0, most=0.99999
    )
    eval_every: int | Auto = setting(
        "auto", "steps between validations; auto: 16 in a run, fewer where they take long on the clock", least=1
    )
    patience: int = setting(5, "validations without a better one before training stops; 0 to never stop early", least=0)
    stop_on: str = setting(
        "loss", "what PATIENCE looks at: the loss, or a task's exact match, which then ends it too where all is right",
        choices=("loss", "exact_match"),
    )  # fmt: skip
    checkpoint_every: int | Auto = setting("auto", "steps between checkpoints; auto: with each validation", least=1)
    checkpoint_minutes: float = setting(
        5.0, "a checkpoint at least this often, in minutes; 0 for no such rule", least=0
    )
    snapshots: bool = setting(True, "keep the weights of steps 1, 2, 4, 8 … (20 at most) to look at later")
    log_every: int = setting(10, "steps between lines of metrics.jsonl", least=1)
    probe_steps: int = setting(
        100, "steps between probes, small pictures of what the model does with one text; 0 for none", least=0
    )
    trackers: str = setting(
        "none", "who else is shown the figures, samples and pictures: tensorboard, wandb, or both with a space",
        choices=("none", "tensorboard", "wandb"), several=True,
    )  # fmt: skip
    diagnostics: bool = setting(
        False, "look for dead units, collapsed heads and norms out of bounds meanwhile, and say what layer they are in"
    )
    seed: int = setting(1, "of weights, data order and dropout", least=0, most=2**63 - 1)


@dataclass(frozen=True)
class MachineSettings:
    """The machine."""

    device: str = setting(
        "auto", "cpu, cuda or mps; auto: what a short probe finds faster", choices=("auto", "cpu", "cuda", "mps")
    )
    precision: str = setting(
        "auto", "float32 or bfloat16; auto: what a short probe finds faster", choices=("auto", "float32", "bfloat16")
    )
    threads: int | Auto = setting(
        "auto", "CPU threads; auto: the cores this process may use, one for a tiny model", least=1, most=1024
    )
    compile: bool = setting(False, "compile the model first: up to a minute, and faster steps; needs a C++ compiler")


GROUPS: dict[str, type] = {
    "model": ModelSettings, "data": DataSettings, "training": TrainingSettings, "machine": MachineSettings,
}  # fmt: skip
BUDGETS = ("epochs", "max_steps", "max_minutes")
# What --resume may change: budgets, how often things happen, and who is told.
FREQUENCIES = (
    "eval_every", "checkpoint_every", "checkpoint_minutes", "log_every", "probe_steps", "patience", "trackers",
    "diagnostics",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """All settings, as resolved.

    Args:
        model, data, training, machine: the groups.
        explicit: the settings that the user said, be it with their default value.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    explicit: frozenset[str] = frozenset()

    def flat(self) -> dict[str, Any]:
        """Every setting by its name."""
        return {name: getattr(getattr(self, group), name) for group, name, _ in each_setting()}

    def changed(self, values: Mapping[str, Any]) -> "Settings":
        """These settings with some changed, checked like those from a file.

        Raises:
            SettingsError: an unknown name, a wrong type, a value out of range, or a combination that can't be.
        """
        new = self
        for name, value in values.items():
            group, which = _find(name, lambda name: name)
            checked = _checked(name, which, value)
            new = replace(new, **{group: replace(getattr(new, group), **{name: checked})})
        new = replace(new, explicit=self.explicit | set(values))
        _check_together(new)
        return new


def each_setting() -> Iterator[tuple[str, str, Field]]:
    """(group, name, field) of every setting, in the order in which they are shown."""
    for group, kind in GROUPS.items():
        for one in fields(kind):
            yield group, one.name, one


def resolve(config: str | Path | None = None, given: Mapping[str, Any] | None = None) -> Settings:
    """The settings of one command.

    Args:
        config: a config file, a run's run.json, or the name of a ready config; None: `config.py` in this folder if
            there is one, else the defaults.
        given: what the command line said, by name (its words made values by `convert`).

    Raises:
        SettingsError: something said can't be followed.
    """
    given = dict(given or {})
    settings = Settings().changed(_without_defaults(read_config(config)))
    if any(name in given for name in BUDGETS):
        # A budget on the command line replaces the config's, whatever it was in.
        settings = settings.changed({name: 0 for name in BUDGETS if name not in given})
    return settings.changed(given)


def read_config(config: str | Path | None) -> dict[str, Any]:
    """The settings that a config says, by their names in code; nothing is checked yet but the names' existence.

    Raises:
        SettingsError: no such config, one that raises, or one with an unknown setting.
    """
    if config is None:
        path = Path("config.py")
        if os.path.lexists(path) and not path.is_file():
            raise SettingsError(
                f"{path} is {'a folder' if path.is_dir() else 'a link to nothing'}.",
                "take it away, or name another: --config FILE.",
            )
        return _run_config(path) if path.is_file() else {}
    ready = Path(__file__).parent / "configs"
    names = sorted(one.stem for one in ready.glob("[a-z]*.py"))
    path = Path(config)
    if not path.is_file() and str(config) in names:
        path = ready / f"{config}.py"
    if not path.is_file():
        raise SettingsError(
            f"there is no config {str(config)!r}.", f"give a file, or one of the ready ones: {', '.join(names)}."
        )
    return _read_run_json(path) if path.suffix == ".json" else _run_config(path)


def convert(name: str, text: str) -> Any:
    """A command line's word as the value its setting wants.

    Raises:
        SettingsError: it is no such value.
    """
    _, which = _find(name, lambda name: "--" + name.replace("_", "-"))
    kind = get_type_hints(_class_of(name))[name]
    if text == "auto" and _allows_auto(kind):
        return text
    try:
        match _plain(kind):
            case "bool":
                return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]
            case "int":
                return int(text)
            case "float":
                return float(text)
            case _:
                return text
    except (ValueError, KeyError):
        raise _wrong_type(name, which, text) from None


def checked(name: str, value: Any) -> Any:
    """A value as its setting wants it, whatever the others are.

    Raises:
        SettingsError: no such setting, or no such value.
    """
    _, which = _find(name, lambda name: name)
    value = _checked(name, which, value)
    if name in _SLOTS:
        grammar.per_layer(value, _SLOTS[name], name.upper(), grammar.MOST_LAYERS)
    elif which.metadata["own"]:
        grammar.own(value, name.upper())
    return value


def model_spec(settings: Settings, vocab_size: int, max_seq_len: int | None = None) -> spec.ModelSpec:
    """The model that the settings describe.

    Args:
        vocab_size: the tokenizer's, whatever VOCAB_SIZE says.
        max_seq_len: a context shorter than MAX_SEQ_LEN, where the text is.

    Raises:
        SettingsError: the parts can't make one model.
    """
    model = settings.model
    attention = grammar.per_layer(model.attention, spec.ATTENTION, "ATTENTION", model.num_layers)
    feedforward = grammar.per_layer(model.feedforward, spec.FEEDFORWARD, "FEEDFORWARD", model.num_layers)
    return spec.ModelSpec(
        vocab_size=vocab_size,
        embed_dim=model.embed_dim,
        num_heads=model.num_heads,
        ff_dim=model.ff_dim,
        max_seq_len=max_seq_len or model.max_seq_len,
        layers=tuple(spec.LayerSpec(*pair) for pair in zip(attention, feedforward, strict=True)),
        positions=grammar.one(model.positions, spec.POSITIONS, "POSITIONS"),
        norm=grammar.one(model.norm, spec.NORM, "NORM"),
        qk_norm=model.qk_norm,
        tie_embeddings=model.tie_embeddings,
        bias=model.bias,
        dropout=model.dropout,
        ngrams=model.ngrams,
        ngram_entries=model.ngram_entries if model.ngrams > 1 else 0,
        ngram_dropout=model.ngram_dropout,
        num_kv_heads=0 if model.num_kv_heads == "auto" else model.num_kv_heads,
        score_cap=model.score_cap,
        attention_dropout=model.attention_dropout,
        output_gate=model.output_gate,
        norm_placement=model.norm_placement,
        residual_scalars=model.residual_scalars,
        embed_scale=model.embed_scale,
        parallel=model.parallel,
        loops=model.loops,
        memory=grammar.one(model.memory, spec.MEMORY, "MEMORY"),
        init=model.init,
    )


def model_values(model: spec.ModelSpec) -> dict[str, Any]:
    """The settings that describe a model, by name: `model_spec` makes it of them again."""
    values = {name: getattr(model, name) for name in _fields_of(ModelSettings) if name in _fields_of(spec.ModelSpec)}
    del values["vocab_size"]  # the tokenizer's
    if model.ngrams == 1:
        del values["ngram_entries"]
    return values | {
        "num_layers": model.num_layers,
        "num_kv_heads": model.num_kv_heads or "auto",
        "attention": grammar.written([layer.attention for layer in model.layers], spec.ATTENTION),
        "feedforward": grammar.written([layer.feedforward for layer in model.layers], spec.FEEDFORWARD),
        "positions": grammar.written([model.positions], spec.POSITIONS),
        "norm": grammar.written([model.norm], spec.NORM),
        "memory": grammar.written([model.memory], spec.MEMORY),
    }


def own_components(settings: Settings) -> dict[str, list[grammar.Own]]:
    """The components in files of the user's own, by slot, as the settings name them."""
    found: dict[str, list[grammar.Own]] = {}
    for slot, component in model_spec(settings, vocab_size=1).own:
        found.setdefault(slot, []).append(component)
    for slot in ("optimizer", "schedule"):
        if component := grammar.own(getattr(settings.training, slot), slot.upper()):
            found[slot] = [component]
    return found


def check_model(settings: Settings, model: spec.ModelSpec) -> None:
    """Refuses a model that can't be trained as the settings say. What a component of the user's own declares is known
    once its file was run, so it is asked again then.

    Raises:
        SettingsError: a memory that is carried without a text that goes on, or a compiled model whose sizes change.
    """
    if model.carries and settings.data.data_order == "shuffled":
        raise SettingsError(
            f"MEMORY {settings.model.memory} goes over to the text's next segment, and DATA_ORDER 'shuffled' has none.",
            "leave DATA_ORDER at 'auto', which reads on, or set MEMORY to 'none'.",
        )
    if settings.machine.compile and model.carries:
        raise SettingsError(
            f"COMPILE wants a model whose tensors keep their sizes, and MEMORY {settings.model.memory} grows.",
            "leave COMPILE at False, or set MEMORY to 'none'.",
        )
    if settings.machine.compile and any(isinstance(layer.feedforward, spec.MoE) for layer in model.layers):
        raise SettingsError(
            "COMPILE wants a model whose tensors keep their sizes, and moe's experts get more tokens or fewer.",
            "leave COMPILE at False, or choose another FEEDFORWARD.",
        )


def _run_config(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {"__name__": "config", "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), values)
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever a user's file can raise is theirs to mend, and is told with its line
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines, reason = [error.lineno], error.msg
        else:
            # The innermost line may be a library's; the one to mend is the last in this file.
            frames = traceback.extract_tb(error.__traceback__)
            lines, reason = [frame.lineno for frame in frames if frame.filename == str(path)], str(error)
        where = f" at line {lines[-1]}" if lines and lines[-1] else ""
        raise SettingsError(
            f"{path} can't be read: {type(error).__name__}{where}: {reason}.",
            "mend that line." if where else "it must be a plain file of Python, in UTF-8.",
        ) from error
    said = {name: value for name, value in values.items() if re.fullmatch(r"[A-Z][A-Z0-9_]*", name)}
    for name in said:
        if name.lower() not in _NAMES:
            raise _unknown(name.lower(), str.upper, where=f" in {path}")
    for name in values:
        if name.lower() in _NAMES and name.upper() not in said:
            raise SettingsError(
                f"{path} sets {name!r}, which nothing reads.", f"settings are in capitals: {name.upper()}."
            )
    return {name.lower(): value for name, value in said.items()}


def _read_run_json(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_bytes().decode("utf-8"))["settings"]
        if not isinstance(settings, dict):
            raise TypeError("its settings are no table")
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} is not a run's run.json: {error!r}.", "give runs/<name>/run.json.") from error
    for name in settings:
        if name not in _NAMES:
            raise _unknown(name, str.lower, where=f" in {path}")
    return settings


def in_words(values: Sequence[str | int]) -> str:
    """Some values of a setting, as a sentence has them."""
    if len(values) > 3 and list(values) == list(range(int(values[0]), int(values[-1]) + 1)):
        return f"{values[0]} to {values[-1]}"
    return " or ".join(map(repr, values))


def _without_defaults(values: dict[str, Any]) -> dict[str, Any]:
    # A config.py that lists every setting at its default says no more than an empty one.
    return {name: value for name, value in values.items() if value != _default(_NAMES[name][1])}


def _check_together(settings: Settings) -> None:
    flat = settings.flat()
    for _, name, which in each_setting():
        condition = which.metadata["read_when"]
        if condition is None or flat[name] == _default(which):
            continue
        other, values = condition
        if flat[other] not in values:
            raise SettingsError(
                f"{name.upper()} is set to {flat[name]!r}, and nothing reads it with {other.upper()} = {flat[other]!r}.",
                f"leave {name.upper()} at {_default(which)!r}, or set {other.upper()} to {in_words(values)}.",
            )
    training = settings.training
    if training.batch_size % training.accumulate:
        raise SettingsError(
            f"BATCH_SIZE {training.batch_size} can't be computed in {training.accumulate} equal parts.",
            "let ACCUMULATE divide BATCH_SIZE, such as --accumulate 1.",
        )
    if training.final_rate and training.schedule == "constant":
        raise SettingsError(
            f"FINAL_RATE is {training.final_rate:g}, and with SCHEDULE 'constant' the rate never falls.",
            "leave FINAL_RATE at 0, or set SCHEDULE to cosine, linear or wsd.",
        )
    if training.warmup >= 1 and not training.epochs and not training.max_steps and training.max_minutes:
        raise SettingsError(
            f"WARMUP {training.warmup:g} counts steps, and a run by MAX_MINUTES alone has no number of them.",
            "give it as a share of the run, such as 0.02, or set EPOCHS or MAX_STEPS besides.",
        )
    if training.diagnostics and not training.probe_steps:
        raise SettingsError(
            "DIAGNOSTICS looks at the model every PROBE_STEPS steps, and they are 0.",
            "set PROBE_STEPS to 100, or leave DIAGNOSTICS at False.",
        )
    own_components(settings)  # the words of optimizer and schedule, if they name files
    if training.learning_rate == "auto" and training.optimizer not in _choices("optimizer"):
        raise SettingsError(
            f"LEARNING_RATE 'auto' is known for {' and '.join(_choices('optimizer'))}, and not for "
            f"{training.optimizer}.",
            "say one, such as --learning-rate 0.001.",
        )
    check_model(settings, model_spec(settings, vocab_size=1))


def _checked(name: str, which: Field, value: Any) -> Any:
    kind = get_type_hints(_class_of(name))[name]
    if isinstance(value, str) and _plain(kind) != "str":
        if value == "auto" and _allows_auto(kind):
            return value
        raise _wrong_type(name, which, value)
    match _plain(kind):
        case "bool" if isinstance(value, bool):
            pass
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            pass
        case "float" if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise _wrong_type(name, which, value) from None
        case "str" if isinstance(value, str):
            pass
        case _:
            raise _wrong_type(name, which, value)
    least, most, choices = (which.metadata[key] for key in ("least", "most", "choices"))
    besides = (which.metadata["own"] and ".py" in str(value)) or (which.metadata["path"] and is_path(str(value)))
    said = str(value).split() if which.metadata["several"] else [value]
    unknown = next((word for word in said or [value] if word not in choices), None) if choices else None
    if unknown is not None and not besides:
        meant = nearest(str(unknown), choices)
        hint = f"did you mean {meant!r}? " if meant else ""
        raise SettingsError(
            f"{name.upper()} {unknown!r} is not known.",
            f"{hint}{'There' if hint else 'there'} are: {', '.join(choices)}.",
        )
    if len(said) > 1 and (len(set(said)) < len(said) or "none" in said):
        raise SettingsError(f"{name.upper()} {value!r} can't be.", "name each once, or none alone.")
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong_type(name, which, value)
    if not isinstance(value, str) and (
        (least is not None and not value >= least) or (most is not None and not value <= most)
    ):
        span = f"{least} or more" if most is None else f"from {least} to {most}"
        raise SettingsError(f"{name.upper()} {value} can't be: it must be {span}.", _meaning(name, which))
    return value


def _wrong_type(name: str, which: Field, value: Any) -> SettingsError:
    kind = get_type_hints(_class_of(name))[name]
    words = {"bool": "True or False", "int": "a whole number", "float": "a number", "str": "a word in quotes"}[
        _plain(kind)
    ]
    words += ' or "auto"' if _allows_auto(kind) else ""
    return SettingsError(f"{name.upper()} {value!r} is not {words}.", _meaning(name, which))


def _meaning(name: str, which: Field) -> str:
    """A hint for a value that can't be."""
    return f"leave it out for {_default(which)!r}; {name.upper()} is: {which.metadata['about']}."


def _find(name: str, spelling: Callable[[str], str]) -> tuple[str, Field]:
    if name not in _NAMES:
        raise _unknown(name, spelling)
    return _NAMES[name]


def _unknown(name: str, spelling: Callable[[str], str], where: str = "") -> SettingsError:
    meant = nearest(name, _NAMES)
    listed = "`microformer train --help` lists them all."
    return SettingsError(
        f'there is no setting "{spelling(name)}"{where}.',
        f"did you mean {spelling(meant)}? {listed}" if meant else listed,
    )


def _fields_of(kind: type) -> list[str]:
    return [one.name for one in fields(kind)]


def _class_of(name: str) -> type:
    return GROUPS[_NAMES[name][0]]


def _choices(name: str) -> tuple[str, ...]:
    return _NAMES[name][1].metadata["choices"]


def _default(which: Field) -> Any:
    assert which.default is not MISSING
    return which.default


def _allows_auto(kind: Any) -> bool:
    return Auto in get_args(kind)


def _plain(kind: Any) -> str:
    """bool, int, float or str: the type of a value that is not `auto`."""
    if get_origin(kind) is not None:
        kind = next(one for one in get_args(kind) if one is not Auto)
    return kind.__name__


# The settings that name a component of the model, and the words of each.
_SLOTS = {
    "attention": spec.ATTENTION, "feedforward": spec.FEEDFORWARD, "positions": spec.POSITIONS, "norm": spec.NORM,
    "memory": spec.MEMORY,
}  # fmt: skip
_NAMES: dict[str, tuple[str, Field]] = {name: (group, which) for group, name, which in each_setting()}
