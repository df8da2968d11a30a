"""Starting: what `import microformer` takes beyond a bare Python, `microformer --help` from command to end, and
`microformer train` from command to its first step written down (data prepared before, the probe's verdict cached).
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "Starting"


def seconds(*words: str) -> float:
    """How long a Python with these words runs."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True)
    return time.perf_counter() - began


def first_step(folder: Path, name: str) -> float:
    """From the command to the first line of metrics.jsonl, which is written after step 1."""
    metrics = folder / "runs" / name / "metrics.jsonl"
    words = [sys.executable, "-m", "microformer", "train", "--run", name, "--max-steps", "2", "--eval-every", "1000"]
    began = time.perf_counter()
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while not (metrics.is_file() and metrics.stat().st_size):
            assert process.poll() in (None, 0)
            time.sleep(0.002)
        return time.perf_counter() - began


def measure(options: shared.Options) -> dict[str, Any]:
    """Each several times, taking turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = iter(range(1000))
        cases = {
            "import microformer": lambda: seconds("-c", "import microformer") - seconds("-c", "pass"),
            "microformer --help": lambda: seconds("-m", "microformer", "--help"),
            "microformer train, to its first step": lambda: first_step(folder, f"run-{next(numbers)}"),
        }
        return shared.in_turns(cases, 2 if options.quick else 7)


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = [f"| `{name}` | {shared.shown(figure, '.2f')} |" for name, figure in found.items()]
    return "\n".join(["| | seconds: median (range) |", "|---|---|", *lines])


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
