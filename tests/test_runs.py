"""The run folder: names, checkpoints, metrics and the lock, and every way in which a folder can be damaged."""

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from small_runs import TINY

from microformer import files, runs, tokenization
from microformer.errors import FileError, RunError
from microformer.models.model import Microformer
from microformer.settings import Settings, model_spec


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here):
    """A run that is whole, with two steps taken."""
    new = runs.create("r", "book.txt")
    chosen = Settings().changed(TINY)
    spec = model_spec(chosen, vocab_size=5)
    tokenization.save(tokenization.train("char", ["abcde"]), new.folder / "tokenizer.json")
    new.write_info(
        {
            "settings": chosen.flat(), "model": spec.to_json(), "parameters": 1, "data": {"fingerprint": "f"},
            "legs": [], "ended": None,
        }
    )  # fmt: skip
    model = Microformer(spec, seed=1)
    for label, step in (("snapshot", 1), ("snapshot", 2), ("best", 2), ("last", 2)):
        new.write_checkpoint(label, step, lambda folder: runs.save_weights(model, folder / "model.safetensors"))
    new.append_metrics({"step": 1, "train_loss": 3.0})
    new.append_metrics({"step": 2, "train_loss": 2.0})
    return runs.Run(new.folder)


def weights_of(run, which="best"):
    return run.checkpoint(which) / "model.safetensors"


def tensors_in(run):
    return runs.load_tensors(weights_of(run))


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["../out", "a/b", "a\\b", "/tmp/a", "", ".", "..", ".hidden", "-a", "a.", "ü", "a b"])
def test_a_name_that_is_a_path_or_no_folder_everywhere_is_refused(name, here):
    with pytest.raises(RunError, match="can't be called") as raised:
        runs.create(name, "book.txt")

    assert "letters, digits" in raised.value.hint
    assert not list(here.iterdir())


def test_a_taken_name_is_refused_and_its_run_untouched(run):
    before = (run.folder / "run.json").read_bytes()

    with pytest.raises(RunError, match="there is a run 'r' already") as raised:
        runs.create("r", "book.txt")

    assert "--resume" in raised.value.hint
    assert (run.folder / "run.json").read_bytes() == before


def test_without_a_name_runs_are_numbered_after_their_corpus(here):
    names = [runs.create(None, corpus).name for corpus in ("tinyshakespeare", "tinyshakespeare", "my böök.txt", "…")]

    assert names == ["tinyshakespeare-1", "tinyshakespeare-2", "my-b-k-1", "run-1"]


def test_the_latest_run_is_the_one_last_written_to(run):
    other = runs.create("other", "book.txt")
    other.write_info(run.info)
    os.utime(run.folder / "run.json", ns=(10, 10))

    assert runs.find(None).name == "other"
    run.write_info(run.info)
    assert runs.find(None).name == "r"


def test_a_run_is_found_by_its_name_or_its_folder(run, here):
    assert runs.find("r").folder == Path("runs/r")
    assert runs.find(str(here / "runs" / "r")).name == "r"
    assert runs.find("runs/r").name == "r"


def test_a_name_that_is_none_suggests_the_nearest(run):
    run.folder.rename(run.folder.parent / "shakespeare")

    with pytest.raises(RunError, match="there is no run 'shakespear'") as raised:
        runs.find("shakespear")

    assert "did you mean 'shakespeare'?" in raised.value.hint


def test_where_there_is_no_run_the_command_that_makes_one_is_said(here):
    with pytest.raises(RunError, match="there is no run yet") as raised:
        runs.find(None)

    assert raised.value.hint == "train one: microformer train"


# ---------------------------------------------------------------------------------------------------------------- lock


def test_a_second_training_in_the_same_folder_is_refused_until_the_first_has_ended(run):
    refused = pytest.raises(RunError, match="another training is writing into the run 'r'")
    with run.lock(), refused, runs.find("r").lock():
        pass

    with runs.find("r").lock():
        pass


def test_who_holds_the_lock_sweeps_what_a_killed_writer_left(run):
    (run.folder / "run.json.77-ab.partial").write_text("{")

    with run.lock():
        assert not list(run.folder.glob("*.partial"))


