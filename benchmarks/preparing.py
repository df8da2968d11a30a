"""Preparing 100 MB of characters (Tiny Shakespeare, as often as that takes): seconds of `microformer prepare` beyond
its imports, and the most anonymous memory its process had, looked at every 5 ms.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "Preparing a corpus"
BYTES = 100_000_000


def once(text: Path, folder: Path) -> dict[str, float]:
    """One preparation, in a process of its own."""
    import subprocess

    words = [sys.executable, __file__, "--alone", str(text)]
    seconds, before, most = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.split()[-3:]
    return {"seconds": float(seconds), "imports": float(before), "anonymous": float(most)}


def alone(text: str) -> None:
    """What `once` starts: prints the seconds, and the anonymous MB before and at most."""
    from microformer import cli, corpora, pipeline  # noqa: F401  (what the command would import first)

    before = most = anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.perf_counter()
    code = cli.main(["prepare", "--input", text])
    seconds = time.perf_counter() - began
    done.set()
    watching.join()
    assert code == 0
    print(seconds, before, most)


def anonymous() -> float:
    """The anonymous resident memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def measure(options: shared.Options) -> dict[str, Any]:
    """Several preparations of the same text, each from nothing."""
    from microformer.corpora.named import find

    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text.txt"
        piece = find("tinyshakespeare")[0].path.read_text(encoding="utf-8")
        text.write_text((piece * (BYTES // len(piece) + 1))[:BYTES], encoding="utf-8")
        for number in range(1 if options.quick else 5):
            folder = Path(name) / str(number)
            folder.mkdir()
            found.append(once(text, folder))
    return {what: sorted(one[what] for one in found) for what in found[0]}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    middle = {what: values[len(values) // 2] for what, values in found.items()}
    return (
        "| | median | most |\n|---|---|---|\n"
        f"| seconds | {middle['seconds']:.2f} | {found['seconds'][-1]:.2f} |\n"
        f"| anonymous MB at most, imports included | {middle['anonymous']:.0f} | {found['anonymous'][-1]:.0f} |\n"
        f"| of these there before it began | {middle['imports']:.0f} | {found['imports'][-1]:.0f} |"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2])
    else:
        shared.main(sys.modules[__name__])
