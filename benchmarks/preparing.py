"""Preparing a long text: seconds of `microformer prepare` beyond its imports, and the most anonymous memory its process
had, looked at every 5 ms.

100 MB and 2 GB of characters are Tiny Shakespeare, as often as that takes. Of bpe, 100 MB of it in two forms: as it is,
where few words are new, and with the letters of every tenth word shuffled, where new words keep coming, as in no text
that people write. "encoding" takes a vocabulary that is there, and reads, encodes and writes on all cores.
"""

import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "Preparing a corpus"
BYTES, LONG = 100_000_000, 2_000_000_000


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
    from microformer import cli, corpora  # noqa: F401  (what the command would import first)
    from microformer.pipeline import preparing  # noqa: F401

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

    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text.txt"
        piece = find("tinyshakespeare")[0].path.read_text(encoding="utf-8")
        text.write_text((piece * (BYTES // len(piece) + 1))[:BYTES], encoding="utf-8")
        found: dict[str, Any] = {"char": _several(text, Path(name), "100", 1 if options.quick else 5)}
        if options.quick:
            return found
        long = Path(name) / "long.txt"
        with open(long, "w", encoding="utf-8") as file:
            for _ in range(LONG // len(piece)):
                file.write(piece)
        found["char, 2 GB"] = _several(long, Path(name), "2000", 1)
        long.unlink()
        shuffled = Path(name) / "shuffled.txt"
        with open(shuffled, "w", encoding="utf-8") as file:
            draw = random.Random(1)
            for _ in range(BYTES // len(piece)):
                words = piece.split(" ")
                for at in range(0, len(words), 10):
                    words[at] = "".join(draw.sample(words[at], len(words[at])))
                file.write(" ".join(words))
        for what, path in (("few new words", text), ("many new words", shuffled)):
            found[f"bpe, {what}"] = _bpe(path, Path(name) / what)
    return found


def _several(text: Path, folder: Path, name: str, turns: int) -> dict[str, list[float]]:
    found: list[dict[str, float]] = []
    for number in range(turns):
        here = folder / f"{name}-{number}"
        here.mkdir()
        found.append(once(text, here))
        shutil.rmtree(here)
    return {what: sorted(one[what] for one in found) for what in found[0]}


def _bpe(text: Path, folder: Path) -> dict[str, float]:
    """Seconds to learn 8,192 tokens, and MB a second of a preparation with those."""
    from microformer import corpora, tokenization

    folder.mkdir()
    whole = text.read_text(encoding="utf-8")
    began = time.perf_counter()
    tokenizer = tokenization.train("bpe", (whole[at : at + 2**20] for at in range(0, len(whole), 2**20)), 8192)
    learning = time.perf_counter() - began
    tokenization.save(tokenizer, folder / "vocab.json")
    began = time.perf_counter()
    corpora.prepare(folder / "data", corpora.Source.files(text), tokenizer=str(folder / "vocab.json"))
    return {"learning": learning, "encoding": len(whole) / 1e6 / (time.perf_counter() - began)}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    rows = [
        "| characters | seconds, median | most | anonymous MB at most, imports included | of these imports |",
        "|---|---|---|---|---|",
    ]
    for name, one in found.items():
        if name.startswith("char"):
            middle = {what: values[len(values) // 2] for what, values in one.items()}
            size = "2 GB" if "2 GB" in name else "100 MB"
            rows.append(
                f"| {size} | {middle['seconds']:.2f} | {one['seconds'][-1]:.2f} | {one['anonymous'][-1]:.0f} "
                f"| {middle['imports']:.0f} |"
            )
    rows += ["", "| bpe, 100 MB | learning 8,192 tokens, s | encoding, MB/s |", "|---|---|---|"]
    rows += [
        f"| {name.removeprefix('bpe, ')} | {one['learning']:.1f} | {one['encoding']:.1f} |"
        for name, one in found.items()
        if name.startswith("bpe")
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(sys.argv[2])
    else:
        shared.main(sys.modules[__name__])
