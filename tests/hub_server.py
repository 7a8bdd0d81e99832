"""A server that answers like the Hugging Face hub, as far as fetching a repository goes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TAG = "v1.0"
REPOSITORY = "somebody/tiny"


class Hub:
    """What it serves, how it misbehaves, and what it was asked.

    ``folder``: the files of the only repository, at ``COMMIT``, which is tagged ``TAG``. ``refuses``: status and error
    code of every answer about it. ``gated``: its files, not its list, are refused. ``cuts``: name of a file -> how
    often a connection is closed in the middle of it. ``resets``: with a reset, after which a client does not go on.
    ``sizes``: what the list says in place of a file's size. ``asked``: method, path and range of each request.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refuses: tuple[int, str] | None = None
        self.gated = False
        self.cuts: dict[str, int] = {}
        self.resets = False
        self.sizes: dict[str, int] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.endpoint = ""

    def files(self) -> dict[str, Path]:
        """Name in the repository -> file."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    def fetched(self) -> set[str]:
        """Names of files whose contents were asked for."""
        places = f"/{REPOSITORY}/resolve/{COMMIT}/", "/elsewhere/"
        paths = {path for method, path, _ in self.asked if method == "GET"}
        return {path.removeprefix(place) for place in places for path in paths if path.startswith(place)}


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """Run one on a free port of this machine."""
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """As GET without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """The list of a revision, its tree, or a file; large ones lie elsewhere, as the hub's do."""
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range")))
        kind, _, rest = path.removeprefix("/").partition(f"{REPOSITORY}/")
        if path.startswith("/elsewhere/"):
            self._file(path.removeprefix("/elsewhere/"))
        elif kind not in {"", "api/models/"} or not rest:
            self._refuse(401, "RepoNotFound")
        elif self.hub.refuses is not None:
            self._refuse(*self.hub.refuses)
        else:
            self._about(*rest.split("/", 2))

    def _about(self, verb: str, revision: str, name: str = "") -> None:
        if revision not in {COMMIT, TAG}:
            self._refuse(404, "RevisionNotFound")
        elif verb == "revision":
            siblings = [{"rfilename": entry["path"], "size": entry["size"]} for entry in self._entries()]
            self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "private": False})
        elif verb == "tree":
            self._json(self._entries())
        elif self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif name not in self.hub.files():
            self._refuse(404, "EntryNotFound")
        elif name.endswith(".safetensors"):
            path = self.hub.files()[name]
            self.send_response(302)
            self._headers(
                path, {"Location": f"{self.hub.endpoint}/elsewhere/{name}", "Content-Length": "0"}, linked=True
            )
        else:
            self._file(name)

    def _entries(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": self.hub.sizes.get(name, path.stat().st_size), "oid": etag(path)}
            for name, path in self.hub.files().items()
        ]

    def _file(self, name: str) -> None:
        path = self.hub.files()[name]
        data = path.read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if self.headers.get("Range") else 200)
        span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if self.headers.get("Range") else {}
        self._headers(path, {"Content-Length": str(len(data) - start), "Accept-Ranges": "bytes", **span})
        if self.command == "HEAD":
            return
        if self.hub.cuts.get(name, 0) > 0:
            self.hub.cuts[name] -= 1
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self._hang_up()
            return
        self.wfile.write(data[start:])

    def _hang_up(self) -> None:
        self.close_connection = True
        if self.hub.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # at once, without the farewell that the server would send

    def _headers(self, path: Path, more: dict[str, str], *, linked: bool = False) -> None:
        quoted = f'"{etag(path)}"'
        found = {"X-Repo-Commit": COMMIT, "ETag": quoted, **more}
        if linked:
            found |= {"X-Linked-Etag": quoted, "X-Linked-Size": str(path.stat().st_size)}
        for key, value in found.items():
            self.send_header(key, value)
        self.end_headers()

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        for key, value in {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        for key, text in {"Content-Type": "application/json", "Content-Length": str(len(data))}.items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own name
        """Say nothing."""


def etag(path: Path) -> str:
    """The name of a file's contents."""
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
