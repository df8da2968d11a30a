"""A server on this machine that behaves, lies, stalls or breaks off, as its address asks."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = b"All that glisters is not gold.\n" * 5000


class _Handler(BaseHTTPRequestHandler):
    released: threading.Event
    asked: list[str]
    files: dict[str, bytes]

    def do_GET(self):
        self.asked.append(self.path)
        match self.path:
            case "/good":
                self._answer(CONTENT)
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "/good")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "/lies":
                self._answer(CONTENT.replace(b"gold", b"lead"))
            case "/silent":
                self._hold()
                self._answer(CONTENT)
            case "/stalls":
                self._answer(CONTENT[: len(CONTENT) // 2], announced=len(CONTENT), then=self._hold)
            case "/resumed" | "/resumed-other":
                # Breaks off half-way the first time; then goes on from where it is asked, if it is still the same file.
                mark = '"one"' if self.path == "/resumed" or len(self.asked) == 1 else '"two"'
                content = CONTENT if mark == '"two"' or self.path == "/resumed" else CONTENT[::-1]
                first = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                if first and self.headers.get("If-Range") == mark:
                    where = f"bytes {first}-{len(content) - 1}/{len(content)}"
                    self._answer(content[first:], code=206, headers={"Content-Range": where})
                else:
                    half = len(self.asked) == 1
                    self._answer(
                        content[: len(content) // 2] if half else content, len(content), headers={"ETag": mark}
                    )
            case "/busy":
                if len(self.asked) < 3:
                    self.send_error(503)
                else:
                    self._answer(CONTENT)
            case "/short":
                self._answer(CONTENT, announced=len(CONTENT) // 3)
            case "/unknown-length":
                self._answer(CONTENT, announced=-1)
            case "/breaks":
                self._answer(CONTENT[: len(CONTENT) // 2], announced=len(CONTENT))
            case path if path in self.files:
                self._answer(self.files[path])
            case _:
                self.send_error(404)

    def _hold(self):
        """Waits until the test is over; where nobody gave up before that, it is told."""
        if not self.released.wait(30):
            self.asked.append("waited to the end")

    def _answer(self, content, announced=None, then=None, code=200, headers=None):
        self.send_response(code)
        if announced != -1:
            self.send_header("Content-Length", str(announced or len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(content)
            self.wfile.flush()
            if then is not None:
                then()
        except OSError:
            pass  # the client gave up, as it should
        self.close_connection = True

    def log_message(self, *args):
        pass


@contextmanager
def serving_file(name, content):
    """Yields the address of a file."""
    with serving({f"/{name}": content}) as (address, _):
        yield f"{address}/{name}"


@contextmanager
def serving(files=None):
    """Yields the server's address and the list of what it was asked for."""
    handler = type("Handler", (_Handler,), {"released": threading.Event(), "asked": [], "files": files or {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        handler.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
