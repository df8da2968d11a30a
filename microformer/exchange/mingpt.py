"""minGPT's state dict (model.pt): GPT-2's names, matrices as torch.nn.Linear has them, an unembedding of its own.

The number of heads is in none of its tensors: it is read from the config.json that minGPT writes beside it, or from the
width and depth where these are of a model that has a name there, or said. Its vocabulary is nowhere.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from microformer import files, settings
from microformer.errors import RunError
from microformer.exchange import families, gpt, maps, vocabularies
from microformer.exchange.foreign import Foreign
from microformer.models import spec
from microformer.models.spec import LayerSpec, ModelSpec
from microformer.tokenization import Tokenizer

# (layers, width) → heads, of the models that minGPT knows by name.
_HEADS = {
    (12, 768): 12, (24, 1024): 16, (36, 1280): 20, (48, 1600): 25, (8, 512): 16, (6, 192): 6, (4, 128): 4, (3, 48): 3,
}  # fmt: skip
FORMAT = "minGPT state dict"
_FIRST = "transformer.h.0.attn.c_attn.weight"


def is_state_dict(found: Any) -> bool:
    """Whether what a file holds is such a state dict."""
    return isinstance(found, dict) and isinstance(found.get(_FIRST), Tensor) and "transformer.wpe.weight" in found


def read(path: Path, found: dict[str, Any], tokenizer: Tokenizer | None = None, heads: int | None = None) -> Foreign:
    """The model of a state dict.

    Args:
        path: the file.
        found: what it holds.
        tokenizer: its vocabulary, unless one lies beside it.
        heads: how many it has, where that can't be known.

    Raises:
        RunError: something is missing.
    """
    tensors = {name: one for name, one in found.items() if not name.endswith(".attn.bias")}
    tied = "lm_head.weight" not in tensors
    vocab_size, width = found["transformer.wte.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("transformer.h."))
    heads = _heads(path, layers, width) if heads is None else heads
    middle = tensors.get("transformer.h.0.mlp.c_fc.weight", found[_FIRST]).shape[0]
    model = ModelSpec(
        vocab_size=vocab_size,
        embed_dim=width,
        num_heads=heads,
        ff_dim=middle,
        max_seq_len=found["transformer.wpe.weight"].shape[0],
        layers=families.layers(LayerSpec(spec.Softmax(), spec.GeluTanh()), layers),
        positions=spec.Learned(),
        norm=spec.LayerNorm(1e-5),
        tie_embeddings=tied,
        bias=True,
        dropout=0.1,
        attention_dropout=0.1,
        init="scaled",
    )
    tokenizer = tokenizer or vocabularies.of_folder(path.parent)
    if tokenizer is None:
        raise RunError(
            f"{path} comes without its vocabulary.",
            "name it: --tokenizer with the text it learned from (.txt), or a folder with GPT-2's.",
        )
    return Foreign(
        format=FORMAT,
        spec=model,
        parameters=maps.ours(gpt.pairs(model, "gpt2", across=False, biases=True), tensors, str(path)),
        tokenizer=tokenizer,
        settings=settings.read_config("mingpt_mini"),
    )


def _heads(path: Path, layers: int, width: int) -> int:
    if (beside := path.parent / "config.json").is_file():
        said = files.read_json(beside)
        told = said.get("model") if isinstance(said, dict) else None
        if isinstance(told, dict) and isinstance(told.get("n_head"), int):
            return told["n_head"]
    if (layers, width) not in _HEADS:
        raise RunError(
            f"{path} does not say into how many heads its width of {width} is divided.", "say it: --num-heads 4."
        )
    return _HEADS[layers, width]
