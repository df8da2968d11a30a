"""What the probes cost (PROBE_STEPS, docs/inspection.md): the default training with them, at their default of every 100
steps, and without, in pairs that change places. By the clock, and by the processor's own time, which a shared machine
disturbs less; over the whole training of 735 steps, with its 18 probes.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "What the probes cost"


def measure(options: shared.Options) -> dict[str, Any]:
    """Seconds of each training, and how long a probe takes."""
    from microformer import pipeline
    from microformer.inspection import probes

    steps = 200 if options.quick else 735
    rows: list[dict[str, Any]] = []
    each: list[float] = []
    real = probes.Probing.write

    def timed(probing: probes.Probing, step: int) -> None:
        began = time.perf_counter()
        real(probing, step)
        each.append(time.perf_counter() - began)

    probes.Probing.write = timed  # type: ignore[method-assign]
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for pair in range(2 if options.quick else 5):
                for arm in (0, 100) if pair % 2 else (100, 0):
                    clock, processor = time.perf_counter(), time.process_time()
                    name = f"{pair}-{arm}"
                    run = pipeline.train(run=name, show=False, max_steps=steps, probe_steps=arm)
                    rows.append(
                        {
                            "pair": pair,
                            "probe_steps": arm,
                            "seconds": run.info["ended"]["seconds"],
                            "clock": time.perf_counter() - clock,
                            "processor": time.process_time() - processor,
                            "probes": len(run.probes),
                            "bytes": sum(path.stat().st_size for path in (run.folder / "probes").glob("*")),
                        }
                    )
                    print(rows[-1], flush=True)
        finally:
            os.chdir(before)
    return {"steps": steps, "rows": rows, "milliseconds": [1000 * one for one in each]}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    by = {arm: [row for row in found["rows"] if row["probe_steps"] == arm] for arm in (0, 100)}
    lines = ["| | without | with | more, pair by pair |", "|---|---:|---:|---|"]
    for name, what in (("seconds", "by the clock, s"), ("processor", "processor's time, s")):
        pairs = [100 * (b[name] / a[name] - 1) for a, b in zip(by[0], by[100], strict=True)]
        mean = [statistics.mean(row[name] for row in by[arm]) for arm in (0, 100)]
        lines.append(f"| {what} | {mean[0]:.1f} | {mean[1]:.1f} | {', '.join(f'{one:+.1f} %' for one in pairs)} |")
    row, probe = by[100][0], statistics.median(found["milliseconds"])
    share = 100 * row["probes"] * probe / 1000 / statistics.median(one["seconds"] for one in by[100])
    return "\n".join(
        [
            *lines,
            "",
            f"A probe takes {probe:.0f} ms (median) and {row['bytes'] / row['probes'] / 1000:.0f} kB; "
            f"{row['probes']} of them are {share:.1f} % of {found['steps']} steps.",
            "",
        ]
    )


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
