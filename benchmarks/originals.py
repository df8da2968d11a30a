"""From GPT-1 to Llama and on to the default, one setting at a time: what each does to the loss, and what it costs.

Two layers, 128 wide, context 128, 400 steps of 32 sequences of Tiny Shakespeare, AdamW to 0.002 with a warm-up of a
tenth, no dropout; two seeds. Each line is the one above it with one change; the difference is to that line, with its
95% interval, corrected for their number (docs/experiments.md says how). One thread, kept on a core of its own
(`taskset -c 1`).

The time of a step is told as a share of GPT-1's, measured in turns, one thread, median of 15 rounds.

The rate was not tuned for any of them, and differences of this little training need not be those of a long one. The
feed-forwards have about as many parameters each: two matrices of 512, or three of 344.

With `--nanogpt PATH` upstream nanoGPT trains a model, which is imported: its loss on the whole validation split beside
the one that nanoGPT itself computes on the same windows, in float32.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "The originals"
BASE: dict[str, Any] = {
    "corpus": "tinyshakespeare", "threads": 1, "eval_every": 1_000_000, "snapshots": False, "epochs": 0.0,
    "max_steps": 400, "optimizer": "adamw", "learning_rate": 0.002, "warmup": 0.1,
    "weight_decay": 0.1, "ff_dim": 512, "feedforward": "gelu_tanh", "positions": "learned", "norm": "layernorm",
    "norm_placement": "post", "qk_norm": False, "tie_embeddings": True, "bias": True, "init": "normal",
    "precision": "float32",
}  # fmt: skip
# What is changed, its settings, and whose it is.
STEPS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("GPT-1", {}, "Radford et al. 2018"),
    ("norms before each half and one at the end", {"norm_placement": "pre"}, "Radford et al. 2019"),
    ("what writes to the stream begins smaller: GPT-2", {"init": "scaled"}, "Radford et al. 2019"),
    ("no biases", {"bias": False}, "Chowdhery et al. 2022"),
    ("rotary positions", {"positions": "rope"}, "Su et al. 2021"),
    ("RMSNorm", {"norm": "rmsnorm"}, "Zhang and Sennrich 2019"),
    ("SwiGLU", {"feedforward": "swiglu", "ff_dim": 344}, "Shazeer 2020"),
    ("an unembedding of its own: Llama", {"tie_embeddings": False, "init": "normal"}, "Touvron et al. 2023"),
    ("normed queries and keys: Qwen3", {"qk_norm": True}, "Qwen team 2025"),
    ("what writes to the stream begins at 0", {"init": "zero"}, "Zhang et al. 2019"),
    ("Muon: the default", {"optimizer": "muon", "learning_rate": "auto"}, "Jordan et al. 2024"),
)


def measure(options: shared.Options) -> dict[str, Any]:
    """The chain, and upstream nanoGPT's loss beside ours."""
    from microformer import experiments
    from microformer.settings import Settings

    folder = shared.CLONE / "benchmarks" / ".cells"
    folder.mkdir(exist_ok=True)
    arms, changes = [], {}
    for name, change, _ in STEPS:
        changes = {**changes, **change}
        arms.append(experiments.Arm(name, changes))
    cells = experiments.train_all(
        Settings().changed(BASE), arms, [1] if options.quick else [1, 2], folder, tell=shared.tell
    )
    losses = {arm.name: [cell.loss for cell in cells if cell.arm == arm.name] for arm in arms}
    sizes = {cell.arm: json.loads((cell.run / "run.json").read_text("utf-8"))["parameters"] for cell in cells}
    steps = _steps({arm.name: arm.settings(Settings().changed(BASE), 1) for arm in arms}, 3 if options.quick else 15)
    found = {"losses": losses, "parameters": sizes, "steps": steps}
    return {**found, "nanogpt": _beside_nanogpt(options.nanogpt) if options.nanogpt else None}


def _steps(settings: dict[str, Any], rounds: int) -> dict[str, float]:
    """How long a step of each takes beside one of the first, in turns: the median of the rounds' ratios."""
    import torch

    from microformer import Microformer
    from microformer.settings import model_spec
    from microformer.training.optimizers import Optimizer, Recipe

    torch.set_num_threads(1)
    ids = torch.randint(0, 65, (32, 129))
    steps = {}
    for name, chosen in settings.items():
        model, training = Microformer(model_spec(chosen, 65)), chosen.training
        recipe = Recipe(training.optimizer, training.learning_rate, 0.1, 0.95, (0.9, 0.95))
        steps[name] = _step(model, Optimizer(model, recipe), ids)
        steps[name]()
    took: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            took[name].append(time.perf_counter() - began)
    first = next(iter(took.values()))
    return {
        name: statistics.median(one / other for one, other in zip(seconds, first, strict=True))
        for name, seconds in took.items()
    }


