"""The corpora of the hub, read by the library `datasets` from a hub on this machine with files of the real shape."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from local_hub import hub_of, parquet_bytes

from microformer.corpora import hub
from microformer.corpora.named import CORPORA
from microformer.errors import SettingsError

STORIES = [f"Once there was story {number}. The end.\n\nOr not." * (1 + number % 3) for number in range(400)]
PAGES = [f"Page {number}: " + "some words of the web " * (5 + number % 7) for number in range(300)]
ARTICLES = [
    f" = Title {number} = \n \n" + f" Text of article {number} . \n" * 3 + " \n = = Section = = \n \n"
    for number in range(60)
]


def lines(articles):
    """As the hub has them: a row a line, the empty ones without their space and newline."""
    return [line if line.strip() else "" for article in articles for line in article.splitlines(keepends=True)]


def configured(*configs):
    """The head of a dataset's README that says which files each configuration has."""
    entries = "".join(
        f"- config_name: {name}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {name}/{split}-*\n" for split in splits)
        for name, splits in configs
    )
    return f"---\nconfigs:\n{entries}---\n".encode()


WIKITEXT = ("train", "validation", "test")
DATASETS = {
    "Skylion007/openwebtext": {
        "README.md": configured(("plain_text", ["train"])),
        "plain_text/train-00000-of-00002.parquet": parquet_bytes({"text": PAGES[:200]}),
        "plain_text/train-00001-of-00002.parquet": parquet_bytes({"text": PAGES[200:]}),
    },
    "roneneldan/TinyStories": {
        "README.md": b"---\nlicense: cdla-sharing-1.0\n---\n",
        "data/train-00000-of-00001.parquet": parquet_bytes({"text": STORIES[:380]}),
        "data/validation-00000-of-00001.parquet": parquet_bytes({"text": STORIES[380:]}),
    },
    "Salesforce/wikitext": {
        "README.md": configured(("wikitext-103-raw-v1", WIKITEXT), ("wikitext-2-raw-v1", WIKITEXT)),
        **{
            f"wikitext-{size}-raw-v1/{split}-00000-of-00001.parquet": parquet_bytes({"text": lines(articles)})
            for size in (2, 103)
            for split, articles in (("train", ARTICLES[:50]), ("validation", ARTICLES[50:55]), ("test", ARTICLES[55:]))
        },
    },
    "owner/mine": {"train-00000-of-00001.parquet": parquet_bytes({"story": STORIES[:50], "id": list(range(50))})},
    "owner/broken": {"train-00000-of-00001.parquet": parquet_bytes({"text": STORIES})[:-300] + bytes(300)},
    "owner/scripted": {"scripted.py": b"raise SystemExit('this ran')"},
}


@pytest.fixture(scope="module")
def server():
    with hub_of(DATASETS) as found:
        yield found


