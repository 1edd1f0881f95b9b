"""The part of the Hub's protocol that reading a data set takes, over files in memory."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "a" * 40


class DatasetHub(ThreadingHTTPServer):
    """Serves data sets by name; one without files is gated, and any other name does not exist."""

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repositories = repositories
        self.bytes_sent = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[DatasetHub]:
    with DatasetHub(repositories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: DatasetHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        files = self._files()
        if files is not None:
            wanted = [path.strip("/") for path in body.get("paths", [])]
            self._json([entry for entry in _entries(files, recursive=True) if entry["path"] in wanted])

    def do_GET(self) -> None:
        files = self._files()
        if files is None:
            return
        path = unquote(self.path.split("?")[0])
        if "/resolve/" in path:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            self._file(files[name]) if name in files else self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif "/tree/" in path:
            folder = path.split("/tree/")[1].partition("/")[2].strip("/")
            below = {name: data for name, data in files.items() if name.startswith(f"{folder}/" if folder else "")}
            if folder and not below:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            self._json(_entries(below, folder, recursive="recursive=true" in self.path.lower()))
        else:
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": self._repository(), "sha": COMMIT, "siblings": siblings, "tags": []})

    def _repository(self) -> str:
        parts = unquote(self.path.split("?")[0]).strip("/").split("/")
        start = parts.index("datasets") + 1 if "datasets" in parts else 0
        return "/".join(parts[start : start + 2])

    def _files(self) -> Mapping[str, bytes] | None:
        files = self.server.repositories.get(self._repository())
        if files:
            return files
        if files is None:
            self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        else:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        return None

    def _file(self, data: bytes) -> None:
        headers = {"ETag": f'"{len(data)}"', "X-Repo-Commit": COMMIT}
        if self.command == "HEAD" or "Range" not in self.headers:
            self._answer(200, data, headers)
            return
        start, end = (int(place) for place in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = data[start : end + 1]
        self._answer(206, part, {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode())

    def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.server.bytes_sent += len(body)
            self.wfile.write(body)


def _entries(files: Mapping[str, bytes], folder: str = "", *, recursive: bool) -> list[dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    start = len(folder) + 1 if folder else 0
    for name, data in files.items():
        parts = name[start:].split("/")
        for depth in range(1, len(parts)):
            path = name[:start] + "/".join(parts[:depth])
            if recursive or depth == 1:
                found.setdefault(path, {"type": "directory", "path": path, "oid": "2"})
        if recursive or len(parts) == 1:
            found[name] = {"type": "file", "path": name, "size": len(data), "oid": "1"}
    return list(found.values())
