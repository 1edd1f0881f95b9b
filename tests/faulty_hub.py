"""The bundled Hub with a switch that breaks it on purpose, so that tests see what the real client makes of it.

``python tests/faulty_hub.py --port N --directory DIR``
"""

import argparse
import asyncio
import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import uvicorn
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from titlegen.standins import HUB_TOKEN
from titlegen.standins.hub import store
from titlegen.standins.hub.app import create_app
from titlegen.standins.hub.incoming import Incoming
from titlegen.standins.hub.records import CommitChange, Repository, StoredFile

ROUTE = "/_faults"
_MAX_RULES_BYTES = 2**16


class Fault(BaseModel):
    """One thing to break: the matching requests, or the matching steps of writing to disk."""

    model_config = ConfigDict(extra="forbid")

    at: str
    """Regular expression for `METHOD /path`, or a step: `write`, `object`, `commit`, `ref`."""
    skip: int = 0
    """Let so many matches pass first."""
    times: int = 1
    """Break so many matches after that."""
    status: int | None = None
    """Answer a request with this HTTP status instead of doing it."""
    headers: dict[str, str] = {}
    """Headers of that answer."""
    errno: str | None = None
    """Fail a step with this error of the operating system, such as ENOSPC."""
    corrupt: bool = False
    """Flip the last byte of a file at the step `object`, after it was checked."""
    pause_s: float = 0.0
    """Wait, seconds, before anything else."""


class FaultSwitch:
    """ASGI middleware that applies the faults, and notes every request with the bytes it received.

    ``GET /_faults`` returns the requests so far, ``POST /_faults`` replaces the faults and forgets the requests.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self.faults: list[Fault] = []
        self.requests: list[dict[str, Any]] = []

    def wrap(self, app: ASGIApp) -> ASGIApp:
        self._app = app
        return self

    def reached(self, step: str, path: Path) -> None:
        """Break a step of writing ``path``, if a fault says so."""
        fault = self._take(step)
        if fault is None:
            return
        time.sleep(fault.pause_s)
        if fault.errno is not None:
            number: int = getattr(errno, fault.errno)
            raise OSError(number, os.strerror(number), str(path))
        if fault.corrupt:
            with path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last[0] ^ 1]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == ROUTE:
            await self._administrate(scope, receive, send)
        else:
            await self._observe(scope, receive, send)

    async def _observe(self, scope: Scope, receive: Receive, send: Send) -> None:
        noted: dict[str, Any] = {"method": scope["method"], "path": scope["path"], "bytes": 0, "status": None}
        self.requests.append(noted)

        async def counting_receive() -> Message:
            message = await receive()
            noted["bytes"] += len(message.get("body", b""))
            return message

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                noted["status"] = message["status"]
            await send(message)

        fault = self._take(f"{scope['method']} {scope['path']}")
        if fault is not None:
            await asyncio.sleep(fault.pause_s)
            if fault.status is not None:
                while (await counting_receive()).get("more_body"):
                    pass
                answer = JSONResponse({"error": f"planned {fault.status}"}, fault.status, fault.headers)
                await answer(scope, receive, noting_send)
                return
        assert self._app is not None
        await self._app(scope, counting_receive, noting_send)

    async def _administrate(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            body, more = b"", True
            while more and len(body) < _MAX_RULES_BYTES:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self.faults = [Fault.model_validate(fault) for fault in json.loads(body)]
            self.requests = []
        await JSONResponse(self.requests)(scope, receive, send)

    def _take(self, what: str) -> Fault | None:
        for fault in self.faults:
            if re.fullmatch(fault.at, what) and (fault.skip or fault.times):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None


def faulty_app(directory: Path, token: str = HUB_TOKEN) -> ASGIApp:
    """Return the Hub with the switch, also in the steps of writing."""
    switch = FaultSwitch()

    class FaultyIncoming(Incoming):
        @contextlib.contextmanager
        def writer(self, part: int) -> Iterator[IO[bytes]]:
            switch.reached("write", self.path)
            with super().writer(part) as file:
                yield file

    class FaultyStore(store.RepositoryStore):
        def put(self, content: bytes) -> StoredFile:
            switch.reached("write", self.directory)
            return super().put(content)

        def _keep(self, temporary: Path, sha256: str) -> None:
            switch.reached("object", temporary)
            super()._keep(temporary, sha256)

        def _write_commit(
            self, repo_id: str, parent: str | None, files: dict[str, StoredFile], change: CommitChange
        ) -> str:
            switch.reached("commit", self.directory)
            return super()._write_commit(repo_id, parent, files, change)

        def _write_repository(self, repo_id: str, repository: Repository) -> None:
            switch.reached("ref", self.directory)
            super()._write_repository(repo_id, repository)

    setattr(store, "Incoming", FaultyIncoming)  # noqa: B010 - the name is not exported
    return switch.wrap(create_app(FaultyStore(directory), token))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    hub = faulty_app(arguments.directory)
    uvicorn.run(hub, host="127.0.0.1", port=arguments.port, log_level="warning", ws="none", lifespan="off")
