"""Measures again what BENCHMARKS.md claims, and writes that page: `python benchmarks [--quick] [--nanogpt PATH]`.

Each benchmark can be run by itself too (`python benchmarks/training_speed.py`); then `python benchmarks --write`
brings it, docs/components.md, docs/originals.md and README.md's figures along. Needs `pip install transformers
x-transformers psutil`. Takes some seven hours; with --quick under three minutes, and then nothing is kept.
"""

import argparse
import importlib
import json
from collections.abc import Sequence
from types import ModuleType

import measure
import readme

NAMES = (
    "time_to_loss", "ablation", "leaving_out", "components", "memory", "tasks", "training_speed", "generation_speed",
    "preparing", "starting", "gpu", "attention_cost", "text8_head", "originals", "default_loss", "architectures",
    "shapes", "looking", "probes", "verdicts", "trackers",
)  # fmt: skip
QUICK = ("time_to_loss", "training_speed", "generation_speed", "preparing", "starting")

HEAD = """# Benchmarks
What was measured, on what, and how to measure it again: `python benchmarks --nanogpt PATH` does all of it and writes
this page (`--quick`: a first look in under three minutes); each section names its own command. Figures are in
[benchmarks/results](benchmarks/results). All but the section [On a GPU](#on-a-gpu) was run on CPUs.

Losses are nats per character over every one of the 111,540 validation characters of Tiny Shakespeare, in blocks of
the training context. Times are wall time from the first step, evaluations included, unless said otherwise. Machines
that are shared wander in speed, by a factor of two within an hour on the one below: compare within a table, not
between them.
"""


def page(benchmarks: Sequence[ModuleType]) -> str:
    """BENCHMARKS.md, from the results that there are."""
    parts = [HEAD]
    for one in benchmarks:
        name = one.__name__
        path = measure.RESULTS / f"{name}.json"
        if not path.is_file():
            continue
        kept = json.loads(path.read_text(encoding="utf-8"))
        on = kept["machine"]
        where = f"{on['processor']}, {on['cores']} cores, bfloat16 units: {on['bfloat16']}"
        versions = f"Python {on['python']}, PyTorch {on['torch']}, Microformer {on['microformer']}, {on['date']}"
        parts.append(f"## {one.TITLE}\n`python benchmarks/{name}.py` · {where}; {versions}; {kept['seconds']:,} s\n")
        parts.append(f"{(one.__doc__ or '').strip()}\n")
        if kept.get("note"):
            parts.append(f"{kept['note']}\n")
        if kept["picture"]:
            parts.append(f"![{one.TITLE}](benchmarks/results/{kept['picture']})\n")
        parts.append(f"{one.page(kept['found'])}\n")
    return "\n".join(parts)


def page_of_components() -> str:
    """docs/components.md, the section on components for those who look for it there."""
    kept = json.loads((measure.RESULTS / "components.json").read_text(encoding="utf-8"))
    components = importlib.import_module("components")
    on = kept["machine"]
    return f"""# components: what each does to the loss

{(components.__doc__ or "").strip()}

`python benchmarks/components.py` measures it again. Measured on {on["processor"]} with PyTorch {on["torch"]},
{on["date"]}, at {on["microformer"]}. What each word stands for: [models.md](models.md).

{components.page(kept["found"])}"""


def page_of_originals() -> str:
    """docs/originals.md with the table as it was measured last."""
    found = json.loads((measure.RESULTS / "originals.json").read_text(encoding="utf-8"))["found"]
    return _filled("docs/originals.md", measured=importlib.import_module("originals").page(found))


def page_of_readme() -> str:
    """README.md with its figures as they were measured last."""
    return _filled("README.md", losses=readme.losses(), figures=readme.figures())


def _filled(page: str, **tables: str) -> str:
    """A page with its tables, each between its two marks."""
    text = (measure.CLONE / page).read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, rest = text.split(begin)
        text = before + begin + table + end + rest.split(end)[1]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="measure nothing, write BENCHMARKS.md from the results")
    writing = parser.parse_known_args()[0].write
    chosen = measure.options(parser)
    benchmarks = [importlib.import_module(name) for name in NAMES]
    if not writing:
        for one in benchmarks:
            if getattr(one, "possible", lambda: True)() and (not chosen.quick or one.__name__ in QUICK):
                measure.run(one, chosen)
    if not chosen.quick:
        pages = {
            "BENCHMARKS.md": page(benchmarks),
            "README.md": page_of_readme(),
            "docs/components.md": page_of_components(),
            "docs/originals.md": page_of_originals(),
        }
        for name, text in pages.items():
            (measure.CLONE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
