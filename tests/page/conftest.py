"""The inspection page in a real Chromium, before a real server of its own, over runs that were trained for it.

Apart from the other tests: `pytest tests/page`. Needs playwright and a Chromium (CHROMIUM says where, else Debian's).
"""

import os
import shutil
from pathlib import Path

import pytest
import small_runs
from pages import RUNS, SETTINGS, TEXT, address_of, inside, served
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with a text, a run of each kind, and one whose weights are no numbers."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "book.txt").write_text(small_runs.book(), encoding="utf-8")
    with inside(folder):
        for name, given in RUNS.items():
            assert small_runs.command("train", "--run", name, *small_runs.flags(**{**SETTINGS, **given})) == 0
        shutil.copytree("runs/plain", "runs/broken")
        for weights in Path("runs/broken/checkpoints").glob("*/model.safetensors"):
            tensors = load_file(weights)
            tensors["blocks.1.attention.W_O.weight"].fill_(float("nan"))
            save_file(tensors, weights)
    return folder


@pytest.fixture(scope="session")
def address(folder):
    """Where `microformer inspect` serves that folder's runs."""
    with served(folder, "plain") as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """A tab, opened at a selection. Whatever it asks of another machine, and whatever error it logs, fails the test."""
    contexts, wrong = [], []

    def open_tab(
        url: str | None = None,
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
        may_fail: bool = False,
        **selection,
    ):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: _check_request(request, url or address, wrong))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        # A question that is refused is an error to the browser; where one is expected, it is none to the test.
        if not may_fail:
            page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        page.goto(url or address_of(address, **{"run": "plain", "text": TEXT, **selection}))
        return page

    yield open_tab
    for context in contexts:
        context.close()
    assert not wrong


def _check_request(request, address: str, wrong: list) -> None:
    ours = address.split("?")[0]
    if not request.url.startswith((ours, "data:", "blob:")):
        wrong.append(f"the page asked for {request.url}")
