"""The offline Ollama server in a process of its own, for tests."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from titlegen.daemon import free_port
from titlegen.serve.server import http_options, server_url

_START_TIMEOUT_S = 60


def chosen_server(option: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the address of the server that was named; None when none was."""
    named = option or environment.get("OLLAMA_HOST")
    return server_url(named) if named else None


class OfflineServer:
    """A running server: its address, its processes and its log."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, directory: Path, log: Path) -> None:
        self.process = process
        self.port = port
        self.directory = directory
        self.log = log
        self.host = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.host, timeout=120, **http_options(self.host))

    @property
    def engines(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def create(self, name: str, gguf: Path, **fields: Any) -> str:
        """Upload a file and make a model of it; returns the blob's digest."""
        import hashlib

        content = gguf.read_bytes()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if self.http.head(f"/api/blobs/{digest}").status_code != 200:
            self.http.post(f"/api/blobs/{digest}", content=content).raise_for_status()
        body = {"model": name, "files": {gguf.name: digest}, "stream": False} | fields
        self.http.post("/api/create", json=body).raise_for_status()
        return digest

    def generate(self, **fields: Any) -> dict[str, Any]:
        response = self.http.post("/api/generate", json={"stream": False} | fields)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def stream(self, **fields: Any) -> Iterator[dict[str, Any]]:
        with self.http.stream("POST", "/api/generate", json=fields) as response:
            for line in response.iter_lines():
                yield json.loads(line)


def wait_until(condition: Any, timeout_s: float = 60) -> None:
    """Wait until a condition holds; time is only a limit here, nothing is measured."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


@contextlib.contextmanager
def offline_server(
    directory: Path, *options: str, prefix: tuple[str, ...] = (), port: int = 0
) -> Iterator[OfflineServer]:
    """Run a server until the block ends; ``prefix`` goes before the command."""
    port = port or free_port()
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "server.log"
    command = [*prefix, sys.executable, "-m", "titlegen.standins.ollama", "--port", str(port)]
    # One thread an engine: several test processes may share two cores.
    command += ["--directory", str(directory / "models"), "--threads", "1", *options]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own command line
    server = OfflineServer(process, port, directory / "models", log)
    try:
        wait_until(lambda: process.poll() is not None or _answers(server), _START_TIMEOUT_S)
        assert process.poll() is None, log.read_text()
        yield server
    finally:
        server.http.close()
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def small_disk(bytes_free: int) -> tuple[str, ...]:
    """Return the prefix that makes a server fail, as on a full disk, in the middle of writing a larger file."""
    return ("bash", "-c", f'ulimit -f {bytes_free // 1024}; exec "$@"', "bash")


def _answers(server: OfflineServer) -> bool:
    try:
        return server.http.get("/").status_code == 200
    except httpx.TransportError:
        return False
