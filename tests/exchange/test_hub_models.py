"""A model's name on the hub: fetched from a hub on this machine, found in the cache without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from local_hub import hub_of
from their_models import original

from microformer import load_run, tokenization


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    original("GPT-2").save_pretrained(folder)
    characters = tokenization.train("char", ["".join(map(chr, range(48, 48 + 61)))])
    characters.to_library().save(str(folder / "tokenizer.json"))
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**found, "flax_model.msgpack": b"large", "pytorch_model.bin": b"the same again", "code.py": b"1 / 0"}


def command(here, address, *words):
    said = {"HF_ENDPOINT": address, "HF_HOME": str(here / "hub"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "2"}
    return subprocess.run(
        [sys.executable, "-m", "microformer", *words], cwd=here, env={**os.environ, **said},
        capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip


def test_it_is_fetched_once_with_what_is_read_of_it_and_no_more(files, tmp_path):
    with hub_of({"them/small": files}) as (address, asked, _):
        first = command(tmp_path, address, "import", "them/small", "--run", "one")
        assert first.returncode == 0, first.stderr
        fetched = {line.split("/")[-1] for line in asked if line.startswith("GET") and "/resolve/" in line}
    assert fetched == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}

    again = command(tmp_path, address, "import", "hf:them/small", "--run", "two")  # the hub is gone

    assert again.returncode == 0, again.stderr
    one, two = load_run(str(tmp_path / "runs/one")), load_run(str(tmp_path / "runs/two"))
    assert torch.equal(one.model.get_parameter("embed.weight"), two.model.get_parameter("embed.weight"))
    assert json.loads(Path(tmp_path, "runs/one/run.json").read_text())["imported"] == "Hugging Face gpt2"


@pytest.mark.parametrize(
    ("name", "faults", "said"),
    [
        ("them/other", {}, "the hub has no model 'them/other'"),
        ("them/small", {"model.safetensors": 99}, "there is no 'them/small' here, and it can't be fetched"),
        (None, {}, "there is no 'them/small' here, and it can't be fetched"),
    ],
)
def test_what_can_t_be_fetched_is_one_sentence(name, faults, said, files, tmp_path):
    with hub_of({"them/small": files}) as (address, _, broken):
        broken.update(faults)
        ended = command(tmp_path, address if name else "http://127.0.0.1:9", "import", name or "them/small")

    assert ended.returncode == 2, ended.stderr
    told = ended.stderr.splitlines()
    assert told[-2].startswith("error: ")
    assert said in told[-2]
    assert told[-1].startswith("hint: ")
    assert not Path(tmp_path, "runs").exists()
