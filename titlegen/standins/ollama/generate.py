"""``/api/generate``: renders the prompt, asks the engine, and puts its events into Ollama's form."""

import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from titlegen.standins.ollama.engine import Engine
from titlegen.standins.ollama.opening import Event
from titlegen.standins.ollama.pool import EnginePool
from titlegen.standins.ollama.requests import ApiError, Body, check_options
from titlegen.standins.ollama.store import DEFAULT_TEMPLATE, BadNameError, ModelName, ModelStore, StoredModel
from titlegen.template import Template, TemplateError, values_of

# Source: Ollama's api.DefaultOptions, where the repetition penalty is 1.1 in some versions; 1.0 changes nothing.
_SAMPLING = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": -1,
}
_DEFAULT_NUM_KEEP = 4
# Source: Ollama's llm/server.go: an answer ends after this many context windows, or this many like tokens.
_MOST_CONTEXTS, _MOST_REPEATS = 10, 30
# Source: Ollama's api, which tells of no more tokens than these.
_MOST_LIKELIEST = 20
# Stands for a prompt where only the text around it is wanted.
_MARK = "\x00prompt\x00"


class GenerateRequest:
    """One request for text: checked when it is made, carried out by ``run``."""

    def __init__(self, store: ModelStore, pool: EnginePool, body: Body) -> None:
        """Check the request.

        Raises:
            ApiError: the model is unknown, or a field or option cannot be used.
        """
        self._pool = pool
        self._body = body
        self._started = time.monotonic()
        self.name = body.get("model", "")
        self._model = _find(store, self.name)
        self._options = check_options({**self._model.parameters, **body.get("options", {})})
        self._raw = body.get("raw", False)
        if self._raw and body.get("system"):
            raise ApiError(400, "raw mode does not support template, system, or context")
        if not 0 <= body.get("top_logprobs", 0) <= _MOST_LIKELIEST:
            raise ApiError(400, f"top_logprobs must be between 0 and {_MOST_LIKELIEST}")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked: such a request loads or unloads the model."""
        return not self._body.get("prompt")

    async def run(self) -> AsyncGenerator[dict[str, object]]:
        """Yield Ollama's answer, part by part.

        Raises:
            EngineError: the model cannot be loaded, or its engine ended in the middle.
        """
        keep_alive_s = self._body["keep_alive"]
        if self.is_empty and keep_alive_s == 0:
            await self._pool.unload(self._model)
            yield self._part("", done=True, done_reason="unload")
            return
        async with self._pool.use(self._model, self._options, keep_alive_s) as engine:
            load_s = time.monotonic() - self._started
            if self.is_empty:
                yield self._part("", done=True, done_reason="load")
                return
            prompt = self._body["prompt"] if self._raw else self._render(self._body["prompt"])
            if self._body.get("_debug_render_only"):
                yield self._part("", done=False, _debug_info={"rendered_template": prompt})
                return
            async with aclosing(self._complete(engine, prompt, load_s)) as parts:
                async for part in parts:
                    yield part

    def gather(self, parts: Sequence[dict[str, Any]]) -> dict[str, object]:
        """Return the one answer that parts add up to, for a request that is not streamed."""
        # No part: the model repeated tokens without text until it was stopped.
        last = dict(parts[-1]) if parts else self._part("", done=False)
        logprobs = [entry for part in parts for entry in part.get("logprobs", ())]
        whole = last | {"response": "".join(str(part["response"]) for part in parts)}
        return whole | {"logprobs": logprobs} if logprobs else whole

    def _render(self, prompt: str) -> str:
        # An empty system text is none: the model's own holds.
        system = self._body.get("system") or self._model.text("system")
        template = Template(self._model.text("template") or DEFAULT_TEMPLATE)
        try:
            return template.render(values_of(system, prompt))
        except TemplateError as error:
            raise ApiError(500, str(error)) from error

    def _without_bos(self, text: str) -> str:
        bos = self._model.config.get("bos", "")
        return text.removeprefix(bos) if bos else text

    def _opening(self) -> str:
        """Return the text that the template puts before every prompt; empty where there is no such text."""
        before, mark, _ = self._render(_MARK).partition(_MARK)
        return self._without_bos(before) if mark else ""

    async def _complete(self, engine: Engine, prompt: str, load_s: float) -> AsyncGenerator[dict[str, object]]:
        prompt = self._without_bos(prompt)
        request = self._request(engine, prompt)
        # What is asked for raw is mostly asked for again, with more behind it.
        opening = None if self._raw else self._opening()
        async with aclosing(self._events(engine, request, load_s, opening)) as parts:
            async for part in parts:
                yield part

    async def _events(
        self, engine: Engine, request: Mapping[str, object], load_s: float, opening: str | None
    ) -> AsyncGenerator[dict[str, object]]:
        repeated, repeats = "", 0
        async with aclosing(engine.complete(request, opening)) as events:
            async for event in events:
                text = event.get("content", "")
                repeats = repeats + 1 if text.strip() == repeated else 0
                repeated = text.strip()
                if repeats > _MOST_REPEATS:
                    # Ollama, too, stops here without a last line: the answer is not done.
                    return
                if text:
                    yield self._part(text, done=False, **self._likeliest(event))
                if event.get("stop"):
                    elapsed = time.monotonic() - self._started
                    yield self._part("", done=True, **_counts(event, elapsed, load_s))
                    return

    def _request(self, engine: Engine, prompt: str) -> dict[str, object]:
        options = {**_SAMPLING, **self._options}
        most = _MOST_CONTEXTS * engine.num_ctx
        wanted = options.get("num_predict", -1)
        return {
            "prompt": prompt,
            "stream": True,
            "cache_prompt": True,
            "n_predict": wanted if 0 < wanted < most else most,
            "n_probs": self._body.get("top_logprobs", 0) or 1 if self._body.get("logprobs") else 0,
            "n_keep": options.get("num_keep", _DEFAULT_NUM_KEEP),
            "stop": options.get("stop", []),
            **{name: options[name] for name in _SAMPLING},
        }

    def _likeliest(self, event: Event) -> dict[str, object]:
        """Return what Ollama adds to a part: its token's log-probability, and the likeliest tokens there."""
        if not self._body.get("logprobs"):
            return {}
        top = self._body.get("top_logprobs", 0)
        return {
            "logprobs": [
                _named(found) | ({"top_logprobs": list(map(_named, found["top_logprobs"][:top]))} if top else {})
                for found in event.get("completion_probabilities", ())
            ]
        }

    def _part(self, text: str, *, done: bool, **fields: object) -> dict[str, object]:
        return {
            "model": self.name,
            "created_at": timestamp(datetime.now(UTC)),
            "response": text,
            "done": done,
            **fields,
        }


def _find(store: ModelStore, name: str) -> StoredModel:
    model = store.find(name.strip())
    if model is None:
        try:
            ModelName.parse(name.strip())
        except BadNameError as error:
            if name:
                raise ApiError(400, str(error)) from error
        raise ApiError(404, f"model '{name}' not found")
    return model


def timestamp(moment: datetime) -> str:
    """Return a time as Go writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _named(found: Mapping[str, Any]) -> dict[str, object]:
    return {name: found[name] for name in ("token", "logprob", "bytes")}


def _counts(event: Event, elapsed_s: float, load_s: float) -> dict[str, object]:
    timings = event.get("timings", {})
    return {
        "done_reason": "length" if event.get("stop_type") == "limit" else "stop",
        "total_duration": int(elapsed_s * 1e9),
        "load_duration": int(load_s * 1e9),
        "prompt_eval_count": event["tokens_evaluated"],
        "prompt_eval_duration": int(timings.get("prompt_ms", 0) * 1e6),
        "eval_count": event["tokens_predicted"],
        "eval_duration": int(timings.get("predicted_ms", 0) * 1e6),
    }


def line(value: Mapping[str, object]) -> bytes:
    """Return one line of NDJSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
