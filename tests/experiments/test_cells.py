"""Comparisons: trained once, resumed, reused, and told apart by settings and code."""

import json

import pytest
from small_runs import TINY, book

from microformer.errors import SettingsError
from microformer.experiments import Arm, cells, markdown, train_all, write
from microformer.settings import Settings

BASE = Settings().changed({**TINY, "corpus": "book.txt", "max_steps": 8, "epochs": 0.0, "eval_every": 4})
ARMS = (Arm("base"), Arm("no positions", {"positions": "none"}))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "code_hash", lambda: "the same code")  # whoever edits it meanwhile
    (tmp_path / "book.txt").write_text(book(), encoding="utf-8")
    # Nothing in the folder may change what an arm is.
    (tmp_path / "config.py").write_text("EMBED_DIM = 48\n", encoding="utf-8")
    return tmp_path


def test_each_arm_is_trained_once_and_an_arm_that_cannot_be_is_told(folder):
    arms = (*ARMS, Arm("too fast", {"learning_rate": 100.0, "optimizer": "adamw", "grad_clip": 0.0, "max_steps": 60}))
    first = train_all(BASE, arms[:2], [1], folder)
    again = train_all(BASE, arms, [1], folder)

    assert [cell.reused for cell in first + again] == [False, False, True, True, False]
    assert [cell.loss for cell in again[:2]] == [cell.loss for cell in first]
    assert first[0].loss != first[1].loss
    assert [point.step for point in first[0].curve] == [4, 8]
    info = json.loads((first[1].run / "run.json").read_text(encoding="utf-8"))
    assert info["settings"]["positions"] == "none"
    assert info["settings"]["embed_dim"] == TINY["embed_dim"]

    write(again, folder / "table")
    table = markdown(again)
    assert (folder / "table" / "table.md").read_text(encoding="utf-8") == table
    assert f"| base | {first[0].loss:.4f} |" in table
    assert (folder / "table" / "curves.png").stat().st_size > 10_000


def test_a_training_that_fails_leaves_its_reason_and_the_others_their_figures(folder):
    arms = (*ARMS, Arm("no text", {"corpus": "missing.txt"}))

    found = train_all(BASE, arms, [1], folder)

    assert "missing.txt" in (found[2].failed or "")
    assert found[1].failed is None
    assert "| no text | failed: " in markdown(found)
    assert f"| no positions | {found[1].loss:.4f} |" in markdown(found)


def test_a_cell_that_was_killed_goes_on_to_the_same_loss(folder, monkeypatch):
    whole = train_all(BASE, ARMS, [3], folder)[0]
    run_json = whole.run / "run.json"
    info = json.loads(run_json.read_text(encoding="utf-8"))
    # As a kill after the checkpoint of step 4 would have left it.
    index = whole.run / "checkpoints" / "index.json"
    assert index.is_file()
    run_json.write_text(json.dumps({**info, "ended": None}), encoding="utf-8")

    again = train_all(BASE, ARMS, [3], folder)[0]

    assert (again.reused, again.run, again.loss) == (False, whole.run, whole.loss)


def test_other_code_is_another_run(folder, monkeypatch):
    settings = ARMS[0].settings(BASE, 1)
    one = cells.train_one(ARMS[0], 1, settings, folder, "this code")

    assert cells.train_one(ARMS[0], 1, settings, folder, "this code").reused
    other = cells.train_one(ARMS[0], 1, settings, folder, "other code")
    assert not other.reused
    assert other.run != one.run
    assert other.loss == one.loss  # the same settings, after all


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ((Arm("one"),), "nothing to compare"),
        ((Arm("one"), Arm("one", {"num_layers": 2})), "called 'one'"),
        ((Arm("one"), Arm("two", {"num_layers": 1})), "the same settings"),
        ((Arm("one"), Arm("two", {"num_heads": 3})), "divided"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(arms, said, tmp_path):
    with pytest.raises(SettingsError, match=said):
        train_all(BASE, arms, [1], tmp_path)
    assert not (tmp_path / "runs").exists()
