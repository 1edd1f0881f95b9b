"""Engines: a llama.cpp process for each loaded model, started on demand and ended when its time is over."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from titlegen.daemon import free_port
from titlegen.environment import python_command
from titlegen.standins.ollama.opening import Event, Opening
from titlegen.standins.ollama.store import StoredModel

log = logging.getLogger("titlegen.standins")

# Source: Ollama's default for OLLAMA_KEEP_ALIVE.
DEFAULT_KEEP_ALIVE_S = 300.0
_LOAD_TIMEOUT_S = 600.0
_POLL_S = 0.02
_STOP_TIMEOUT_S = 5.0
_HELP_TIMEOUT_S = 20.0
_LOG_TAIL_BYTES = 2000
_STARTS = 3
# 292 years: Go's longest duration, with which Ollama writes "for ever".
_FOR_EVER = timedelta(microseconds=2**63 / 1000)


class EngineError(Exception):
    """The engine could not be started, ended in the middle, or refused."""

    def __init__(self, text: str, status: int = 500) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class EngineSettings:
    """How engines run."""

    program: str | None
    """Path of a llama-server program, None for the one inside xllamacpp."""
    parallel: int
    """Requests that one engine works on at a time."""
    threads: int
    max_loaded: int
    """Engines at a time; the one unused for longest makes room for another."""
    lookup: int
    """Tokens that are looked up in the article for a pass, 0 for none."""


def find_program(engine: str) -> str | None:
    """Return the llama-server program that ``engine`` names, None for ``xllamacpp``.

    Raises:
        EngineError: there is no such program.
    """
    if engine == "xllamacpp":
        return None
    found = shutil.which(engine)
    if found is None:
        raise EngineError(f"no program {engine!r} on PATH; install llama.cpp, or use --engine xllamacpp")
    return found


def can_look_up(program: str | None) -> bool:
    """Return whether an engine can look tokens up, as older llama-server programs cannot."""
    if program is None:
        return True
    try:
        # Only its own program, which the user named.
        said = subprocess.run([program, "--help"], capture_output=True, timeout=_HELP_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"--spec-ngram-simple-size-m" in said.stdout


class Engine:
    """A running llama.cpp server for one model and one set of runner options."""

    def __init__(self, model: StoredModel, num_ctx: int, threads: int, settings: EngineSettings) -> None:
        self.model = model
        self.num_ctx = num_ctx
        self.threads = threads
        self.users = 0
        self.last_used = time.monotonic()
        self.keep_alive_s = DEFAULT_KEEP_ALIVE_S
        self.retired = False
        self.timer: asyncio.TimerHandle | None = None
        self._settings = settings
        # The engine's own queue knows neither order nor cancelling, so that requests wait here.
        self._slots = asyncio.Semaphore(settings.parallel)
        self._process: asyncio.subprocess.Process | None = None
        self._said: bytearray | None = None
        self._listener: asyncio.Task[None] | None = None
        self._client: Any = None
        # Answers that are written beside others round as the others fall.
        self._opening = Opening(self._post) if settings.parallel == 1 else None
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid if self._process else 0

    @property
    def expires(self) -> datetime:
        """When the model is unloaded, should nobody use it again."""
        keep = _FOR_EVER if self.keep_alive_s < 0 else timedelta(seconds=self.keep_alive_s)
        return datetime.now(UTC) + keep - timedelta(seconds=time.monotonic() - self.last_used)

    async def start(self, key_file: Path) -> None:
        """Start the process and wait until it answers.

        Raises:
            EngineError: the model cannot be loaded.
        """
        key = secrets.token_urlsafe(24)
        try:
            await self._start(key_file, key)
        finally:
            _remove(key_file)

    async def _start(self, key_file: Path, key: str) -> None:
        import httpx

        for attempt in range(1, _STARTS + 1):
            port = free_port()
            _write_secret(key_file, key)
            self._process = await asyncio.create_subprocess_exec(
                *self._command(port, key_file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            self._said = bytearray()
            self._listener = asyncio.create_task(self._listen(self._process.stderr))
            self._client = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {key}"},
                timeout=httpx.Timeout(None, connect=10.0),
                trust_env=False,
            )
            if await self._is_ready():
                # From here on it may quote what it is asked, which belongs into no log.
                self._said = None
                return
            # Between the choice of a port and its use another program may have taken it: try once more.
            code = self._process.returncode
            await self.stop()
            await self._listener
            said = self._said.decode(errors="replace").strip()
            log.warning("engine did not start (code %s, attempt %d): %s", code, attempt, said)
        raise EngineError(f"llama runner process has terminated: exit status {code}; error loading model")

    async def stop(self) -> None:
        """End the process."""
        if self._client is not None:
            await self._client.aclose()
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def complete(self, body: Mapping[str, object], opening: str | None = "") -> AsyncGenerator[Event]:
        """Yield the engine's events for a completion; closing the iterator cancels it.

        Args:
            body: of the request.
            opening: what the prompt has in common with all others; empty for nothing, None for what is held of the
                last one, whatever that is.

        Raises:
            EngineError: the engine refused, as it does a prompt that is longer than the window, or ended in the middle.
        """
        import httpx

        await self._slots.acquire()
        last: Event | None = None
        try:
            if self._opening is not None:
                await self._opening.hold(opening or "")
                body = {**body, "cache_prompt": opening is None or bool(opening)}
            async with self._client.stream("POST", "/completion", json=dict(body)) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(await response.aread(), response.status_code)
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        event: Event = json.loads(line.removeprefix("data: "))
                        last = event if event.get("stop") else None
                        yield event
                    elif line.startswith("error: "):
                        raise _refusal(line.removeprefix("error: ").encode(), httpx.codes.INTERNAL_SERVER_ERROR)
        except httpx.TransportError as error:
            raise await self._terminated(error) from error
        finally:
            # Whoever asked need not wait for it.
            task = asyncio.create_task(self._make_ready(last))
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)

    async def _make_ready(self, last: Event | None) -> None:
        """Let the next request have the slot of one that ended."""
        try:
            if self._opening is not None:
                # The next request finds out what became of the engine; httpx raises the second once it was stopped.
                with contextlib.suppress(EngineError, RuntimeError):
                    await self._opening.go_back(last)
        finally:
            self._slots.release()

    async def _post(self, path: str, body: Mapping[str, object]) -> Event:
        import httpx

        try:
            response = await self._client.post(path, json=dict(body))
        except httpx.TransportError as error:
            raise await self._terminated(error) from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.content, response.status_code)
        event: Event = response.json()
        return event

    async def _terminated(self, error: Exception) -> EngineError:
        process = self._process
        if process is not None:
            # The connection breaks a moment before the exit status is known.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 1.0)
        if self.alive:
            return EngineError(f"llama runner does not answer: {type(error).__name__}")
        code = process.returncode if process else None
        return EngineError(f"llama runner process has terminated: exit status {code}")

    async def _is_ready(self) -> bool:
        import httpx

        deadline = time.monotonic() + _LOAD_TIMEOUT_S
        while self.alive and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                # /slots needs the key: an answer means that the port is ours.
                if (await self._client.get("/slots")).status_code == httpx.codes.OK:
                    return True
            await asyncio.sleep(_POLL_S)
        return False

    async def _listen(self, stream: asyncio.StreamReader | None) -> None:
        """Read what the process prints, so that it never waits; keep the end of it while it starts."""
        while stream is not None and (chunk := await stream.read(2**16)):
            if self._said is not None:
                self._said = (self._said + chunk)[-_LOG_TAIL_BYTES:]

    def _command(self, port: int, key_file: Path) -> list[str]:
        options = {
            "--model": self.model.weights,
            "--port": port,
            "--key-file": key_file,
            "--parallel": self._settings.parallel,
            "--num-ctx": self.num_ctx,
            "--threads": self.threads,
            "--lookup": self._settings.lookup,
            "--parent": os.getpid(),
        }
        command = python_command("titlegen.standins.ollama.llama")
        command += [str(part) for option in options.items() for part in option]
        return [*command, "--program", self._settings.program] if self._settings.program else command


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _refusal(answer: bytes, status: int) -> EngineError:
    return EngineError(answer.decode(errors="replace"), status)
