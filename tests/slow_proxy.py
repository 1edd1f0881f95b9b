"""A proxy in front of a model server that keeps every answer back for a while, and remembers what was asked."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class SlowProxy(ThreadingHTTPServer):
    """Passes requests on to ``target``; every change of its attributes holds from the next request on."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.http = httpx.Client(base_url=target, timeout=60, trust_env=False)
        self.delay_s = 0.0
        self.answer: tuple[int, bytes] | None = None
        """Given instead of the server's answer."""
        self.closing = False
        """Whether the connection ends with the next answer."""
        self.prompts: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowProxy

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def _pass_on(self, body: bytes) -> None:
        proxy = self.server
        response = proxy.http.request(self.command, self.path, content=body)
        status, content = response.status_code, response.content
        if self.path == "/api/generate":
            proxy.prompts.append(json.loads(body)["prompt"])
            time.sleep(proxy.delay_s)
            status, content = proxy.answer or (status, content)
        self.close_connection |= proxy.closing
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
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
