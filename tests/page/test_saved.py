"""A saved view opens from a file, without a server and without a network, and looks the same."""

from pages import settled


def test_a_saved_view_opens_from_a_file_and_shows_the_same(opened, browser, tmp_path):
    page = opened(position=5, layer=1, head=1, edits=["L0H0 zero"], written=9)
    settled(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save view").click()
    file = tmp_path / "view.html"
    download.value.save_as(file)

    asked = []
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    alone = context.new_page()
    alone.on("request", lambda request: asked.append(request.url))
    alone.on("pageerror", lambda error: asked.append(str(error)))
    alone.goto(file.as_uri())
    settled(alone)

    assert [one for one in asked if not one.startswith(("file:", "data:", "blob:"))] == []
    for panel in ("strip", "next", "generate", "attention", "edit", "lens", "time", "anatomy"):
        assert alone.locator(f"#{panel} .body").inner_text() == page.locator(f"#{panel} .body").inner_text(), panel
    assert alone.locator("canvas").count() == page.locator("canvas").count()
    context.close()