def _step(model: Any, optimizer: Any, ids: Any) -> Callable[[], None]:
    def step() -> None:
        model.loss(ids[:, :-1], ids[:, 1:], None).backward()
        optimizer.step()

    return step


_UPSTREAM = """
import json, sys, torch, numpy as np
sys.path.insert(0, sys.argv[1])
from model import GPT, GPTConfig
kept = torch.load(sys.argv[2], map_location="cpu", weights_only=True)
model = GPT(GPTConfig(**kept["model_args"]))
model.load_state_dict(kept["model"])
model.eval()
length, total = kept["model_args"]["block_size"], 0.0
train, val = (np.fromfile(f"{sys.argv[1]}/data/shakespeare_char/{split}.bin", np.uint16) for split in ("train", "val"))
ids = torch.tensor(np.concatenate([train[-1:], val]).astype(np.int64))
with torch.no_grad():
    for start in range(0, len(val), length):
        window = ids[None, start : start + length + 1]
        total += model(window[:, :-1], window[:, 1:])[1].item() * (window.shape[1] - 1)
print(json.dumps({"loss": total / len(val), "tokens": len(val), "steps": kept["iter_num"]}))
"""


def _beside_nanogpt(clone: Path) -> dict[str, Any]:
    """Trains upstream nanoGPT for 200 steps on a CPU, imports what it saved, and trains it for 100 more here."""
    clone = clone.resolve()
    with tempfile.TemporaryDirectory() as name:
        here, out = Path(name), Path(name) / "out"
        _run(clone / "data" / "shakespeare_char", "prepare.py")
        _run(
            clone, "train.py", "config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=2",
            "--eval_interval=200", "--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128",
            "--max_iters=200", "--lr_decay_iters=200", "--warmup_iters=20", "--dropout=0.0",
            "--always_save_checkpoint=True", f"--out_dir={out}",
        )  # fmt: skip
        (here / "theirs.py").write_text(_UPSTREAM, "utf-8")
        theirs = json.loads(_run(here, "theirs.py", str(clone), str(out / "ckpt.pt")).splitlines()[-1])
        text = clone / "data" / "shakespeare_char" / "input.txt"
        verb = ("-m", "microformer")
        vocabulary = str(clone / "data" / "shakespeare_char" / "meta.pkl")
        _run(here, *verb, "import", str(out / "ckpt.pt"), "--run", "theirs", "--tokenizer", vocabulary)
        _run(here, *verb, "prepare", "--input", str(text), "--tokenizer", "runs/theirs/tokenizer.json")
        ours = json.loads(_run(here, *verb, "eval", "theirs", "--json"))["nats_per_token"]
        _run(here, *verb, "train", "--resume", "--run", "theirs", "--max-steps", "300")
        after = json.loads(_run(here, *verb, "eval", "theirs", "--json"))["nats_per_token"]
    return {**theirs, "ours": ours, "after_100_more": after}


def _run(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout


def _within(losses: list[list[float]]) -> float | None:
    """Half the width of the 95% interval of a line's difference to the one above: as in experiments/intervals.py, for
    differences of which each shares a line with its neighbours. None for one seed."""
    from microformer.experiments.intervals import student

    seeds, number = len(losses[0]), len(losses) - 1
    if seeds < 2:
        return None
    pairs = itertools.pairwise(losses)
    differences = [[y - x for x, y in zip(one, other, strict=True)] for one, other in pairs]
    pooled = statistics.fmean(statistics.variance(one) for one in differences)
    # Satterthwaite: the differences' covariances are 2 on the diagonal and -1 beside it.
    degrees = (seeds - 1) * (2 * number) ** 2 / (6 * number - 2)
    return student(1 - 0.05 / (2 * number), degrees) * (pooled / seeds) ** 0.5


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md, and the table of docs/originals.md."""
    lines = ["| | loss | difference | parameters | a step |", "|---|---|---|---|---|"]
    before, half = None, _within([found["losses"][name] for name, _, _ in STEPS])
    within = "" if half is None else f" ± {half:.4f}"
    for name, _, _ in STEPS:
        loss = sum(found["losses"][name]) / len(found["losses"][name])
        difference = "" if before is None else f"{loss - before:+.4f}{within}"
        size, step = found["parameters"][name], found["steps"][name]
        lines.append(f"| {name} | {loss:.4f} | {difference} | {size:,} | {step:.2f} |")
        before = loss
    if beside := found["nanogpt"]:
        lines += [
            "",
            f"Upstream nanoGPT after {beside['steps']} steps: {beside['loss']:.7f} nats a character over all "
            f"{beside['tokens']:,} validation characters by its own program, {beside['ours']:.7f} here, "
            f"{abs(beside['loss'] - beside['ours']):.1e} apart; after 100 more steps here "
            f"{beside['after_100_more']:.4f}.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
