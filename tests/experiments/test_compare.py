"""`microformer compare`: arms in words, a table that is honest, and the same table whatever was killed on the way."""

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import TINY, book, command

from microformer.errors import FileError, SettingsError
from microformer.experiments import Cell, Comparison, Point, cells, compare_arms
from microformer.experiments.arms import parsed
from microformer.experiments.comparison import planned
from microformer.experiments.table import markdown, rows

CONFIG = "".join(f"{name.upper()} = {value!r}\n" for name, value in {**TINY, "corpus": "book.txt"}.items())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells, "code_hash", lambda: "the same code")  # whoever edits it meanwhile
    (tmp_path / "book.txt").write_text(book(), encoding="utf-8")
    (tmp_path / "config.py").write_text(CONFIG, encoding="utf-8")
    return tmp_path


# ------------------------------------------------------------------------------------------------------ arms in words


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("attention=entmax15", {"attention": "entmax15"}),
        ("attention=window(256)*3 softmax norm=rmsnorm", {"attention": "window(256)*3 softmax", "norm": "rmsnorm"}),
        ("EMBED_DIM=64 --num-heads=2", {"embed_dim": 64, "num_heads": 2}),
        (
            "positions=rope(base=500, share=0.5) qk-norm=false",
            {"positions": "rope(base=500, share=0.5)", "qk_norm": False},
        ),
        ("attention = my_attention.py:Mine(k=3)", {"attention": "my_attention.py:Mine(k=3)"}),
        ('attention="window(4) softmax"', {"attention": "window(4) softmax"}),
        ("max_steps=100", {"epochs": 0.0, "max_steps": 100, "max_minutes": 0.0}),
    ],
)
def test_an_arm_is_read_from_its_words(words, changes):
    arm = parsed(words)

    assert (arm.name, arm.changes) == (words, changes)


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("entmax15", "names no setting", "attention=entmax15"),
        ("", "names no setting", "attention=entmax15"),
        ("try attention=entmax15", "does not begin with a setting", "attention=entmax15"),
        ("atention=entmax15", 'no setting "atention"', "did you mean attention?"),
        ("norm=rmsnorm learning-rat=1", 'no setting "learning-rat"', "did you mean learning_rate?"),
        ("embed_dim=wide", "not a whole number", "leave it out for 128"),
        ("norm= attention=entmax15", "gives norm no value", "norm=rmsnorm"),
        ("norm=rmsnorm norm=layernorm", "sets norm twice", "two values make two arms"),
        ("seed=3", "sets SEED", "--seeds"),
    ],
)
def test_what_is_no_arm_is_told_with_what_would_be(words, said, hint):
    with pytest.raises(SettingsError) as caught:
        parsed(words)
    assert said in caught.value.sentence
    assert hint in caught.value.hint


