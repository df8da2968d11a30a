"""A page beside a training: it waits for the first checkpoint, goes with the probes, and ends at the best weights."""

import subprocess
import sys

import small_runs
from pages import SETTINGS, numbers, settled


def test_the_page_goes_with_a_training_to_its_end(opened, folder):
    words = small_runs.flags(**{**SETTINGS, "max_steps": 600, "eval_every": 300})
    command = [sys.executable, "-m", "microformer", "train", "--run", "growing", *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as training:
        while not (folder / "runs" / "growing" / "run.json").is_file():
            assert training.poll() is None
        page = opened(run="growing", follow=1, may_fail=True)
        page.wait_for_selector("#strip .token", timeout=60_000)
        page.wait_for_function("() => /checkpoint=probe-\\d+/.test(location.hash)", timeout=60_000)
        first = int(page.evaluate("() => location.hash.match(/probe-(\\d+)/)[1]"))
        page.wait_for_function(
            "(first) => Number(location.hash.match(/probe-(\\d+)/)?.[1] ?? 0) > first", arg=first, timeout=60_000
        )
        page.wait_for_function("() => !location.hash.includes('follow')", timeout=120_000)
        assert training.wait() == 0
    settled(page)

    assert "probe" not in page.url  # the best weights, now that there are some that will stay
    found = numbers(page, "time")
    assert found["rows"][-1]["step"] == found["probes"][-1] == 600
