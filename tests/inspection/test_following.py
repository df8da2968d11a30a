"""What becomes new in a run folder is told, whatever happens to the folder."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch

from microformer import runs
from microformer.inspection.following import Follower, events
from microformer.inspection.shelf import Shelf

INFO = {"settings": {}, "model": {}, "parameters": 1, "data": {"corpus": "x"}, "legs": [], "ended": None}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = runs.create("r", "r")
    run.write_info(INFO)
    return run


@pytest.fixture
def follower(run):
    follower = Follower(Shelf(runs.RUNS), "r")
    follower.news()
    return follower


def row(step, **more):
    return {"step": step, "seconds": 1.0, "train_loss": 2.0, "lr": 0.1, **more}


def steps(news):
    return [(said["reset"], [one["step"] for one in said["rows"]]) for kind, said in news if kind == "metrics"]


def test_at_first_all_is_told(run):
    run.append_metrics(row(1))

    news = dict(Follower(Shelf(runs.RUNS), "r").news())

    assert news["metrics"] == {"rows": [{"step": 1, "seconds": 1.0, "train_loss": 2.0}], "reset": True}
    assert news["checkpoints"]["checkpoints"] == []
    assert news["ended"] == {"ended": None}
    assert [one["name"] for one in news["runs"]["runs"]] == ["r"]
    assert "probe" not in news


def test_after_that_only_what_is_new(run, follower):
    assert follower.news() == []
    run.append_metrics(row(1))
    assert steps(follower.news()) == [(True, [1])]
    run.append_metrics(row(2, val_loss=1.5))
    run.append_metrics(row(3))
    assert steps(follower.news()) == [(False, [2, 3])]
    assert follower.news() == []


def test_a_line_that_is_being_written_is_told_when_it_is_whole(run, follower):
    path = run.folder / "metrics.jsonl"
    path.write_text(json.dumps(row(1)) + "\n" + '{"step": 2, "sec')
    assert steps(follower.news()) == [(True, [1])]
    with open(path, "a") as file:
        file.write('onds": 1}\n')
    assert steps(follower.news()) == [(False, [2])]


def test_a_run_that_is_cut_back_is_told_anew(run, follower):
    for step in (1, 2, 3):
        run.append_metrics(row(step))
    follower.news()

    run.cut_back(2)
    assert steps(follower.news()) == [(True, [1, 2])]

    # Written in the same file, and as long: still another.
    path = run.folder / "metrics.jsonl"
    text = path.read_text().replace('"train_loss": 2.0', '"train_loss": 3.0')
    with open(path, "r+") as file:
        file.write(text)
    assert steps(follower.news()) == [(True, [1, 2])]


def test_damaged_lines_are_left_out(run, follower):
    (run.folder / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n[1]\n{"step": "x"}\nnull\n{"step": 2}\n')

    assert steps(follower.news()) == [(True, [1, 2])]


def test_checkpoints_probes_and_the_end_are_told(run, follower):
    run.write_checkpoint("snapshot", 1, lambda folder: None)
    assert follower.news() == [
        ("checkpoints", {"checkpoints": ["best", "1"], "folders": {"best": "step-0000001", "last": None}})
    ]
    run.write_checkpoint("last", 4, lambda folder: None)
    run.write_probe(4, {"ids": torch.zeros(2)}, {"probe": "{}"})
    news = dict(follower.news())
    assert news["checkpoints"]["folders"] == {"best": "last-0000004", "last": "last-0000004"}
    assert news["probe"] == {"step": 4, "probes": [4]}
    run.write_info({**INFO, "ended": {"how": "finished", "step": 4}})
    news = dict(follower.news())
    assert news["ended"] == {"ended": "finished"}
    assert news["runs"]["runs"][0]["steps"] == 4
    run.write_info(INFO)
    assert dict(follower.news())["ended"] == {"ended": None}


def test_a_run_that_is_deleted_and_made_again_is_followed_on(run, follower):
    run.append_metrics(row(1))
    follower.news()

    shutil.rmtree(run.folder)
    assert [kind for kind, _ in follower.news()] == ["runs"]
    assert follower.news() == []
    again = runs.create("r", "r")
    again.write_info(INFO)
    again.append_metrics(row(7))
    assert steps(follower.news()) == [(True, [7])]


def test_a_folder_half_written_is_waited_for(run, follower):
    index = run.folder / "checkpoints" / "index.json"
    index.write_text('{"last": ')
    assert follower.news() == []
    index.unlink()
    run.write_checkpoint("last", 4, lambda folder: None)
    assert [kind for kind, _ in follower.news()] == ["checkpoints"]


def test_the_stream_tells_events_and_signs_of_life_and_ends_with_the_server(run):
    run.append_metrics(row(1))

    async def listen():
        told, ended = [], []
        async for said in events(Follower(Shelf(Path("runs")), "r"), lambda: bool(ended), pause=0.001):
            told.append(said.decode())
            if len(told) == 8:
                ended.append(1)
        return told

    told = asyncio.run(asyncio.wait_for(listen(), 20))

    assert told[0] == "retry: 2000\n\n"
    kinds = [line.split("\n")[0] for line in told[1:5]]
    assert kinds == ["event: runs", "event: checkpoints", "event: ended", "event: metrics"]
    assert json.loads(told[4].split("data: ")[1])["rows"][0]["step"] == 1
    assert told[5:] == [": here\n\n"] * 3