# ----------------------------------------------------------------------------------------------------------- the verb


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to compare the base with"),
        (["--set", "norm=rmsnorm"], "have the same settings"),
        (["--set", "norm=layernorm", "--set", "norm=layernorm"], "two arms are called"),
        (["--set", "norm=layernorm", "--set", "NORM=layernorm"], "have the same settings"),
        (["--set", "atention=entmax15"], 'no setting "atention"'),
        (["--set", "attention=entmax"], "entmax"),
        (["--set", "num_heads=3"], "divided"),
        (["--set", "attention=mine.py:Mine"], "no such file"),
        (["--set", "norm=layernorm", "--seeds", "0"], "--seeds 0 can't be"),
        (["--set", "norm=layernorm", "--steps", "0"], "--steps 0 is no budget"),
        (["--set", "norm=layernorm", "--minutes", "nan"], "--minutes nan is no budget"),
        (["--set", "norm=layernorm", "--steps", "5", "--minutes", "1"], "both budgets"),
        (["--set", "norm=layernorm", "--parallel", "1000"], "--parallel 1000 is more than this machine can take"),
        (["--set", "norm=layernorm", "--base", "none.py"], "no config 'none.py'"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anything_is_trained(words, said, here, capsys):
    assert command("compare", *words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "hint: " in told
    assert not (here / "runs").exists()


def test_a_comparison_is_told_drawn_and_kept_and_what_was_trained_is_reused(here, capsys):
    words = ["compare", "--set", "positions=none", "--steps", "20", "--seeds", "2"]
    assert command(*words) == 0
    told = capsys.readouterr()
    assert "4/4  positions=none, seed 2: loss" in told.err
    assert "differences are paired by seed" in told.out
    (folder,) = (here / "experiments").iterdir()
    assert str(folder.relative_to(here)) in told.out
    assert {path.name for path in folder.iterdir()} == {"comparison.json", "table.md", "curves.svg", "curves.png"}

    more = [*words, "--set", "positions=learned", "--json", "--output", "mine"]
    assert command(*more) == 0
    told = capsys.readouterr()
    assert told.err.count("reused") == 4
    said = json.loads(told.out)
    assert [row["arm"] for row in said["rows"]] == ["base", "positions=none", "positions=learned"]
    assert json.loads((here / "mine" / "comparison.json").read_text(encoding="utf-8")) == said

    read = Comparison.read("mine")
    assert read.rows == said["rows"]
    assert read.base["embed_dim"] == TINY["embed_dim"]
    assert read.arms["positions=none"] == {"positions": "none"}
    shown = read._repr_html_()
    assert "<table>" in shown
    assert "<svg" in shown
    assert "positions=learned" in shown


def test_where_the_base_cannot_be_trained_the_reason_is_told_and_nothing_is_called_compared(here, capsys):
    (here / "book.txt").unlink()

    assert command("compare", "--set", "norm=layernorm", "--seeds", "2") == 1
    told = capsys.readouterr()
    assert "4/4  norm=layernorm, seed 2: failed: " in told.err
    assert "base failed: there is no" in told.out
    assert not (here / "runs").exists()


def test_an_arm_that_fails_has_its_reason_and_the_others_their_verdict(here, capsys):
    (here / "mine.py").write_text("raise ValueError('not yet')\n", encoding="utf-8")
    found = compare_arms(arms=["attention=mine.py:Mine", "positions=none"], seeds=[1], steps=10)

    assert "not yet" in found.rows[1]["failed"]
    assert found.rows[2]["said"] == "can't tell from one seed: 2 more give an interval"
    assert "| attention=mine.py:Mine |  |  | failed: mine.py, line 1: ValueError: not yet" in found.markdown()


STARTED = """
import sys
from microformer.experiments import cells
cells.code_hash = lambda: "the same code"
from microformer import cli
sys.exit(cli.main(["compare", "--set", "positions=none", "--set", "norm=layernorm", *sys.argv[1:]]))
"""


def test_a_comparison_whose_every_process_is_killed_comes_to_the_same_table(here, tmp_path_factory):
    """Twice killed: the starter alone, and its trainings too."""
    words = ["--steps", "400", "--seeds", "1", "--json", "--output", "found"]

    def started(folder):
        return subprocess.Popen(
            [sys.executable, "-c", STARTED, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def figures(folder):
        kept = json.loads((folder / "found" / "comparison.json").read_text(encoding="utf-8"))
        kept["rows"] = [
            {name: value for name, value in row.items() if name in ("arm", "losses", "difference", "verdict", "steps")}
            for row in kept["rows"]
        ]
        return kept["rows"]

    for number in (1, 2):
        with started(here) as process:
            while len(list(here.glob("runs/*/metrics.jsonl"))) < number:
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
    with started(here) as process:
        process.communicate()
    assert process.returncode == 0

    calm = tmp_path_factory.mktemp("calm")
    for name in ("book.txt", "config.py"):
        (calm / name).write_bytes((here / name).read_bytes())
    with started(calm) as process:
        process.communicate()
    assert figures(here) == figures(calm)
    # Nothing was begun anew under another name.
    assert len(list(here.glob("runs/*/run.json"))) == len(list(calm.glob("runs/*/run.json"))) == 3


# ---------------------------------------------------------------------------------------------------------- the table


def made(arm, seed, loss, **more):
    points = tuple(Point(step, step * 64, step / 10, loss + 1 / step) for step in (1, 2, 4, 8, 1000))
    more = {"bits_per_byte": loss / math.log(2), "steps": 1000, "tokens": 64_000, "seconds": 100.0, **more}
    more = {"tokens_per_second": 640.0, "memory": 420_000_000, "parameters": 12_345, "validated": 1000, **more}
    return Cell(
        arm, seed, Path("runs") / f"{arm}-{seed}", False, loss=loss, device="cpu", threads=2, curve=points, **more
    )


PLAIN = [made(arm, seed, loss + seed) for seed in (1, 2, 3) for arm, loss in (("base", 1.5), ("other", 1.25))]


def test_the_table_says_losses_differences_verdicts_and_costs():
    table = markdown(PLAIN)

    assert (
        "| arm | loss, nats per token, mean of 3 | difference | verdict | steps | seconds | tokens/s | memory |"
        in table
    )
    assert "| other | 3.2500 ± 2.4841 | -0.2500 ± 0.0000 | better | 1,000 | 100.0 | 640 | 420 MB | 12,345 |" in table
    assert "memory" not in markdown(PLAIN, costs=False)


def test_where_tokens_differ_losses_are_in_bits_a_byte():
    cells = [made("base", 1, 1.5), made("pieces", 1, 3.0, bits_per_byte=1.5)]
    found = Comparison(tuple(cells))

    assert found.unit == "bits per byte"
    assert [row["losses"] for row in found.rows] == [[1.5 / math.log(2)], [1.5]]
    # The curve too: its last loss a token was the cell's plus a thousandth.
    ((_, last),) = [found.curves().panels["steps"]["pieces"][0][-1]]
    assert last == pytest.approx(3.001 / 2)
    assert Comparison(tuple(PLAIN)).unit == "nats per token"


def test_arms_on_other_texts_or_machines_are_remarked_upon():
    assert len(Comparison(tuple(PLAIN)).remarks) == 1
    other = [replace(cell, validated=500, threads=1) if cell.arm == "other" else cell for cell in PLAIN]
    said = " ".join(Comparison(tuple(other)).remarks)
    assert "validated on different texts" in said
    assert "numbers of threads" in said


def test_where_the_base_failed_the_others_have_figures_and_no_verdict():
    cells = [replace(PLAIN[0], failed="no room", loss=math.nan), *PLAIN[1:]]
    (base, other) = rows(cells)

    assert base["failed"] == "no room"
    assert "mean" in other
    assert "verdict" not in other
    assert "the base failed" in markdown(cells)


def test_a_comparison_is_read_as_it_was_written_and_names_are_only_names(tmp_path):
    rude = [replace(cell, arm=cell.arm + "<script>|$x$") for cell in PLAIN]
    failed = replace(rude[-1], arm="none", failed="no room", loss=math.nan, bits_per_byte=math.nan, curve=())
    comparison = Comparison((*rude, failed), {"embed_dim": 8}, {"none": {"norm": "rmsnorm"}})
    comparison.write(tmp_path / "c")
    read = Comparison.read(tmp_path / "c")

    assert read.rows == comparison.rows
    assert math.isnan(read.cells[-1].loss)
    assert read.cells[:-1] == comparison.cells[:-1]
    assert "NaN" not in (tmp_path / "c" / "comparison.json").read_text(encoding="utf-8")
    assert "<script>" not in read._repr_html_()
    assert "<script>\\|$x$" in (tmp_path / "c" / "table.md").read_text(encoding="utf-8")
    assert (tmp_path / "c" / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "base": {}, "arms": {}, "cells": [{}]}']
)
def test_a_damaged_comparison_is_told(tmp_path, text):
    (tmp_path / "comparison.json").write_text(text, encoding="utf-8")
    with pytest.raises(FileError):
        Comparison.read(tmp_path)


def test_seeds_can_be_a_number_or_which_but_each_once():
    assert planned(None, ["norm=layernorm"], 3)[2] == [1, 2, 3]
    assert planned(None, ["norm=layernorm"], [7, 5])[2] == [7, 5]
    with pytest.raises(SettingsError, match="each once"):
        planned(None, ["norm=layernorm"], [7, 7])