# ------------------------------------------------------------------------------------------------------------- metrics


def test_a_last_line_that_was_cut_short_is_left_out(run):
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "train_l')

    assert [row["step"] for row in run.metrics] == [1, 2]


def test_a_damaged_line_in_the_middle_is_an_error(run):
    path = run.folder / "metrics.jsonl"
    path.write_text("{]\n" + path.read_text())

    with pytest.raises(RunError, match="damaged: a line is not JSON"):
        _ = run.metrics


def test_a_run_without_metrics_has_none(here):
    assert runs.create("r", "x").metrics == []


def test_cutting_back_forgets_what_came_after_a_step(run):
    run.append_metrics({"step": 4, "train_loss": 1.0})
    for label in ("snapshot", "best"):
        run.write_checkpoint(label, 4, lambda folder: files.write_text(folder / "x", "4"))

    run.cut_back(2)

    assert [row["step"] for row in run.metrics] == [1, 2]
    assert run.index == {
        "last": "last-0000002", "best": "best-0000002", "best_of_last": "best-0000002",
        "snapshots": ["step-0000001", "step-0000002"],
    }  # fmt: skip
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {
        "index.json", "last-0000002", "best-0000002", "step-0000001", "step-0000002",
    }  # fmt: skip
    assert run.model


def test_cut_back_to_the_start_only_weights_that_a_run_began_from_are_left(run, tmp_path):
    other = runs.create("other", "x", tmp_path)
    other.write_checkpoint("last", 0, lambda folder: (folder / "model.safetensors").write_bytes(b""))
    other.write_checkpoint("best", 0, lambda folder: (folder / "model.safetensors").write_bytes(b""))

    other.cut_back(0)

    assert other.index == {"last": "last-0000000", "best": None, "best_of_last": None, "snapshots": []}


def test_cut_back_to_the_start_nothing_is_left(run):
    run.cut_back(0)

    assert run.metrics == []
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["index.json"]
    with pytest.raises(RunError, match="has no checkpoint 'best'") as raised:
        run.checkpoint("best")
    assert "--resume" in raised.value.hint


# --------------------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_found_by_its_label_or_step(run):
    names = {which: run.checkpoint(which).name for which in ("best", "last", "1", "step-2", "0002")}

    assert names == {
        "best": "best-0000002", "last": "last-0000002", "1": "step-0000001", "step-2": "step-0000002",
        "0002": "step-0000002",
    }  # fmt: skip


@pytest.mark.parametrize("which", ["3", "first", "step-", "../best", ""])
def test_a_checkpoint_that_is_none_names_those_there_are(which, run):
    with pytest.raises(RunError, match=f"has no checkpoint {which!r}") as raised:
        run.checkpoint(which)

    assert raised.value.hint == "there are: best, last, 1, 2."


def test_where_nothing_was_validated_the_best_is_the_last(here):
    run = runs.create("r", "x")
    run.write_checkpoint("last", 3, lambda folder: files.write_text(folder / "x", ""))

    assert run.checkpoint("best").name == "last-0000003"


