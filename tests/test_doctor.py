"""`microformer doctor`: what is well is said to be, each fault is found and named, and none hides another."""

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ill_checks
import pytest
import torch
from filelock import FileLock
from small_runs import book, command, train, without_picture_and_sample

from microformer import corpora, files, generation, runs
from microformer.cli import doctor as verb
from microformer.corpora import named, prepared
from microformer.errors import FileError
from microformer.pipeline import doctor
from microformer.pipeline.doctor import apart, here, installation, machine, paste, trial
from microformer.pipeline.doctor.apart import Check, found_by
from microformer.pipeline.doctor.findings import Around, Finding, mend, note, ok, size
from microformer.settings import Settings
from microformer.training.optimizers import Optimizer


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A folder, a cache and a folder for temporary files of the test's own."""
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv(named.MIRROR, raising=False)
    for name in ("temporary", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with book.txt, its prepared data, and a run `r`."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        without_picture_and_sample(patch)
        Path("book.txt").write_text(book(), encoding="utf-8")
        train("--run", "r", probe_steps=6)
    return folder


@pytest.fixture
def with_run(trained, alone):
    shutil.copytree(trained, alone / "here", dirs_exist_ok=True, copy_function=shutil.copy2)
    return alone / "here"


@pytest.fixture
def no_process_left():
    before = set(multiprocessing.active_children())  # joblib's, of other tests, end by themselves
    yield
    assert set(multiprocessing.active_children()) <= before


def look(check, **around):
    """What one check finds, in this process."""
    return found_by(Check("it", check), Around(**{"scratch": None, **around}))


def only(findings, state=None):
    """The finding, of which there is one (of that state)."""
    (found,) = [one for one in findings if state in (None, one.state)]
    return found


def tree(folder):
    """All below a folder, with sizes and times."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


# ----------------------------------------------------------------------------------------------------------- all of it


@pytest.mark.usefixtures("no_process_left")
def test_all_is_well_in_an_empty_folder_and_nothing_is_left_behind(alone):
    told = []

    report = doctor.examine(told.append, told.append, beside=None)

    names = [check.name for check in doctor.CHECKS]
    assert report.healthy, report.findings
    assert [one for one in told if isinstance(one, str)] == names
    assert tuple(one for one in told if isinstance(one, Finding)) == report.findings
    assert {one.check for one in report.findings} == {*names, "extras", "generate"}
    assert not [one for one in report.findings if one.state == "left"]
    assert [*(alone / "here").iterdir(), *(alone / "temporary").iterdir()] == []


def test_nothing_is_changed_where_there_is_something(with_run, alone):
    before = tree(with_run)

    report = doctor.examine(checks=[one for one in doctor.CHECKS if one.name in ("room", "data", "runs")], beside=None)

    assert report.healthy
    assert tree(with_run) == before
    assert list((alone / "temporary").iterdir()) == []


def test_the_command_looks_without_importing_torch_itself():
    program = (
        "import sys; from microformer.pipeline import doctor; from microformer.pipeline.doctor.installation import "
        "versions; versions(); print({'torch', 'numpy', 'rich'} & set(sys.modules))"
    )
    root = Path(doctor.__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, check=True
    )

    assert found.stdout.split() == [b"set()"]


def test_a_folder_that_is_gone_is_told_before_anything_else(monkeypatch):
    def gone():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "cwd", gone)

    with pytest.raises(FileError, match="the folder that you are in is gone"):
        doctor.examine()


@pytest.mark.usefixtures("no_process_left")
def test_an_interruption_leaves_neither_files_nor_processes(alone):
    def interrupted(finding):
        raise KeyboardInterrupt

    checks = [Check("first", ill_checks.well), Check("second", ill_checks.never_ends)]
    with pytest.raises(KeyboardInterrupt):
        doctor.examine(found=interrupted, checks=checks, beside=Check("third", ill_checks.never_ends))

    assert list((alone / "temporary").iterdir()) == []


# --------------------------------------------------------------------------------------------- each check for itself


def test_a_check_that_ends_its_process_or_never_ends_takes_no_other_with_it():
    checks = [
        Check("first", ill_checks.well),
        Check("ends", ill_checks.ends, hint="do this."),
        Check("second", ill_checks.well),
        Check("slow", ill_checks.never_ends, seconds=0.5, hint="do that."),
        Check("raises", ill_checks.raises),
        Check("last", ill_checks.says_what_was_fatal),
    ]

    report = doctor.examine(checks=checks, beside=Check("beside", ill_checks.ends, optional=True))

    said = {one.check: (one.state, one.said) for one in report.findings}
    ended = "the program ended while it was looked at: exit code 7 (the last words)."
    assert said["first"] == said["second"] == ("ok", "well")
    assert said["ends"] == ("mend", ended)
    assert said["beside"] == ("note", ended)
    assert said["slow"] == ("mend", "nothing came of it in 0.5 s.")
    assert said["last"] == ("ok", "ends,slow")
    assert {one.hint for one in report.findings if one.check in ("ends", "slow")} == {"do this.", "do that."}


def test_what_a_check_raises_is_a_finding_beside_what_it_found_before():
    found = look(ill_checks.raises)

    assert [one.state for one in found] == ["ok", "mend"]
    assert found[1].said.startswith("ZeroDivisionError: division")
    assert "\n" not in found[1].said
    assert look(ill_checks.refuses) == [mend("the run is damaged.", "restore it.", "it")]
    assert only(look(ill_checks.lacks_a_package)).said == "the package no_such_package is missing."
    assert only(look(ill_checks.runs_out_of_memory)).said == "memory ran out."


def test_where_no_process_can_be_started_the_checks_are_looked_at_in_this_one(monkeypatch):
    class Refusing:
        def __init__(self, real):
            self.real = real

        def Pipe(self, duplex):
            return self.real.Pipe(duplex)

        def Process(self, **_):
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    real = multiprocessing.get_context("spawn")
    monkeypatch.setattr(apart.multiprocessing, "get_context", lambda kind: Refusing(real))

    report = doctor.examine(checks=[Check("first", ill_checks.well), Check("last", ill_checks.refuses)], beside=None)

    assert [(one.check, one.state) for one in report.findings] == [("first", "ok"), ("last", "mend")]


def test_without_a_folder_for_temporary_files_what_needs_one_is_left(monkeypatch):
    def full(**_):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "mkdtemp", full)

    report = doctor.examine(checks=[Check("writes", ill_checks.well, writes=True)], beside=None)

    assert [(one.check, one.state) for one in report.findings] == [("room", "mend"), ("writes", "left")]
    assert "TMPDIR" in report.findings[0].hint


def test_a_full_disk_under_temporary_files_is_told_as_theirs(alone):
    found = only(look(ill_checks.fills_the_disk, scratch=alone / "temporary" / "own"))

    assert found.said == f"temporary files can't be written in {alone / 'temporary'}: No space left on device."
    assert "TMPDIR" in found.hint


def test_a_command_that_is_killed_leaves_nothing_behind_either(alone):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(doctor.__file__).parents[3]),
        "TMPDIR": str(alone / "temporary"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "microformer", "doctor"], env=environment, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline().startswith("ok    python")
        assert len(list((alone / "temporary").iterdir())) == 1
        killed.kill()

    deadline = time.monotonic() + 60
    while list((alone / "temporary").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list((alone / "temporary").iterdir()) == []


# -------------------------------------------------------------------------------------------------------- installation


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os; print('wrong processor', flush=True); os._exit(132)",
         "the program ended while it was looked at: exit code 132 (wrong processor)."),
        ("raise ImportError('libcudart.so.12: cannot open shared object file')",
         "torch can't be imported: libcudart.so.12: cannot open shared object file."),
        ("x = 1", "what is imported as torch is no PyTorch: {file}."),
    ],
)  # fmt: skip
def test_a_torch_that_cannot_be_used_is_found_and_the_rest_goes_on(source, said, tmp_path, monkeypatch):
    fake = tmp_path / "fake" / "torch" / "__init__.py"
    fake.parent.mkdir(parents=True)
    fake.write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "fake")

    names = ("torch", "device", "memory", "overfit")
    report = doctor.examine(checks=[one for one in doctor.CHECKS if one.name in names], beside=doctor.COMPILER)

    states = {one.check: one.state for one in report.findings}
    assert states == {"torch": "mend", "device": "left", "memory": "ok", "overfit": "left", "compiler": "left"}
    assert report.findings[0].said == said.format(file=fake)
    assert "pip install" in report.findings[0].hint or "rename" in report.findings[0].hint


def test_an_old_torch_and_one_that_does_not_know_this_numpy_are_found(monkeypatch):
    assert only(look(installation.torch)).state == "ok"

    def unavailable(_):
        raise RuntimeError("Numpy is not available\nbecause of its ABI")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "from_numpy", unavailable)
        assert "don't go together: Numpy is not available." in only(look(installation.torch), "mend").said
    monkeypatch.setattr(torch, "__version__", "1.13.1+cu117")
    assert only(look(installation.torch), "mend").said.endswith("it is too old, 2.4 is the least.")


def test_packages_that_are_missing_old_or_broken_are_named(monkeypatch):
    wanted = {
        "": {"torch": "2.4", "numpy": "1", "rich": "999", "no-such": "1", "broken": "1"},
        "one": {"filelock": "1"}, "two": {"no-such": "1"}, "three": {"filelock": "999"},
    }  # fmt: skip
    real = installation._version
    monkeypatch.setattr(installation, "requirements", lambda: {name: dict(parts) for name, parts in wanted.items()})
    monkeypatch.setattr(installation, "_version", lambda name: "2.0" if name == "broken" else real(name))
    monkeypatch.setitem(sys.modules, "broken", None)  # as where an import fails

    found = look(installation.packages)

    assert [one.said for one in found if one.check == "it"] == [
        f"the package rich {real('rich')} is too old: 999 is the least.",
        "the package no-such is missing.",
    ]
    told = [one for one in found if one.check == "extras"]
    assert [one.state for one in told] == ["note", "ok"]
    assert told[0].said == f"the package filelock {real('filelock')} is too old: 999 is the least."
    assert "there are: one, three; not there: two" in told[1].said


def test_a_package_that_raises_while_it_is_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "halfway.py").write_text("raise OSError('cannot load its library')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(installation, "requirements", lambda: {"": {"halfway": "1"}})
    monkeypatch.setattr(installation, "_version", lambda name: "2.0")

    assert look(installation.packages)[0].said == (
        "the package halfway 2.0 can't be imported: cannot load its library."
    )


def test_what_is_needed_is_read_from_a_clone_or_else_from_what_is_installed(monkeypatch):
    lines = ["torch>=2.4", "numpy>=1.26", 'onnx>=1.16; extra == "onnx"', 'pytest>=8; extra == "dev"',
             "tomli>=2; python_version < '3.0' and extra == 'onnx'"]  # fmt: skip
    assert {"torch", "numpy"} <= installation.requirements()[""].keys()
    monkeypatch.setattr(installation, "_toml", lambda path: {})
    monkeypatch.setattr(installation.metadata, "requires", lambda name: lines)

    assert installation.requirements() == {"": {"torch": "2.4", "numpy": "1.26"}, "onnx": {"onnx": "1.16"}}


@pytest.mark.parametrize(
    ("version", "least", "expected"),
    [
        ("2.4.0+cpu", "2.4", False), ("2.3.1", "2.4", True), ("2.13.0", "2.4", False), ("2.4", "2.4.0", False),
        ("3", "2.13", False), ("2.4.0a1", "2.4", False), ("1.26", "", False),
    ],
)  # fmt: skip
def test_versions_are_compared_number_by_number(version, least, expected):
    assert installation.older(version, least) is expected


# ------------------------------------------------------------------------------------------------------------- machine


def test_threads_held_back_by_the_environment_are_noted(monkeypatch):
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr(machine.devices, "_pinned_cores", lambda: 4)
    monkeypatch.setattr(machine.devices, "_container_cores", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    found = only(look(machine.cores))

    assert (found.state, found.said) == ("note", "OMP_NUM_THREADS=1 leaves 1 of 4 to compute on.")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert only(look(machine.cores)).state == "ok"


def test_a_busy_machine_is_noted(monkeypatch):
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (500.0, 0.0, 0.0), raising=False)

    assert "500.0 threads" in look(machine.cores)[-1].said


@pytest.mark.parametrize(("left", "state"), [(10**8, "mend"), (10**10, "ok"), (None, "ok")])
def test_little_memory_is_told(left, state, monkeypatch):
    monkeypatch.setattr(machine.devices, "memory_available", lambda: left)

    assert only(look(machine.memory)).state == state


def test_a_device_of_the_settings_that_is_not_here_is_told(monkeypatch):
    monkeypatch.setattr(machine.devices.Machine, "accelerators", lambda self: [])
    Path("config.py").write_text('DEVICE = "cuda"\n', encoding="utf-8")

    found = only(look(machine.precision))

    assert found.said == "DEVICE is cuda, but torch finds no NVIDIA GPU here."


def test_a_device_that_computes_something_else_is_told(monkeypatch):
    monkeypatch.setattr(machine.devices.Machine, "accelerators", lambda self: ["mps"])
    assert machine._difference("cpu") == 0.0

    monkeypatch.setattr(machine, "_difference", lambda one: 0.3)
    assert "logits are 0.3 away" in only(look(machine.device), "mend").said
    monkeypatch.setattr(machine, "_difference", lambda one: 1e-6)
    assert only(look(machine.device)).state == "ok"


def test_an_nvidia_driver_without_a_gpu_for_torch_is_noted(monkeypatch):
    monkeypatch.setattr(machine.devices.Machine, "accelerators", lambda self: [])
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    monkeypatch.setattr(torch.version, "cuda", None)
    assert "this torch is built for the CPU" in only(look(machine.device), "note").said
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "built for CUDA 12.8, finds no GPU" in only(look(machine.device), "note").said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "hides the GPU" in only(look(machine.device), "note").said


def test_no_compiler_is_fine_and_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)

    found = only(look(machine.compiler))

    assert (found.state, found.hint) == ("ok", "")
    assert found.said.startswith("no C++ compiler is here")


@pytest.mark.parametrize(
    ("compiled", "state"),
    [(lambda work: work, "ok"), (lambda work: lambda x: work(x) + 1, "mend"), (None, "note")],
)
def test_a_compiler_that_fails_is_noted_and_one_that_errs_is_to_be_mended(compiled, state, monkeypatch):
    def refusing(work, **_):
        def call(x):
            raise RuntimeError("\nfatal error: omp.h not found\nmore")

        return compiled(work) if compiled else call

    monkeypatch.setenv("CXX", "/opt/bin/g++")
    monkeypatch.setattr(torch, "compile", refusing)

    found = only(look(machine.compiler))

    assert found.state == state
    assert state != "note" or "fatal error: omp.h not found." in found.said


# ---------------------------------------------------------------------------------------------------------------- here


def test_a_config_is_told_by_what_it_changes():
    assert only(look(here.settings_file)) == ok("no config.py here: the defaults", "it")

    Path("config.py").write_text("EMBED_DIM = 64\nSEED = 1\n", encoding="utf-8")
    assert only(look(here.settings_file)).said == "config.py: EMBED_DIM = 64"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("EMBED_DIM = = 3\n", "config.py can't be read: SyntaxError at line 1"),
        ("EMBED_DIMM = 3\n", 'there is no setting "EMBED_DIMM" in config.py.'),
        ("EMBED_DIM = 130\n", "EMBED_DIM 130 can't be divided into 4 heads."),
        ("raise SystemExit(3)\n", "config.py can't be read: SystemExit at line 1"),
        ('ATTENTION = "mine.py:Mine"\n', "mine.py:Mine names mine.py, and there is no such file."),
    ],
)
def test_a_config_that_cannot_be_followed_is_told_and_the_defaults_are_looked_at(text, said):
    Path("config.py").write_text(text, encoding="utf-8")

    found = only(look(here.settings_file))

    assert found.state == "mend"
    assert found.said.startswith(said)
    assert found.hint
    assert "mine.py" in text or here.settings_here(Around(None)) == Settings()


def test_a_config_that_ends_the_program_is_left_alone_by_the_other_checks():
    Path("config.py").write_text("import os\nos._exit(1)\n", encoding="utf-8")

    report = doctor.examine(checks=[one for one in doctor.CHECKS if one.name in ("settings", "room")], beside=None)

    assert [(one.check, one.state) for one in report.findings] == [("settings", "mend"), ("room", "ok")]
    assert "config.py" in report.findings[0].hint


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        (errno.ENOSPC, "No space left on device", "free some space"),
        (errno.EROFS, "Read-only file system", "choose another folder"),
        (errno.EACCES, "Permission denied", "the permissions there"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_with_the_reason(code, reason, hint, monkeypatch, alone):
    real = tempfile.TemporaryFile

    def refusing(dir):
        if Path(dir).resolve() == (alone / "here").resolve():
            raise OSError(code, reason)
        return real(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)

    found = look(here.room)

    assert only(found, "mend").said == f"runs/ and data/ can't be written: {reason}."
    assert only(found, "mend").hint.startswith(hint) or hint in only(found, "mend").hint
    assert "the cache" in only(found, "ok").said


def test_a_cache_that_cannot_be_written_is_only_noted(monkeypatch, alone):
    (alone / "cache").mkdir()
    real = tempfile.TemporaryFile

    def refusing(dir):
        if Path(dir) == alone / "cache":
            raise OSError(errno.EROFS, "Read-only file system")
        return real(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refusing)

    found = look(here.room)

    assert only(found, "note").said.startswith("the cache (")
    assert only(found, "ok").said.startswith("runs/ and data/ can be written")


def test_a_disk_with_too_little_room_for_a_run_of_the_settings_is_told(monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(here.shutil, "disk_usage", lambda path: usage._replace(free=50_000_000))
    assert {one.state for one in look(here.room)} == {"ok"}

    Path("config.py").write_text("NUM_LAYERS = 24\n", encoding="utf-8")
    found = only(look(here.room), "mend")

    assert found.said.startswith("runs/ and data/ can be written, but 50.0 MB are free, and a run of the settings here")


def test_the_corpus_is_told_by_where_it_is(with_run):
    Path("data", "manifest.json").unlink()
    assert "tinyshakespeare: not here yet" in only(look(here.corpus)).said

    Path("config.py").write_text('CORPUS = "book.txt"\n', encoding="utf-8")
    assert only(look(here.corpus)).said == f"book.txt: {size(Path('book.txt').stat().st_size)}"
    Path("book.txt").unlink()
    assert only(look(here.corpus)).state == "mend"
    Path("config.py").write_text('CORPUS = "task:copy"\n', encoding="utf-8")
    assert "made here" in only(look(here.corpus)).said


def test_a_fetched_corpus_with_another_checksum_is_told(alone, monkeypatch):
    wrong = alone / "mirror" / "tinyshakespeare.txt"
    cached = alone / "cache" / "corpora" / wrong.name
    for path in (wrong, cached):
        path.parent.mkdir(parents=True)
        path.write_text("To be, or", encoding="utf-8")

    assert "is not the corpus tinyshakespeare" in only(look(here.corpus), "note").said
    monkeypatch.setenv(named.MIRROR, str(wrong.parent))
    assert str(wrong) in only(look(here.corpus), "mend").said
    monkeypatch.setenv(named.MIRROR, str(alone / "nowhere"))
    assert "which is no folder" in look(here.corpus)[0].said


def flip(path):
    """Changes one bit, and not the time."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("injury", "said"),
    [
        (lambda data: flip(data / "train.pt"), "is not the file that was prepared"),
        (lambda data: cut(data / "train.pt"), "is cut short"),
        (lambda data: (data / "vocab.json").unlink(), "is missing"),
        (lambda data: flip(data / "val.pt"), "is not the file that was prepared"),
    ],
)
def test_prepared_data_that_changed_are_told(injury, said, with_run):
    assert "as they were made" in only(look(here.data)).said

    injury(Path("data"))

    found = only(look(here.data), "mend")
    assert said in found.said
    assert "microformer prepare" in found.hint


