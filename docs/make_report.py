"""Draws the pictures of report.md again: `python docs/make_report.py RUN COMPARISON`, in a folder with a run and a
comparison (`experiments/NAME`). Needs `pip install playwright` and a Chromium (CHROMIUM says where)."""

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from microformer.experiments.reporting import report

PICTURES = Path(__file__).parent / "pictures"


def main() -> None:
    run, comparison = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.goto(report([run], Path(folder, "run.html")).as_uri())
        page.screenshot(path=PICTURES / "report.png", clip={"x": 0, "y": 0, "width": 1000, "height": 860})
        looks = page.locator(".looks").bounding_box()
        assert looks is not None
        page.screenshot(
            path=PICTURES / "report_heads.png",
            full_page=True,
            clip={"x": 0, "y": looks["y"] - 10, "width": 760, "height": min(looks["height"], 560) + 10},
        )
        page.goto(report([comparison], Path(folder, "comparison.html"), max_new_tokens=0).as_uri())
        page.screenshot(path=PICTURES / "report_comparison.png", clip={"x": 0, "y": 0, "width": 1000, "height": 800})


if __name__ == "__main__":
    main()
