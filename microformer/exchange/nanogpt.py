"""nanoGPT's ckpt.pt: model_args, weights, AdamW's moments, the step, and the configuration that it was trained by.

GPT-2's names, matrices as torch.nn.Linear has them, and the exact GELU. The vocabulary is apart, in the meta.pkl of its
data; where there is none, it is GPT-2's, which has to be named, and padded to 50,304 in a model trained from scratch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microformer import settings
from microformer.errors import RunError, notice
from microformer.exchange import families, gpt, maps, vocabularies
from microformer.exchange.foreign import Foreign
from microformer.models import spec
from microformer.models.spec import LayerSpec, ModelSpec
from microformer.tokenization import Tokenizer

_ARGUMENTS = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")


def is_checkpoint(found: Any) -> bool:
    """Whether what a file holds is such a checkpoint."""
    return (
        isinstance(found, dict) and isinstance(found.get("model_args"), dict) and isinstance(found.get("model"), dict)
    )


def read(path: Path, found: dict[str, Any], tokenizer: Tokenizer | None = None) -> Foreign:
    """The model of a checkpoint.

    Args:
        path: the file, beside which or in whose data folder the vocabulary is looked for.
        found: what it holds.
        tokenizer: in the place of that.

    Raises:
        RunError: something is missing, or no vocabulary is there.
    """
    arguments, config = found["model_args"], found.get("config") or {}
    if lacking := next((name for name in _ARGUMENTS if not isinstance(arguments.get(name), int)), None):
        raise RunError(f"{path}: its model_args lack {lacking}.", "it is another kind of file.")
    model = ModelSpec(
        vocab_size=arguments["vocab_size"],
        embed_dim=arguments["n_embd"],
        num_heads=arguments["n_head"],
        ff_dim=4 * arguments["n_embd"],
        max_seq_len=arguments["block_size"],
        layers=families.layers(LayerSpec(spec.Softmax(), spec.Gelu()), arguments["n_layer"]),
        positions=spec.Learned(),
        norm=spec.LayerNorm(1e-5),
        tie_embeddings=True,
        bias=bool(arguments.get("bias", True)),
        dropout=float(arguments.get("dropout", 0.0)),
        attention_dropout=float(arguments.get("dropout", 0.0)),
        init="scaled",
    )
    pairs = list(gpt.pairs(model, "gpt2", across=False, biases=False))
    tensors = {name.removeprefix("_orig_mod.").removeprefix("module."): one for name, one in found["model"].items()}
    tensors.pop("lm_head.weight", None)  # the embedding's, once more
    kept = {name: one for name, one in tensors.items() if not name.endswith(".attn.bias") or one.dim() == 1}
    step = found.get("iter_num")
    return Foreign(
        format="nanoGPT checkpoint",
        spec=model,
        parameters=maps.ours(pairs, kept, str(path)),
        tokenizer=tokenizer or _vocabulary(path, config),
        settings=settings.read_config("nanogpt") | _training(config),
        step=step if isinstance(step, int) and 0 <= step < 2**31 else 0,
        optimizer=_moments(found.get("optimizer"), pairs, kept, str(path)),
    )


def _vocabulary(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    places, dataset = [path.parent], config.get("dataset")
    if isinstance(dataset, str) and Path(dataset).name == dataset:
        places.append(path.parent.parent / "data" / dataset)
    for folder in places:
        if (found := vocabularies.of_folder(folder)) is not None:
            return found
    looked = " and ".join(str(folder) for folder in places)
    raise RunError(
        f"{path} comes without its vocabulary: there is none in {looked}.",
        "name it: --tokenizer with its data's meta.pkl, the text it learned from (.txt), or a folder with GPT-2's.",
    )


def _training(config: Mapping[str, Any]) -> dict[str, Any]:
    """Its settings in ours; those that it doesn't say are left to the ready config."""
    values: dict[str, Any] = {}
    numbers = {
        "learning_rate": "learning_rate", "max_iters": "max_steps", "weight_decay": "weight_decay", "beta1": "beta_1",
        "beta2": "beta_2", "grad_clip": "grad_clip", "eval_interval": "eval_every",
    }  # fmt: skip
    for theirs, ours in numbers.items():
        if isinstance(value := config.get(theirs), int | float):
            values[ours] = value
    if isinstance(rows := config.get("batch_size"), int):
        parts = config.get("gradient_accumulation_steps", 1)
        values |= {"batch_size": rows * parts, "accumulate": parts}
    if (falls := config.get("lr_decay_iters", ends := config.get("max_iters"))) != ends:
        notice(f"its rate was to fall until step {falls}, and its training to end at {ends}: here it falls to the end.")
    if config.get("decay_lr", True):
        if isinstance(rise := config.get("warmup_iters"), int):
            values["warmup"] = float(rise)
        if isinstance(least := config.get("min_lr"), float) and config.get("learning_rate"):
            values["final_rate"] = least / config["learning_rate"]
    else:
        values |= {"schedule": "constant", "warmup": 0.0, "final_rate": 0.0}
    return values


def _moments(optimizer: Any, pairs: list[maps.Pair], tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """What its AdamW remembers, by our names: numbered in the order of the parameters, those of two axes first."""
    if not isinstance(optimizer, dict) or not optimizer.get("state"):
        return {}
    order = [name for axes in (True, False) for name, one in tensors.items() if (one.dim() >= 2) == axes]
    state = optimizer["state"]
    if sorted(state) != list(range(len(order))):
        raise RunError(
            f"{where} has moments of {len(state)} parameters, and {len(order)} parameters.",
            "take the optimizer out of it to import the weights alone.",
        )
    moments = {}
    for what in ("exp_avg", "exp_avg_sq"):
        theirs = {name: state[at][what] for at, name in enumerate(order)}
        moments |= {f"{name}/{what}": one for name, one in maps.ours(pairs, theirs, f"{where}: {what}").items()}
    steps = {f"{pair.ours}/step": torch.as_tensor(float(state[0]["step"])) for pair in pairs}
    return moments | steps
