import argparse
import importlib
import re
import runpy
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from microformer import cli, contracts
from microformer.errors import SettingsError
from microformer.models import spec
from microformer.models.model import Microformer
from microformer.models.spec import Learned, ModelSpec
from microformer.models.taps import Record
from microformer.settings import Settings, each_setting, model_spec

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("[a-z]*/README.md")])
DOORS = {"prepare_data.py": "prepare", "train.py": "train", "generate_text.py": "generate"}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fenced(page: Path) -> list[str]:
    """The lines of a page's fenced blocks."""
    return [
        line for block in re.findall(r"^```[^\n]*\n(.*?)^```", text(page), re.M | re.S) for line in block.split("\n")
    ]


def commands(page: Path) -> list[list[str]]:
    """The command lines of fenced blocks, as words from the verb on."""
    found = []
    lines = fenced(page)
    for line, after in zip(lines, [*lines[1:], ""], strict=False):
        if after.startswith("error:"):
            continue  # shown for its refusal
        for part in re.split(r"&&|[|;]", line.strip().removeprefix("$ ")):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # a line of Python or of prose, with a quotation mark that stays open
                continue
            match words:
                case ["microformer", verb, *rest] if re.fullmatch(r"[a-z]+", verb):
                    found.append([verb, *rest])
                case ["python", script, *rest] if script.startswith("scripts/"):
                    found.append([DOORS[script.removeprefix("scripts/")], *rest])
    return found


def parsed(words: list[str]) -> argparse.Namespace:
    known, unknown = cli._parser().parse_known_args([word for word in words if word != "--help"])
    if unknown:
        raise SettingsError(f"unknown: {unknown}")
    Settings().changed(cli.words.given(known))
    return known


def small_spec() -> ModelSpec:
    """The sizes that docs/models.md walks through."""
    sizes = {"embed_dim": 128, "num_heads": 4, "num_layers": 2, "ff_dim": 256, "max_seq_len": 128, "qk_norm": True}
    parts = {"attention": "softmax", "positions": "rope", "feedforward": "swiglu", "norm": "rmsnorm"}
    return model_spec(Settings().changed({**sizes, **parts, "tie_embeddings": False, "bias": False}), vocab_size=65)


def test_the_table_of_settings_is_what_the_settings_are():
    script = runpy.run_path(str(DOCS / "make_settings_table.py"))

    assert text(DOCS / "settings.md") == script["written"](), "run python docs/make_settings_table.py"
    assert set(script["READ_BY"]) == {name for _, name, _ in each_setting()}
    assert all((ROOT / "microformer" / file).is_file() for file in script["READ_BY"].values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_points_to_a_file(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text(page))
    relative = [link for link in links if "://" not in link]

    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_every_page_can_be_reached_from_the_index():
    linked = set(re.findall(r"\]\(([\w.]+\.md)\)", text(DOCS / "index.md")))

    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} == linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_module_named_exists(page):
    for name in re.findall(r"`([^`\n]+)`", text(page)):
        if re.fullmatch(r"microformer(\.\w+)+", name):
            assert _importable(name), name
        elif re.fullmatch(
            r"(microformer|models|training|pipeline|corpora|tokenization|docs|scripts|tests)/[\w./]*", name
        ):
            assert (ROOT / name).exists() or (ROOT / "microformer" / name).exists(), name


def _importable(name: str) -> bool:
    module, _, last = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), last) or bool(importlib.import_module(name))
    except ImportError:
        return False


def test_a_name_that_is_not_there_would_be_noticed():
    assert _importable("microformer.pipeline.evaluate")
    assert not _importable("microformer.pipeline.divine")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_has_a_verb_and_flags_that_exist(page):
    for words in commands(page):
        parsed(words)


def test_a_command_line_that_is_wrong_would_be_noticed():
    assert len(commands(DOCS / "tutorial.md")) > 10
    for wrong in (["train", "--lerning-rate", "1"], ["train", "--epochs", "many"], ["tarin"]):
        with pytest.raises(SettingsError):
            parsed(wrong)


def test_the_walk_from_ids_to_logits_has_the_shapes_and_names_of_the_model():
    model, record = Microformer(small_spec()), Record()
    with torch.no_grad():
        logits = model(torch.zeros(32, 128, dtype=torch.long), tap=record).logits
    page = text(DOCS / "models.md")
    rows = dict(re.findall(r"^\| `([\w.]*hook_\w+)` \| `\[([\d ]+)\]` \|", page, re.M))

    assert rows.pop("hook_pos_embed") == "32 128 128"  # with learned positions only
    assert list(rows) == [name for name in model.tap_names() if "blocks.1" not in name]
    assert rows == {name: " ".join(map(str, record.activations[name].shape)) for name in rows}
    assert f"`[{' '.join(map(str, logits.shape))}]`" in page
    assert f"Together {model.num_parameters():,}." in page


def test_every_word_of_the_grammar_has_its_row():
    page = text(DOCS / "models.md")
    for kinds in (spec.ATTENTION, spec.POSITIONS, spec.FEEDFORWARD, spec.NORM):
        for word, kind in kinds.items():
            assert re.search(rf"^\|[^|]*\| `{word}` \| `{kind.__name__}` → ", page, re.M), word


def test_every_contract_has_its_row():
    page = text(DOCS / "contracts.md")

    for contract in (*contracts.CONTRACTS, *contracts.OPTIMIZER_CONTRACTS, *contracts.SCHEDULE_CONTRACTS):
        assert f"| `{contract.__name__}` | {(contract.__doc__ or '').strip()} |" in page


def test_every_verb_has_its_row():
    assert set(re.findall(r"^\| `(\w+)` \|", text(DOCS / "pipeline.md"), re.M)) == set(cli._VERBS)


def test_the_python_of_the_tutorial_and_of_the_model_page_compiles():
    for page in DOCS.glob("*.md"):
        for block in re.findall(r"^```python\n(.*?)^```", text(page), re.M | re.S):
            if "…" not in block and not block.startswith("        case"):
                compile(block, page.name, "exec")


def test_the_taps_that_depend_on_positions_are_those_that_the_model_page_says():
    rope = small_spec()
    learned = Microformer(replace(rope, positions=Learned())).tap_names()

    assert set(learned) ^ set(Microformer(rope).tap_names()) == {
        "hook_pos_embed",
        *(f"blocks.{i}.attn.hook_rot_{which}" for i in range(2) for which in "qk"),
    }


def test_the_page_of_benchmarks_is_what_their_results_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = runpy.run_path(str(ROOT / "benchmarks" / "__main__.py"))

    assert text(ROOT / "BENCHMARKS.md") == script["page"]([importlib.import_module(name) for name in script["NAMES"]])
    assert text(ROOT / "README.md") == script["page_of_readme"]()
    assert text(ROOT / "docs" / "components.md") == script["page_of_components"]()
    assert text(ROOT / "docs" / "originals.md") == script["page_of_originals"]()