@pytest.fixture
def command(server, tmp_path):
    """Runs a command line here, with that hub and a cache of its own."""

    def run(*argv, check=True, address=server[0], code=""):
        env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        env |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        env |= {"PYTHONPATH": str(Path(hub.__file__).parents[2])}
        env.pop("MICROFORMER_CORPORA", None)
        start = ["-c", code] if code else ["-m", "microformer"]
        ended = subprocess.run(
            [sys.executable, *start, *argv], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert not check or ended.returncode == 0, ended.stderr
        return ended

    return run


def documents(folder):
    """The documents of each part of prepared data."""
    import numpy as np

    from microformer.corpora import load_prepared

    prepared = load_prepared(folder)
    end = prepared.tokenizer.end_of_document
    found = {}
    for name in ("train", "val", "test"):
        if (part := getattr(prepared, name)) is not None:
            ids = part.numpy()
            cut = np.split(ids, np.flatnonzero(ids == end) + 1)
            assert len(cut[-1]) == 0
            found[name] = [prepared.tokenizer.decode(one) for one in cut[:-1]]
    return found


def test_openwebtext_is_read_from_its_parquet_files_and_split_by_document(command, tmp_path):
    command("prepare", "--corpus", "openwebtext")

    found = documents(tmp_path / "data")
    assert found["train"] + found["val"] == PAGES
    assert len(PAGES) * 0.05 < len(found["val"]) < len(PAGES) * 0.2


def test_tinystories_keeps_its_own_validation(command, tmp_path):
    command("prepare", "--corpus", "tinystories")

    assert documents(tmp_path / "data") == {"train": STORIES[:380], "val": STORIES[380:]}


@pytest.mark.parametrize("name", ["wikitext2", "wikitext103"])
def test_wikitexts_lines_are_joined_to_articles_in_its_own_three_parts(name, command, tmp_path):
    command("prepare", "--corpus", name)

    assert documents(tmp_path / "data") == {"train": ARTICLES[:50], "val": ARTICLES[50:55], "test": ARTICLES[55:]}


def test_any_dataset_split_and_column_can_be_named_and_limited(command, tmp_path):
    command("prepare", "--input", "hf:owner/mine:train:story", "--max-documents", "20")

    found = documents(tmp_path / "data")
    assert found["train"] + found["val"] == STORIES[:20]


def test_a_limit_is_for_what_is_learned_from(command, tmp_path):
    command("prepare", "--corpus", "tinystories", "--max-documents", "100")

    assert documents(tmp_path / "data") == {"train": STORIES[:100], "val": STORIES[380:]}


def test_what_was_fetched_once_is_used_without_a_network(command, tmp_path):
    command("prepare", "--corpus", "tinystories")
    before = documents(tmp_path / "data")

    command("prepare", "--corpus", "tinystories", "--tokenizer", "byte", address="http://127.0.0.1:9")

    assert documents(tmp_path / "data") == before
    listed = json.loads(command("corpora", "--json").stdout)
    here = {row["corpus"]: row["here"] for row in listed}
    assert here["tinystories"] != "no"
    assert here["openwebtext"] == "no"


@pytest.mark.parametrize(
    ("spelt", "message"),
    [
        ("hf:owner/nothing", "there is no public dataset owner/nothing on the hub"),
        ("hf:owner/mine", 'the dataset owner/mine has no column "text": its columns are story, id'),
        ("hf:owner/mine:train:id", 'the column "id" of owner/mine is no text but a int'),
        ("hf:owner/mine:dev:story", "the dataset owner/mine can't be read"),
        ("hf:owner/broken", "the dataset owner/broken can't be read"),
        ("hf:owner/scripted", "the dataset owner/scripted"),
        ("hf:mine", "'hf:mine' names no dataset"),
    ],
)
def test_what_can_not_be_read_is_named_in_a_sentence(spelt, message, command, tmp_path):
    ended = command("prepare", "--input", spelt, check=False)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert "hint:" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "this ran" not in ended.stdout + ended.stderr
    assert not (tmp_path / "data" / "train.pt").exists()


def test_without_a_network_it_is_said(command):
    ended = command("prepare", "--corpus", "tinystories", check=False, address="http://127.0.0.1:9")

    assert ended.returncode == 2
    assert "can't be" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_that_is_busy_for_a_moment_is_asked_again(command, server, tmp_path):
    server[2]["train-00000-of-00001.parquet"] = 2

    command("prepare", "--input", "hf:owner/mine:train:story")

    found = documents(tmp_path / "data")
    assert found["train"] + found["val"] == STORIES[:50]


_KILLED = """
import os, signal, sys
from microformer import files
from microformer.cli import main
from microformer.corpora import hub
hub._SHARD = 2000
real, calls = files.write_json, 0
def deadly(path, value):
    global calls
    calls += path.name == "begun.json"
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, value)
files.write_json = deadly
sys.exit(main(["prepare", "--corpus", "tinystories"]))
"""


def test_a_download_that_was_killed_goes_on_after_its_last_whole_file(command, tmp_path):
    assert command("4", code=_KILLED, check=False).returncode != 0
    (folder,) = (tmp_path / "cache" / "microformer" / "corpora" / "hub").iterdir()
    kept = {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.jsonl"))[:3]}

    command("0", code=_KILLED)

    assert documents(tmp_path / "data") == {"train": STORIES[:380], "val": STORIES[380:]}
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept


def test_every_dataset_of_the_table_is_one_that_is_tested_here():
    named = {hub._SPELT.fullmatch(spelt)["name"] for corpus in CORPORA.values() for _, spelt in corpus.hub}

    assert named <= DATASETS.keys()


@pytest.mark.parametrize("spelt", ["hf:", "hf:a", "hf:a/b/c/d", "hf:a b/c"])
def test_another_spelling_is_refused(spelt):
    with pytest.raises(SettingsError, match="names no dataset"):
        hub.fetched(spelt)
