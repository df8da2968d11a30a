"""What the tests of the page share: the runs they look at, a server of its own, and how to wait and to read."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import small_runs

# Trained until something is learned: a page of noise would hide a wrong number.
SETTINGS = {
    **small_runs.TINY, "corpus": "book.txt", "num_layers": 2, "num_heads": 2, "max_seq_len": 32, "batch_size": 16,
    "learning_rate": 0.01, "max_steps": 60, "log_every": 5, "eval_every": 20, "probe_steps": 20,
}  # fmt: skip
RUNS = {
    "plain": {},
    "sparse": {"attention": "entmax15"},
    "linear": {"attention": "linear"},
    "memory": {"memory": "xl(16)", "max_steps": 8},
    "post": {"norm_placement": "post", "max_steps": 8},
}
TEXT = "The cat sat on a mat and saw."


@contextmanager
def inside(folder: Path):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def served(folder: Path, *words: str):
    command = [sys.executable, "-m", "microformer", "inspect", *words, "--no-browser", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = None
            while found is None:
                line = process.stdout.readline()
                assert line, "the server ended before it said its address"
                found = re.search(r"http://\S+", line)
            yield found.group()
        finally:
            process.terminate()


def address_of(address: str, **selection) -> str:
    """The page's address with a selection in it."""
    edits = [("edit", one) for one in selection.pop("edits", [])]
    return f"{address}#{urlencode([*selection.items(), *edits])}"


def settled(page) -> None:
    """Waits until nothing is on its way any more."""
    page.wait_for_selector("#strip .token")
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")
    page.wait_for_timeout(100)
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")


def copied(page, panel: str, what: str) -> str:
    """What a panel's menu puts on the clipboard."""
    page.locator(f"#{panel} summary", has_text="Copy").click()
    page.locator(f"#{panel}").get_by_role("button", name=f"as {what}", exact=True).click()
    page.wait_for_selector(f"#{panel} [role=status]:has-text('copied')")
    return page.evaluate("() => navigator.clipboard.readText()")


def numbers(page, panel: str) -> dict:
    """A panel's JSON."""
    return json.loads(copied(page, panel, "JSON"))
