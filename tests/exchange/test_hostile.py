"""Files that would run something if they were believed: none of it runs, wherever the file is."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from small_runs import book, command, resume, train, without_picture_and_sample

from microformer.errors import MicroformerError
from microformer.exchange import weights


class Hostile:
    """What, unpickled by one who believes it, leaves a mark."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_picture_and_sample(monkeypatch)
    Path("book.txt").write_text(book())
    return tmp_path


def saved(path):
    torch.save({"model_args": {}, "model": Hostile()}, path)


def saved_as_before_1_6(path):
    torch.save(Hostile(), path, _use_new_zipfile_serialization=False)


def plain(path):
    path.write_bytes(pickle.dumps(Hostile()))


def by_hand(path):
    """Older opcodes, which name what they call another way."""
    path.write_bytes(b"cos\nmkdir\n(S'ran'\ntR.")


def in_a_zip(path):
    """A pickle inside an archive of PyTorch's form."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nmkdir\nX\x03\x00\x00\x00ran\x85R.")
        archive.writestr("archive/version", b"3\n")


KINDS = [saved, saved_as_before_1_6, plain, by_hand, in_a_zip]


def test_believed_it_would_run(here):
    plain(Path("it"))
    pickle.loads(Path("it").read_bytes())
    assert Path("ran").is_dir()


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["ckpt.pt", "model.pt", "other.bin", "theirs/pytorch_model.bin"])
def test_a_model_s_file_is_refused_and_what_it_asks_for_is_named(name, make, here, capsys):
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    make(path)
    if path.parent != Path("."):
        Path("theirs/config.json").write_text(
            json.dumps(
                {"model_type": "gpt2", "vocab_size": 5, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 4}
            )
        )

    assert command("import", str(path.parent if path.parent != Path(".") else path)) == 2

    assert not Path("ran").exists()
    told = capsys.readouterr().err
    assert "mkdir to be run" in told
    assert "don't trust that file" in told


@pytest.mark.parametrize("make", [plain, by_hand])
def test_so_is_a_vocabulary(make, here, capsys):
    make(Path("meta.pkl"))

    with pytest.raises(MicroformerError, match=r"posix\.mkdir|nt\.mkdir|os\.mkdir"):
        weights.plain(Path("meta.pkl"))
    assert not Path("ran").exists()


def test_a_pickle_that_takes_more_than_any_vocabulary_is_not_opened(here):
    with open("meta.pkl", "wb") as file:
        file.truncate(1 << 27)
    with pytest.raises(MicroformerError, match="larger than any vocabulary"):
        weights.plain(Path("meta.pkl"))


@pytest.mark.parametrize("value", [[1, "two", {"three": (4.0, None)}], {"stoi": {"a": 0}}])
def test_plain_values_are_read(value, here):
    Path("it").write_bytes(pickle.dumps(value))
    assert weights.plain(Path("it")) == value


def test_neither_does_one_run_in_the_place_of_a_file_of_ours(here):
    assert train("--run", "one", corpus="book.txt", max_steps=4) == 0
    data, run = ([path for path in sorted(Path(top).rglob("*")) if path.is_file()] for top in ("data", "runs"))
    assert {"train.pt", "val.pt", "vocab.json", "manifest.json"} < {path.name for path in data}
    assert {"model.safetensors", "training.safetensors", "run.json", "tokenizer.json"} < {path.name for path in run}
    for top in ("data", "runs"):
        shutil.copytree(top, Path("kept", top))
    for at, path in enumerate([*data, *run]):
        for make in KINDS if path.suffix in (".pt", ".safetensors") else KINDS[at % 5 :][:1]:
            for top in ("data", "runs"):
                shutil.rmtree(top)
                shutil.copytree(Path("kept", top), top)
            make(Path("made"))
            path.write_bytes(Path("made").read_bytes())
            command("eval", "one")
            command("generate", "one", "--prompt", "The", "--max-new-tokens", "2")
            resume("--run", "one", max_steps=5)
            assert not Path("ran").exists(), path