def test_a_large_file_that_is_usually_trusted_by_its_time_is_read_to_its_end(with_run, monkeypatch):
    monkeypatch.setattr(prepared, "_ALWAYS_HASHED", 0)
    flip(Path("data/train.pt"))
    corpora.load_prepared("data")  # is content

    assert "its contents changed" in only(look(here.data), "mend").said


def test_data_that_are_absent_unfinished_or_being_made_are_told(with_run):
    with FileLock("data/.lock"):
        assert "at work" in only(look(here.data), "ok").said
    Path("data/manifest.json").unlink()
    assert "was not finished" in only(look(here.data), "note").said
    shutil.rmtree("data")
    assert "nothing is prepared" in only(look(here.data), "ok").said


def test_a_damaged_set_beside_the_current_one_is_noted(with_run):
    shutil.copytree("data", "apart", copy_function=shutil.copy2)
    shutil.move("apart", "data/.prepared/abc")
    assert look(here.data)[1] == ok("data/.prepared/: 1 more, as they were made", "it")

    cut(Path("data/.prepared/abc/train.pt"))

    assert [one.state for one in look(here.data)] == ["ok", "note"]


def edited(path, **changes):
    info = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**info, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    "injury",
    [
        lambda run: cut(run / "run.json"),
        lambda run: edited(run / "run.json", format=1),
        lambda run: edited(run / "run.json", ended=7),
        lambda run: edited(run / "run.json", settings={"embed_dim": "wide"}),
        lambda run: (run / "tokenizer.json").unlink(),
        lambda run: (run / "metrics.jsonl").write_text("{\n{}\n", encoding="utf-8"),
        lambda run: (run / "checkpoints" / "index.json").unlink(),
        lambda run: [cut(path) for path in run.glob("checkpoints/best-*/model.safetensors")],
        lambda run: [path.unlink() for path in run.glob("checkpoints/last-*/training.json")],
        lambda run: [cut(path) for path in run.glob("checkpoints/step-*/model.safetensors")],
        lambda run: [cut(path) for path in run.glob("probes/step-*.safetensors")],
    ],
)
def test_a_damaged_run_is_named_beside_one_that_is_not(injury, with_run):
    shutil.copytree("runs/r", "runs/ill")
    assert only(look(here.all_runs)).said == "2: all can be read"

    injury(Path("runs/ill"))

    found = look(here.all_runs)
    assert [one.state for one in found] == ["mend"]
    assert "ill" in found[0].said
    assert found[0].hint


