"""What a model is, in words and numbers: enough to build it again anywhere. Knows no torch and no weights.

A slot of the model (attention, feed-forward, positions, norm, memory) is filled by a component, which is named by a
word or by a file of the user's own (grammar.py). Each component's spec is a frozen dataclass that refuses what can't
be; `to_json` and `from_json` carry the whole.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Union

from microformer.errors import SettingsError
from microformer.models import grammar
from microformer.models.grammar import MOST_LAYERS, Own


@dataclass(frozen=True)
class Softmax:
    """Dense causal attention."""


@dataclass(frozen=True)
class Window:
    """Attention to the last `size` tokens, and to the text's first `sinks`."""

    size: int = 64
    sinks: int = 0

    def __post_init__(self):
        _between("attention window's size", self.size, 1, 2**24)
        _between("attention window's sinks", self.sinks, 0, self.size)

    @property
    def reach(self) -> int:
        """How many tokens a query looks back over, itself among them, before it is dense attention."""
        return self.size


@dataclass(frozen=True)
class Strided:
    """Attention to the last `stride` tokens, and to every one a multiple of it back."""

    stride: int = 64

    def __post_init__(self):
        _between("attention strided's stride", self.stride, 2, 2**24)

    @property
    def reach(self) -> int:
        """As a window's."""
        return self.stride


@dataclass(frozen=True)
class Fixed:
    """Attention to the own block of `stride` tokens, and to the last `columns` of every block before it."""

    stride: int = 64
    columns: int = 8

    def __post_init__(self):
        _between("attention fixed's stride", self.stride, 2, 2**24)
        _between("attention fixed's columns", self.columns, 1, self.stride)

    @property
    def reach(self) -> int:
        """As a window's."""
        return self.stride


@dataclass(frozen=True)
class Sparsemax:
    """Dense attention with the nearest distribution to the scores in softmax's place: exact zeros."""


@dataclass(frozen=True)
class Entmax15:
    """Dense attention with 1.5-entmax, between softmax and sparsemax: exact zeros."""


@dataclass(frozen=True)
class TopK:
    """Dense attention to each query's k highest scores alone."""

    k: int = 16

    def __post_init__(self):
        _between("attention topk's k", self.k, 1, 2**24)

    @property
    def reach(self) -> int:
        """How many tokens there must be for it to leave one out."""
        return self.k


@dataclass(frozen=True)
class Sigmoid:
    """Attention in which each key's share is its own affair."""


@dataclass(frozen=True)
class LinearAttention:
    """Attention by running sums, whose memory does not grow."""

    scores: ClassVar[bool] = False
    keeps_keys: ClassVar[bool] = False


@dataclass(frozen=True)
class Differential:
    """Attention by the difference of two softmax patterns."""


@dataclass(frozen=True)
class Learned:
    """A learned vector for each position, added to the embedding."""

    embeds: ClassVar[bool] = True


@dataclass(frozen=True)
class Sinusoidal:
    """Sines and cosines of falling frequency, added to the embedding."""

    base: float = 10000.0
    embeds: ClassVar[bool] = True

    def __post_init__(self):
        _positive("positions", "base", self.base)


@dataclass(frozen=True)
class Rope:
    """Queries and keys turned by an angle that grows with their position."""

    base: float = 10000.0
    stretch: float = 1.0

    def __post_init__(self):
        _positive("positions", "base", self.base)
        _positive("positions", "stretch", self.stretch)
        if self.stretch > 1e6:
            raise SettingsError(
                f"POSITIONS has stretch {self.stretch:g}, and it is 1000000 at most.", "2 doubles the length."
            )


@dataclass(frozen=True)
class Alibi:
    """Scores fall with distance, each head's at its own rate."""

    biases: ClassVar[bool] = True


