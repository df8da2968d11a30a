"""A hub on this machine with datasets in Parquet files and models: as much of its interface as readers ask for."""

import hashlib
import io
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pyarrow
from pyarrow import parquet

_SHA = "1" * 40


def parquet_bytes(columns, row_group_size=100):
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), sink, row_group_size=row_group_size)
    return sink.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    datasets: dict[str, dict[str, bytes]]
    asked: list[str]
    faults: dict[str, int]

    def do_HEAD(self):
        self._answer_to("HEAD")

    def do_GET(self):
        self._answer_to("GET")

    def do_POST(self):
        self._answer_to("POST", self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer_to(self, method, body=b""):
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{method} {path}")
        if found := re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(found[1], found[2], method)
        elif (found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(/.*)?", path)) and found[
            1
        ] in self.datasets:
            self._about(found[1], found[2] or "", body)
        else:
            self._error(404, "RepoNotFound")

    def _about(self, name, what, body):
        files = self.datasets[name]
        if match := re.fullmatch(r"/tree/[^/]+/?(.*)", what):
            self._json(self._tree(files, match[1], "recursive=true" in self.path.lower()))
        elif what.startswith("/paths-info/"):
            asked = json.loads(body)["paths"]
            entries = [self._entry(path, files[path]) for path in asked if path in files]
            folders = [path for path in asked if any(one.startswith(f"{path}/") for one in files)]
            self._json(entries + [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders])
        else:
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": name, "sha": _SHA, "siblings": siblings, "private": False, "gated": False, "tags": []})

    def _tree(self, files, folder, recursive):
        root = f"{folder}/" if folder else ""
        inside = {path: data for path, data in files.items() if path.startswith(root)}
        here = [path for path in inside if recursive or "/" not in path[len(root) :]]
        entries = [self._entry(path, inside[path]) for path in here]
        folders = dict.fromkeys(root + path[len(root) :].split("/")[0] for path in inside if "/" in path[len(root) :])
        return entries + [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders]

    def _entry(self, path, data):
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _file(self, name, path, method):
        data = self.datasets.get(name, {}).get(path)
        if data is None:
            self._error(404, "EntryNotFound" if name in self.datasets else "RepoNotFound")
            return
        if method == "GET" and self.faults.get(path, 0) > 0:
            self.faults[path] -= 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        whole = len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        first, last = (int(asked[1]), int(asked[2] or whole - 1)) if asked else (0, whole - 1)
        data = data[first : last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{whole}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha1(self.datasets[name][path]).hexdigest()}"')
        self.send_header("X-Repo-Commit", _SHA)
        self.end_headers()
        if method == "GET":
            self.wfile.write(data)

    def _json(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, code, kind):
        self.send_response(code)
        self.send_header("X-Error-Code", kind)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def hub_of(datasets):
    """Yields the address, what it was asked for, and how often a file is to be refused.

    datasets: for each dataset's or model's name, its files.
    """
    handler = type("Handler", (_Handler,), {"datasets": datasets, "asked": [], "faults": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked, handler.faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
