"""The runs as a table: what each row has, which are kept, in which order; and what tells two apart."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from small_runs import TINY

from microformer import runs as folders
from microformer.errors import RunError, SettingsError
from microformer.experiments import differences, runs
from microformer.experiments.listing import matching
from microformer.settings import Settings, model_spec


def made(name: str, rows=((1, 3.0), (2, 2.0)), ended: str | None = "finished", tags=(), **given):
    """A run folder as a training leaves it, without weights."""
    new = folders.create(name, "book.txt")
    chosen = Settings().changed({**TINY, **given})
    losses = [loss for _, loss in rows if loss is not None]
    new.write_info(
        {
            "created": "2026-01-05T00:00:00+00:00", "settings": chosen.flat(), "parameters": 1000,
            "model": model_spec(chosen, vocab_size=5).to_json(),
            "data": {"fingerprint": "f", "corpus": "book.txt", "train": {"tokens": 900, "characters": 900}},
            "versions": {"torch": "2.4"}, "legs": [], "code": {},
            "ended": ended and {"how": ended, "step": rows[-1][0], "seconds": 8.0},
            "figures": {"val_loss": min(losses, default=None), "bits_per_char": 1.0, "train_loss": 2.5, "uniform": 4.0},
        }
    )  # fmt: skip
    for step, loss in rows:
        row = {"step": step, "tokens": 100 * step, "seconds": 4.0 * step, "train_loss": 2.5 + 1 / step}
        new.append_metrics(row if loss is None else {**row, "val_loss": loss})
    if tags:
        new.write_tags(tags)
    return folders.Run(new.folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Four runs: one without validation, one that is still going."""
    monkeypatch.chdir(tmp_path)
    made("base-1", tags=["keep", "best"])
    made("base-2", rows=((1, 3.0), (2, 1.5)), seed=2, attention="window(8)")
    made("wide", rows=((1, 2.0), (4, 1.7)), embed_dim=32, learning_rate=0.01)
    made("blind", rows=((1, None), (3, None)), val_fraction=0.0)
    made("going", rows=((1, 3.5), (2, 2.9), (3, 3.1)), ended=None, dropout=0.1)
    return tmp_path


def names(found) -> list[str]:
    return [row["run"] for row in found]


# ---------------------------------------------------------------------------------------------------------- a row a run


def test_each_run_is_a_row_of_figures_and_settings_under_the_same_columns(here):
    found = runs()

    assert names(found) == ["base-1", "base-2", "wide", "blind", "going"]
    assert all(tuple(row) == found.columns for row in found)
    assert set(Settings().flat()) <= set(found.columns)
    row = found[2]
    assert (row["val_loss"], row["steps"], row["tokens"], row["tokens_per_second"]) == (1.7, 4, 400, 50.0)
    assert (row["embed_dim"], row["learning_rate"], row["tags"]) == (32, 0.01, [])
    assert names(found[1:3]) == ["base-2", "wide"]


def test_a_run_that_has_not_ended_has_the_figures_so_far(here):
    row = runs("going")[0]

    assert (row["ended"], row["steps"], row["seconds"]) == ("killed", 3, 12.0)
    assert (row["val_loss"], row["best_step"]) == (2.9, 2)


def test_one_that_is_being_trained_is_told_from_one_that_was_killed(here):
    with folders.find("going").lock():
        assert names(runs().where("ended=training")) == ["going"]
    assert names(runs().where("ended=killed")) == ["going"]


def test_a_run_that_diverged_has_its_figures_up_to_there(here):
    path = Path("runs/wide/run.json")
    info = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps({**info, "figures": None, "ended": {**info["ended"], "how": "diverged"}}), encoding="utf-8"
    )

    assert (runs("wide")[0]["ended"], runs("wide")[0]["val_loss"]) == ("diverged", 1.7)