def test_of_many_damaged_runs_the_first_are_told_and_the_others_counted(with_run):
    for number in range(8):
        shutil.copytree("runs/r", f"runs/ill-{number}")
        cut(Path(f"runs/ill-{number}/run.json"))

    found = look(here.all_runs)

    assert len(found) == 6
    assert found[-1].said == "and 3 more are damaged."


def test_runs_that_are_being_written_were_stopped_or_never_began_are_told(with_run):
    for name in ("written", "stopped"):
        shutil.copytree("runs/r", f"runs/{name}")
        edited(Path("runs", name, "run.json"), ended=None)
    Path("runs/begun/checkpoints").mkdir(parents=True)

    with runs.find("written").lock():
        found = look(here.all_runs)

    assert found[0].said == "3: all can be read; being written now: written"
    assert [one.said for one in found[1:]] == ["stopped before their end: stopped.", "in runs/, and no runs: begun."]
    assert found[1].hint == "go on with one: microformer train --resume --run stopped"
    assert "being written" not in look(here.all_runs)[0].said  # the lock's file is still there, and held by nobody


# --------------------------------------------------------------------------------------------------------------- trial


def test_a_batch_is_learned_by_heart_and_written_down_again():
    found = look(trial.overfit)

    assert [(one.check, one.state) for one in found] == [("it", "ok"), ("generate", "ok")]
    assert "63 of them as they were learned" in found[1].said


