"""The inspection page in a real Chromium, headless, on the same machine as its server: from the address to the text
coloured (first view) and to every panel drawn; from a key to all of its consequences (a head muted; text, next token,
attention, effect, lens and anatomy computed anew, and 40 tokens written); and the knock-out map by itself. Every figure
is of a text or an edit that was not asked before, so that nothing was kept from an earlier answer. A context full of
text.

The default model, and one of 6 layers, 6 heads, 384 wide with a context of 256; weights of two steps of training, for
time does not depend on what they say. Needs `pip install playwright` and a Chromium (CHROMIUM says where).
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import measure as shared

TITLE = "The inspection page"
MODELS = {
    "default: 2 layers, 4 heads, 128 wide, context 128": [],
    "6 layers, 6 heads, 384 wide, context 256": [
        "--num-layers", "6", "--num-heads", "6", "--embed-dim", "384", "--ff-dim", "1024", "--max-seq-len", "256",
    ],
}  # fmt: skip
# When the last panel was drawn: nothing has been on its way since for a while. In seconds since the page began.
_SETTLED = """async () => {
    let busy = performance.now(), now = busy;
    while (now - busy < 400) {
        await new Promise(requestAnimationFrame);
        now = performance.now();
        if (!document.querySelector('#anatomy .body') || document.querySelector('[aria-busy=true]')) busy = now;
    }
    return busy / 1000;
}"""
# Mutes L0H0, and says when.
_MUTE = """() => {
    const began = performance.now() / 1000;
    document.activeElement?.blur();
    document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'm', bubbles: true}));
    return began;
}"""


@contextmanager
def served(folder: Path, run: str) -> Iterator[str]:
    """The address of a server."""
    command = [sys.executable, "-m", "microformer", "inspect", run, "--no-browser", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = None
        while not found:
            line = process.stdout.readline()
            assert line, "the server ended"
            found = re.search(r"http://\S+", line)
        try:
            yield found.group()
        finally:
            process.terminate()


def looked_at(browser: Any, address: str, text: str, turns: int) -> dict[str, dict[str, float]]:
    """Seconds of each, over several tabs."""
    figures: dict[str, list[float]] = {"first view": [], "every panel": [], "an edit": [], "knock-out map": []}
    for turn in range(turns + 1):
        tab = browser.new_page()
        words = text[turn:]
        began = time.perf_counter()
        tab.goto(f"{address}#{urlencode({'text': words})}")
        tab.wait_for_selector("#strip .token", timeout=60_000)
        first = time.perf_counter() - began
        every = tab.evaluate(_SETTLED)
        muted = tab.evaluate(_MUTE)
        edited = tab.evaluate(_SETTLED) - muted
        knock_out = tab.evaluate(_ASK, words)
        if turn:  # the first one warms up
            for name, seconds in zip(figures, (first, every, edited, knock_out), strict=True):
                figures[name].append(seconds)
        tab.close()
    return {
        name: {"median": statistics.median(one), "least": min(one), "most": max(one)} for name, one in figures.items()
    }


# The knock-out map of a text that was not asked yet, by itself.
_ASK = """async (text) => {
    const run = document.querySelector('select').value;
    const headers = {'X-Token': new URLSearchParams(location.search).get('token'), 'Content-Type': 'application/json'};
    const body = JSON.stringify({run, checkpoint: 'best', text: text.slice(1), edits: []});
    const began = performance.now();
    const answer = await fetch('api/knock_out', {method: 'POST', headers, body});
    await answer.arrayBuffer();
    if (!answer.ok) throw new Error(answer.status);
    return (performance.now() - began) / 1000;
}"""


def measure(options: shared.Options) -> dict[str, Any]:
    """Of each model each figure."""
    from playwright.sync_api import sync_playwright

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for number, (model, flags) in enumerate(MODELS.items()):
            shared.train(folder, f"run{number}", "--max-steps", "2", *flags)
            text = _text(folder)
            with served(folder, f"run{number}") as address:
                found[model] = looked_at(browser, address, text, 3 if options.quick else 9)
        browser.close()
    return found


def _text(folder: Path) -> str:
    """The beginning of the validation part."""
    from microformer import corpora

    data = corpora.load_prepared(folder / "data")
    assert data.val is not None
    return data.tokenizer.decode(data.val[:300].tolist())


def page(found: dict[str, Any]) -> str:
    """The section of BENCHMARKS.md."""
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for name in next(iter(found.values())):
        lines.append(
            f"| {name} | " + " | ".join(f"{shared.shown(one[name], '.2f')} s" for one in found.values()) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    shared.main(sys.modules[__name__])
