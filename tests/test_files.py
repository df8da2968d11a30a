"""Files are whole or not there, whatever happens while they are written."""

import errno
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microformer import files
from microformer.errors import FileError


def refuse(code: int):
    """A stand-in for a system call, which the system refuses with this code."""

    def refused(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return refused


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path):
    files.write_text(tmp_path / "new" / "a.txt", "first\r\nsecond\n")
    files.write_text(tmp_path / "new" / "a.txt", "ünïcödé\n")

    assert (tmp_path / "new" / "a.txt").read_bytes() == "ünïcödé\n".encode()
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("text", ["", "a\r\nb\rc\n", "\ufeffbom", "日本語 \U0001f600"])
def test_text_comes_back_as_it_was_newlines_untouched(tmp_path, text):
    files.write_text(tmp_path / "a.txt", text)

    assert files.read_text(tmp_path / "a.txt") == text


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half():
        with files.atomic_file(target) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_writer_killed_at_any_instant_leaves_a_whole_file(tmp_path):
    target = tmp_path / "a.txt"
    size = 300_000
    program = f"""
        from pathlib import Path
        from microformer import files
        while True:
            for letter in "ab":
                files.write_text(Path({str(target)!r}), letter * {size})
                print(letter, flush=True)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    for writes in range(1, 7):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, env=environment
        )
        with process:
            assert process.stdout is not None
            for _ in range(writes):
                assert process.stdout.readline()
            process.kill()

        assert target.read_text() in ("a" * size, "b" * size)
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch, call, code):
    target = tmp_path / "a.json"
    files.write_json(target, {"old": 1})
    monkeypatch.setattr(os, call, refuse(code))

    with pytest.raises(FileError) as told:
        files.write_json(target, {"new": 2})

    monkeypatch.undo()
    assert files.read_json(target) == {"old": 1}
    assert list(tmp_path.iterdir()) == [target]
    assert str(target) in told.value.sentence
    assert os.strerror(code) in told.value.sentence
    assert "untouched" in told.value.hint


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "is a file"),
        (errno.EISDIR, "is a folder"),
        (errno.ENOENT, "spelling"),
    ],
)
def test_every_common_refusal_has_its_way_out(tmp_path, code, hint):
    with pytest.raises(FileError) as told, files.explained(tmp_path, "read"):
        refuse(code)()

    assert told.value.sentence.startswith(f"can't read {tmp_path}: ")
    assert hint in told.value.hint


def test_a_folder_that_is_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "runs").write_text("a file")

    with pytest.raises(FileError, match="can't write"):
        files.write_text(tmp_path / "runs" / "a.txt", "text")

    assert (tmp_path / "runs").read_text() == "a file"


def test_an_open_target_on_windows_is_tried_again_until_it_lets_go(tmp_path, monkeypatch):
    target, real_replace, refusals = tmp_path / "a.txt", os.replace, iter(range(3))

    def busy(source, destination):
        if next(refusals, None) is not None:
            raise PermissionError(errno.EACCES, "another process uses it")
        real_replace(source, destination)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(files._replace, "__defaults__", (lambda seconds: None,))
    target.write_text("old")

    files.write_text(target, "new")

    assert target.read_text() == "new"
    assert next(refusals, None) is None


def test_a_target_on_windows_that_never_lets_go_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("old")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "replace", refuse(errno.EACCES))
    monkeypatch.setattr(files._replace, "__defaults__", (lambda seconds: None,))

    with pytest.raises(FileError):
        files.write_text(target, "new")

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_a_file_system_that_can_not_sync_a_folder_is_no_obstacle(tmp_path, monkeypatch, code):
    real_open, refused = os.open, []

    def open_files_only(path, flags, *rest, **named):
        if os.path.isdir(path):
            refused.append(path)
            raise OSError(code, os.strerror(code))
        return real_open(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", open_files_only)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # Windows would refuse a file opened for reading
    monkeypatch.setattr(sys, "platform", "linux")

    files.write_text(tmp_path / "a.txt", "text")

    monkeypatch.undo()
    assert refused
    assert files.read_text(tmp_path / "a.txt") == "text"


def test_what_is_written_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    told, real_fsync, real_replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (told.append("sync"), real_fsync(descriptor))[1])
    monkeypatch.setattr(os, "replace", lambda *paths: (told.append("rename"), real_replace(*paths))[1])

    files.write_text(tmp_path / "a.txt", "text")

    assert told[:2] == ["sync", "rename"]


def test_a_folder_appears_whole_with_read_only_files_in_it_too(tmp_path):
    with files.atomic_folder(tmp_path / "runs" / "a") as partial:
        (partial / "code").mkdir()
        (partial / "code" / "mine.py").write_text("x = 1")
        (partial / "code" / "mine.py").chmod(0o444 if sys.platform != "win32" else 0o666)
        assert not (tmp_path / "runs" / "a").exists()

    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["a"]
    assert (tmp_path / "runs" / "a" / "code" / "mine.py").read_text() == "x = 1"


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_a_folder_that_could_not_be_filled_never_appears(tmp_path, trouble):
    def fill_half():
        with files.atomic_folder(tmp_path / "a") as partial:
            (partial / "half").write_text("half")
            raise trouble

    with pytest.raises((KeyboardInterrupt, FileError)):
        fill_half()

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")

    def fill():
        with files.atomic_folder(tmp_path / "a") as partial:
            (partial / "new").write_text("new")

    with pytest.raises(FileError):
        fill()

    assert [each.name for each in tmp_path.rglob("*")] == ["a", "old"]


def test_sweeping_removes_what_a_killed_writer_left_and_nothing_else(tmp_path):
    for name in ("a.txt", "partial", "b.partial.txt"):
        (tmp_path / name).write_text("kept")
    abandoned_file, abandoned_folder = files.atomic_file(tmp_path / "c"), files.atomic_folder(tmp_path / "d")
    file, folder = abandoned_file.__enter__(), abandoned_folder.__enter__()
    file.write_text("half")
    (folder / "half").write_text("half")

    files.sweep(tmp_path)

    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.txt", "b.partial.txt", "partial"]
    for abandoned in (abandoned_file, abandoned_folder):
        with pytest.raises(FileError):
            abandoned.__exit__(None, None, None)


def test_two_writers_of_one_file_do_not_share_a_half(tmp_path):
    with files.atomic_file(tmp_path / "a.txt") as one, files.atomic_file(tmp_path / "a.txt") as other:
        one.write_text("one")
        other.write_text("other")

    assert (tmp_path / "a.txt").read_text() == "one"  # the outer writer is the last to finish


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=json_values)
def test_json_comes_back_equal(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"

    files.write_json(path, value)

    assert files.read_json(path) == value


def test_a_file_name_that_is_not_utf8_can_be_written_into_json(tmp_path):
    name = b"caf\xe9.txt".decode("utf-8", "surrogateescape")

    files.write_json(tmp_path / "a.json", {"source": name})

    assert files.read_json(tmp_path / "a.json") == {"source": name}


def test_json_is_readable_by_a_person(tmp_path):
    files.write_json(tmp_path / "a.json", {"é": 1})

    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'


@pytest.mark.parametrize(
    "damage",
    ['{"step": 1', "", "step: 1", "[" * 100_000, "9" * 5_000 if hasattr(sys, "get_int_max_str_digits") else "9,"],
)
def test_damaged_json_is_told_as_damaged(tmp_path, damage):
    path = tmp_path / "run.json"
    path.write_text(damage)

    with pytest.raises(FileError, match=r"run\.json is damaged: it is not JSON") as told:
        files.read_json(path)

    assert "make it again" in told.value.hint


def test_text_that_is_not_utf8_names_the_byte_and_its_offset(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")

    with pytest.raises(FileError, match=r"a\.txt is not UTF-8: byte 0xE9 at offset 3\."):
        files.read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("read", [files.read_text, files.read_json, files.sha256])
def test_a_missing_file_is_told_by_its_path(tmp_path, read):
    with pytest.raises(FileError, match=r"can't read .*nowhere\.txt"):
        read(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_hash_in_pieces_is_the_hash_of_the_whole(tmp_path, size):
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a.bin").write_bytes(data[:size])

    assert files.sha256(tmp_path / "a.bin") == hashlib.sha256(data[:size]).hexdigest()
