"""A server on this machine that behaves, lies, stalls or breaks off, as its address asks."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = b"All that glisters is not gold.\n" * 5000


class _Handler(BaseHTTPRequestHandler):
    released: threading.Event
    asked: list[str]

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
                self.released.wait(30)
                self._answer(CONTENT)
            case "/stalls":
                self._answer(CONTENT[: len(CONTENT) // 2], announced=len(CONTENT), then=lambda: self.released.wait(30))
            case "/breaks":
                self._answer(CONTENT[: len(CONTENT) // 2], announced=len(CONTENT))
            case _:
                self.send_error(404)

    def _answer(self, content, announced=None, then=None):
        self.send_response(200)
        self.send_header("Content-Length", str(announced or len(content)))
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
def serving():
    """Yields the server's address and the list of what it was asked for."""
    handler = type("Handler", (_Handler,), {"released": threading.Event(), "asked": []})
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