def test_a_damaged_run_is_left_out_and_said(here, capsys):
    Path("runs/wide/run.json").write_text("{", encoding="utf-8")
    info = json.loads(Path("runs/blind/run.json").read_text(encoding="utf-8"))
    Path("runs/blind/run.json").write_text(json.dumps({**info, "data": []}), encoding="utf-8")
    Path("runs/base-1/tags.json").write_text('{"keep": 1}', encoding="utf-8")

    found = runs()

    assert names(found) == ["base-1", "base-2", "going"]
    assert found[0]["tags"] == []
    told = capsys.readouterr().err
    for path in ("wide", "blind", "base-1"):
        assert f"{Path('runs', path)}" in told


def test_a_line_that_a_kill_cut_short_is_no_row(here):
    with open("runs/going/metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 4, "tok')

    assert runs("going")[0]["steps"] == 3


# -------------------------------------------------------------------------------------------------------- which, sorted


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ("val_loss<1.6", ["base-2"]),
        ("val_loss <= 1.7", ["base-2", "wide"]),
        ("val-loss>=2 ended=finished", ["base-1"]),
        ("VAL_LOSS=none", ["blind"]),
        ("tag=best", ["base-1"]),
        ("tag=be* tags=keep", ["base-1"]),
        ("tag!=best run=*a*", ["base-2"]),
        ("attention=window(8)", ["base-2"]),
        ("attention=softmax embed_dim=16 seed=1", ["base-1", "blind", "going"]),
        ("--embed-dim=32", ["wide"]),
        ("learning_rate=auto", ["base-1", "base-2", "blind", "going"]),
        ("learning_rate>0.001", ["wide"]),
        ("dropout>0", ["going"]),
        ("qk_norm=no", []),
        ("qk_norm=true run=w*", ["wide"]),
        ("created>2026-01-04 corpus='book.txt' run!=base-?", ["wide", "blind", "going"]),
        ("created>2026-02", []),
    ],
)
def test_conditions_keep_those_of_which_all_is_true(conditions, kept, here):
    assert names(runs().where(conditions)) == kept


def test_a_components_own_arguments_are_a_part_of_its_value(here):
    made("sinks", attention="window(size=8, sinks=1)")

    assert names(runs().where("attention=window(size=8, sinks=1) seed=1")) == ["sinks"]


@pytest.mark.parametrize(
    ("conditions", "sentence", "hint"),
    [
        ("val_los<1", "no column 'val_los'", "did you mean val_loss?"),
        ("zzz=1", "no column 'zzz'", "tokens_per_second"),
        ("val_loss<low", "'low' is not a number", "give one"),
        ("val_loss<", "held against nothing", "val_loss<1"),
        ("val_loss", "no condition", "val_loss<1.6"),
        ("keep val_loss<1", "no condition", "val_loss<1.6"),
        ("attention<softmax", "attention is no number", "attention=softmax"),
        ("tag>best", "tags is no number", "tags=best"),
        ("embed_dim=wide", "EMBED_DIM", ""),
        ("qk_norm=perhaps", "QK_NORM", ""),
    ],
)
def test_a_condition_that_cannot_be_is_told(conditions, sentence, hint, here):
    with pytest.raises(SettingsError) as raised:
        runs().where(conditions)

    assert sentence.lower().replace("_", "-") in raised.value.sentence.lower().replace("_", "-")
    assert hint in raised.value.hint


def test_sorted_by_columns_what_is_not_known_comes_last_either_way(here):
    assert names(runs().sort("val_loss")) == ["base-2", "wide", "base-1", "going", "blind"]
    assert names(runs().sort("-val_loss")) == ["going", "base-1", "wide", "base-2", "blind"]
    assert names(runs().sort("embed_dim", "-run")) == ["going", "blind", "base-2", "base-1", "wide"]
    assert names(runs().sort("learning_rate"))[0] == "wide"  # "auto" is no number
    with pytest.raises(SettingsError, match="val_los"):
        runs().sort("-val_los")


