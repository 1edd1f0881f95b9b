"""The client: an article of any size in, a title out; nothing is cut off without a word."""

import dataclasses
import itertools
import random
import re
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from titlegen.errors import DataError, ServeError, TitlegenError
from titlegen.prompt import neutralise_control_tokens, render_prompt
from titlegen.serve.server import connection_failure, http_options, server_url
from titlegen.settings import ServeSettings
from titlegen.text import clean_content, first_line, trim_to_tokens

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 8.0
_CONNECT_TIMEOUT_S = 10.0
# A book; what is longer is cut before cleaning, whose time grows with the text.
_MAX_CHARS = 2_000_000
# Bytes that no text holds, and what decoding puts where it failed.
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f\ufffd]")
_MAX_BINARY_SHARE = 0.05
# Requests under way at a time for many articles.
CONCURRENCY = 4
_ABORTED = "aborted"

T = TypeVar("T")
R = TypeVar("R")


class UnavailableError(ServeError):
    """Neither server nor model is there, or the server stays busy: no other article would get an answer either."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the model wrote for an article."""

    title: str
    """The first line of text, with control tokens made plain."""
    raw: str
    """Everything that it wrote."""
    done_reason: str
    """``stop`` (the model ended its title), ``length`` (it was cut off), ``aborted`` (the server broke off)."""
    prompt_tokens: int
    eval_tokens: int
    total_s: float
    load_s: float
    trimmed: bool
    """Whether the end of the article was left out, at a sentence end, to fit the context window."""