def test_a_checkpoint_that_fails_half_way_leaves_the_one_before(run):
    before = run.index

    def fill(folder):
        files.write_text(folder / "model.safetensors", "half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FileError, match="No space left") as raised:
        run.write_checkpoint("last", 3, fill)

    assert "what was saved before is untouched" in raised.value.hint
    assert run.index == before
    assert not list(run.folder.rglob("*.partial"))


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_checkpoint_that_the_disk_refuses_at_any_call_leaves_a_whole_one(name, run, monkeypatch):
    real, calls, refused_at = getattr(os, name), 0, 0

    def refuse(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == refused_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, refuse)
    model = run.model
    for refused_at in range(1, 20):
        calls = 0
        try:
            run.write_checkpoint(
                "last", 2 + refused_at, lambda folder: runs.save_weights(model, folder / "model.safetensors")
            )
            break
        except FileError:
            assert runs.Run(run.folder, "last").model
    assert refused_at > 2
    assert run.index["last"] == f"last-{2 + refused_at:07d}"


def test_a_reader_follows_a_checkpoint_that_is_replaced_while_it_reads(run, monkeypatch):
    load_weights, calls = runs.load_weights, []

    def replaced_before_it_is_read(model, path):
        if not calls:
            calls.append(path)
            run.write_checkpoint("last", 3, lambda folder: runs.save_weights(model, folder / "model.safetensors"))
        load_weights(model, path)

    monkeypatch.setattr(runs, "load_weights", replaced_before_it_is_read)

    assert runs.Run(run.folder, "last").model
    assert calls == [Path("runs/r/checkpoints/last-0000002/model.safetensors")]


# -------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("left", [0, 7, 100, -1])
def test_a_checkpoint_that_was_cut_short_is_refused(left, run):
    path = weights_of(run)
    path.write_bytes(path.read_bytes()[:left])

    with pytest.raises(RunError, match=r"best-0000002.model\.safetensors can't be read as safetensors") as raised:
        _ = run.model

    assert "cut short" in raised.value.hint


def test_a_checkpoint_that_is_missing_is_named(run):
    weights_of(run).unlink()

    with pytest.raises(RunError, match=r"model\.safetensors can't be read"):
        _ = run.model


class Hostile:
    def __reduce__(self):
        return Path.write_text, (Path("executed"), "")


@pytest.mark.parametrize("write", [lambda data, path: path.write_bytes(pickle.dumps(data)), torch.save])
def test_a_hostile_pickle_in_a_checkpoints_place_is_refused_and_never_executed(write, run):
    write(Hostile(), weights_of(run))

    with pytest.raises(RunError, match="can't be read as safetensors"):
        _ = run.model

    assert not Path("executed").exists()
    pickle.loads(pickle.dumps(Hostile()))  # it is hostile indeed
    assert Path("executed").exists()


def test_a_checkpoint_of_another_shape_is_refused(run):
    tensors = tensors_in(run)
    name = next(iter(tensors))
    runs.save_tensors({**tensors, name: torch.zeros(3, 3)}, weights_of(run))

    with pytest.raises(RunError, match=rf"has '{name}' in shape \(3, 3\), not"):
        _ = run.model


def test_a_checkpoint_that_lacks_a_tensor_is_refused(run):
    tensors = tensors_in(run)
    name = next(iter(tensors))
    del tensors[name]
    runs.save_tensors(tensors, weights_of(run))

    with pytest.raises(RunError, match=f"lacks '{name}': it is of another model"):
        _ = run.model


def test_a_checkpoint_with_a_surplus_tensor_is_refused(run):
    runs.save_tensors({**tensors_in(run), "more": torch.zeros(1)}, weights_of(run))

    with pytest.raises(RunError, match="has a surplus 'more'"):
        _ = run.model


def test_a_run_of_another_format_is_refused(run):
    info = json.loads((run.folder / "run.json").read_text())
    files.write_json(run.folder / "run.json", {**info, "format": 99})

    with pytest.raises(RunError, match=r"run\.json is not of format 2") as raised:
        _ = runs.find("r").info

    assert "another version" in raised.value.hint


@pytest.mark.parametrize("name", ["model", "settings", "ended", "data"])
def test_a_run_that_lacks_a_part_is_refused(name, run):
    info = json.loads((run.folder / "run.json").read_text())
    del info[name]
    files.write_json(run.folder / "run.json", info)

    with pytest.raises(RunError, match=rf"run\.json is damaged: it lacks '{name}'"):
        _ = runs.find("r").model


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"last": 1}', '"last"'])
def test_an_index_of_checkpoints_that_is_none_is_refused(text, run):
    (run.folder / "checkpoints" / "index.json").write_text(text)

    with pytest.raises(RunError, match=r"index\.json is damaged"):
        _ = run.model


def test_a_run_json_that_is_cut_short_is_refused(run):
    path = run.folder / "run.json"
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(FileError, match=r"run\.json is damaged: it is not JSON"):
        _ = runs.find("r").info


# -------------------------------------------------------------------------------------------------------- as a library


