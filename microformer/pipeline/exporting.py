"""A run's model as other programs' files: what is written where. What the files are like is the exchange's."""

import os
from pathlib import Path

from microformer import files
from microformer.errors import SettingsError
from microformer.exchange import gguf, huggingface, onnx, own
from microformer.runs import Run

EXPORTS = Path("exports")


def export(run: Run, to: str, output: Path | None = None) -> Path:
    """Writes the chosen checkpoint's model, whole or not at all.

    Args:
        to: huggingface (a folder), safetensors, gguf or onnx (a file).
        output: what is written; None for one of the run's name in exports/.

    Returns:
        What was written.

    Raises:
        SettingsError: something is there already, or the format can't express a component, which is named.
        FileError: it can't be written.
    """
    path = output or EXPORTS / (f"{run.name}-huggingface" if to == "huggingface" else f"{run.name}.{to}")
    if os.path.lexists(path):
        raise SettingsError(f"{path} is there already.", "name another with --output, or take it away.")
    parameters = {name: one.detach() for name, one in run.model.named_parameters()}
    match to:
        case "huggingface":
            with files.atomic_folder(path) as folder:
                huggingface.write(folder, run.spec, parameters, run.tokenizer)
        case "safetensors":
            with files.atomic_file(path) as file:
                own.write(file, run.spec, parameters, run.tokenizer, run.settings.flat())
        case "gguf":
            with files.atomic_file(path) as file:
                gguf.write(file, run.spec, parameters, run.tokenizer, run.name)
        case "onnx":
            with run.explained(), files.atomic_file(path) as file:
                onnx.write(file, run.model, run.tokenizer)
    return path


def how_to_use(run: Run, to: str, path: Path) -> str:
    """One line that runs what was written."""
    match to:
        case "huggingface":
            return f'AutoModelForCausalLM.from_pretrained("{path}"), AutoTokenizer.from_pretrained("{path}")'
        case "gguf":
            return f"llama-cli -m {path}"
        case "onnx":
            return f'onnxruntime.InferenceSession("{path}").run(["logits"], {{"ids": ids}})'
    if run.spec.own:
        return f"its weights alone; the code is in {(run.folder / 'code').as_posix()}"
    return f"microformer import {path}"
