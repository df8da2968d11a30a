"""Everyone reaches everything: axe-core finds nothing, nothing is cut off on a phone, pictures have their tables."""

from pathlib import Path

import pytest
from pages import settled

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
PANELS = ["strip", "next", "generate", "attention", "edit", "lens", "time", "anatomy"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_an_accessibility_checker_finds_nothing(opened, width, scheme):
    page = opened(width=width, scheme=scheme, position=5, edits=["L0H1 zero"], written=10)
    settled(page)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run(document)).violations")

    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(opened, width):
    page = opened(width=width, position=5)
    settled(page)

    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_every_panel_has_a_table_and_four_ways_to_take_it_along(opened):
    page = opened(position=5, written=6, edits=["L0H1 zero"])
    settled(page)
    for panel in PANELS:
        own = page.locator(f"#{panel}")
        own.get_by_role("button", name="Table", exact=True).click()
        assert own.locator(".table tbody tr").count() > 0, panel
        for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
            own.locator("summary", has_text="Copy").click()
            with page.expect_download() as download:
                own.get_by_role("button", name=f"as {kind}", exact=True).click()
            assert Path(download.value.path()).read_bytes().startswith(start), panel
