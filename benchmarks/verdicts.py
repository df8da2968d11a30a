"""How often `microformer compare` is right (docs/experiments.md): how often it calls different what is not, and how
often it finds what is there; and what trainings side by side are worth.

The model is small, one layer 64 wide, and trains for 800 steps of Tiny Shakespeare. Sixty runs of it differ in nothing
but their seeds: three of them against three others, and against three times three others as if these were arms, drawn
2,000 times, put through compare's own verdict. Then the paired way: arms that differ from it in nothing that can matter
(attention through a window as wide as the context, the batch in two parts, two threads: sums are rounded in another
order), three of thirty seeds drawn 2,000 times, each arm alone and all three together. Then arms that must be worse:
half the steps, no positions, a feed-forward of a quarter.

Losses made by a random generator tell what too few seeds can't: families of a base and arms in which nothing differs
(or the last arm is worse by four times the noise), by the same verdict.

Side by side: the default model for 100 steps, four trainings with two at once against one after the other, in turns;
each has its share of the cores. Tokens in all over the wall time, starting included.

Interrupted, it goes on where it stopped (`benchmarks/.cells`).
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import measure as shared

TITLE = "How often a verdict is right"
SMALL = {
    "corpus": "tinyshakespeare", "embed_dim": 64, "num_heads": 2, "num_layers": 1, "ff_dim": 128, "max_seq_len": 64,
    "batch_size": 16, "epochs": 0.0, "max_steps": 800, "eval_every": 800, "snapshots": False, "probe_steps": 0,
    "device": "cpu", "precision": "float32", "threads": 1,
}  # fmt: skip
NOTHING = {"window(64)": {"attention": "window(64)"}, "two parts": {"accumulate": 2}, "two threads": {"threads": 2}}
WORSE = {"half the steps": {"max_steps": 400}, "no positions": {"positions": "none"}, "FF_DIM / 4": {"ff_dim": 32}}
SEEDS, OF_ARMS, DRAWS, FAMILIES = 60, 30, 2000, 4000
# Arms and seeds of the families, and how the noise of the base and of each arm goes.
_NOISES = {"all alike": (1, 1), "the first arm three times": (1, 3), "the base three times": (3, 1)}

Losses = dict[str, list[float]]


def measure(options: shared.Options) -> dict[str, Any]:
    """Shares of draws, by what was drawn, and figures of trainings side by side."""
    seeds, fewer = (12, 6) if options.quick else (SEEDS, OF_ARMS)
    draws = 100 if options.quick else DRAWS
    shortest = {"half the steps": WORSE["half the steps"]}  # one arm alone is no comparison
    base = _trained({"nothing": {}, **shortest}, seeds)["nothing"]
    same = _trained({"nothing": {}, **NOTHING}, fewer)
    worse = _trained({"nothing": {}, **WORSE}, fewer)
    return {
        "seeds": seeds,
        "draws": draws,
        "losses": {
            name: [statistics.fmean(row), statistics.stdev(row)]
            for name, row in {**same, **worse, "nothing": base}.items()
        },
        "wrong": _wrong(base, same, draws),
        "found": _found(worse, draws),
        "families": _families(200 if options.quick else FAMILIES),
        "parallel": _side_by_side(1 if options.quick else 3),
    }


def _trained(arms: dict[str, dict[str, Any]], seeds: int) -> Losses:
    """The losses of arms, seed by seed."""
    from microformer import devices, experiments
    from microformer.settings import Settings

    folder = shared.CLONE / "benchmarks" / ".cells" / "verdicts"
    folder.mkdir(parents=True, exist_ok=True)
    every = [experiments.Arm(name, change) for name, change in arms.items()]
    cells = experiments.train_all(
        Settings().changed(SMALL), every, range(1, seeds + 1), folder, shared.tell, parallel=devices.usable_cores()
    )
    return {name: [cell.loss for cell in cells if cell.arm == name] for name in arms}


def _different(losses: Losses) -> bool:
    from microformer.experiments import compare

    return any(one.verdict in ("better", "worse") for one in compare(losses).values())


def _drawn(losses: Losses, names: Sequence[str], draws: int) -> Iterator[Losses]:
    """The base and arms under three seeds, drawn anew each time."""
    draw = random.Random(1)
    for _ in range(draws):
        seeds = draw.sample(range(len(losses["nothing"])), 3)
        yield {name: [losses[name][seed] for seed in seeds] for name in ("nothing", *names)}


def _wrong(base: list[float], losses: Losses, draws: int) -> dict[str, float]:
    """The share of draws in which something is called different and nothing is.

    Args:
        base: losses of the base under all seeds.
        losses: of the base and of arms that are the same, under some of them.
    """
    draw, wrong, of_three = random.Random(1), 0, 0
    for _ in range(draws):
        drawn = draw.sample(base, 12)
        groups = {str(start): drawn[start : start + 3] for start in range(0, 12, 3)}
        wrong += _different({name: groups[name] for name in ("0", "3")})
        of_three += _different(groups)
    shares = {
        "three runs against three others": wrong / draws,
        "three against three times three others": of_three / draws,
    }
    for name in NOTHING:
        shares[f"paired: {name}"] = sum(map(_different, _drawn(losses, [name], draws))) / draws
    shares["paired: all three"] = sum(map(_different, _drawn(losses, list(NOTHING), draws))) / draws
    return shares


def _found(losses: Losses, draws: int) -> dict[str, list[float]]:
    """For each arm that is worse the share of draws in which it is called so: alone, and beside the others."""
    from microformer.experiments import compare

    found = {}
    for name in WORSE:
        alone = sum(compare(one)[name].verdict == "worse" for one in _drawn(losses, [name], draws))
        beside = sum(compare(one)[name].verdict == "worse" for one in _drawn(losses, list(WORSE), draws))
        found[name] = [alone / draws, beside / draws]
    return found


def _families(number: int) -> list[list[Any]]:
    """Arms, seeds, noise, the share of families of which something is called different, and that in which the last arm
    is found to be worse."""
    from microformer.experiments import compare

    draw, rows = random.Random(1), []

    def family(arms: int, seeds: int, noise: tuple[int, int], shift: float) -> Losses:
        spread = [noise[0], noise[1], *[1] * (arms - 1)]
        rows = [[draw.gauss(0, one) for _ in range(seeds)] for one in spread]
        rows[-1] = [loss + shift for loss in rows[-1]]
        return {str(arm): row for arm, row in enumerate(rows)}

    for arms in (1, 3):
        for seeds in (3, 5):
            for name, noise in _NOISES.items():
                wrong = sum(_different(family(arms, seeds, noise, 0.0)) for _ in range(number)) / number
                shifted = (family(arms, seeds, noise, 4.0) for _ in range(number))
                found = sum(compare(one)[str(arms)].verdict == "worse" for one in shifted) / number
                rows.append([arms, seeds, name, wrong, found])
    return rows


def _side_by_side(rounds: int) -> dict[str, Any]:
    """Tokens a second of four trainings one after the other and two at once, by round; and whether what came of those
    side by side is what comes of the same threads alone."""
    from microformer import devices, experiments
    from microformer.settings import Settings

    cores = devices.usable_cores()
    base = Settings().changed(
        {"corpus": "tinyshakespeare", "epochs": 0.0, "max_steps": 100, "eval_every": 50, "snapshots": False}
    )
    arms = [experiments.Arm("default"), experiments.Arm("a lower rate", {"learning_rate": 0.02})]
    speeds: dict[str, list[float]] = {"one by one": [], "two at once": []}
    with tempfile.TemporaryDirectory() as folder:
        experiments.train_all(base.changed({"max_steps": 1}), arms, [1], folder)  # the data, the probes, the page cache
        for turn in range(rounds):
            for number, (how, parallel) in enumerate((("one by one", 1), ("two at once", min(2, cores)))):
                seeds = [4 * turn + 2 * number + 1, 4 * turn + 2 * number + 2]  # others, or they would be reused
                began = time.perf_counter()
                cells = experiments.train_all(base, arms, seeds, folder, parallel=parallel)
                speeds[how].append(sum(cell.tokens for cell in cells) / (time.perf_counter() - began))
                print(f"{how}: {speeds[how][-1]:,.0f} tokens/s", flush=True)
        alone = base.changed({"threads": cells[0].threads})
        other = Path(folder, "alone")
        other.mkdir()
        again = experiments.train_all(alone, arms, seeds, other)
    same = [one.loss for one in cells] == [one.loss for one in again]
    ratio = statistics.median(two / one for one, two in zip(*speeds.values(), strict=True))
    return {"cores": cores, "threads": cells[0].threads, "speeds": speeds, "ratio": ratio, "same": same}


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    side = found["parallel"]
    lines = [f"Called different though nothing is, of {found['draws']:,} draws ({found['seeds']} seeds):", ""]
    lines += ["| | share |", "|---|---|", *(f"| {name} | {share:.1%} |" for name, share in found["wrong"].items()), ""]
    lines += [f"Called worse, of {found['draws']:,} draws of three seeds:", "", "| | alone | as one of three arms |"]
    lines += ["|---|---|---|"]
    lines += [f"| {name} | {alone:.1%} | {beside:.1%} |" for name, (alone, beside) in found["found"].items()]
    lines += [
        "",
        "The losses themselves, in nats a token:",
        "",
        "| | mean | standard deviation over seeds |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {mean:.4f} | {spread:.4f} |" for name, (mean, spread) in found["losses"].items()]
    lines += [
        "",
        "Of families made at random:",
        "",
        "| arms | seeds | noise | called different | the worse arm found |",
    ]
    lines += ["|---|---|---|---|---|"]
    lines += [f"| {a} | {s} | {name} | {wrong:.1%} | {power:.0%} |" for a, s, name, wrong, power in found["families"]]
    speeds = {how: statistics.median(each) for how, each in side["speeds"].items()}
    lines += [
        "",
        f"Side by side on {side['cores']} cores: {speeds['two at once']:,.0f} tokens a second two at once, "
        f"{speeds['one by one']:,.0f} one by one, a ratio of {side['ratio']:.2f} (median of "
        f"{len(side['speeds']['one by one'])} rounds); with {side['threads']} thread{'s'[: side['threads'] > 1]} each, "
        f"alone or side by side, the losses are {'the same to the bit' if side['same'] else 'NOT the same'}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
