"""The Python of docs/inspection.md runs as it stands there, on a run that was just trained."""

import re
from pathlib import Path

from small_runs import book, train, without_picture_and_sample

PAGE = Path(__file__).parents[2] / "docs" / "inspection.md"


def test_the_code_of_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_picture_and_sample(monkeypatch)
    Path("book.txt").write_text(book() + "To be, or not to be, or not so be\n" * 20, encoding="utf-8")
    assert train(num_layers=2, num_heads=4, max_seq_len=32) == 0
    section = PAGE.read_text(encoding="utf-8").split("## From Python")[1].split("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    names: dict = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)

    assert len(blocks) == 5
    assert names["found"].heads.shape == (2, 4)
    assert abs(float(names["values"].sum() - (names["seen"].logits[5, 3] - names["seen"].logits[5, 4]))) < 1e-4
