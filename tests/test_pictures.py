"""The loss picture: the same bytes for the same numbers, text that stays text, and no trouble with odd data."""

import errno
import itertools
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import pytest

from microformer.errors import FileError
from microformer.pictures import Curves, Panels, loss_curves

FALLING = [(step, 1.5 + 2.7 * math.exp(-step / 150)) for step in range(0, 2001, 100)]
NOISY = [(step, 1.4 + 2.7 * math.exp(-step / 150) + 0.05 * math.sin(step * step)) for step in range(0, 2001, 5)]


def draw(folder: Path, series, **named) -> str:
    """Draws into `folder` and returns the SVG."""
    named = {"x_label": "steps", "y_label": "nats per character", **named}
    loss_curves(folder / "loss.svg", folder / "loss.png", series, **named)
    return (folder / "loss.svg").read_text(encoding="utf-8")


def words(svg: str) -> list[str]:
    """The texts of a picture, as texts."""
    return [each.text or "" for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def heights(svg: str) -> dict[str, float]:
    """Each text's distance from the picture's top, in points."""
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return {each.text or "": float(each.attrib["y"]) for each in texts}


def test_everything_asked_for_is_there_as_text(tmp_path):
    svg = draw(
        tmp_path,
        {"train": NOISY, "validation": FALLING},
        title="loss of mine",
        baselines={"unigram": 3.312, "near": 1.6},
        best=FALLING[-3],
    )

    expected = ["loss of mine", "nats per character", "steps", "train", "validation 1.500", "near 1.600", "2,000"]
    assert set(expected) <= set(words(svg))
    assert "best 1.500 at 1,800" in words(svg)
    assert "↑ unigram 3.312" in words(svg)


def test_the_png_is_a_picture_of_1600_by_900(tmp_path):
    draw(tmp_path, {"validation": FALLING})

    data = (tmp_path / "loss.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (1600, 900)


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        draw(tmp_path / name, {"train": NOISY, "validation": FALLING}, best=FALLING[-1], baselines={"unigram": 3.3})

    for picture in ("loss.svg", "loss.png"):
        assert (tmp_path / "one" / picture).read_bytes() == (tmp_path / "two" / picture).read_bytes()


def test_other_numbers_give_another_picture(tmp_path):
    assert draw(tmp_path, {"validation": FALLING}) != draw(tmp_path, {"validation": FALLING[:-1]})


@pytest.mark.parametrize(
    "series",
    [
        {},
        {"train": []},
        {"train": [(1, math.nan)], "validation": [(1, math.inf)]},
    ],
    ids=["no series", "no points", "no finite point"],
)
def test_nothing_to_draw_is_said_in_the_picture(tmp_path, series):
    assert "nothing measured yet" in words(draw(tmp_path, series, best=(math.nan, math.nan)))


@pytest.mark.parametrize("points", [[(0, 4.2)], [(500, 1.9)], [(3, 0.0)], [(7, 1e30)], [(-2, 1.0), (-1, 1.0)]], ids=str)
@pytest.mark.parametrize("name", ["train", "validation"])
def test_very_few_points_make_a_picture(tmp_path, name, points):
    svg = draw(tmp_path, {name: points}, best=points[-1], baselines={"unigram": 3.312, "odd": math.nan})

    assert any(word.startswith(name) for word in words(svg))
    assert any("unigram 3.312" in word for word in words(svg))
    assert not any("odd" in word for word in words(svg))


def test_values_that_are_no_numbers_leave_a_gap_and_the_rest_is_drawn(tmp_path):
    holed = [(x, math.nan if 800 <= x <= 1000 else y) for x, y in FALLING]

    svg = draw(tmp_path, {"validation": holed, "train": [(x, math.inf if x % 7 == 0 else y) for x, y in NOISY]})

    assert "validation 1.500" in words(svg)
    line = next(path for path in re.findall(r'<path d="([^"]+)"[^>]*clip-path', svg) if path.count("L") > 10)
    assert line.count("M") >= 2


def test_a_long_run_that_was_a_number_only_once_is_drawn(tmp_path):
    assert "train" in words(draw(tmp_path, {"train": [(x, 2.0 if x == 701 else math.nan) for x in range(2000)]}))


def test_the_height_belongs_to_the_slow_part_not_to_the_first_losses(tmp_path):
    ticks = [float(word) for word in words(draw(tmp_path, {"train": NOISY, "validation": FALLING})) if "." in word[:2]]

    assert max(ticks) < 3.0  # the first loss is 4.2
    assert min(ticks) <= 1.45


def test_one_wild_batch_does_not_squeeze_the_picture(tmp_path):
    wild = [(x, 900.0 if x == 1500 else y) for x, y in NOISY]

    assert "900" not in words(draw(tmp_path, {"train": wild, "validation": FALLING}))


def test_names_at_the_ends_never_overlap(tmp_path):
    series = {f"run {each}": [(x, y + each * 1e-4) for x, y in FALLING] for each in range(5)}

    places = sorted(y for word, y in heights(draw(tmp_path, series)).items() if word.startswith("run "))

    assert len(places) == 5
    assert all(lower - upper >= 14 for upper, lower in itertools.pairwise(places))


def test_a_users_own_style_and_the_global_one_are_left_alone(tmp_path):
    plain = draw(tmp_path, {"validation": FALLING})
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        styled = draw(tmp_path, {"validation": FALLING})
        after = dict(matplotlib.rcParams)

    assert styled == plain
    assert after == before


def test_a_picture_that_can_not_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    draw(tmp_path, {"validation": FALLING})
    old = (tmp_path / "loss.svg").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match=r"can't write .*loss\.svg"):
        draw(tmp_path, {"validation": FALLING[:3]})

    assert (tmp_path / "loss.svg").read_bytes() == old
    assert sorted(each.name for each in tmp_path.iterdir()) == ["loss.png", "loss.svg"]


def test_words_with_signs_of_markup_are_shown_as_they_are(tmp_path):
    svg = draw(tmp_path, {"a <b> & $c$": FALLING}, title="50 % & <more> $x_1$ 紅樓夢")

    assert "50 % & <more> $x_1$ 紅樓夢" in words(svg)
    assert "a <b> & $c$ 1.500" in words(svg)


HOSTILE = "<img src=x onerror=alert(1)> --> \"' &"


def test_on_a_page_it_has_the_pages_colours_and_ids_of_its_own():
    curves = Curves({"train": NOISY, "validation": FALLING}, "steps", "loss", title=HOSTILE, best=FALLING[-1])

    one, other = curves.svg(prefix="a-"), curves.svg(4, 4, prefix="b-")

    for svg in (one, other):
        assert svg.startswith("<svg ")
        assert HOSTILE in words(svg)
        assert "<img" not in svg
        assert not re.search(r"<script|<style|<metadata|<!--| on\w+=\"", svg)
        assert "var(--line-1, #1d4ed8)" in svg
        assert re.sub(r"var\([^)]*\)", "", svg).count("#ffffff") == 0
        used = set(re.findall(r"url\(#([^)]*)\)", svg))
        assert used
        assert used <= set(re.findall(r'id="([^"]*)"', svg))
    assert not set(re.findall(r'id="([^"]*)"', one)) & set(re.findall(r'id="([^"]*)"', other))
    assert curves._repr_svg_() == curves.svg()


def test_of_more_curves_than_colours_the_lowest_are_named():
    series = {f"run {each:02}": [(x, y + each * 0.1) for x, y in FALLING] for each in range(20)}

    named = [word for word in words(Curves(series, "steps", "loss").svg()) if word.startswith("run ")]

    assert sorted(word[:6] for word in named) == [f"run {each:02}" for each in range(8)]


def test_a_run_called_train_is_as_strong_as_another_where_that_is_said():
    strong = Curves({"trainer": FALLING}, "steps", "loss", pale=frozenset()).svg()

    assert "trainer 1.500" in words(strong)
    assert "trainer 1.500" not in words(Curves({"trainer": FALLING}, "steps", "loss").svg())


def test_a_long_name_leaves_room_for_the_curves():
    name = "a" * 60 + "-the-end"

    (label,) = (word for word in words(Curves({name: FALLING}, "steps", "loss").svg()) if word.startswith("aaa"))

    assert label.endswith("the-end 1.500")
    assert len(label) < 40


def ways(*names, seeds=3):
    """Curves of several ways, a seed a little above the other."""
    return {
        name: [[(x, y + 0.1 * number + 0.01 * seed) for x, y in FALLING[1:]] for seed in range(seeds)]
        for number, name in enumerate(names)
    }


def test_several_ways_are_named_once_with_their_mean_and_drawn_against_every_measure():
    each = ways("base", HOSTILE)
    svg = Panels({"steps": each, "tokens": each, "seconds": each}, "nats per token", "Two ways").svg()

    told = words(svg)
    assert {"Two ways", "nats per token", "steps", "tokens", "seconds"} <= set(told)
    # The mean over three seeds, a hundredth above the first.
    assert [word for word in told if word.startswith("base")] == [f"base {FALLING[-1][1] + 0.01:.3f}"]
    assert sum(HOSTILE[:5] in word for word in told) == 1
    # A mean and three seeds for each way in each panel.
    assert svg.count("stroke-opacity: 0.4") == 3 * 3 * 2


def test_of_more_ways_than_colours_the_lowest_are_named_and_the_first_always():
    each = ways("base", *(f"way {number}" for number in range(12)), seeds=1)
    told = words(Panels({"steps": each}, "loss").svg())

    assert any(word.startswith("base ") for word in told)
    assert sum(word.startswith("way ") for word in told) == 8
    assert "and 4 more" in told


def test_ways_of_different_lengths_are_meant_as_far_as_all_of_them_go_and_nothing_is_said_to_be_nothing():
    short = {"base": [FALLING, FALLING[:3]], "other": [[(1, math.nan)]]}
    told = words(Panels({"steps": short}, "loss").svg())
    assert f"base {FALLING[2][1]:.3f}" in told
    assert not any(word.startswith("other") for word in told)

    assert "nothing measured" in words(Panels({"steps": {}, "tokens": {}}, "loss").svg())
