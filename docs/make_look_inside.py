"""Draws the pictures of look_inside.md again: `python docs/make_look_inside.py RUN`, in a folder with a run of the
default config. Needs `pip install playwright` and a Chromium (CHROMIUM says where)."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
TEXT = "ROMEO:\nI will not speak of that which thou hast said,\nNor hear thee, gentle Juliet."
HEAD = {"layer": 1, "head": 1}


def main() -> None:
    run = sys.argv[1]
    command = [sys.executable, "-m", "microformer", "inspect", run, "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout is not None
        address = None
        while address is None:
            address = re.search(r"http://\S+", server.stdout.readline())
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        plain = [("text", TEXT), *HEAD.items()]

        look(page, address.group(), [*plain, ("position", 14)])
        page.screenshot(path=PICTURES / "inspect.png", clip={"x": 0, "y": 0, "width": 1280, "height": 900})
        for panel in ("attention", "lens", "time", "anatomy"):
            page.locator(f"#{panel}").screenshot(path=PICTURES / f"inspect_{panel}.png")
        look(page, address.group(), [*plain, ("edit", "L1H1 zero")])
        page.locator("#edit").screenshot(path=PICTURES / "inspect_edit.png")
        server.terminate()


def look(page: Page, address: str, selection: list[tuple[str, object]]) -> None:
    """Opens the page at a selection, and waits until all of it is drawn."""
    page.goto("about:blank")
    page.goto(f"{address}#{urlencode(selection)}")
    page.wait_for_selector("#anatomy .body")
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")
    page.wait_for_timeout(1000)
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")


if __name__ == "__main__":
    main()
