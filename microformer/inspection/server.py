"""The page's server: a dozen routes over the runs of a folder. Read-only; what it computes, views.py says.

    GET  /, /app.js, /app.css   the page as it was built
    GET  /api/runs              the runs that can be looked into
    POST /api/<view>            an answer: words and arrays (frames.py)
    GET  /api/events            what happens to a run from now on
    POST /api/save              the view as one HTML file

Who may ask, trust.py says. Models are computed by one thread (worker.py).
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from microformer.errors import MicroformerError, SettingsError
from microformer.inspection import frames, saved, trust, views
from microformer.inspection.following import Follower, events
from microformer.inspection.shelf import Shelf
from microformer.inspection.words import AskedError, Words
from microformer.inspection.worker import Stop, Stopped, Worker

# Ports that are tried after the one asked for.
_MORE_PORTS = 50
# Questions whose answers a saved view may hold.
_MOST_SAVED = 100
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def app(shelf: Shelf, token: str, port: int, hosts: Sequence[str] = (), worker: Worker | None = None) -> trust.App:
    """The application, as ASGI has it.

    Args:
        shelf: the runs.
        token, port, hosts: see trust.Trust.
        worker: who computes; None: one of its own.
    """
    answering = _Answering(shelf, worker or Worker())
    routes = [
        Route("/", answering.page),
        Route("/api/runs", answering.runs),
        Route("/api/events", answering.events),
        Route("/api/save", answering.save, methods=["POST"]),
        Route("/api/{view}", answering.view, methods=["POST"]),
        Route("/assets/{name}", answering.page),
        Route("/{name}", answering.page),
    ]
    handlers: dict[Any, Callable[..., Any]] = {MicroformerError: _told, Stopped: _nobody, 404: _missing, 405: _missing}
    inner = Starlette(routes=routes, exception_handlers=handlers)
    inner.state.answering = answering
    return trust.Trust(inner, token, port, hosts)


class _Answering:
    def __init__(self, shelf: Shelf, worker: Worker):
        self.shelf, self.worker = shelf, worker
        self.ended = False

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        # By a list of what is there: no path of a client's is ever opened.
        there = {one.name: one for one in saved.STATIC.iterdir()} if saved.STATIC.is_dir() else {}
        if name == "index.html" and name not in there:
            saved.part(name)  # says what to do
        if name not in there or there[name].suffix not in _KINDS:
            return _missing(request)
        return Response(there[name].read_bytes(), media_type=_KINDS[there[name].suffix])

    async def runs(self, request: Request) -> Response:
        return _json(self.shelf.listing())

    async def view(self, request: Request) -> Response:
        name, words = request.path_params["view"], Words.read(await request.body())
        frame = await self._frame(request, name, words)
        return Response(frame, media_type="application/octet-stream")

    async def events(self, request: Request) -> Response:
        name = request.query_params.get("run", "")
        self.shelf.run(name)  # or it is said that there is none
        follower = Follower(self.shelf, name)
        return StreamingResponse(events(follower, lambda: self.ended), media_type="text/event-stream")

    async def save(self, request: Request) -> Response:
        words = Words.read(await request.body())
        title = words.text("title", "Microformer", most=500)
        selection = words.text("hash", "", most=200_000)
        asked = words.fields.get("requests", [])
        if not isinstance(asked, list) or len(asked) > _MOST_SAVED:
            raise AskedError("requests is no list of questions, or too long.", f"give at most {_MOST_SAVED}.")
        answers: dict[str, bytes] = {}
        for one in asked:
            match one:
                case [str(key), str(view), dict(fields)]:
                    answers[key] = await self._frame(request, view, Words(fields))
                case _:
                    raise AskedError("a request to save is not [key, view, fields].", "reload the page.")
        text = saved.page(title, selection, answers, self.shelf.listing())
        return HTMLResponse(text, headers={"content-disposition": 'attachment; filename="microformer.html"'})

    async def _frame(self, request: Request, name: str, words: Words) -> bytes:
        view = views.find(name)

        def work(stop: Stop) -> bytes:
            return frames.encode(*view.answer(views.Question(self.shelf, words, stop)))

        return await self.worker.do(work, request.is_disconnected, view.long)


def _json(value: Any, status: int = 200) -> Response:
    return Response(frames.to_json(value), status, media_type="application/json")


def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, MicroformerError)
    return _json({"error": error.sentence, "hint": error.hint}, getattr(error, "status", 400))


def _nobody(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; the number is nginx's for a client that has gone


def _missing(request: Request, error: Exception | None = None) -> Response:
    found = {"error": f"there is nothing at {request.url.path[:100]!r}.", "hint": "open / instead."}
    return JSONResponse(found, 404 if error is None else getattr(error, "status_code", 404))


class Server:
    """A server that holds its port from the moment it is made.

    Args:
        shelf, token, hosts: see `app`.
        port: the first that is tried; 0 for any.

    Raises:
        SettingsError: none of the ports can be had.
    """

    def __init__(self, shelf: Shelf, token: str, port: int, hosts: Sequence[str] = ()):
        self.socket = _bound(port)
        self.port: int = self.socket.getsockname()[1]
        self.token, self.worker = token, Worker()
        served = app(shelf, token, self.port, hosts, self.worker)
        self._answering: _Answering = served.app.state.answering  # type: ignore[attr-defined]
        config = uvicorn.Config(
            served, log_level="critical", access_log=False, lifespan="off", server_header=False, ws="none",
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = _Uvicorn(config, self._end)

    @property
    def address(self) -> str:
        """Where the page is, with the token."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def serve(self) -> None:
        """Answers until it is interrupted or told to end."""
        try:
            self._server.run(sockets=[self.socket])
        finally:
            self._end()
            self.socket.close()

    def end(self) -> None:
        """Tells it to end; from another thread."""
        self._server.should_exit = True

    def _end(self) -> None:
        self._answering.ended = True
        self.worker.end()


class _Uvicorn(uvicorn.Server):
    """Lets the streams of events end first: it would wait for them."""

    def __init__(self, config: uvicorn.Config, before_end: Callable[[], None]):
        super().__init__(config)
        self._before_end = before_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_end()
        await super().shutdown(sockets)


def _bound(port: int) -> socket.socket:
    """A socket that listens on this machine alone, at `port` or the next that is free."""
    if not 0 <= port <= 65535:
        raise SettingsError(f"--port {port} is none.", "give one from 1 to 65535, or 0 for any that is free.")
    for tried in range(port, min(port + _MORE_PORTS, 65536)):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if exclusive := getattr(socket, "SO_EXCLUSIVEADDRUSE", None):  # Windows lets two programs have one port else
            listening.setsockopt(socket.SOL_SOCKET, exclusive, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", tried))
            listening.listen(128)  # now, or another start could have it too before either listens
            return listening
        except OSError:
            listening.close()
            if port == 0:
                break
    raise SettingsError(f"no port from {port} on is free.", "give another: --port N.")
