"""The page: a server over the runs of a folder, opened in a browser; and the same beside a training."""

import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Sequence
from contextlib import suppress

from microformer import runs
from microformer.errors import notice
from microformer.pipeline import watching

# Where the page is, if nothing else is there.
PORT = 7717


def inspect(
    run: str | None = None,
    *,
    port: int = PORT,
    browser: bool = True,
    hosts: Sequence[str] = (),
    checkpoint: str = "best",
    trust_code: bool = False,
    beside_training: bool = False,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        run: the run that is shown first, by name or folder; None: the latest. Those of the same folder can be chosen.
        port: where; the next that is free if it is taken, and any for 0.
        browser: whether to open the page in one.
        hosts: names that the page may be asked for by, besides this machine's own: those of a notebook's proxy.
        checkpoint: what is shown first of that run.
        trust_code: whether own components are run even if nothing was trained with them on this machine.
        beside_training: whether it gives way to all else, and ends when its standard input does.

    Raises:
        MicroformerError: there is no such run, or no port.
    """
    from microformer.inspection.server import Server
    from microformer.inspection.shelf import Shelf

    given = None if run is None else runs.find(run, checkpoint=checkpoint, trust_code=trust_code)
    if given is None:
        runs.find(None)  # or there would be nothing to show
    if beside_training:
        watching.give_way()
    server = Server(Shelf(runs.RUNS, given, checkpoint, trust_code), secrets.token_urlsafe(16), port, hosts)
    if beside_training:
        watching.end_with_input(server.end)
    if port and server.port != port:
        notice(f"port {port} is in use; it is {server.port} instead.")
    print(f"inspect   {server.address}\n          Ctrl-C ends it.", flush=True)
    if browser:
        _open(server.address)
    with suppress(KeyboardInterrupt):  # the end that was announced
        server.serve()


def _open(address: str) -> None:
    """Opens the page in a browser; says so where there is none."""
    graphical = sys.platform in ("win32", "darwin") or any(
        os.environ.get(one) for one in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if not graphical and "BROWSER" not in os.environ:
        # What is found then draws into the terminal, and takes it.
        notice("there is no screen to open a browser on: open the address yourself.")
        return

    def attempt() -> None:
        if not webbrowser.open(address):
            notice("no browser could be opened: open the address yourself.")

    threading.Thread(target=attempt, daemon=True).start()  # some wait for the browser to end
