"""A model as one ONNX file, weights inside, which onnxruntime and others run: the same logits of the same ids.

    ids  int64 [batch pos]   →   logits  float32 [batch pos vocab]

Any batch, and any length up to the context: more tokens fail there, for two shapes don't meet. PyTorch's exporter
follows the model's own code, every attention by its formula (kernels/base.py) and not by a road that is faster for some
lengths. The file has no state: nothing is remembered from call to call, and each is given the whole text. The tokenizer
goes along in its metadata, as `tokenizers` has it.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microformer.errors import SettingsError
from microformer.models import grammar
from microformer.models.model import Microformer
from microformer.models.spec import MEMORY
from microformer.tokenization import Tokenizer

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

# A protobuf holds 2 GiB; of it the graph wants some.
_MOST_BYTES = 2**31 - 2**26


def write(path: Path, model: Microformer, tokenizer: Tokenizer) -> None:
    """Writes a model, in float32.

    Args:
        path: where to; what is there is replaced.
        model: stays as it is.
        tokenizer: goes along in the file's metadata, as the library `tokenizers` has it.

    Raises:
        SettingsError: a component can't be written down, or is remembered between calls; the weights are too many for
            one file; a package is missing, or PyTorch is too old.
    """
    _check(model)
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ImportError as error:
        raise SettingsError(
            "exporting to ONNX takes the packages onnx and onnxscript.", 'pip install "microformer[onnx]"'
        ) from error
    plain = copy.deepcopy(model).cpu().float().eval()
    plain.compute_dtype = torch.float32
    try:
        with _quietly():
            program = _exported(plain)
    except Exception as error:
        raise _refused(model, error) from error
    # Of each step it says where in our files, on this machine, it was taken.
    ClearMetadataAndDocStringPass()(program.model)
    program.model.metadata_props["tokenizer"] = tokenizer.to_library().to_str()
    program.save(path)


def _check(model: Microformer) -> None:
    """Raises SettingsError for what is known to have no place in such a file."""
    if model.spec.carries:
        raise SettingsError(
            f"MEMORY {grammar.written([model.spec.memory], MEMORY)} goes over from segment to segment, "
            "and an ONNX file remembers nothing between calls.",
            "train with MEMORY = 'none' or 'tokens'; --to safetensors takes this model.",
        )
    size = 4 * sum(one.numel() for one in (*model.parameters(), *model.buffers()))
    if size > _MOST_BYTES:
        raise SettingsError(
            f"the model is {size / 2**30:.1f} GiB in float32, and one ONNX file holds less than 2.",
            "--to safetensors has no such limit.",
        )
    if not hasattr(torch.compiler, "is_exporting"):
        raise SettingsError(f"PyTorch {torch.__version__} can't export this model to ONNX.", "pip install -U torch")


class _Logits(nn.Module):
    """What the file does."""

    room: Tensor

    def __init__(self, model: Microformer):
        super().__init__()
        self.model = model
        self.register_buffer("room", torch.zeros(model.spec.max_seq_len, dtype=torch.long))

    def forward(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]:
        # More ids than there is room for are not the shape of what is added to them.
        return self.model(ids + self.room[: ids.shape[1]], tap=_AsWritten()).logits


class _AsWritten:
    """A tap that looks at scores and patterns, which attention has only where it goes by its formula."""

    def wants(self, name: str) -> bool:
        return name.endswith(("hook_attn_scores", "hook_pattern"))

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        return tensor


def _exported(model: Microformer) -> "ONNXProgram":
    """The model in ONNX's operations. Whatever holds for some numbers of texts or lengths alone is an error here."""
    # An example's size of 1 would be taken for a fixed one, and two sizes alike for one.
    ids = torch.zeros(3, 2, dtype=torch.long)
    sizes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("pos", min=1, max=model.spec.max_seq_len)}
    with torch.no_grad():
        program = torch.export.export(_Logits(model), (ids,), dynamic_shapes={"ids": sizes}, strict=False)
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["ids"], output_names=["logits"],
            dynamic_shapes={"ids": {0: "batch", 1: "pos"}},
        )  # fmt: skip
    assert made is not None
    return made


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps to itself what the exporter says of its progress, and of packages and operations we have no use for."""
    heard, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _refused(model: Microformer, error: Exception) -> SettingsError:
    """What a user is told of an error of PyTorch's exporter."""
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    reason = f"{type(first).__name__}: {str(first).strip()}".splitlines()[0].rstrip(".: ")
    if own := model.spec.own:
        named = " or ".join(f"{slot.upper()} {kind}" for slot, kind in own)
        return SettingsError(
            f"{named} can't be written down as ONNX ({reason}).",
            "it must hold for any batch and length: no `if` on a size or a number, no len(x), no NumPy; --debug shows "
            "where. --to safetensors takes this model.",
        )
    return SettingsError(
        f"PyTorch {torch.__version__} can't write this model down as ONNX ({reason}).",
        "pip install -U torch onnxscript; --to safetensors takes this model.",
    )
