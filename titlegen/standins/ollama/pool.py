"""The loaded models: each has an engine, started on demand and stopped when its keep-alive ends."""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

from titlegen.standins.ollama.engine import Engine, EngineSettings
from titlegen.standins.ollama.requests import Options
from titlegen.standins.ollama.store import StoredModel

log = logging.getLogger("titlegen.standins")

# Source: Ollama's default context length on machines with little GPU memory, and its smallest.
_DEFAULT_NUM_CTX, _SMALLEST_NUM_CTX = 4096, 4


class EnginePool:
    """The loaded models."""

    def __init__(self, directory: Path, settings: EngineSettings) -> None:
        self.settings = settings
        self._directory = directory
        self._engines: list[Engine] = []
        self._loading = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def use(self, model: StoredModel, options: Options, keep_alive_s: float | None) -> AsyncIterator[Engine]:
        """Yield the engine of a model, loading it when needed; it stays for ``keep_alive_s`` after its last use.

        Raises:
            EngineError: the model cannot be loaded.
        """
        engine = self._find(model, options)
        if engine is None:
            async with self._loading:
                engine = self._find(model, options) or await self._load(model, options)
        engine.users += 1
        if engine.timer is not None:
            engine.timer.cancel()
        if keep_alive_s is not None:
            engine.keep_alive_s = keep_alive_s
        try:
            yield engine
        finally:
            engine.users -= 1
            engine.last_used = time.monotonic()
            self._schedule(engine)

    def loaded(self) -> list[Engine]:
        """Return the running engines, the last used first."""
        alive = [engine for engine in self._engines if engine.alive and not engine.retired]
        return sorted(alive, key=lambda engine: engine.last_used, reverse=True)

    async def unload(self, model: StoredModel) -> None:
        """End the engines of a model as soon as nobody uses them."""
        for engine in self._engines:
            if engine.model.weights == model.weights:
                engine.keep_alive_s = 0
                self._schedule(engine)
        await self._settle()

    async def close(self) -> None:
        """End every engine."""
        for engine in self._engines:
            engine.retired = True
            if engine.timer is not None:
                engine.timer.cancel()
        await asyncio.gather(*(engine.stop() for engine in self._engines), *self._endings)

    def _find(self, model: StoredModel, options: Options) -> Engine | None:
        num_ctx, threads = self._runner(model, options)
        for engine in self._engines:
            # Models with the same weights share an engine, as they do in Ollama.
            if (
                engine.alive
                and not engine.retired
                and (engine.model.weights, engine.num_ctx, engine.threads) == (model.weights, num_ctx, threads)
            ):
                return engine
        return None

    async def _load(self, model: StoredModel, options: Options) -> Engine:
        num_ctx, threads = self._runner(model, options)
        await self._make_room(model)
        engine = Engine(model, num_ctx, threads, self.settings)
        started = time.monotonic()
        try:
            await engine.start(self._directory / f".key-{secrets.token_hex(8)}")
        except BaseException:
            await asyncio.shield(engine.stop())
            raise
        self._engines.append(engine)
        log.info("loaded %s in %.2f s (num_ctx %d)", model.name, time.monotonic() - started, num_ctx)
        return engine

    async def _make_room(self, model: StoredModel) -> None:
        """Wait until another engine may run, and none with these weights does; requests under way are finished."""
        while True:
            for engine in list(self._engines):
                # Other runner options for the same weights take the engine's place, and so does a dead one's successor.
                if engine.model.weights == model.weights or not engine.alive:
                    self._retire(engine)
            # The idle ones first, and of these the one that has been idle for longest.
            others = sorted(self.loaded(), key=lambda engine: (engine.users > 0, engine.last_used))
            for engine in others[: max(len(others) - self.settings.max_loaded + 1, 0)]:
                self._retire(engine)
            await self._settle()
            same = any(engine.model.weights == model.weights for engine in self._engines)
            if not same and len(self._engines) < self.settings.max_loaded:
                return
            self._freed.clear()
            await self._freed.wait()

    def _runner(self, model: StoredModel, options: Options) -> tuple[int, int]:
        """Return context window and threads; as in Ollama, a window is neither tiny nor larger than the model's."""
        num_ctx = max(int(options.get("num_ctx", _DEFAULT_NUM_CTX)), _SMALLEST_NUM_CTX)
        largest = model.config["context_length"] or num_ctx
        return min(num_ctx, largest), int(options.get("num_thread") or self.settings.threads)

    def _schedule(self, engine: Engine) -> None:
        """Let the engine end when its keep-alive ends, or at once when it has been retired."""
        if engine.timer is not None:
            engine.timer.cancel()
            engine.timer = None
        if engine.users:
            return
        if engine.retired or engine.keep_alive_s == 0 or not engine.alive:
            self._retire(engine)
        elif engine.keep_alive_s > 0 and math.isfinite(engine.keep_alive_s):
            engine.timer = asyncio.get_running_loop().call_later(engine.keep_alive_s, self._retire, engine)

    def _retire(self, engine: Engine) -> None:
        """Take no new request; end the process when the last one is done."""
        engine.retired = True
        if engine.users or engine not in self._engines:
            return
        self._engines.remove(engine)
        self._freed.set()
        log.info("unloading %s", engine.model.name)
        task = asyncio.get_running_loop().create_task(engine.stop())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _settle(self) -> None:
        if self._endings:
            await asyncio.gather(*self._endings)