def test_the_last_are_those_last_written_to(here):
    assert names(runs().last(2)) == ["blind", "going"]
    assert len(runs().last(99)) == 5


def test_runs_are_found_by_names_folders_and_patterns_each_once(here):
    assert [run.name for run in matching(["base-*", "runs/wide", "base-1"])] == ["base-1", "base-2", "wide"]
    with pytest.raises(RunError, match="like 'none-"):
        matching(["none-*"])
    with pytest.raises(RunError, match="no run 'bas-1'"):
        matching(["bas-1"])


# --------------------------------------------------------------------------------------------------------- shown, drawn


def test_a_notebook_draws_a_table_with_the_settings_in_which_they_differ(here):
    table = ElementTree.fromstring(runs()._repr_html_())

    head, *rows = [[cell.text for cell in line] for line in table.iter("tr")]
    assert head[:4] == ["run", "corpus", "parameters", "steps"]
    assert {"embed_dim", "attention", "seed"} <= set(head)
    assert "num_layers" not in head
    assert len(rows) == 5
    assert rows[2][head.index("embed_dim")] == "32"
    assert rows[3][head.index("val_loss")] == "–"
    assert [cell.text for cell in ElementTree.fromstring(runs().show("seed")._repr_html_()).iter("th")] == [
        "run",
        "seed",
    ]


def test_names_of_runs_are_no_markup(here):
    Path("runs/wide").rename("runs/<img src=x onerror=alert(1)>")

    for drawn in (runs()._repr_html_(), runs().curves()._repr_svg_()):
        ElementTree.fromstring(drawn)
        assert "<img" not in drawn


def test_a_terminal_gets_the_table_as_text(here):
    lines = repr(runs().show("val_loss", "attention")).splitlines()

    assert lines[0].split() == ["run", "val_loss", "attention"]
    assert lines[2].split() == ["base-2", "1.5000", "window(8)"]
    assert repr(runs("none")) == "no runs"
    assert runs("none")._repr_html_() == "<p>no runs</p>"


def test_curves_show_each_run_and_what_was_not_validated_pale(here):
    curves = runs().curves("seconds")

    assert dict(curves.series)["wide"] == [(4.0, 2.0), (16.0, 1.7)]
    assert curves.pale == {"blind"}
    assert "base-2 1.500" in curves._repr_svg_()
    with pytest.raises(RunError, match="against 'hours'"):
        runs().curves("hours")


def test_a_frame_of_pandas_has_the_columns_and_a_row_a_run(here):
    import pandas

    frame = pandas.DataFrame(runs())

    assert tuple(frame.columns) == runs().columns
    assert frame.groupby("embed_dim")["val_loss"].min().to_dict() == {16: 1.5, 32: 1.7}


# ------------------------------------------------------------------------------------------------------ two, told apart


def test_two_runs_differ_in_what_was_changed_and_no_more(here):
    rows = differences(folders.find("base-1"), folders.find("wide"))

    found = {(row["part"], row["what"]): (row["one"], row["other"]) for row in rows}
    assert found["settings", "embed_dim"] == (16, 32)
    assert found["settings", "learning_rate"] == ("auto", 0.01)
    assert found["figures", "val_loss"] == (2.0, 1.7)
    assert {part for part, _ in found} == {"settings", "figures"}


def test_other_data_code_and_versions_are_told(here):
    path = Path("runs/base-2/run.json")
    info = json.loads(path.read_text(encoding="utf-8"))
    info["data"] |= {"fingerprint": "g", "corpus": "other.txt"}
    info |= {"code": {"my.py": "ab" * 32}, "versions": {"torch": "2.13"}, "compute": "two threads"}
    path.write_text(json.dumps(info), encoding="utf-8")

    found = {(row["part"], row["what"]) for row in differences(folders.find("base-1"), folders.find("base-2"))}

    assert {("data", "fingerprint"), ("code", "my.py"), ("versions", "torch"), ("machine", "compute")} <= found
