"""Using the page: pointing, clicking, typing, keys, links, undo; and what is told where something is wrong."""

import re

import pytest
from pages import TEXT, address_of, settled


def position(page) -> str | None:
    return (re.findall(r"[#&]position=(\d+)", page.url) or [None])[0]


def test_pointing_at_a_token_says_what_was_expected_and_a_click_keeps_it(opened):
    page = opened()
    settled(page)
    page.locator("#strip .token").nth(5).hover()
    assert "(token 5) was predicted at the box before it" in page.locator("#strip div.said").inner_text()
    assert page.locator("#strip div.said li").count() == 10

    page.mouse.move(0, 0)
    assert "Each box was predicted" in page.locator("#strip div.said").inner_text()
    page.locator("#strip .token").nth(5).click()
    page.wait_for_function("() => location.hash.includes('position=5')")
    page.mouse.move(0, 0)
    assert "(token 5)" in page.locator("#strip div.said").inner_text()


def test_spaces_and_newlines_are_seen(opened):
    page = opened(text="The cat.\nThe dog.")
    settled(page)
    boxes = page.locator("#strip .token").all_inner_texts()

    assert boxes[3] == "␣"
    assert boxes[8] == "⏎"


def test_typing_changes_every_panel(opened):
    page = opened()
    settled(page)
    before = page.locator("#lens td").count()
    page.get_by_label("The text: change it").fill("The dog")
    page.wait_for_function("() => document.querySelectorAll('#strip .token').length === 7")
    settled(page)

    assert page.locator("#lens thead th[scope=col]").count() == 7
    assert page.locator("#lens td").count() < before
    assert "text=The+dog" in page.url or "text=The%20dog" in page.url


def test_a_link_brings_the_same_view_back(opened):
    first = opened(position=4, layer=1, head=1, temperature=0.5, edits=["L0H1 zero"], colour="entropy", written=5)
    settled(first)
    second = opened(url=first.url)
    settled(second)
    second.reload()
    settled(second)

    for panel in ("#strip", "#next", "#generate", "#lens"):
        assert second.locator(panel).inner_text() == first.locator(panel).inner_text()
    assert second.url == first.url


def test_keys_move_the_selection(opened):
    page = opened(position=3)
    settled(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("]")
    page.keyboard.press("}")
    page.wait_for_function("() => /position=4/.test(location.hash) && /layer=1/.test(location.hash)")
    assert "head=1" in page.url
    page.keyboard.press("m")
    page.wait_for_function("() => location.hash.includes('edit=L1H1')")
    page.keyboard.press("z")
    page.wait_for_function("() => !location.hash.includes('edit=')")
    page.keyboard.press("Z")
    page.wait_for_function("() => location.hash.includes('edit=L1H1')")
    page.keyboard.press("Escape")
    page.wait_for_function("() => !location.hash.includes('position=')")


def test_a_bar_takes_its_token_and_goes_on(opened):
    page = opened(text="The ca")
    settled(page)
    token = page.locator("#next .bar .token").first.inner_text()
    page.locator("#next .bar").first.click()
    page.wait_for_function("() => document.querySelectorAll('#strip .token').length === 7")

    assert page.locator("#strip .token").last.inner_text() == token
    page.get_by_role("button", name="Back to the text before").click()
    page.wait_for_function("() => document.querySelectorAll('#strip .token').length === 6")


def test_sliders_act_without_asking_the_server(opened):
    page = opened()
    settled(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    before = page.locator("#next .where").inner_text()
    page.locator("#next input[type=range]").nth(1).fill("3")
    page.wait_for_timeout(300)

    assert "3 tokens are left" in re.sub(r"\s+", " ", page.locator("#next .where").inner_text())
    assert before != page.locator("#next .where").inner_text()
    assert not [one for one in asked if "/next" in one]


def test_writing_steps_forward_and_back_to_the_same_text(opened):
    page = opened(seed=5)
    settled(page)
    step, back = (page.locator("#generate").get_by_role("button", name=name, exact=True) for name in ("Step", "Back"))
    for _ in range(12):
        step.click()
    page.wait_for_function("() => document.querySelectorAll('#generate .text .token').length === 12")
    written = page.locator("#generate .text").inner_text()
    for _ in range(4):
        back.click()
    page.wait_for_function("() => document.querySelectorAll('#generate .text .token').length === 8")
    for _ in range(4):
        step.click()
    page.wait_for_function("() => document.querySelectorAll('#generate .text .token').length === 12")
    assert page.locator("#generate .text").inner_text() == written

    page.locator("#generate").get_by_role("button", name="Write").click()
    page.wait_for_function("() => document.querySelectorAll('#generate .text .token').length > 30")
    page.locator("#generate").get_by_role("button", name="Pause").click()
    count = page.locator("#generate .text .token").count()
    page.wait_for_timeout(300)
    assert page.locator("#generate .text .token").count() == count
    assert page.locator("#generate .text").inner_text().startswith(written[: len(TEXT) + 12])


def test_a_text_longer_than_the_context_is_cut_and_said_so(opened):
    page = opened(text=TEXT * 3)
    settled(page)

    assert page.locator("#strip .token").count() == 32
    assert "reads the first 32 tokens" in page.locator("#strip .legend").inner_text()


@pytest.mark.parametrize(("selection", "said"), [({"text": "The 世界"}, "世"), ({"edits": ["L9H0 zero"]}, "L9")])
def test_what_cannot_be_read_is_told_in_its_panel(opened, selection, said):
    page = opened(**selection, may_fail=True)
    page.wait_for_selector("[role=alert]")

    assert said in page.locator("[role=alert]").first.inner_text()


def test_weights_that_are_no_numbers_are_shown_as_such(opened):
    page = opened(run="broken", position=5, edits=["L0H1 zero"], written=4)
    settled(page)

    for panel in ("strip", "next", "generate", "edit", "lens"):
        assert "NaN" in page.locator(f"#{panel} .body").inner_text(), panel


def test_a_probe_shows_what_it_holds_and_says_what_it_does_not(opened):
    page = opened(checkpoint="probe-32")
    settled(page)
    page.locator("#strip .token").nth(4).hover()

    assert "was predicted at the box before it" in page.locator("#strip div.said").inner_text()
    assert page.locator("#attention canvas").count() > 4
    assert page.locator("#lens td").count() > 50
    for panel in ("next", "edit"):
        assert "A probe has no weights" in page.locator(f"#{panel} .why").inner_text()


def test_without_the_token_nothing_is_shown(opened, address):
    page = opened(url=address_of(address.split("?")[0] + "?token=wrong", run="plain", text=TEXT), may_fail=True)
    page.wait_for_selector("main [role=alert]")

    assert "its secret is missing" in page.locator("main [role=alert]").first.inner_text()
    assert page.locator("#strip").count() == 0