class Client:
    """Asks a deployed model for titles; safe to use from several threads."""

    def __init__(
        self,
        settings: ServeSettings,
        model_directory: Path | None = None,
        *,
        model_name: str | None = None,
        max_content_tokens: int | None = None,
    ) -> None:
        """Open the tokenizer; the server is not asked yet.

        Args:
            settings: where the server is, and the model's context window.
            model_directory: the exported model, for its tokenizer.json; without it, tokens are counted as bytes, of
                which there are never fewer, so that articles are trimmed earlier than they need be.
            model_name: another model than ``settings.model_name``.
            max_content_tokens: token budget of the article, where it is smaller than the context window's.

        Raises:
            ServeError: the directory has no tokenizer.
        """
        import httpx
        import ollama

        self.settings = settings
        self.model_name = model_name or settings.model_name
        self.url = server_url(settings.host)
        self._has_tokenizer = model_directory is not None
        self._count = _token_counter(model_directory) if model_directory is not None else _count_bytes
        timeout = httpx.Timeout(settings.timeout_s, connect=_CONNECT_TIMEOUT_S)
        self._ollama = ollama.Client(host=self.url, timeout=timeout, **http_options(self.url))
        # Whoever forgets to close leaves no open connection behind.
        self._finalizer = weakref.finalize(self, self._ollama.close)
        around = self._count(render_prompt(""))
        self.content_tokens = settings.num_ctx - settings.num_predict - around
        if self.content_tokens < 1:
            raise ServeError(
                f"serve.num_ctx = {settings.num_ctx} leaves no room for an article beside {around} tokens of "
                f"instruction and {settings.num_predict} of title; raise it"
            )
        self.content_tokens = min(self.content_tokens, max_content_tokens or self.content_tokens)

    def close(self) -> None:
        """Close the connections."""
        self._finalizer()

    def generate(self, article: str) -> Answer:
        """Return a title for an article.

        Raises:
            DataError: nothing of the article is left after cleaning.
            ServeError: the server, the model or its answer cannot be used.
        """
        return self._titles([self.ask(article)])[0]

    def generate_candidates(self, article: str, number: int) -> list[Answer]:
        """Return up to ``number`` different titles, the best first (:func:`titlegen.metrics.ranking.rank_titles`).

        Raises:
            DataError: nothing of the article is left after cleaning.
            ServeError: the server, the model or all of its answers cannot be used.
        """
        different: dict[str, Answer] = {}
        for answer in self._titles(self.ask_candidates(article, number)):
            different.setdefault(answer.title, answer)
        return list(different.values())

    def ask_candidates(self, article: str, number: int) -> list[Answer]:
        """Return whatever the model writes for an article in ``number`` tries, the best first, titles or not.

        Raises:
            DataError: nothing of the article is left after cleaning.
            ServeError: the server or the model cannot be used, or the server cut the prompt.
        """
        from titlegen.metrics.ranking import candidate_temperature, rank_titles

        content, trimmed = self.prepare(article)
        hot = {"temperature": candidate_temperature(self.settings.temperature)}
        options = [({} if seed == 0 else hot) | {"seed": seed} for seed in range(number)]
        answers = [self._ask(content, option, trimmed=trimmed) for option in options]
        ranked = [answers[index] for index in rank_titles([answer.raw for answer in answers], content)]
        # A title that was cut off comes after every whole one.
        return sorted(ranked, key=lambda answer: answer.done_reason != "stop")

    def generate_many(
        self, articles: Iterable[str], concurrency: int = CONCURRENCY, *, number: int = 1
    ) -> Generator[list[Answer] | TitlegenError]:
        """Yield for each article, in order, its titles or the error that it met; one bad article stops nothing.

        At most ``concurrency`` requests are under way; articles are taken from the iterable as they are needed.

        Args:
            articles: the articles.
            concurrency: articles that are worked on at a time.
            number: titles for each article, at most, the best first.
        """

        def titles_or_error(article: str) -> list[Answer] | TitlegenError:
            try:
                return self.generate_candidates(article, number)
            except TitlegenError as error:
                return error

        return _in_order(titles_or_error, articles, concurrency)

    def _titles(self, answers: Sequence[Answer]) -> list[Answer]:
        """Return the answers that are titles.

        Raises:
            ServeError: none is.
        """
        found = [answer for answer in answers if answer.title and answer.done_reason != _ABORTED]
        if found:
            return found
        aborted = any(answer.done_reason == _ABORTED for answer in answers)
        what = "repeated itself until the server broke off" if aborted else "wrote nothing for this article"
        raise ServeError(f"{self.model_name} {what}; deploy a better trained model")

    def ask(self, article: str, options: Mapping[str, Any] | None = None) -> Answer:
        """Return whatever the model writes for an article, a title or not.

        Raises:
            DataError: nothing of the article is left after cleaning.
            ServeError: the server or the model cannot be used, or the server cut the prompt.
        """
        content, trimmed = self.prepare(article)
        return self._ask(content, dict(options or {}), trimmed=trimmed)

    def _ask(self, content: str, options: dict[str, Any], *, trimmed: bool) -> Answer:
        answer = self._send(content, options)
        self._check_count(content, answer.prompt_eval_count or 0)
        raw = answer.response or ""
        return Answer(
            title=neutralise_control_tokens(first_line(raw)),
            raw=raw,
            # A repetition makes Ollama stop without saying that it is done.
            done_reason=(answer.done_reason or "") if answer.done else _ABORTED,
            prompt_tokens=answer.prompt_eval_count or 0,
            eval_tokens=answer.eval_count or 0,
            total_s=(answer.total_duration or 0) / 1e9,
            load_s=(answer.load_duration or 0) / 1e9,
            trimmed=trimmed,
        )

    def prepare(self, article: str) -> tuple[str, bool]:
        """Return the article as it is sent, cleaned and within the token budget, and whether it was trimmed.

        Raises:
            DataError: nothing is left of it.
        """
        if len(_BINARY.findall(article[:_MAX_CHARS])) > _MAX_BINARY_SHARE * len(article):
            raise DataError(f"the article is no text (it begins with {article[:20]!r}); give UTF-8 text")
        content = neutralise_control_tokens(clean_content(article[:_MAX_CHARS])).strip()
        if not any(char.isalnum() for char in content):
            shown = article.strip()[:40]
            raise DataError(f"nothing is left of the article after cleaning (it began with {shown!r}); give its text")
        sent = trim_to_tokens(content, self.content_tokens, self._count)
        if not sent:
            raise DataError(
                f"the article's first word alone has more than {self.content_tokens} tokens; give a text in sentences"
            )
        return sent, len(sent) < len(content) or len(article) > _MAX_CHARS

    def expected_tokens(self, content: str) -> int | None:
        """Return how many tokens the server should count for a prepared article; None without a tokenizer."""
        return self._count(render_prompt(content)) if self._has_tokenizer else None

    def _check_count(self, content: str, found: int) -> None:
        expected = self.expected_tokens(content)
        if expected is not None and 0 < found < expected:
            raise ServeError(
                f"the server read {found} of the prompt's {expected} tokens: it cut the article, or its tokenizer is "
                f"another one; deploy again, so that its num_ctx is {self.settings.num_ctx}"
            )

    def _send(self, content: str, options: dict[str, Any]) -> Any:
        for wait in itertools.chain(_waits(self.settings.retries), [None]):
            try:
                # Only sampling options: a runner option, such as num_ctx, would make the server load the model anew.
                return self._ollama.generate(model=self.model_name, prompt=content, options=options or None)
            except Exception as error:
                if wait is None or not is_passing(error):
                    raise self._failure(error) from error
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _failure(self, error: Exception) -> TitlegenError:
        import httpx
        import ollama

        if isinstance(error, httpx.TimeoutException):
            return ServeError(
                f"{self.url} did not answer within {self.settings.timeout_s:g} s; raise serve.timeout_s, or look at "
                "its load"
            )
        if isinstance(error, ollama.ResponseError):
            if error.status_code == httpx.codes.NOT_FOUND:
                return UnavailableError(f"{self.url} has no model {self.model_name!r}; run `titlegen deploy` first")
            if error.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return UnavailableError(
                    f"{self.url} is busy, also after {self.settings.retries} further tries; ask later, or raise "
                    "serve.retries"
                )
            return ServeError(f"{self.url} refused: {error.error}; see the server's log")
        if is_passing(error):
            return UnavailableError(
                f"no server answers at {self.url} ({connection_failure(error)}); run `titlegen serve`, or correct "
                "serve.host"
            )
        raise error