def test_an_optimizer_that_does_not_move_is_found(monkeypatch):
    monkeypatch.setattr(Optimizer, "step", lambda self: None)

    found = only(look(trial.overfit), "mend")

    assert "4.17 → 4.17" in found.said
    assert "training doesn't work here" in found.said


def test_a_precision_that_fails_is_told_from_a_defect(monkeypatch):
    Path("config.py").write_text('DEVICE = "cpu"\nPRECISION = "bfloat16"\n', encoding="utf-8")
    real = Optimizer.step

    def step(self):
        if self.parts[0].dtype == torch.bfloat16:
            for parameter in self.named.values():
                parameter.grad = None
        real(self)

    monkeypatch.setattr(Optimizer, "step", step)

    found = only(look(trial.overfit), "mend")

    assert "on the CPU in float32 it comes to 0.0" in found.said
    assert found.hint.startswith('set PRECISION = "float32" here')


def test_a_cache_that_forgets_is_found(monkeypatch):
    stream = generation.stream

    def forgetful(model, prompts, sampler, count, *, use_cache):
        for at, step in enumerate(stream(model, prompts, sampler, count, use_cache=use_cache)):
            yield [(step[0] + (use_cache and at == 4)) % 65]

    monkeypatch.setattr(generation, "stream", forgetful)

    assert look(trial.overfit)[1].said == "with the cache token 5 is another than without it."


