"""Opening prepared data: believed only where everything agrees, and never at the price of running a stranger's code."""

import json
import pickle
import shutil

import pytest
import torch

from microformer import files
from microformer.corpora import Source, load_prepared, prepare, prepared
from microformer.errors import DataError

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 100


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A prepared set, and the working folder that it lies in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my book.txt").write_text(TEXT)
    prepare("data", Source.files("my book.txt"))
    return tmp_path / "data"


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def vouch_for(path):
    """Has the manifest say that the file is as it should be, as somebody would who made the whole folder."""
    manifest = json.loads((path.parent / "manifest.json").read_text())
    stat = path.stat()
    manifest["files"][path.name] = {
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "sha256": files.sha256(path),
    }
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


def refused(message):
    return pytest.raises(DataError, match=message)


def test_what_was_prepared_is_opened(data):
    opened = load_prepared("data")

    assert opened.tokenizer.decode(opened.train) + opened.tokenizer.decode(opened.val) == TEXT
    assert opened.corpus == "my book.txt"
    assert opened.fingerprint == opened.manifest["fingerprint"]


def test_a_folder_that_was_copied_is_opened(data, tmp_path):
    shutil.copytree(data, tmp_path / "copied")
    for path in (tmp_path / "copied").iterdir():
        path.touch()

    assert load_prepared("copied").fingerprint == load_prepared("data").fingerprint


def test_a_large_file_is_hashed_only_if_it_was_written_anew(data, monkeypatch):
    monkeypatch.setattr(prepared, "_ALWAYS_HASHED", 0)
    hashed = []
    monkeypatch.setattr(files, "sha256", lambda path, real=files.sha256: hashed.append(path.name) or real(path))

    load_prepared("data")
    assert hashed == ["vocab.json"]

    (data / "val.pt").touch()
    load_prepared("data")
    assert hashed == ["vocab.json", "vocab.json", "val.pt"]


def test_every_error_says_how_to_prepare_it_again(data):
    (data / "val.pt").unlink()

    with refused(r"data.val\.pt is missing") as raised:
        load_prepared("data")

    assert raised.value.hint == 'prepare it again: microformer prepare --input "my book.txt".'


def test_a_folder_without_a_complete_set_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with refused("no complete prepared data in data"):
        load_prepared("data")


@pytest.mark.parametrize("name", ["train.pt", "val.pt", "vocab.json"])
def test_a_missing_file_is_named(name, data):
    (data / name).unlink()

    with refused(f"{name} is missing"):
        load_prepared("data")


@pytest.mark.parametrize("kept", [0, 1, 100, 2000])
def test_a_file_that_is_cut_short_is_named(kept, data):
    content = (data / "train.pt").read_bytes()
    (data / "train.pt").write_bytes(content[:kept])

    with refused(rf"train\.pt is cut short: {kept:,} of {len(content):,} bytes are left"):
        load_prepared("data")


@pytest.mark.parametrize("content", [b"not a tensor at all\n" * 1000, b"PK\x03\x04" + b"\0" * 10_000])
def test_a_file_that_is_no_tensor_file_is_named(content, data):
    (data / "train.pt").write_bytes(content)

    with refused(r"train\.pt is not a tensor file"):
        load_prepared("data")


@pytest.mark.parametrize("vouched", [False, True])
@pytest.mark.parametrize("form", ["zip", "plain"])
def test_a_hostile_pickle_is_refused_and_its_code_never_runs(form, vouched, data, tmp_path):
    trap = tmp_path / "ran"
    hostile = [Hostile(trap), "x" * 10_000]
    if form == "zip":
        torch.save(hostile, data / "train.pt")
    else:
        (data / "train.pt").write_bytes(pickle.dumps(hostile))
    if vouched:
        vouch_for(data / "train.pt")

    with refused(r"train\.pt is (refused|not a tensor file)"):
        load_prepared("data")

    assert not trap.exists()
    pickle.loads(pickle.dumps(Hostile(trap))).close()
    assert trap.exists()  # or the test would pass on a harmless pickle


@pytest.mark.parametrize("vouched", [False, True])
@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"ids": torch.zeros(5000, dtype=torch.uint8)}, "holds no tensor but a dict"),
        (torch.zeros(5000), r"holds float32 of shape \(5000,\), not one row of uint8 ids"),
        (torch.zeros(5000, dtype=torch.int64), "holds int64"),
        (torch.zeros(100, 50, dtype=torch.uint8), r"of shape \(100, 50\)"),
        (torch.ones(5000, dtype=torch.uint8).to_sparse(), "holds no tensor"),
    ],
)
def test_a_file_that_holds_something_else_is_named(held, message, vouched, data):
    torch.save(held, data / "train.pt")
    if vouched:
        vouch_for(data / "train.pt")

    with refused(message):
        load_prepared("data")


def test_an_id_outside_the_vocabulary_is_named(data):
    ids = torch.load(data / "train.pt", weights_only=True)
    ids[1234] = 200
    with open(data / "train.pt", "wb") as file:
        torch.save(ids, file)

    with refused(r"train\.pt has the id 200, outside its vocabulary of 30"):
        load_prepared("data")


def test_an_id_below_zero_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wide.txt").write_text("".join(map(chr, range(0x4E00, 0x4E00 + 400))) * 3, encoding="utf-8")
    ids = prepare("data", Source.files("wide.txt")).train.clone()
    assert ids.dtype == torch.int16
    ids[5] = -7
    with open("data/train.pt", "wb") as file:
        torch.save(ids, file)

    with refused(r"train\.pt has the id -7, outside its vocabulary of 400"):
        load_prepared("data")


def test_another_preparations_tensor_is_refused(data):
    prepare("other", Source.files("my book.txt"), val_fraction=0.05)
    shutil.copy("other/train.pt", data / "train.pt")

    with refused(r"train\.pt is not the file that was prepared with vocab\.json"):
        load_prepared("data")


def test_another_vocabulary_is_refused(data):
    vocab = json.loads((data / "vocab.json").read_text())
    vocab["vocab"]["!"] = len(vocab["vocab"])
    (data / "vocab.json").write_text(json.dumps(vocab))

    with refused(r"vocab\.json is not the vocabulary that train\.pt was made with"):
        load_prepared("data")
