"""This program's own file: safetensors with every weight by its name here, and in the header all it takes to use them.

    weights             blocks.0.attention.W_QKV.weight …, float32
    header              microformer: the format's number; spec, tokenizer, settings: JSON

Any model can leave by this door. One with components of the user's own does not come back: their code is not in it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from microformer import runs, tokenization
from microformer.errors import RunError
from microformer.exchange.foreign import Foreign
from microformer.models.spec import ModelSpec
from microformer.tokenization import Tokenizer

_FORMAT = "1"


def write(
    path: Path, model: ModelSpec, parameters: Mapping[str, Tensor], tokenizer: Tokenizer, settings: Mapping[str, Any]
) -> None:
    """Writes a model as one file.

    Args:
        settings: those it was trained by, by name.

    Raises:
        FileError: it can't be written.
    """
    about = {"spec": model.to_json(), "tokenizer": tokenizer.to_dict(), "settings": dict(settings)}
    header = {name: json.dumps(value, ensure_ascii=False) for name, value in about.items()}
    runs.save_tensors(parameters, path, {"microformer": _FORMAT, "format": "pt", **header})


def read(path: Path, tokenizer: Tokenizer | None = None) -> Foreign:
    """The model in such a file.

    Args:
        tokenizer: in the place of its own.

    Raises:
        RunError: it is another program's, or damaged.
    """
    about = runs.tensors_header(path)
    if about.get("microformer") != _FORMAT:
        raise RunError(
            f"{path} holds weights alone, which say too little of their model.",
            "give the folder that has its config.json besides, or a file that `export --to safetensors` wrote.",
        )
    try:
        plain = {name: json.loads(about[name]) for name in ("spec", "tokenizer", "settings")}
        model = ModelSpec.from_json(plain["spec"])
    except (KeyError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error!r} in its header.", "export it again.") from error
    if model.own:
        raise RunError(
            f"{path} has the component {model.own[0][1]}, whose code is not in it.", "take the run folder itself."
        )
    return Foreign(
        format="Microformer safetensors",
        spec=model,
        parameters=runs.load_tensors(path),
        tokenizer=tokenizer or tokenization.from_dict(plain["tokenizer"]),
        settings=plain["settings"],
    )