def test_a_resumed_training_is_the_same_to_the_bit_and_one_that_is_not_is_found(alone, monkeypatch):
    assert only(look(trial.resume, scratch=alone / "temporary")).state == "ok"

    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)  # dropout then draws other numbers
    found = only(look(trial.resume, scratch=alone / "temporary" / "again"))

    assert found.state == "mend"
    assert "stopped and resumed has other" in found.said


# ------------------------------------------------------------------------------------------------------- the bug report


def test_a_bug_report_has_all_that_was_found_and_neither_names_nor_folders(monkeypatch, alone):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    monkeypatch.setattr(paste.getpass, "getuser", lambda: "ada")
    monkeypatch.setenv("MICROFORMER_CORPORA", "/srv/secret-project/corpora")
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    findings = [
        ok(f"in {alone / 'here' / 'runs'} and /home/ada/thesis/x.txt", "one"),
        mend("https://ada:pw@host.org/a.txt?key=1 by ada, not by adamw", "look at it.", "two"),
        note(r"C:\Users\Ada\data\x.txt, /home/bob and `/var/lib/private/deep/file.txt`", "mend it.", "three"),
    ]

    text = paste.text(findings, {"torch": "2.13"})

    assert text.startswith("```\nmicroformer doctor: 1 to mend, 1 thing to know\n")
    assert text.endswith("\n```")
    assert text.count("`") == 6
    assert "ok    one    in ./runs and ~/thesis/x.txt" in text
    assert "mend  two    https://…@host.org/a.txt?… by <user>, not by adamw" in text
    assert "<home>" in text
    assert "packages: torch 2.13" in text
    assert "MICROFORMER_CORPORA=…/corpora" in text
    for word in ("ada/", "bob", "Ada", "secret", "s3cret", "pw", "key", "private", "deep"):
        assert word not in text, word


