"""Trainings that take a moment: a text, the settings of a tiny model, and how to give a command."""

import json
import random
import re
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import jaxtyping

from microformer import cli
from microformer.pipeline import training as pipeline
from microformer.training.loop import Loop

# A model so small that a step takes a millisecond, on a machine that leaves nothing to be chosen.
TINY = {
    "embed_dim": 16, "num_heads": 2, "num_layers": 1, "ff_dim": 32, "max_seq_len": 16, "batch_size": 4,
    "device": "cpu", "precision": "float32", "threads": 1,
}  # fmt: skip


def book(lines: int = 150, seed: int = 1) -> str:
    """A text with something to learn: lines of common words, 40 characters each or so."""
    words = re.findall(
        r"\w+", "the cat sat on a mat and saw one dog run over green hills while rain fell upon old roofs"
    )
    draw = random.Random(seed)
    return "".join(" ".join(draw.choice(words) for _ in range(9)).capitalize() + ".\n" for _ in range(lines))


def flags(**given) -> list[str]:
    """Settings as the command line spells them."""
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def without_picture_and_sample(patch) -> None:
    """Trainings end without drawing and writing, which takes longer than all the rest of them."""
    patch.setattr(pipeline.report, "draw", lambda *_, **__: None)
    patch.setattr(pipeline, "generate", lambda *_, **__: "")


@contextmanager
def without_checks():
    """Signatures are not checked: to an exporter lengths are symbols and no numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def command(*words: str) -> int:
    """Runs a command in this process, and gives its exit code."""
    return cli.main([str(word) for word in words])


def train(*words: str, **given) -> int:
    """`microformer train` of a tiny model on book.txt in the folder where we are; settings by name win over TINY."""
    settings = {"corpus": "book.txt", "max_steps": 12, **TINY, **given}
    return command("train", *words, *flags(**settings))


def resume(*words: str, **given) -> int:
    """`microformer train --resume`."""
    return command("train", "--resume", *words, *flags(**given))


def info(run: str) -> dict:
    """A run's run.json."""
    return json.loads(Path("runs", run, "run.json").read_text(encoding="utf-8"))


def rows(run: str) -> list[dict]:
    """A run's metrics, times aside."""
    lines = Path("runs", run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    times = ("seconds", "tokens_per_second")
    return [{name: value for name, value in json.loads(line).items() if name not in times} for line in lines]


def stopped_at(step, number=signal.SIGINT):
    """An observer's step that asks for an interruption, as Ctrl-C does, after this step."""
    real = Loop._step

    def call(loop, progress):
        real(loop, progress)
        if loop.position.step == step:
            signal.raise_signal(number)

    return call


# The command line as a program of its own, with a training that goes no further than this step, so that it is still
# there to be killed however late that is.
_HELD = """
import sys, time
from microformer.cli import main
from microformer.training.loop import Loop

real = Loop._step

def held(loop, progress):
    if loop.position.step == {step}:
        time.sleep(600)
    real(loop, progress)

Loop._step = held
sys.exit(main(sys.argv[1:]))
"""


def held_at(step: int) -> list[str]:
    """The words that start this program; the command line's go behind them."""
    return [sys.executable, "-c", _HELD.format(step=step)]