def test_a_loaded_run_has_its_model_tokenizer_settings_and_metrics(run):
    loaded = runs.load_run("r", "last")

    assert isinstance(loaded.model, Microformer)
    assert not loaded.model.training
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("abc")) == "abc"
    assert loaded.settings.model.embed_dim == 16
    assert loaded.metrics == [{"step": 1, "train_loss": 3.0}, {"step": 2, "train_loss": 2.0}]
    saved = tensors_in(run)
    assert all(torch.equal(parameter, saved[name]) for name, parameter in loaded.model.named_parameters())


# ----------------------------------------------------------------------------------------------------------------- tags


def test_tags_are_kept_sorted_and_apart_from_what_a_training_writes(run):
    before = (run.folder / "run.json").read_bytes()

    run.write_tags({"keep", "best", "lr-1e-3"})

    assert runs.find("r").tags == ("best", "keep", "lr-1e-3")
    assert (run.folder / "run.json").read_bytes() == before
    run.write_tags([])
    assert run.tags == ()


@pytest.mark.parametrize("word", ["", "two words", "a=b", "<b>", "-x", "a,b", "x" * 51, "a\nb", "a\n"])
def test_what_is_no_word_is_no_tag(word, run):
    with pytest.raises(RunError, match="can't be a tag"):
        run.write_tags([word])
    assert not (run.folder / "tags.json").exists()


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]"])
def test_damaged_tags_are_told(text, run):
    (run.folder / "tags.json").write_text(text)

    with pytest.raises((RunError, FileError), match=r"tags\.json is damaged"):
        _ = run.tags


# ------------------------------------------------------------------------------------------------------------- deleting


def test_a_run_is_deleted_whole_and_nothing_beside_it(run):
    other = runs.create("other", "book.txt")
    other.write_info(run.info)

    run.delete()

    assert sorted(path.name for path in Path("runs").iterdir()) == ["other"]
    assert [one.name for one in runs.all_runs()] == ["other"]


def test_a_run_that_is_being_written_is_not_deleted(run):
    with run.lock(), pytest.raises(RunError, match="another training is writing"):
        runs.Run(run.folder).delete()

    assert runs.find("r").index["last"]


def test_a_deletion_that_is_killed_leaves_no_half_of_a_run(run, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run.delete()

    assert runs.all_runs() == []
    assert len(list(Path("runs").iterdir())) == 1
    new = runs.create("r", "book.txt")
    assert new.index["last"] is None  # and its name is free
    new.write_info({"settings": {}, "model": {}, "parameters": 1, "data": {}, "legs": [], "ended": None})
    new.delete()
    assert list(Path("runs").iterdir()) == []  # what was left is gone too


def test_a_damaged_run_can_be_deleted(run):
    (run.folder / "run.json").write_text("{")

    runs.find("r").delete()

    assert list(Path("runs").iterdir()) == []


def test_of_a_link_the_link_alone_is_deleted(run, tmp_path):
    kept = tmp_path / "kept"
    run.folder.rename(kept)
    run.folder.symlink_to(kept, target_is_directory=True)

    runs.find("r").delete()

    assert not os.path.lexists(run.folder)
    assert (kept / "run.json").is_file()


# --------------------------------------------------------------------------------------------------------------- curves


def test_the_last_row_is_found_from_the_end_of_a_long_file(run):
    for step in range(3, 400):
        run.append_metrics({"step": step, "train_loss": 1.0})
    with open(run.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 400, "tra')

    assert run.latest["step"] == 399
    (run.folder / "metrics.jsonl").write_text("no JSON\n")
    with pytest.raises(RunError, match="damaged"):
        _ = run.latest


def test_a_run_draws_its_curves_beside_its_baselines(run):
    run.append_metrics({"step": 3, "val_loss": 2.25, "seconds": 1.5, "tokens": 9})
    run.write_info({**run.info, "figures": {"unigram": 2.5, "the task's entropy": None, "val_loss": 2.25}})

    curves = run.curves()

    assert curves.series == {"training": [(1, 3.0), (2, 2.0)], "validation": [(3, 2.25)]}
    assert (curves.best, curves.baselines) == ((3, 2.25), {"unigram": 2.5})
    assert "<svg" in curves._repr_svg_()
    with pytest.raises(RunError, match="against 'epoch'"):
        run.curves("epoch")
