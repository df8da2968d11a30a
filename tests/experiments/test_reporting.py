"""A report: what it says of runs and comparisons, that it stands alone, and that nothing in a run becomes markup."""

import hashlib
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_runs import book, command, train

from microformer import runs
from microformer.errors import MicroformerError, RunError, SettingsError
from microformer.experiments.cells import Cell, Point
from microformer.experiments.comparison import Comparison
from microformer.experiments.reporting import report
from microformer.experiments.reporting.samples import chosen
from microformer.settings import Settings

HOSTILE = "<img src=x onerror=alert(1)>&\"'</script><script>alert(2)</script>"
OWN = '''from microformer.models.kernels import Softmax


class Mine(Softmax):
    """</pre><script>alert(3)</script>"""
'''
VOID = {"meta", "input", "img", "br", "hr", "link", "wbr"}


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.text, self.open = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with two runs, and one with code of its own."""
    folder, before = tmp_path_factory.mktemp("reported"), Path.cwd()
    os.chdir(folder)
    try:
        Path("book.txt").write_text(book(), encoding="utf-8")
        Path("mine.py").write_text(OWN, encoding="utf-8")
        assert train("--run", "a", max_steps=24, eval_every=8, probe_steps=8) == 0
        assert train("--run", "b", max_steps=24, eval_every=8, probe_steps=0, embed_dim=32) == 0
        assert train("--run", "own", max_steps=4, attention="mine.py:Mine") == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(*names, **how) -> str:
    how = {"max_new_tokens": 12, **how}
    return report(names, **how).read_text(encoding="utf-8")


def changed(name: str, **parts) -> None:
    path = Path("runs", name, "run.json")
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **parts}), encoding="utf-8")


def alone(page: Page) -> None:
    """Asserts that a page runs nothing and asks nothing of anybody."""
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "data"):
            if name in attributes:
                assert re.match(r"#|data:image/png;base64,|data:application/json", attributes[name]), (tag, attributes)


# --------------------------------------------------------------------------------------------------------- what it says


def test_a_report_of_a_run_has_its_figures_curves_samples_pictures_and_how_to_make_it_again(here):
    info = json.loads(Path("runs/a/run.json").read_text(encoding="utf-8"))
    loss = info["figures"]["val_loss"]

    page = Page(made("a"))

    alone(page)
    for words in (
        f"{loss:.4f}", "unigram", f"{info['figures']['unigram']:.4f}", "Finished after 24 steps", "1 layer, 16 wide",
        "EMBED_DIM", info["data"]["fingerprint"], info["versions"]["torch"], "step 1", "best, step 24", "L0H1",
        "microformer train --config runs/a/run.json --run a-again", "--embed-dim 16", "--max-steps 24",
    ):  # fmt: skip
        assert words in page.text, words
    tags = [tag for tag, _ in page.elements]
    assert tags.count("svg") == 8  # loss by steps and by seconds, norm, rate; each for a page and for a telephone
    assert tags.count("img") == 2 * len([step for step in (1, 2, 4, 8, 16, 24) if step in runs.find("a").probes][:5])


def test_the_commands_that_it_names_make_the_same_run_again(here):
    shutil.copy(Path(__file__).parent / "test_reporting.py", "other.txt")  # a file that is no part of it
    Path("book.txt").write_text(book(), encoding="utf-8")
    text = Page(made("a", max_new_tokens=0)).text
    loss = json.loads(Path("runs/a/run.json").read_text(encoding="utf-8"))["figures"]["val_loss"]
    shutil.rmtree("runs/b")
    lines = re.findall(r"^microformer (train .*)$", text, re.M)
    assert len(lines) == 2

    for line, name in zip(lines, ("a-again", "a"), strict=True):
        if name == "a":
            shutil.rmtree("runs/a")
        assert command(*line.split()) == 0
        assert json.loads(Path("runs", name, "run.json").read_text(encoding="utf-8"))["figures"]["val_loss"] == loss


def test_the_same_runs_give_the_same_bytes(here):
    assert made("a", "b") == made("a", "b")


def test_runs_beside_one_another_show_in_which_settings_they_differ(here):
    page = Page(made("a", "b"))

    alone(page)
    assert "2 runs" in page.text
    assert "Settings in which they differ" in page.text
    heads = re.findall(r"EMBED_DIM|PROBE_STEPS|NUM_LAYERS", page.text.partition("Settings in which they differ")[2])
    assert heads[:2] == ["EMBED_DIM", "PROBE_STEPS"]
    assert "different texts" not in page.text
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert "#run-1" in [attributes.get("href") for tag, attributes in page.elements if tag == "a"]


def test_losses_on_different_texts_are_not_held_against_each_other(here):
    changed("b", data={**json.loads(Path("runs/b/run.json").read_text(encoding="utf-8"))["data"], "fingerprint": "g"})

    assert "can’t be held against each other" in Page(made("a", "b", max_new_tokens=0)).text


def test_two_runs_of_one_name_are_told_by_their_folders(here):
    shutil.copytree("runs/a", "kept/a")

    page = Page(made("a", "kept/a", max_new_tokens=0))

    assert str(Path("runs/a")) in page.text
    assert str(Path("kept/a")) in page.text


def test_without_a_name_it_is_of_the_latest_run(here):
    os.utime("runs/b/run.json")

    assert "<title>b</title>" in made(max_new_tokens=0)


def test_what_a_run_does_not_have_is_said(here):
    shutil.rmtree("runs/b/checkpoints")
    changed("b", ended=None, figures=None)

    page = Page(made("b"))

    assert "Was killed after 24 steps" in page.text
    assert "Nothing could be written for this report: it has no checkpoint yet." in page.text
    assert "there are no probes" in page.text


def test_snapshots_from_early_to_late_and_the_best_write(here):
    assert chosen(runs.find("a")) == ["1", "2", "4", "8", "16", "best"]
    index = Path("runs/a/checkpoints/index.json")
    told = json.loads(index.read_text(encoding="utf-8"))
    index.write_text(json.dumps({**told, "snapshots": [f"step-{2**n:07}" for n in range(12)], "best": "best-0004096"}))
    assert chosen(runs.find("a")) == ["1", "8", "64", "256", "2048", "best"]


def test_a_prompt_and_no_samples_by_choice(here):
    assert "<b>The cat</b>" in made("a", prompt="The cat")
    assert "What it wrote" not in made("a", max_new_tokens=0)


# ------------------------------------------------------------------------------------------------------------- own code


def test_code_of_its_own_is_shown_and_run_only_where_it_is_trusted(here, monkeypatch):
    from microformer import own_code

    page = Page(made("own"))
    alone(page)
    assert OWN in page.text
    assert "step 1" in page.text

    monkeypatch.setattr(own_code, "trusted", lambda: here / "another home")
    told = Page(made("own")).text
    assert "Nothing could be written for this report: the run 'own' has code of its own" in told
    assert "--trust-code" in told
    assert Path("runs/own/samples.txt").read_text(encoding="utf-8").strip() in told
    assert "Nothing could be written" not in made("own", trust_code=True)


def test_code_that_is_not_what_it_says_is_not_shown(here):
    Path("secret.txt").write_text("my secret")
    copy = Path("runs/own/code/mine.py")
    copy.write_text("my secret")
    changed("own", code={"mine.py": "0" * 64, "../../../secret.txt": "1" * 64})

    told = Page(made("own")).text

    assert "my secret" not in told
    assert told.count("has another in its place") == 2
    changed("own", code={"mine.py": hashlib.sha256(b"my secret").hexdigest()})
    assert "my secret" in Page(made("own")).text  # or it would never be shown


# -------------------------------------------------------------------------------------------------------------- hostile


def test_nothing_in_a_run_becomes_markup(here):
    name = "<img src=x onerror=alert(1)>"
    Path("runs/a").rename(Path("runs", name))
    info = json.loads(Path("runs", name, "run.json").read_text(encoding="utf-8"))
    changed(
        name, compute=HOSTILE, created=HOSTILE, versions={HOSTILE: HOSTILE}, code={HOSTILE: HOSTILE},
        data={**info["data"], "corpus": HOSTILE, "fingerprint": HOSTILE}, ended={**info["ended"], "how": HOSTILE},
        settings={**info["settings"], "corpus": HOSTILE, "text_field": HOSTILE},
    )  # fmt: skip
    tokenizer = Path("runs", name, "tokenizer.json")
    told = json.loads(tokenizer.read_text(encoding="utf-8"))
    for places in (told.get("vocab"), told.get("characters"), told.get("tokens")):
        if isinstance(places, list):
            places[-1] = "<"
    tokenizer.write_text(json.dumps(told), encoding="utf-8")
    Path("runs", name, "tags.json").write_text(json.dumps([HOSTILE]), encoding="utf-8")

    one, two = made(name, prompt="The"), made(name, "b", prompt="The")

    for text in (one, two):
        page = Page(text)
        alone(page)
        assert name in page.text
        assert HOSTILE in page.text
        assert "default-src 'none'" in dict(page.elements[3][1] or page.elements[2][1]).get("content", text)


@pytest.mark.parametrize(
    "parts",
    [{"parameters": "many"}, {"data": []}, {"figures": {"val_loss": "low"}}, {"model": {}}, {"legs": [1]}],
    ids=str,
)
def test_a_run_that_is_none_is_told_as_damaged(parts, here):
    changed("a", **parts)

    with pytest.raises(MicroformerError, match="damaged"):
        made("a", max_new_tokens=0)
    assert not Path("report.html").exists()


# ---------------------------------------------------------------------------------------------------------- comparisons


def compared() -> Comparison:
    """As `compare` keeps one: two arms with runs here, one that failed."""

    def cell(arm, seed, run, loss, failed=None):
        curve = tuple(Point(step, 10 * step, 0.1 * step, loss + 1 / step) for step in (4, 8))
        return Cell(arm, seed, Path("runs", run), True, failed, loss=loss, steps=8, tokens=80, seconds=0.8, curve=curve)

    arms = [
        cell(arm, seed, run, loss + seed / 1000)
        for seed in (1, 2, 3)
        for arm, run, loss in (("base", "a", 2.0), (HOSTILE, "b", 2.5))
    ]
    failed = [cell("no text", seed, "none", float("nan"), f"no file {HOSTILE}") for seed in (1, 2, 3)]
    base = Settings().changed({"embed_dim": 16, "num_heads": 2})
    return Comparison((*arms, *failed), base.flat(), {"base": {}, HOSTILE: {"embed_dim": 32}, "no text": {}})


def test_a_comparison_has_its_table_first_and_a_run_of_each_arm(here):
    compared().write("experiments/wide")

    page = Page(made(str(Path("experiments/wide"))))

    alone(page)
    assert page.text.index("worse") < page.text.index("Every training") < page.text.index("Finished after")
    assert "+0.5000 ±" in page.text
    assert f"failed: no file {HOSTILE}" in page.text
    assert "Not here: no text." in page.text
    assert "EMBED_DIM 32" in page.text
    assert page.text.count("To make it again") == 2
    verdicts = [attributes.get("class") for _, attributes in page.elements if "verdict" in attributes.get("class", "")]
    assert verdicts == ["verdict-worse"]


def test_a_comparison_is_reported_from_elsewhere_and_without_its_runs(here, tmp_path_factory, monkeypatch):
    compared().write("experiments/wide")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert "To make it again" in made(str(here / "experiments/wide"), max_new_tokens=0)

    shutil.rmtree(here / "runs")
    page = Page(made(str(here / "experiments/wide")))
    assert "The runs themselves are not here" in page.text
    assert "worse" in page.text


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("names", "how", "said"),
    [
        (["aa"], {}, "no run 'aa'"),
        (["z*"], {}, "like 'z"),
        (["a"], {"output": "runs"}, "is a folder"),
        (["a"], {"max_new_tokens": -1}, "--max-new-tokens -1"),
        (["a"], {"temperature": -1.0}, "temperature -1"),
        (["experiments/wide", "a"], {}, "one comparison or of runs"),
    ],
)
def test_what_can_not_be_reported_is_told_and_nothing_is_written(names, how, said, here):
    compared().write("experiments/wide")

    with pytest.raises((RunError, SettingsError, MicroformerError), match=re.escape(said)):
        report(names, **how)
    assert not Path("report.html").exists()


def test_the_command_writes_it_and_says_where(here, capsys):
    assert command("report", "a", "--output", "out/page.html", "--max-new-tokens", "5") == 0

    told = capsys.readouterr()
    assert told.out.startswith(f"wrote     {Path('out/page.html')} (")
    assert told.err == "a: 6 samples of 5 tokens\n"
    assert Path("out/page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
