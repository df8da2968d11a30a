"""A model from elsewhere, in this program's words: what every reader of a format gives."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from microformer.models.spec import ModelSpec
from microformer.tokenization import Tokenizer


@dataclass(frozen=True)
class Foreign:
    """A model, and what is known of how it was trained.

    Args:
        format: what it was, such as `Hugging Face gpt2`.
        spec: what it is here.
        parameters: its weights by our names, in float32.
        tokenizer: text to its ids.
        settings: how it was trained, or how its kind was, by the settings' names; the model's own are the spec's.
        step: how many steps it was trained for, where that is known.
        optimizer: what AdamW remembers of each parameter, as an `Optimizer` names it; empty where that is not known.
    """

    format: str
    spec: ModelSpec
    parameters: dict[str, Tensor]
    tokenizer: Tokenizer
    settings: dict[str, Any]
    step: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)
