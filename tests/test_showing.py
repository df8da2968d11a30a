"""Tables in a window: whatever its width, every column is there and no name is cut up."""

import io
import re

import pytest
from rich.console import Console

from microformer.cli import showing

ROWS = [
    {"arm": "base", "loss": "2.3085 ± 0.0805", "verdict": None, "seconds": 67.6, "parameters": 90624},
    {"arm": "attention=my_attention.py:Squared norm=layernorm", "loss": "2.3461 ± 0.0426",
     "verdict": "can't tell yet: about 2 more seeds would", "seconds": 75.2, "parameters": 90624},
]  # fmt: skip
FORMATS = {"seconds": ",.1f", "parameters": ","}


@pytest.fixture
def shown(monkeypatch, capsys):
    def at(width: int) -> str:
        drawn = io.StringIO()
        monkeypatch.setattr(showing, "console", lambda _: (Console(file=drawn, width=width, highlight=False), drawn))
        showing.table(ROWS, FORMATS)
        return capsys.readouterr().out

    return at


@pytest.mark.parametrize("width", [160, 130, 100, 80, 60])
def test_every_column_is_there_and_no_word_is_cut_up(shown, width):
    words = shown(width).split()

    for row in ROWS:
        for name, value in row.items():
            text = "–" if value is None else format(value, FORMATS.get(name, ""))
            assert {name, *text.split()} <= set(words)
    assert max(map(len, shown(width).splitlines())) <= width


def test_what_fits_is_one_table_and_what_does_not_comes_in_parts_with_the_name_in_each(shown):
    assert len(re.findall("^arm ", shown(160), re.MULTILINE)) == 1
    assert len(re.findall("^arm ", shown(80), re.MULTILINE)) > 1


def test_a_window_that_is_too_narrow_for_a_name_folds_it(shown):
    assert "90,624" in shown(20)
