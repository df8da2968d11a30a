"""A preparation that is killed, or refused by the disk: the old set whole, the new one whole, or seen as unfinished."""

import errno
import importlib
import io
import multiprocessing
import os
import shutil
import signal

import pytest

from microformer import files
from microformer.corpora import Source, ensure_prepared, load_prepared, parts, prepare, what_to_prepare
from microformer.errors import DataError, FileError

prepare_module = importlib.import_module("microformer.corpora.preparing")

OLD, NEW = "To be, or not to be. " * 100, "All that glisters is not gold. " * 150
# What a system call may be in the middle of when the power goes.
MOMENTS = ("replace", "fsync", "unlink")


def why_prepare(folder, **asked):
    """Why the set there is not what is asked for; None if it is."""
    return what_to_prepare(folder, **asked)[1]


def _prepare_and_die(project, moment, pipe):
    """In a process of its own: dies just before the moment-th call of those that change what is on the disk."""
    os.chdir(project)
    calls = 0

    def deadly(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            return function(*args, **kwargs)

        return call

    for name in MOMENTS:
        setattr(os, name, deadly(getattr(os, name)))
    prepare("data", Source.files("new.txt"))
    pipe.send(calls)


@pytest.fixture(scope="module")
def processes():
    """Processes that start quickly where the system can fork one with torch already imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "numpy", "microformer.corpora"])
    return context


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.txt").write_text(OLD)
    (tmp_path / "new.txt").write_text(NEW)
    return tmp_path


def text_in(folder):
    opened = load_prepared(folder)
    return opened.tokenizer.decode(opened.train) + opened.tokenizer.decode(opened.val)


def assert_old_new_or_unfinished(folder):
    """Gives which it is."""
    if why_prepare(folder, explicit=None, default_corpus="pydocs") is not None:
        with pytest.raises(DataError, match="no complete prepared data"):
            load_prepared(folder)
        return "unfinished"
    text = text_in(folder)
    assert text in (OLD, NEW)
    return "old" if text == OLD else "new"


@pytest.mark.parametrize("had_an_old_set", [True, False])
def test_killed_at_any_instant_no_mixture_is_ever_seen(had_an_old_set, project, processes):
    template = project / "template"
    template.mkdir()
    if had_an_old_set:
        prepare(template, Source.files("old.txt"))
    seen, moment, finished = [], 0, False
    while not finished:
        moment += 1
        shutil.rmtree("data", ignore_errors=True)
        shutil.copytree(template, "data")
        receiver, sender = processes.Pipe(duplex=False)
        process = processes.Process(target=_prepare_and_die, args=(project, moment, sender))
        process.start()
        sender.close()
        process.join()
        finished = process.exitcode == 0
        receiver.close()

        seen.append(assert_old_new_or_unfinished("data"))
        prepare("data", Source.files("new.txt"))
        assert text_in("data") == NEW
        assert not list((project / "data").glob("*.partial"))

    assert moment > 15
    # First the old set (or none), then an unfinished one, then the new one, and never back.
    stages = ["old", "unfinished", "new"] if had_an_old_set else ["unfinished", "new"]
    assert seen == sorted(seen, key=stages.index)
    assert set(seen) == set(stages)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


class FullDisk:
    """Opens files into which only so many bytes can be written, all together."""

    def __init__(self, room):
        self.room = room

    def open(self, path, mode):
        return LimitedFile(self, path, mode)


class LimitedFile(io.FileIO):
    def __init__(self, disk, path, mode):
        super().__init__(path, mode)
        self._disk = disk

    def write(self, data):
        self._disk.room -= memoryview(data).nbytes
        return super().write(data) if self._disk.room >= 0 else full()


@pytest.mark.parametrize("room", [0, 100, 4185, 5000, 6000, 9000])
def test_a_disk_that_is_full_while_tokens_are_written_leaves_the_old_set(room, project, monkeypatch):
    prepare("data", Source.files("old.txt"))
    disk = FullDisk(room)
    for module in (prepare_module, parts):
        monkeypatch.setattr(module, "open", disk.open, raising=False)

    with pytest.raises(FileError, match="No space left") as raised:
        prepare("data", Source.files("new.txt"))

    assert "free some space" in raised.value.hint
    assert text_in("data") == OLD
    assert not list((project / "data").glob("*.partial"))


def test_a_disk_that_is_full_at_any_sync_or_rename_leaves_the_old_set_or_is_seen(project, monkeypatch):
    moment, finished = 0, False
    seen = set()
    while not finished:
        moment += 1
        prepare("data", Source.files("old.txt"))
        calls = 0

        def refuse(function, moment=moment):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                return full() if calls == moment else function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("replace", "fsync"):
                patch.setattr(os, name, refuse(getattr(os, name)))
            try:
                prepare("data", Source.files("new.txt"))
                finished = calls < moment
            except FileError:
                pass
        seen.add(assert_old_new_or_unfinished("data"))
        assert not list((project / "data").glob("*.partial"))

    assert moment > 10
    assert seen == {"old", "unfinished", "new"}


def test_a_folder_that_may_not_be_written_is_named(project, monkeypatch):
    def refused(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.Path, "mkdir", refused)

    with pytest.raises(FileError, match="can't write data: Permission denied") as raised:
        prepare("data", Source.files("new.txt"))

    assert "permissions" in raised.value.hint


def test_after_an_interrupted_preparation_training_makes_its_own(project, capsys):
    prepare("data", Source.files("old.txt"))
    files.write_json(project / "data" / "manifest.json", {"format": 1, "unfinished": True})
    (project / "data" / "corpus.txt").write_text(NEW)

    assert ensure_prepared("data", explicit=None, default_corpus="pydocs").manifest["text"]["characters"] == len(NEW)
    assert "the last preparation was not finished" in capsys.readouterr().err
