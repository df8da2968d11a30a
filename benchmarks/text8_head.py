"""Ten minutes of two cores on the head of text8 (its first 6,877,825 characters, not all of it: no figure of text8),
90% to learn from, 5% for validation, 5% for the test; `--config text8_10min`, three seeds.

Bits a character over the whole test part, in blocks of the training context; beside it what an interpolated modified
Kneser–Ney model of the best order up to 7 and xz make of the same characters. The settings were chosen on the
validation part; the test part was looked at for this table alone.

Needs text8-head.txt in the folder that MICROFORMER_CORPORA names. Interrupted, it goes on with the next seed
(`benchmarks/.cells`).
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "text8's head in ten minutes"


def measure(options: shared.Options) -> list[dict[str, Any]]:
    """A row a seed."""
    return [_seed(seed) for seed in ([1] if options.quick else [1, 2, 3])]


def _seed(seed: int) -> dict[str, Any]:
    folder = shared.CLONE / "benchmarks" / ".cells" / "text8_head" / f"seed-{seed}"
    kept = folder / "row.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        text8 = Path(os.environ["MICROFORMER_CORPORA"]) / "text8-head.txt"
        words = ("--config", "text8_10min", "--corpus", str(text8), "--seed", str(seed))
        info = shared.train(folder, "r", *words)["info"]
        row = {
            "seed": seed,
            "val": info["figures"]["bits_per_char"],
            "steps": info["ended"]["step"],
            "seconds": info["ended"]["seconds"],
            "parameters": info["parameters"],
            **_evaluated(folder, beside=True),
            "sliding": _evaluated(folder, "--context", "sliding", "--stride", "64")["test"],
        }
        kept.write_text(json.dumps(row), encoding="utf-8")
    row = json.loads(kept.read_text(encoding="utf-8"))
    print(row, flush=True)
    return row


def _evaluated(folder: Path, *how: str, beside: bool = False) -> dict[str, Any]:
    """The loss on the test part, in bits a character."""
    command = [sys.executable, "-m", "microformer", "eval", "r", "--split", "test", "--json", *how]
    command += ["--beside"] if beside else []
    found = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
    row = {"test": found["bits_per_char"], "error": found["standard_error"] / math.log(2), "tokens": found["tokens"]}
    for name, value in found.get("beside", {}).items():
        row[name] = value if "bits" in name else value / math.log(2)
    return row


def page(found: list[dict[str, Any]]) -> str:
    """The section of BENCHMARKS.md."""
    first = found[0]
    other = next(name for name in first if name.startswith("Kneser"))
    rows = [
        f"| | bits a character, test ({first['tokens']:,}) | sliding by 64 | validation | steps | s |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        rows.append(
            f"| seed {one['seed']} | **{one['test']:.4f}** ± {one['error']:.4f} | {one['sliding']:.4f} "
            f"| {one['val']:.4f} | {one['steps']:,} | {one['seconds']:.0f} |"
        )
    rows.append(f"| {other} | {first[other]:.4f} | | | | |")
    rows.append(f"| xz, bits a byte | {first['xz_bits_per_byte']:.4f} | | | | |")
    rows.append(
        f"\n{first['parameters']:,} parameters, most of them rows of tables of n-grams. ± is one standard error."
    )
    return "\n".join(rows)


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
