"""The progress display: a table that grows, and on a terminal a living line under it."""

import io
import re

import pytest

from microformer.training.progress import Progress


class Terminal(io.TextIOWrapper):
    mode = "w"

    def isatty(self):
        return True


@pytest.fixture
def file(tmp_path):
    with open(tmp_path / "shown", "w", encoding="utf-8", newline="") as opened:
        yield opened


@pytest.fixture
def terminal(tmp_path):
    with Terminal((tmp_path / "shown").open("wb"), encoding="utf-8", newline="") as opened:
        yield opened


def said(stream) -> str:
    stream.flush()
    with open(stream.name, encoding="utf-8", newline="") as written:
        return written.read()


def shown(stream, steps=100, validations=(50, 100), **options):
    """What a run of `steps` steps shows that logs every ten."""
    progress = Progress(options.get("of", steps), bits_per_nat=2.0, stream=stream)
    with progress:
        for step in range(1, steps + 1):
            progress.on_step(step, step / steps, step * 0.5)
            row = {"step": step, "tokens": step * 10, "seconds": step * 0.5}
            if step % 10 == 0:
                row |= {"train_loss": 3.0, "lr": 0.1, "grad_norm": 1.0, "tokens_per_second": 12345.0}
            if step in validations:
                row["val_loss"] = 1.25
            if len(row) > 3:
                progress.on_row(row)
    return said(stream)


def test_elsewhere_than_on_a_terminal_there_are_plain_lines_only(file):
    lines = shown(file).splitlines()

    assert all(line.isprintable() for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_a_validation_is_a_row_of_the_table_with_its_bits_a_character(file):
    text = shown(file)

    assert text.count("validation") == 1  # the head of the table, once
    rows = [line.split() for line in text.splitlines() if "1.2500" in line]
    assert [row[:6] for row in rows] == [
        ["50", "3.0000", "1.2500", "2.500", "12k", "0:25"],
        ["100", "3.0000", "1.2500", "2.500", "12k", "0:50"],
    ]
    assert [len(row) for row in rows] == [7, 6]  # at the end no time is left


def test_without_validation_there_are_still_rows_and_a_last_one(file):
    rows = [line.split() for line in shown(file, steps=1000, validations=()).splitlines() if "3.0000" in line]

    assert 10 <= len(rows) <= 20
    assert rows[-1][0] == "1,000"
    assert all(row[2:4] == ["–", "–"] for row in rows)


def test_once_the_pace_is_known_the_time_it_takes_is_foretold(file):
    assert "to go" not in shown(file, steps=5)
    assert len(re.findall(r"about \d+:\d\d to go", shown(file))) == 1


@pytest.mark.parametrize("of", [100, None])
def test_on_a_terminal_the_line_lives_and_the_table_stays(of, monkeypatch, terminal):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(terminal, of=of)

    assert "\x1b[" in text
    assert ("step 100/100" in text or "step 1/100" in text) == (of == 100)
    assert "loss 3.000" in text
    assert text.count("1.2500") == 2


def test_a_run_longer_than_an_hour_shows_hours(file):
    progress = Progress(None, 1.0, file)
    progress.on_step(1, 0.5, 7384.0)
    progress.on_row({"step": 1, "tokens": 1, "seconds": 7384.0, "val_loss": 1.0})

    assert "2:03:04" in said(file)


def test_without_a_stream_it_goes_to_standard_output(capsys):
    Progress(1, 1.0).on_row({"step": 1, "tokens": 1, "seconds": 0.5, "val_loss": 1.0})

    assert "1.0000" in capsys.readouterr().out
