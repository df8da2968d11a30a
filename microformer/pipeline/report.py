"""What is said before and after a training: sizes, figures beside baselines, a picture, words of warning."""

import math
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Integer
from torch import Tensor

from microformer import corpora, pictures
from microformer.errors import DataError, notice
from microformer.models.model import Microformer
from microformer.models.spec import ModelSpec
from microformer.models.taps import Record
from microformer.runs import Run
from microformer.settings import Settings
from microformer.training.budgets import Budget
from microformer.training.loop import Position

# With fewer steps than this, a run of some epochs is over before it has begun to learn.
_FEW_STEPS = 200


def bits_per_nat(data: corpora.Prepared) -> float:
    """What a validation loss in nats a token is in bits a character."""
    split = data.manifest["val"] or data.manifest["train"]
    return split["tokens"] / split["characters"] / math.log(2)


def first_words(run: Run) -> str:
    """A prompt that suits any run: the beginning of a line, or the vocabulary's first character."""
    newline = "\n" in run.tokenizer.decode(run.tokenizer.encode("\n", "skip").tolist())
    if newline:
        return "\n"
    texts = (run.tokenizer.decode([token]) for token in range(run.tokenizer.vocab_size))
    return next(text for text in texts if "\ufffd" not in text and len(run.tokenizer.encode(text, "skip")))


def say_sizes(run: Run, data: corpora.Prepared, budget: Budget) -> None:
    """Says, before the first step, what is trained on what and how large it all is."""
    spec, training = run.spec, run.settings.training
    tokens = training.batch_size * spec.max_seq_len
    parameters = run.info["parameters"]
    length = f"{budget.steps:,} steps" if budget.steps else ""
    if budget.seconds:
        minutes = f"{budget.seconds / 60:g} minutes"
        length = f"{length} or {minutes}, whichever comes first" if length else minutes
    if run.settings.model.max_seq_len > spec.max_seq_len:
        notice(f"the text is short: the context is {spec.max_seq_len} tokens, not {run.settings.model.max_seq_len}.")
    if run.settings.model.vocab_size != spec.vocab_size:
        print(f"vocabulary  {spec.vocab_size:,} tokens, as the {data.tokenizer.kind} tokenizer found them")
    print(f"run         {run.folder}")
    print(f"data        {data.corpus}: {len(data.train):,} tokens to learn from")
    layers = "1 layer" if spec.num_layers == 1 else f"{spec.num_layers} layers"
    if spec.loops > 1:
        layers += f" gone through {spec.loops} times"
    print(f"model       {layers}, {spec.embed_dim} wide, context {spec.max_seq_len}: {parameters:,} parameters")
    print(f"memory      about {max(1, memory_needed(run) / 1e6):,.0f} MB for weights, gradients, moments, activations")
    print(f"step        {training.batch_size} × {spec.max_seq_len} = {tokens:,} tokens")
    print(f"budget      {length}")
    print(f"machine     {run.info['compute']}", flush=True)
    if budget.steps and budget.steps < _FEW_STEPS and training.epochs and not training.max_steps:
        epochs = math.ceil(training.epochs * 1000 / budget.steps)
        notice(f"the text is short: {training.epochs:g} epochs are only {budget.steps} steps; try --epochs {epochs}.")


def memory_needed(run: Run) -> int:
    """A rough count of the bytes that training takes, from the sizes alone."""
    spec, training = run.spec, run.settings.training
    rows = training.batch_size // training.accumulate
    size = 2 if run.settings.machine.precision == "bfloat16" else 4
    # Attention scores of short contexts are kept as they are; those of longer ones are made again in pieces.
    scores = 2 * spec.num_heads * min(spec.max_seq_len, 256)
    a_token = spec.depth * (16 * spec.embed_dim + 5 * spec.ff_dim + scores)
    return 16 * run.info["parameters"] + rows * spec.max_seq_len * (size * a_token + 12 * spec.vocab_size)


def least_memory(spec: ModelSpec, chosen: Settings) -> tuple[int, int]:
    """The bytes that a step takes at the very least: for weights, gradients and the optimizer's moments; and for what
    each token leaves in each layer for the way back."""
    wide, middle = spec.embed_dim, spec.ff_dim
    weights = 16 * (spec.num_layers * (4 * wide**2 + 2 * wide * middle) + spec.vocab_size * wide)
    tokens = chosen.training.batch_size // chosen.training.accumulate * spec.max_seq_len
    return weights, tokens * (2 * spec.depth * (8 * wide + 2 * middle) + 4 * spec.vocab_size)


def figures(run: Run, position: Position, baselines: Mapping[str, float], data: corpora.Prepared) -> dict[str, Any]:
    """The figures that run.json keeps. Losses in nats a token."""
    losses = [row["train_loss"] for row in run.metrics if "train_loss" in row]
    exact = [row["val_exact_match"] for row in run.metrics if row["step"] == position.best_step and data.example > 1]
    return {
        "val_loss": position.best,
        **({"exact_match": exact[-1]} if exact else {}),  # a task's: the share of examples with no mistake
        "bits_per_char": None if position.best is None else position.best * bits_per_nat(data),
        "bits_per_nat": bits_per_nat(data),  # what a nat a token is in bits a character
        "best_step": position.best_step,
        "train_loss": losses[-1] if losses else None,
        **baselines,
    }


