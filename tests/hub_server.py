"""The bundled Hub as a process of its own, for the tests, with a fault switch; and a connection that breaks."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from titlegen.daemon import free_port
from titlegen.standins import HUB_TOKEN

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class HubServer:
    """``python -m titlegen.standins.hub`` on a directory."""

    def __init__(self, directory: Path, *, faults: bool = True) -> None:
        self.directory, self.port, self._faults = directory, free_port(), faults
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {HUB_TOKEN}"}, trust_env=False)
        self.start()

    def start(self) -> None:
        program = [str(Path(__file__).with_name("faulty_hub.py"))] if self._faults else ["-m", "titlegen.standins.hub"]
        command = [sys.executable, *program, "--port", str(self.port), "--directory", str(self.directory)]
        self.process = subprocess.Popen(command)  # noqa: S603 - our own server
        while True:
            assert self.process.poll() is None, "the server ended while starting"
            with contextlib.suppress(httpx.TransportError):
                httpx.get(self.url, trust_env=False)
                return
            time.sleep(0.05)

    def kill(self) -> None:
        """End the process like a power cut does."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait()
        self.http.close()

    def api(self) -> "HfApi":
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, token=HUB_TOKEN)

    def break_at(self, *faults: dict[str, Any]) -> None:
        """Set the faults, and forget the requests so far."""
        self.http.post("/_faults", content=json.dumps(faults)).raise_for_status()

    def requests(self) -> list[dict[str, Any]]:
        """Return the requests since the faults were set."""
        found: list[dict[str, Any]] = self.http.get("/_faults").json()
        return found


class BreakingProxy:
    """A TCP connection to a server that breaks for good after so many bytes from the client, until it is mended."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._left: int | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def break_after(self, count: int) -> None:
        self._left = count

    def mend(self) -> None:
        self._left = None

    def close(self) -> None:
        # A thread that waits in accept keeps the socket open: this wakes it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(2**16):
                if counted:
                    block, broken = self._allow(block)
                    sink.sendall(block)
                    if broken:
                        break
                else:
                    sink.sendall(block)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _allow(self, block: bytes) -> tuple[bytes, bool]:
        with self._lock:
            if self._left is None:
                return block, False
            allowed = block[: self._left]
            self._left -= len(allowed)
            return allowed, self._left == 0
