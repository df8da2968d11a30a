"""`microformer inspect` and `train --watch`, as a user starts and ends them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from small_runs import TINY, book, command, flags, train, without_picture_and_sample

from microformer import load_run, runs
from microformer.inspection import frames, trace
from microformer.inspection.server import Server
from microformer.inspection.shelf import Shelf
from microformer.pipeline import inspecting, watching

ADDRESS = r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]+)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("inspected"), Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        without_picture_and_sample(patch)
        Path("book.txt").write_text(book())
        assert train("--run", "r", max_steps=4) == 0
    yield folder
    os.chdir(before)


def started(*words):
    """A command in a process of its own, whose output is read line by line."""
    return subprocess.Popen(
        [sys.executable, "-m", "microformer", *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
    )  # fmt: skip


def until(process, pattern):
    """Reads on until a line has the pattern."""
    read = ""
    for line in process.stdout:
        read += line
        if found := re.search(pattern, line):
            return found
    pytest.fail(f"it never said {pattern}: {read}")


def asked(port, path, token="", body=None, timeout=30):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}", None if body is None else json.dumps(body).encode(), {"X-Token": token}
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.read()


def gone(port, seconds=20.0):
    """Whether nobody listens there any more, soon."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", int(port))) != 0:
                return True
        time.sleep(0.1)
    return False


@contextmanager
def ended(process):
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_server_prints_its_address_answers_and_ends_at_ctrl_c(folder):
    with ended(started("inspect", "r", "--no-browser", "--port", 0)) as process:
        port, token = until(process, ADDRESS).groups()
        assert "Ctrl-C ends it." in process.stdout.readline()

        listing = json.loads(asked(port, "api/runs", token))
        answer = asked(port, "api/text", token, {"run": "r", "text": "The cat"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(port, "api/runs", "wrong")
        refused.value.close()
        assert refused.value.code == 403
        assert listing["chosen"] == "r"
        np.testing.assert_allclose(
            frames.decode(answer)[1]["last_logits"], trace(load_run("r"), "The cat").logits[-1], rtol=1e-4, atol=1e-5
        )
        # An abandoned page: its stream of events is never read to the end, and holds nothing up.
        stream = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/events?run=r&token={token}", timeout=30)
        assert stream.readline() == b"retry: 2000\n"

        if sys.platform == "win32":
            process.terminate()
        else:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
            assert process.stdout.read() == ""  # nothing of a traceback
        stream.close()


def test_a_port_in_use_is_left_to_who_has_it(folder, capsys, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(Server, "serve", lambda self: (self.worker.end(), self.socket.close()))

        inspecting.inspect("r", port=taken, browser=False)

    told = capsys.readouterr()
    port, _ = re.search(ADDRESS, told.out).groups()
    assert int(port) > taken
    assert f"port {taken} is in use" in told.err


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_is_none_is_refused(folder, port, capsys):
    assert command("inspect", "r", "--no-browser", "--port", port) == 2

    assert f"--port {port} is none." in capsys.readouterr().err


def test_without_a_run_there_is_nothing_to_show(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command("inspect", "--no-browser") == 2
    assert "there is no run yet." in capsys.readouterr().err
    assert command("inspect", "nothing", "--no-browser") == 2
    assert "there is no run 'nothing'." in capsys.readouterr().err


def test_a_run_elsewhere_is_shown_by_its_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shelf = Shelf(runs.RUNS, runs.find(str(folder / "runs" / "r")))

    assert shelf.listing()["chosen"] == "r"
    assert shelf.run("r").folder == folder / "runs" / "r"


def test_where_there_is_no_screen_the_address_is_enough(monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(inspecting.webbrowser, "open", lambda address: opened.append(address) or False)
    monkeypatch.setattr(inspecting.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)

    inspecting._open("http://x")
    assert opened == []
    assert "open the address yourself" in capsys.readouterr().err

    monkeypatch.setenv("BROWSER", "some")
    inspecting._open("http://x")
    for _ in range(100):
        if opened:
            break
        time.sleep(0.02)
    assert opened == ["http://x"]


def test_training_is_watched_and_its_server_ends_with_it(folder):
    words = flags(corpus="book.txt", max_minutes=10, **TINY)
    with ended(started("train", "--run", "seen", "--watch", "--no-browser", *words)) as process:
        port, token = until(process, ADDRESS).groups()
        assert json.loads(asked(port, "api/runs", token))["chosen"] == "seen"
        stream = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/events?run=seen&token={token}", timeout=30)
        kinds = set()
        while not {"probe", "metrics", "checkpoints"} <= kinds:
            if line := stream.readline().decode().strip():
                kinds.add(line.removeprefix("event: "))
        stream.close()
        if sys.platform == "win32":
            process.kill()  # its processes know no such signals
        else:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
            assert load_run("seen").info["ended"]["how"] == "interrupted"
        assert gone(port)


def test_a_server_ends_however_its_training_did(folder):
    words = flags(corpus="book.txt", max_minutes=10, **TINY)
    with ended(started("train", "--run", "killed", "--watch", "--no-browser", *words)) as process:
        port, _ = until(process, ADDRESS).groups()
        process.kill()
        assert gone(port)


def test_a_page_that_cant_be_started_is_one_line_and_training_goes_on(folder, monkeypatch, capfd):
    without_picture_and_sample(monkeypatch)
    monkeypatch.setattr(watching.sys, "executable", "/nothing/python")

    assert train("--run", "alone", "--watch", "--no-browser", max_steps=3) == 0

    assert capfd.readouterr().err.count("the page could not be started") == 1


def test_a_server_that_ends_at_once_is_one_line_too(folder, monkeypatch, capfd):
    page = watching.Watching(browser=False)
    with page:
        page.open(runs.Run(Path("runs/nowhere")))
        assert page._process is not None
        page._process.wait(timeout=60)
        page.stay()
        time.sleep(0.2)

    assert "the page could not be started (" in capfd.readouterr().err


def test_at_a_terminal_the_page_stays_until_ctrl_c(monkeypatch, capsys):
    class Terminal:
        isatty = staticmethod(lambda: True)

    class Process:
        stdin = stdout = None
        waited = 0

        def poll(self):
            return None

        def wait(self):
            self.waited += 1
            raise KeyboardInterrupt

    page = watching.Watching()
    page._process, page.address = Process(), "http://x"
    page.stay()
    assert page._process.waited == 0  # not at a terminal
    monkeypatch.setattr(watching.sys, "stdin", Terminal())
    monkeypatch.setattr(watching.sys.stdout, "isatty", lambda: True, raising=False)
    page.stay()

    assert page._process.waited == 1
    assert "it stays until Ctrl-C" in capsys.readouterr().out