@torch.no_grad()
def expert_use(model: Microformer, ids: Integer[Tensor, "token"]) -> dict[str, list[float]]:
    """For each layer with a mixture of experts, the share of the tokens that each expert is sent; up to 64 windows."""
    names = [name for name in model.tap_names() if name.endswith("hook_gates")]
    length = min(model.spec.max_seq_len, len(ids))
    if not names:
        return {}
    windows = ids[: len(ids) // length * length].view(-1, length)[:64].long()
    record = Record(names)
    model(windows.to(next(model.parameters()).device), tap=record)
    used = {name: (gates > 0).float().mean((0, 1)) for name, gates in record.activations.items()}
    return {name.split(".")[1]: [round(share, 4) for share in shares.tolist()] for name, shares in used.items()}


def draw(run: Run, baselines: Mapping[str, float]) -> None:
    """Draws the run's curves into its folder."""
    curves = replace(run.curves(), baselines=baselines, title=run.name)
    curves.write(run.folder / "loss.svg", run.folder / "loss.png")


def draw_positions(path: Path, name: str, found: Mapping[str, Any]) -> None:
    """Draws how the loss falls with the tokens before, as `evaluate` found it, into an SVG and a PNG.

    Raises:
        DataError: it is not known by position: of a sliding context, or of a task.
    """
    if not (places := found["nats_by_position"]):
        raise DataError("there is no loss by position to draw.", "it is known of --context blocks, and of no task.")
    # Each place has few tokens, and far from the beginning they differ little: there, means over more of them.
    means, begin = [], 0
    while begin < len(places):
        end = min(len(places), max(begin + 1, round(1.25 * begin)))
        means.append(((begin + 1 + end) / 2, sum(places[begin:end]) / (end - begin)))
        begin = end
    pictures.loss_curves(
        path.with_suffix(".svg"),
        path.with_suffix(".png"),
        {name: means},
        x_label="tokens before",
        y_label="loss (nats per token)",
        baselines={what: loss for what, loss in found.get("beside", {}).items() if "bits" not in what},
        title=f"{name}: what more context is worth",
    )


def say_end(run: Run, sample: str) -> None:
    """Says how the run ended, beside the baselines, and what to do next."""
    ended, found = run.info["ended"], run.info["figures"]
    took = f"{ended['step']:,} steps in {ended['seconds']:,.1f} s"
    if ended["how"] == "interrupted":
        print(
            f"\ninterrupted after {took}; saved in {run.folder}\ngo on     microformer train --resume --run {run.name}"
        )
        return
    why = "" if ended["how"] == "finished" else f" ({ended['how']})"
    print(f"\nended after {took}{why}")
    val = found["val_loss"]
    rows = {name: found[name] for name in ("uniform", "unigram", "the task's entropy") if name in found}
    if val is None:
        rows["its last batch"] = found["train_loss"]  # on new text nothing was measured
    else:
        rows[f"this model, step {found['best_step']:,}"] = val
    print(f"\n{'':24}{'nats/token':>12}{'bits/char':>12}")
    for name, loss in rows.items():
        print(f"{name:24}{loss:>12.4f}{loss * found['bits_per_nat']:>12.3f}")
    if "exact_match" in found:
        print(f"\nexact match {found['exact_match']:.1%} of the examples held out")
    for layer, shares in found.get("expert_use", {}).items():
        print(f"experts of layer {layer} are sent {' '.join(f'{share:.0%}' for share in shares)} of the tokens")
    for said in judged(run):
        print("\n" + textwrap.fill(said, 80))
    if sample:
        print(f"\na sample, {sample}\n")
    print(f"in        {run.folder} (loss.svg, samples.txt, metrics.jsonl)")
    print(f"more text microformer generate {run.name}")
    print(f"its loss  microformer eval {run.name}")
    print(f"inside    microformer inspect {run.name}")
    print("another   microformer train --help", flush=True)


_NOTHING_LEARNED = (
    "It has learned nothing yet: counting how often each token comes does as well. "
    "Train longer, or with another --learning-rate."
)


def judged(run: Run) -> list[str]:
    """What a user should be told of a run that did not go well, in words."""
    found = run.info["figures"]
    validated = [row["val_loss"] for row in run.metrics if "val_loss" in row]
    if not validated:
        learned = found["train_loss"] < found["unigram"]
        return [] if learned else [_NOTHING_LEARNED]
    rose = validated[-1] > 1.02 * found["val_loss"]
    if rose and found["train_loss"] > found["unigram"]:
        return ["It diverged: the loss rose above where it had been. Lower --learning-rate."]
    said = []
    if found["val_loss"] >= found["unigram"]:
        said.append(_NOTHING_LEARNED)
    if rose:
        said.append(
            f"It overfits: validation was best at step {found['best_step']:,} and rose from there. "
            "Those weights are kept; more text, --dropout 0.2 or a smaller model would help."
        )
    return said
