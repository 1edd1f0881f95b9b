"""A proxy in front of a model server that keeps every answer back for a while, and remembers what was asked."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from titlegen.serve.server import http_options


class SlowProxy(ThreadingHTTPServer):
    """Passes requests on to ``target``; every change of its attributes holds from the next request on."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.http = httpx.Client(base_url=target, timeout=60, **http_options(target))
        self.delay_s = 0.0
        self.answer: tuple[int, bytes] | None = None
        """Given instead of the server's answer."""
        self.faults: list[tuple[int, bytes]] = []
        """Answers to the next requests for a title, the first first; after them the server answers again."""
        self.closing = False
        """Whether the connection ends with the next answer."""
        self.prompts: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.calls: list[str] = []
        """What was asked of the server, in order: path, model and keep_alive, or source and destination."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowProxy

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_DELETE(self) -> None:
        self.do_POST()

    def do_HEAD(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        self._pass_on(self._body())

    def _body(self) -> bytes:
        if length := self.headers["Content-Length"]:
            return self.rfile.read(int(length))
        # What is streamed comes in chunks, each behind its length.
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _pass_on(self, body: bytes) -> None:
        proxy = self.server
        fields = {} if "/blobs/" in self.path else json.loads(body or b"{}")
        named = (fields.get(key) for key in ("model", "keep_alive", "source", "destination"))
        proxy.calls.append(
            " ".join([self.path.removeprefix("/api/"), *(str(name) for name in named if name is not None)])
        )
        response = proxy.http.request(self.command, self.path, content=body)
        status, content = response.status_code, response.content
        if self.path == "/api/generate":
            proxy.prompts.append(fields.get("prompt", ""))
            proxy.options.append(fields.get("options") or {})
            time.sleep(proxy.delay_s)
            status, content = proxy.faults.pop(0) if proxy.faults else proxy.answer or (status, content)
        self.close_connection |= proxy.closing
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing: the test's output is for its failures."""


@contextmanager
def slow_proxy(target: str) -> Iterator[SlowProxy]:
    """Run a proxy until the block ends."""
    with SlowProxy(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
            proxy.http.close()
