"""One request for a title: retried after a temporary failure, with a timeout that follows the machine's speed."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from titlegen.errors import ServeError, TitlegenError
from titlegen.retries import retry
from titlegen.serve.bounded import parse_json, read_json, read_lines, read_text
from titlegen.serve.connection import CONNECT_TIMEOUT_S, is_late, is_temporary, is_unavailable, shorten
from titlegen.serve.server import connection_failure, http_options
from titlegen.settings import ServeSettings

# Several titles are written at a time, and an article may take longer than those before it.
_MARGIN = 4.0
_REMEMBERED = 50
# Each further wait is twice the last: seven times the setting in all.
_TIMEOUT_RETRIES = 2
# serve.num_predict ends an answer long before; a longer one is not from a server that we know.
_MAX_ANSWER_CHARS = 100_000


class UnavailableError(ServeError):
    """The server or the model is missing, or the server stays busy: no other article would get an answer either."""


class Patience:
    """The timeout of an answer: the setting, or longer on a machine that has turned out to be slow."""

    def __init__(self, least_s: float) -> None:
        """Begin with the setting alone, seconds."""
        self._least_s = least_s
        self._seconds_per_token: deque[float] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def learn(self, tokens: int, seconds: float) -> None:
        """Note how long an answer to so many tokens took, with everything that ran beside it."""
        with self._lock:
            self._seconds_per_token.append(seconds / max(tokens, 1))

    def timeout_s(self, tokens: int) -> float:
        """Return how long to wait for an answer to so many tokens: four times what the slowest one took, seconds."""
        with self._lock:
            slowest = max(self._seconds_per_token, default=0.0)
        return max(self._least_s, _MARGIN * slowest * tokens)


class Endpoint:
    """The server's /api/generate; safe to use from several threads."""

    def __init__(self, url: str, settings: ServeSettings, model_name: str, say: Callable[[str], None]) -> None:
        """Open the connections; the server is not asked yet. ``say`` is told of waits that get longer."""
        import httpx

        self._url, self._settings, self._model_name, self._say = url, settings, model_name, say
        self._http = httpx.Client(base_url=url, **http_options(url))
        self._patience = Patience(settings.timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(
        self,
        content: str,
        options: dict[str, object],
        tokens: int,
        on_text: Callable[[str], None] | None = None,
        *,
        likeliest: int = 0,
    ) -> Any:
        """Return the server's answer, an ``ollama.GenerateResponse``.

        Args:
            content: the article, as it is sent.
            options: of sampling alone: a runner option, such as num_ctx, would make the server load the model anew.
            tokens: of prompt and title together, at most.
            on_text: is told what is written so far, as it is written; from the beginning again after a further try.
            likeliest: ``content`` is the whole prompt with the beginning of a title, and the answer tells so many of
                the likeliest tokens at each place behind it.

        Raises:
            ServeError: no answer came, also after the further tries, or none that can be used.
        """
        stream = on_text is not None
        body = {"model": self._model_name, "prompt": content, "stream": stream, "options": options}
        if likeliest:
            body |= {"raw": True, "logprobs": True, "top_logprobs": likeliest}
        wait_s = self._patience.timeout_s(tokens)
        timeouts = 0

        def ask() -> Any:
            started = time.monotonic()
            answer = self._post(body, wait_s) if on_text is None else self._stream(body, wait_s, on_text)
            self._patience.learn(tokens, time.monotonic() - started)
            return answer

        def may_pass(error: Exception) -> bool:
            nonlocal wait_s, timeouts
            if not is_late(error):
                return is_temporary(error)
            timeouts += 1
            if timeouts > min(_TIMEOUT_RETRIES, self._settings.retries):
                return False
            wait_s *= 2
            self._say(f"{self._url} did not answer within {wait_s / 2:g} s; asking again, and waiting {wait_s:g} s")
            return True

        try:
            return retry(ask, may_pass, self._settings.retries)
        except Exception as error:
            raise self._explain(error, wait_s) from error

    @contextlib.contextmanager
    def _open(self, body: dict[str, object], wait_s: float) -> Iterator[Any]:
        """Ask, and yield the answer's head; its body has to come within as long again."""
        import httpx
        import ollama

        timeout = httpx.Timeout(wait_s, connect=CONNECT_TIMEOUT_S, pool=None)
        with self._http.stream("POST", "/api/generate", json=body, timeout=timeout) as response:
            if not response.is_success:
                said = read_text(response, wait_s).strip() or f"status {response.status_code} without a word"
                raise ollama.ResponseError(said, response.status_code)
            yield response

    def _post(self, body: dict[str, object], wait_s: float) -> Any:
        import ollama

        with self._open(body, wait_s) as response:
            return ollama.GenerateResponse(**_checked(read_json(response, wait_s)))

    def _stream(self, body: dict[str, object], wait_s: float, on_text: Callable[[str], None]) -> Any:
        """Return the last part of an answer in parts, with the text of all of them."""
        import ollama

        text, part = "", {}
        with self._open(body, wait_s) as response:
            for line in read_lines(response, wait_s):
                part = _checked(parse_json(line))
                text += part.get("response") or ""
                if len(text) > _MAX_ANSWER_CHARS:
                    raise ValueError("the answer does not end")
                on_text(text)
        return ollama.GenerateResponse(**{**part, "response": text})

    def _explain(self, error: Exception, wait_s: float) -> TitlegenError:
        import httpx
        import ollama

        url, tries = self._url, f"also after {self._settings.retries} further tries"
        failure: TitlegenError
        if is_late(error):
            failure = ServeError(
                f"{url} did not answer within {wait_s:g} s; raise serve.timeout_s, or look at its load"
            )
        elif isinstance(error, ollama.ResponseError) and error.status_code == httpx.codes.NOT_FOUND:
            failure = UnavailableError(f"{url} has no model {self._model_name!r}; run `titlegen deploy` first")
        elif isinstance(error, ollama.ResponseError) and is_unavailable(error):
            failure = UnavailableError(f"{url} is busy, {tries} ({shorten(error)}); ask later, or raise serve.retries")
        elif isinstance(error, ollama.ResponseError):
            refused = f"failed, {tries}" if is_temporary(error) else "refused"
            failure = ServeError(f"{url} {refused}: {shorten(error)}; see the server's log")
        elif is_unavailable(error):
            failure = UnavailableError(
                f"no server answers at {url} ({connection_failure(error)}); run `titlegen serve`, or correct serve.host"
            )
        elif isinstance(error, (ValueError, TypeError, httpx.HTTPError)):
            failure = ServeError(
                f"{url} gave no answer as Ollama gives it ({type(error).__name__}); another program may answer there: "
                "correct serve.host"
            )
        else:
            raise error
        return failure


def _checked(part: Any) -> dict[str, Any]:
    """Return an answer, or a part of one, that holds no error; a server that has begun to answer sends one there."""
    import httpx
    import ollama

    if not isinstance(part, dict):
        raise TypeError("a part of the answer is no object")
    if "error" in part:
        raise ollama.ResponseError(str(part["error"]), httpx.codes.INTERNAL_SERVER_ERROR)
    return part