@dataclass(frozen=True)
class T5:
    """A learned bias on scores for each head and bucket of distances."""

    buckets: int = 32
    distance: int = 128
    biases: ClassVar[bool] = True

    def __post_init__(self):
        _between("positions t5's buckets", self.buckets, 2, 2**16)
        _between("positions t5's distance", self.distance, self.buckets // 2 + 1, 2**24)


@dataclass(frozen=True)
class NoPositions:
    """No positions: the causal mask alone tells order."""


@dataclass(frozen=True)
class LayerNorm:
    """Mean and variance set to 0 and 1, then a learned gain."""

    eps: float = 1e-5

    def __post_init__(self):
        _positive("norm", "eps", self.eps)


@dataclass(frozen=True)
class RMSNorm:
    """Root mean square set to 1, then a learned gain."""

    eps: float = 1e-6

    def __post_init__(self):
        _positive("norm", "eps", self.eps)


@dataclass(frozen=True)
class Gelu:
    """Two matrices with a GELU between."""


@dataclass(frozen=True)
class GeluTanh:
    """Two matrices with GELU's tanh form between, as in GPT-1 and GPT-2."""


@dataclass(frozen=True)
class Relu:
    """Two matrices with a ReLU between."""


@dataclass(frozen=True)
class Relu2:
    """Two matrices with a squared ReLU between."""


@dataclass(frozen=True)
class Swiglu:
    """Three matrices: one branch, passed through SiLU, gates the other."""


@dataclass(frozen=True)
class Geglu:
    """Three matrices: one branch, passed through GELU, gates the other."""


@dataclass(frozen=True)
class NoMemory:
    """Nothing is remembered beyond the context."""

    carries: ClassVar[bool] = False
    kept: ClassVar[int] = 0


@dataclass(frozen=True)
class XL:
    """The last `length` keys and values go over from segment to segment."""

    length: int = 128
    carries: ClassVar[bool] = True

    def __post_init__(self):
        _between("memory xl's length", self.length, 1, 2**24)

    @property
    def kept(self) -> int:
        """How many keys of earlier segments a layer sees."""
        return self.length


@dataclass(frozen=True)
class Compressive:
    """As xl, and what is older than `length` is pooled, `rate` keys into one, up to `pooled` of them."""

    length: int = 64
    pooled: int = 64
    rate: int = 4
    carries: ClassVar[bool] = True

    def __post_init__(self):
        _between("memory compressive's length", self.length, 1, 2**24)
        _between("memory compressive's pooled", self.pooled, 1, 2**24)
        _between("memory compressive's rate", self.rate, 2, 2**16)

    @property
    def kept(self) -> int:
        """As of xl: the most there can be."""
        return self.length + self.rate - 1 + self.pooled


@dataclass(frozen=True)
class MemoryTokens:
    """Learned vectors before every text, seen by all of it."""

    n: int = 8
    carries: ClassVar[bool] = False
    kept: ClassVar[int] = 0

    def __post_init__(self):
        _between("memory tokens' n", self.n, 1, 2**16)


@dataclass(frozen=True)
class Recurrent:
    """Memory tokens that a segment reads and writes anew for the next; learned through `segments` of them."""

    tokens: int = 8
    segments: int = 2
    carries: ClassVar[bool] = True
    kept: ClassVar[int] = 0

    def __post_init__(self):
        _between("memory recurrent's tokens", self.tokens, 1, 2**16)
        # Through one segment no gradient reaches what was written for the next: it would never be learned.
        _between("memory recurrent's segments", self.segments, 2, 1024)


@dataclass(frozen=True)
class KNN:
    """One layer finds, for each query, the `k` most similar of the last `size` keys of earlier segments."""

    size: int = 1024
    k: int = 16
    carries: ClassVar[bool] = True
    kept: ClassVar[int] = 0

    def __post_init__(self):
        _between("memory knn's size", self.size, 1, 2**24)
        _between("memory knn's k", self.k, 1, self.size)


@dataclass(frozen=True)
class MoE:
    """Several SwiGLUs, of which each token is sent to `k`; `balance` weighs the loss that keeps all in use."""

    experts: int = 4
    k: int = 2
    balance: float = 0.01

    def __post_init__(self):
        _between("feedforward moe's experts", self.experts, 2, 4096)
        _between("feedforward moe's k", self.k, 1, self.experts)
        if not 0 <= self.balance <= 1e6:
            raise SettingsError(
                f"FEEDFORWARD moe has balance {self.balance}, and it must be a number of 0 or more.",
                "0.01 is usual; 0 lets experts fall idle.",
            )


Attention = Union[  # noqa: UP007
    Softmax, Window, Strided, Fixed, Sparsemax, Entmax15, TopK, Sigmoid, LinearAttention, Differential, Own
]  # fmt: skip
FeedForward = Union[Relu, Gelu, GeluTanh, Relu2, Swiglu, Geglu, MoE, Own]  # noqa: UP007  (a plain `|` of classes is not one name to a JSON reader)
PositionKind = Union[Learned, Sinusoidal, Rope, Alibi, T5, NoPositions, Own]  # noqa: UP007
Norm = Union[LayerNorm, RMSNorm, Own]  # noqa: UP007
Memory = Union[NoMemory, XL, Compressive, MemoryTokens, Recurrent, KNN, Own]  # noqa: UP007

# Each slot's kinds by the word that settings, run folders and docs use for them.
ATTENTION: dict[str, type] = {
    "softmax": Softmax, "window": Window, "strided": Strided, "fixed": Fixed, "sparsemax": Sparsemax,
    "entmax15": Entmax15, "topk": TopK, "sigmoid": Sigmoid, "linear": LinearAttention, "differential": Differential,
}  # fmt: skip
FEEDFORWARD: dict[str, type] = {
    "gelu": Gelu, "gelu_tanh": GeluTanh, "relu": Relu, "relu2": Relu2, "swiglu": Swiglu, "geglu": Geglu,
    "moe": MoE,
}  # fmt: skip
POSITIONS: dict[str, type] = {
    "learned": Learned, "sinusoidal": Sinusoidal, "rope": Rope, "alibi": Alibi, "t5": T5, "none": NoPositions,
}  # fmt: skip
NORM: dict[str, type] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
MEMORY: dict[str, type] = {
    "none": NoMemory, "xl": XL, "compressive": Compressive, "recurrent": Recurrent, "tokens": MemoryTokens, "knn": KNN,
}  # fmt: skip
NORM_PLACEMENT = ("pre", "post", "sandwich")
INIT = ("zero", "normal", "scaled")


@dataclass(frozen=True)
class LayerSpec:
    """One block: what its two halves are."""

    attention: Attention
    feedforward: FeedForward


@dataclass(frozen=True)
class ModelSpec:
    """A whole model.

    Args:
        vocab_size: different token ids; ids are 0 … vocab_size − 1.
        embed_dim: width of the residual stream (d_model).
        num_heads: attention heads a layer; d_head = embed_dim / num_heads.
        ff_dim: width of the feed-forward's middle (d_ff).
        max_seq_len: the context, in tokens.
        layers: one spec a block, first to last.
        positions, norm: what fills these slots everywhere.
        qk_norm: whether queries and keys are normalised in each head (RMSNorm with a gain).
        tie_embeddings: whether unembedding reuses the embedding's matrix.
        bias: whether linear maps and LayerNorms have a bias.
        dropout: the share of activations dropped in training, 0 … 1.
        ngrams: the longest n-grams of tokens that have embeddings of their own; 1 for none.
        ngram_entries: the most rows that the table of a length has; 0 where there are none.
        ngram_dropout: the share of n-grams left out in training, 0 … 1.
        num_kv_heads: heads of keys and values, each shared by as many heads of queries; 0 for one each.
        score_cap: what scores are squeezed under, in either direction; 0 for no cap.
        attention_dropout: the share of attention's pattern dropped in training, 0 … 1.
        output_gate: whether what attention takes passes a gate that reads the stream.
        norm_placement: pre, post or sandwich (models/residual.py).
        residual_scalars: whether the stream and what is added to it are each times a learned number.
        embed_scale: what token embeddings are multiplied by.
        parallel: whether a block's halves read the same stream and are added to it together.
        loops: how many times the blocks are gone through, with the same weights.
        memory: what goes over from one segment of a text, as long as the context, to the next.
        init: how weights begin: zero, normal or scaled (`Microformer.start`).

    Raises:
        SettingsError: the parts can't make one model.
    """

    vocab_size: int
    embed_dim: int
    num_heads: int
    ff_dim: int
    max_seq_len: int
    layers: tuple[LayerSpec, ...]
    positions: PositionKind
    norm: Norm
    qk_norm: bool = False
    tie_embeddings: bool = False
    bias: bool = False
    dropout: float = 0.0
    ngrams: int = 1
    ngram_entries: int = 0
    ngram_dropout: float = 0.0
    num_kv_heads: int = 0
    score_cap: float = 0.0
    attention_dropout: float = 0.0
    output_gate: bool = False
    norm_placement: str = "pre"
    residual_scalars: bool = False
    embed_scale: float = 1.0
    parallel: bool = False
    loops: int = 1
    memory: Memory = NoMemory()
    init: str = "zero"

    def __post_init__(self):
        limits = {"vocab_size": 2**31, "embed_dim": 65536, "num_heads": 4096, "ff_dim": 2**20, "max_seq_len": 2**24}
        for name, most in limits.items():
            _between(name, getattr(self, name), 1, most)
        _between("num_layers", len(self.layers), 1, MOST_LAYERS)
        _between("ngrams", self.ngrams, 1, 8)
        _between("loops", self.loops, 1, MOST_LAYERS)
        _between("ngram_entries", self.ngram_entries, int(self.ngrams > 1), 2**24)
        for name in ("qk_norm", "tie_embeddings", "bias", "output_gate", "residual_scalars", "parallel"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"{name.upper()} {getattr(self, name)!r} is not True or False.", "use one of them.")
        for name in ("dropout", "ngram_dropout", "attention_dropout"):
            if not 0 <= (share := getattr(self, name)) < 1:
                raise SettingsError(f"{name.upper()} {share} is not a share.", "use 0 for none, or one such as 0.1.")
        if self.embed_dim % self.num_heads:
            raise SettingsError(
                f"EMBED_DIM {self.embed_dim} can't be divided into {self.num_heads} heads.",
                _division_hint(self.embed_dim, self.num_heads),
            )
        _between("num_kv_heads", self.num_kv_heads, 0, self.num_heads)
        if self.num_heads % self.kv_heads:
            few = [str(n) for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
            raise SettingsError(
                f"{self.num_heads} heads can't share {self.kv_heads} heads of keys and values alike.",
                f"set NUM_KV_HEADS to a divisor of NUM_HEADS: {', '.join(few[:8])}.",
            )
        if not 0 <= self.score_cap < 1e6:
            raise SettingsError(
                f"SCORE_CAP {self.score_cap} can't be: it is a number of 0 or more.", "use 0 for no cap; 30 is usual."
            )
        for layer in self.layers:
            in_sight = self.max_seq_len + self.kept
            if isinstance(layer.attention, (Window, Strided, Fixed, TopK)) and layer.attention.reach > in_sight:
                named = f"{type(layer.attention).__name__.lower()}({layer.attention.reach})"
                raise SettingsError(
                    f"ATTENTION {named} is wider than the context of {in_sight} tokens.",
                    "give it a smaller number, or raise MAX_SEQ_LEN (with a text as long); softmax sees all.",
                )
        attentions = [layer.attention for layer in self.layers]
        unscored = [kind for kind in attentions if not _says(kind, "scores", True)]
        if unscored and _says(self.positions, "biases", False):
            raise SettingsError(
                f"{_called(unscored[0])} has no scores that a position's bias could be added to.",
                "use POSITIONS = 'rope', 'learned' or another that is not a bias, or another ATTENTION.",
            )
        for name in ("score_cap", "attention_dropout"):
            if len(unscored) == len(attentions) and getattr(self, name):
                raise SettingsError(
                    f"{name.upper()} is read by no layer: {_called(unscored[0])} makes no pattern.", "leave it at 0."
                )
        keyless = [kind for kind in attentions if not _says(kind, "keeps_keys", True)]
        if keyless and not isinstance(self.memory, (NoMemory, KNN)):
            raise SettingsError(
                f"{_called(keyless[0])} keeps no keys that a memory could hold on to.",
                "use MEMORY = 'none' or 'knn', or another ATTENTION.",
            )
        if self.places is None and _says(self.positions, "embeds", False):
            raise SettingsError(
                "positions that are added to the embedding end with the context, and this memory reaches beyond it.",
                "use POSITIONS = 'rope', 'alibi', 't5' or 'none' with MEMORY = 'xl', 'compressive' or one of your own.",
            )
        if any(isinstance(kind, Differential) for kind in attentions) and self.d_head % 4:
            raise SettingsError(
                f"differential attention halves the pairs of a head, and heads are {self.d_head} wide.",
                "choose EMBED_DIM and NUM_HEADS so that a head's width is a multiple of 4.",
            )
        for name, words in (("norm_placement", NORM_PLACEMENT), ("init", INIT)):
            if (word := getattr(self, name)) not in words:
                raise SettingsError(f"{name.upper()} {word!r} is not known.", f"there are: {', '.join(words)}.")
        if self.parallel and self.norm_placement == "post":
            raise SettingsError(
                "norms after each half can't be where both halves are added at once.",
                "use NORM_PLACEMENT = 'pre' or 'sandwich', or PARALLEL = False.",
            )
        _positive("embed_scale", "the factor", self.embed_scale)
        if isinstance(self.positions, Rope) and self.d_head < 2:
            raise SettingsError(
                f"rope turns pairs of numbers, and {self.num_heads} heads of EMBED_DIM {self.embed_dim} are 1 wide.",
                "use fewer heads, or POSITIONS = 'learned'.",
            )
        if isinstance(self.positions, Rope) and self.d_head < 4 and self.positions != Rope():
            raise SettingsError(
                f"rope's base and stretch are read by no pair but the first, and heads of {self.d_head} have one.",
                "use fewer heads, or plain rope.",
            )
        if isinstance(self.positions, Sinusoidal) and self.embed_dim % 2:
            raise SettingsError(
                f"sinusoidal positions come in pairs, and EMBED_DIM {self.embed_dim} is odd.",
                "use an even EMBED_DIM, or POSITIONS = 'learned'.",
            )

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.embed_dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def depth(self) -> int:
        """How many blocks a token goes through."""
        return len(self.layers) * self.loops

    @property
    def segments(self) -> int:
        """Through how many segments, each as long as the context, the gradient goes."""
        return _says(self.memory, "segments", 1)

    @property
    def places(self) -> int | None:
        """How many positions there are for tokens, those of the memory among them; None where a text has no end."""
        match self.memory:
            case MemoryTokens(n=tokens):
                return tokens + self.max_seq_len
            case Recurrent(tokens=tokens):
                return tokens + self.max_seq_len + tokens
            case XL() | Compressive() | Own():
                return None
        return self.max_seq_len

    @property
    def num_layers(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    @property
    def carries(self) -> bool:
        """Whether the memory goes over from segment to segment, and so a text may be longer than the context."""
        return _says(self.memory, "carries", False)

    @property
    def by_sequence(self) -> bool:
        """Whether a sequence's loss hangs on that sequence alone: not on chance, nor on what the others are."""
        chance = self.dropout or self.ngram_dropout or self.attention_dropout
        balanced = any(isinstance(layer.feedforward, MoE) and layer.feedforward.balance for layer in self.layers)
        return not (chance or balanced)

    @property
    def kept(self) -> int:
        """The most keys of earlier segments that a layer sees."""
        return _says(self.memory, "kept", 0)

    @property
    def own(self) -> tuple[tuple[str, Own], ...]:
        """(slot, component) of each that is in a file of the user's own, each once."""
        slots = [("attention", layer.attention) for layer in self.layers]
        slots += [("feedforward", layer.feedforward) for layer in self.layers]
        slots += [("positions", self.positions), ("norm", self.norm), ("memory", self.memory)]
        return tuple(dict.fromkeys((slot, kind) for slot, kind in slots if isinstance(kind, Own)))

    def with_own(self, find: Callable[[str, Own], Own]) -> "ModelSpec":
        """The same with another in place of each of the user's own components. find: of a slot and what is in it."""

        def found(slot: str, kind: Any) -> Any:
            return find(slot, kind) if isinstance(kind, Own) else kind

        layers = tuple(
            LayerSpec(found("attention", layer.attention), found("feedforward", layer.feedforward))
            for layer in self.layers
        )
        rest = {slot: found(slot, getattr(self, slot)) for slot in ("positions", "norm", "memory")}
        return replace(self, layers=layers, **rest)

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values; `from_json` gives it back."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["layers"] = [
            {
                "attention": grammar.to_json(layer.attention, ATTENTION),
                "feedforward": grammar.to_json(layer.feedforward, FEEDFORWARD),
            }
            for layer in self.layers
        ]
        plain["positions"] = grammar.to_json(self.positions, POSITIONS)
        plain["norm"] = grammar.to_json(self.norm, NORM)
        plain["memory"] = grammar.to_json(self.memory, MEMORY)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "ModelSpec":
        """The spec that `to_json` wrote.

        Raises:
            SettingsError: a field is missing, unknown or of the wrong kind.
        """
        try:
            values = dict(plain)
            values["layers"] = tuple(
                LayerSpec(
                    grammar.from_json(layer["attention"], ATTENTION),
                    grammar.from_json(layer["feedforward"], FEEDFORWARD),
                )
                for layer in plain["layers"]
            )
            values["positions"] = grammar.from_json(plain["positions"], POSITIONS)
            values["norm"] = grammar.from_json(plain["norm"], NORM)
            if "memory" in plain:
                values["memory"] = grammar.from_json(plain["memory"], MEMORY)
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                f"this is not a model's spec: {error}.", "it was made by another version, or edited by hand."
            ) from error


def _says(kind: Any, what: str, otherwise: Any) -> Any:
    """What a component declares of itself: its spec, or the class of the user's own."""
    return kind.says(what, otherwise) if isinstance(kind, Own) else getattr(kind, what, otherwise)


def _called(attention: Any) -> str:
    """An attention in an error's words."""
    if isinstance(attention, Own):
        return attention.name
    return f"{next(word for word, kind in ATTENTION.items() if kind is type(attention))} attention"


def _positive(setting: str, name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise SettingsError(
            f"{setting.upper()} has {name} {value}, and it must be a number above 0.",
            "leave it out for the usual value.",
        )


def _between(name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SettingsError(
            f"{name.upper()} {value!r} can't be: it must be {least} or more, and {most} at most.",
            f"choose a whole number from {least} to {most}.",
        )


def _division_hint(embed_dim: int, num_heads: int) -> str:
    below = max(2, embed_dim // num_heads) * num_heads
    divisors = [n for n in range(2, min(embed_dim, 4097)) if embed_dim % n == 0]
    nearest_few = sorted(divisors, key=lambda n: abs(n - num_heads))[:4]
    heads = [str(n) for n in sorted(nearest_few)]
    instead = f", or set NUM_HEADS to {' or '.join(', '.join(heads).rsplit(', ', 1))}" if heads else ""
    return f"use a multiple of {num_heads}, such as {below} or {below + num_heads}{instead}."
