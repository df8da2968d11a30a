"""A report in a browser that runs no script: it fits a desk and a telephone, its curves can be chosen, and it asks
nothing of anybody."""

import pytest
from pages import inside

from microformer.experiments.reporting import report


@pytest.fixture(scope="module")
def reported(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("report") / "page.html"
    with inside(folder):
        return report(["plain", "broken"], output, max_new_tokens=20)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_asks_nothing(browser, reported, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=False
    )
    asked, told = [], []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.goto(reported.as_uri())

    assert [url for url in asked if not url.startswith("data:")] == [reported.as_uri()]
    assert told == []
    shown = page.locator(".chart:visible")
    assert shown.count() == 5  # both in one picture, then each one's loss, and its gradient and rate
    assert page.locator(".wide:visible").count() == (5 if width == 1280 else 0)
    edges = [page.locator("section.run").first.bounding_box(), shown.first.bounding_box()]
    assert all(edge["x"] >= 0 and edge["x"] + edge["width"] <= width for edge in edges)
    before = shown.first.inner_text()
    page.get_by_text("by seconds", exact=True).first.click()
    assert shown.count() == 5
    assert shown.first.inner_text() != before
    context.close()


def test_on_paper_all_curves_are_there(browser, reported):
    context = browser.new_context(viewport={"width": 800, "height": 900}, java_script_enabled=False)
    page = context.new_page()
    page.goto(reported.as_uri())
    page.emulate_media(media="print")

    assert page.locator(".chart:visible").count() == 3 + 4 + 4
    context.close()
