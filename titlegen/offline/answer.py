"""``/api/generate`` and ``/api/chat``: the prompt rendered, the engine asked, its events put into Ollama's words."""

import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from titlegen.offline.engine import Engine, EnginePool, PromptTooLongError
from titlegen.offline.requests import ApiError, check_format, check_options, parse_messages
from titlegen.offline.store import ModelName, Store, StoredModel
from titlegen.offline.template import Template, TemplateError

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
_MOST_ALTERNATIVES = 20

Route = Literal["generate", "chat"]


class Answer:
    """One request for text: checked when it is made, carried out by ``run``."""

    def __init__(self, route: Route, store: Store, pool: EnginePool, body: Mapping[str, Any]) -> None:
        """Check the request.

        Raises:
            ApiError: the model is unknown, or a field or option cannot be used.
        """
        self._route = route
        self._pool = pool
        self._body = body
        self._started = time.monotonic()
        self.name = body.get("model", "")
        model = store.find(self.name)
        if model is None:
            raise ApiError(404, f"model '{self.name}' not found")
        self._model: StoredModel = model
        self._refuse_unsupported()
        check_format(body.get("format"))
        self._options = check_options({**model.parameters, **body.get("options", {})})
        self._messages = self._conversation()
        try:
            self._template = Template(body.get("template") or model.text("template") or "{{ .Prompt }}")
        except TemplateError as error:
            raise ApiError(400, str(error)) from error

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked: such a request loads or unloads the model."""
        return not (self._body.get("prompt") if self._route == "generate" else self._body.get("messages"))

    async def run(self) -> AsyncGenerator[dict[str, Any]]:
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
            prompt = await self._render(engine)
            if self._body.get("_debug_render_only"):
                yield self._part("", done=False, _debug_info={"rendered_template": prompt})
                return
            async with aclosing(self._complete(engine, prompt, load_s)) as parts:
                async for part in parts:
                    yield part

    def gather(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the one answer that parts add up to, for a request that is not streamed."""
        # None at all: the model repeated what is no text, until it was stopped.
        last = dict(parts[-1]) if parts else self._part("", done=False)
        text = "".join(self._text(part) for part in parts)
        if self._route == "chat":
            last["message"] = {"role": "assistant", "content": text}
        else:
            last["response"] = text
        if probabilities := [entry for part in parts for entry in part.get("logprobs", [])]:
            last["logprobs"] = probabilities
        return last

    def _refuse_unsupported(self) -> None:
        body = self._body
        if body.get("suffix"):
            full_name = ModelName.parse(self._model.full_name).full
            raise ApiError(400, f"{full_name} does not support insert")
        if body.get("think"):
            raise ApiError(400, f'"{self.name}" does not support thinking')
        if body.get("images"):
            raise ApiError(400, "this model is missing data required for image input")
        if body.get("raw") and (body.get("template") or body.get("system") or body.get("context")):
            raise ApiError(400, "raw mode does not support template, system, or context")
        if not all(isinstance(token, int) for token in body.get("context", [])):
            raise ApiError(400, "json: cannot unmarshal into Go struct field GenerateRequest.context of type int")
        if not 0 <= body.get("top_logprobs", 0) <= _MOST_ALTERNATIVES:
            raise ApiError(400, f"top_logprobs must be between 0 and {_MOST_ALTERNATIVES}")

    def _conversation(self) -> list[dict[str, str]]:
        system = self._model.text("system")
        if self._route == "chat":
            messages = parse_messages(self._body.get("messages", []))
            has_system = bool(messages) and messages[0]["role"] == "system"
        else:
            messages = [{"role": "user", "content": self._body.get("prompt", "")}]
            # An empty system text in the request counts: it switches the model's own off.
            system = self._body.get("system", system)
            has_system = False
        return messages if has_system or not system else [{"role": "system", "content": system}, *messages]

    async def _render(self, engine: Engine) -> str:
        if self._body.get("raw"):
            return str(self._body.get("prompt", ""))
        history = self._body.get("context")
        return (await engine.detokenize(history) if history else "") + self._template.render(self._messages)

    async def _complete(self, engine: Engine, prompt: str, load_s: float) -> AsyncGenerator[dict[str, Any]]:
        # Once: llama.cpp takes milliseconds for the tokens of an article.
        bos = self._model.config.get("bos", "")
        tokens = await engine.tokenize(prompt.removeprefix(bos) if bos else prompt)
        request = self._request(engine, tokens)
        finish = partial(self._finish, engine, prompt, tokens, load_s)
        try:
            async with aclosing(self._events(engine, request)) as parts:
                async for part in parts:
                    yield part if "done_reason" not in part else await finish(part)
        except PromptTooLongError as error:
            if not self._body.get("truncate", True):
                raise ApiError(400, str(error)) from error
            request["prompt"] = engine.head + self._shorten(engine, tokens)
            async with aclosing(self._events(engine, request)) as parts:
                async for part in parts:
                    yield part if "done_reason" not in part else await finish(part)

    async def _events(self, engine: Engine, request: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        repeated, repeats = "", 0
        self._said = ""
        async with aclosing(engine.complete(request)) as events:
            async for event in events:
                text = event.get("content", "")
                repeats = repeats + 1 if text.strip() == repeated else 0
                repeated = text.strip()
                if repeats > _MOST_REPEATS:
                    # Ollama, too, stops here without a last line: the answer is not done.
                    return
                if text:
                    self._said += text
                    extra = {"logprobs": _probabilities(event)} if self._body.get("logprobs") else {}
                    yield self._part(text, done=False, **extra)
                if event.get("stop"):
                    yield _counts(event)
                    return

    async def _finish(
        self, engine: Engine, prompt: str, tokens: list[int], load_s: float, counts: dict[str, Any]
    ) -> dict[str, Any]:
        last = self._part("", done=True, done_reason=counts.pop("done_reason"))
        if self._route == "generate" and not self._body.get("raw"):
            last["context"] = await self._context(engine, prompt, tokens)
        elapsed = time.monotonic() - self._started
        last |= {"total_duration": int(elapsed * 1e9), "load_duration": int(load_s * 1e9)}
        return last | counts

    async def _context(self, engine: Engine, prompt: str, tokens: list[int]) -> list[int]:
        if self._model.config.get("space_prefix", True):
            # The answer alone would begin with a space that the model did not write.
            return await engine.tokenize(prompt + self._said)
        bos = self._model.config.get("bos", "")
        return [*(engine.head if bos and prompt.startswith(bos) else []), *tokens, *await engine.tokenize(self._said)]

    def _request(self, engine: Engine, tokens: list[int]) -> dict[str, Any]:
        options = _SAMPLING | self._options
        most = _MOST_CONTEXTS * engine.num_ctx
        wanted = options.get("num_predict", -1)
        request = {
            # An empty text is a prompt to the engine, and an empty list is none.
            "prompt": [*engine.head, *tokens, *engine.tail] or "",
            "stream": True,
            "cache_prompt": True,
            "n_predict": wanted if 0 < wanted < most else most,
            "n_keep": options.get("num_keep", _DEFAULT_NUM_KEEP),
            "stop": options.get("stop", []),
            **{name: options[name] for name in _SAMPLING},
        }
        if self._body.get("logprobs"):
            request["n_probs"] = max(self._body.get("top_logprobs", 0), 1)
        if form := self._body.get("format"):
            request["json_schema"] = {"type": "object"} if form == "json" else form
        return request

    def _shorten(self, engine: Engine, prompt: list[int]) -> list[int]:
        """Return the beginning and the last half window of a prompt, as Ollama cuts it without saying so."""
        keep = min(self._options.get("num_keep", _DEFAULT_NUM_KEEP), engine.num_ctx // 2)
        return prompt[:keep] + prompt[-((engine.num_ctx - keep) // 2) :]

    def _part(self, text: str, *, done: bool, **fields: Any) -> dict[str, Any]:
        content = {"message": {"role": "assistant", "content": text}} if self._route == "chat" else {"response": text}
        return {"model": self.name, "created_at": timestamp(datetime.now(UTC)), **content, "done": done, **fields}

    def _text(self, part: Mapping[str, Any]) -> str:
        return str(part["message"]["content"] if self._route == "chat" else part["response"])


def timestamp(moment: datetime) -> str:
    """Return a time as Go writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _counts(event: Mapping[str, Any]) -> dict[str, Any]:
    timings = event.get("timings", {})
    return {
        "done_reason": "length" if event.get("stop_type") == "limit" else "stop",
        "prompt_eval_count": event["tokens_evaluated"],
        "prompt_eval_duration": int(timings.get("prompt_ms", 0) * 1e6),
        "eval_count": event["tokens_predicted"],
        "eval_duration": int(timings.get("predicted_ms", 0) * 1e6),
    }


def _probabilities(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "token": entry["token"],
            "logprob": entry["logprob"],
            "bytes": entry["bytes"],
            "top_logprobs": [
                {"token": other["token"], "logprob": other["logprob"], "bytes": other["bytes"]}
                for other in entry.get("top_logprobs", [])
            ],
        }
        for entry in event.get("completion_probabilities", [])
    ]


def line(value: Mapping[str, Any]) -> bytes:
    """Return one line of NDJSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