class ServedGenerator:
    """Titles for an evaluation, from the deployed model as its users get them."""

    def __init__(self, settings: ServeSettings, model_directory: Path, *, digest: str, candidates: int = 1) -> None:
        """Take the settings, the export for its tokenizer, and the digest of the model that is on the server.

        Of several candidates the best is taken (:func:`titlegen.metrics.ranking.rank_titles`).
        """
        self._digest = digest
        self._client = Client(settings, model_directory)
        self._candidates = candidates

    def describe(self) -> dict[str, Any]:
        """Return server, model and decoding."""
        from titlegen.metrics.ranking import describe_candidates

        settings = self._client.settings
        return {
            "generator": "server",
            "host": self._client.url,
            "model": self._client.model_name,
            "digest": self._digest,
            "decoding": {
                "temperature": settings.temperature,
                "num_predict": settings.num_predict,
                "seed": 0,
                **describe_candidates(self._candidates, settings.temperature),
            },
        }

    def generate(self, contents: Sequence[str], advance: Callable[[float], object] = lambda _: None) -> list[str]:
        """Return the raw output for each article, in order; ``advance`` is called with 1 for each that is there.

        Raises:
            ServeError: the server or the model cannot be used; an answer that is no title is no error.
        """
        outputs = []
        for answers in _in_order(self._ask, contents, CONCURRENCY):
            outputs.append(answers[0].raw)
            advance(1)
        return outputs

    def _ask(self, content: str) -> list[Answer]:
        return self._client.ask_candidates(content, self._candidates)


def is_passing(error: Exception) -> bool:
    """Return whether a failure may be over at the next try: a busy server, a lost connection, an engine that died."""
    import httpx
    import ollama

    if isinstance(error, ollama.ResponseError):
        died = error.status_code >= httpx.codes.INTERNAL_SERVER_ERROR and "runner" in str(error.error)
        return died or error.status_code == httpx.codes.SERVICE_UNAVAILABLE
    if isinstance(error, httpx.TimeoutException):
        return isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout))
    return isinstance(error, (ConnectionError, httpx.TransportError))


def _waits(retries: int) -> Iterator[float]:
    """Yield the pauses before further tries: each twice the last, and no two clients in step."""
    for attempt in range(retries):
        yield min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S) * random.uniform(0.75, 1.25)  # noqa: S311


def _in_order(function: Callable[[T], R], items: Iterable[T], concurrency: int) -> Generator[R]:
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(concurrency) as threads:
        try:
            for item in items:
                pending.append(threads.submit(function, item))
                if len(pending) > 2 * concurrency:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _token_counter(model_directory: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    path = model_directory / "tokenizer.json"
    if not path.is_file():
        raise ServeError(f"{path} does not exist; run `titlegen export` first, it is needed to count tokens")
    tokenizer = Tokenizer.from_file(str(path))

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


def _count_bytes(text: str) -> int:
    return len(text.encode())