@pytest.mark.parametrize(
    "line", ["runs/ and data/ can be written", "3 of 4/5 and/or/x", "adamw at https://pytorch.org/get-started/x"]
)
def test_what_is_no_path_stays_as_it_is(line, monkeypatch):
    monkeypatch.setattr(paste.getpass, "getuser", lambda: "ada")

    assert paste.without_names(line) == line


def test_how_it_stands_is_said_in_words():
    assert paste.verdict([ok("")]) == "all well"
    assert paste.verdict([mend("", ""), note("", ""), note("", ""), Finding("left", "")]) == (
        "1 to mend, 2 to know, 1 not looked at"
    )


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def found(monkeypatch):
    """What the doctor is made to find."""
    findings = [ok("2.13.0", "torch"), note("a long line " * 12 + "/a/path-that/is-long", "do this.", "cores")]

    def examine(begun=lambda name: None, found=lambda finding: None):
        for one in findings:
            begun(one.check)
            found(one)
        return doctor.Report(tuple(findings), "```\nthe report\n```")

    monkeypatch.setattr(doctor, "examine", examine)
    return findings


def test_each_finding_is_a_line_and_the_report_comes_last(found, capsys):
    assert command("doctor") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ok    torch        2.13.0"
    assert lines[1].startswith("note  cores        a long line")
    assert lines[2].startswith(" " * 19)
    assert lines[3] == " " * 19 + "→ do this."
    assert lines[-4:] == ["", "```", "the report", "```"]
    assert max(map(len, lines)) <= 120


def test_the_exit_code_says_whether_something_is_to_be_mended(found, capsys):
    assert command("doctor") == 0
    found.append(mend("it is broken.", "mend it.", "data"))
    assert command("doctor") == 1
    assert command("doctor", "--json") == 1

    told = json.loads(capsys.readouterr().out.rpartition("```\n")[2])
    assert told["healthy"] is False
    assert told["findings"][-1] == {"state": "mend", "said": "it is broken.", "hint": "mend it.", "check": "data"}
    assert told["paste"] == "```\nthe report\n```"


def test_on_a_terminal_words_have_colours_and_what_is_looked_at_is_shown_meanwhile(found, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    command("doctor")
    told = capsys.readouterr().out
    assert "\x1b[32mok    \x1b[0mtorch        2.13.0\n" in told
    assert "…     torch" in told

    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in verb._line(found[0])
