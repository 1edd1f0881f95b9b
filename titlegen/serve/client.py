"""The client: an article of any size in, a title out; nothing is cut off without a notice."""

import dataclasses
import math
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from titlegen.constrained import LIKELIEST, Place, run_searches, search_titles
from titlegen.control import NO_CONTROL, Control, ask
from titlegen.errors import ServeError, TitlegenError
from titlegen.families.gemma3n import FAMILY as DEFAULT_FAMILY
from titlegen.metrics.title_warnings import Facts
from titlegen.models import family_at
from titlegen.prompt import PromptFormat
from titlegen.serve.answer import (
    ABORTED,
    Answer,
    choose_answer,
    content_budget,
    is_doubtful,
    make_answer,
    only_titles,
    rank_answers,
    trained_content_tokens,
)
from titlegen.serve.article import Article, read_article, token_counter
from titlegen.serve.endpoint import Endpoint, UnavailableError
from titlegen.serve.server import server_url
from titlegen.settings import ServeSettings

# Log-probability of an end that the model chose.
_ENDED = math.log(0.7)
# Further tries until titles meet a request.
_FURTHER_TRIES = 8
# Requests under way at a time for many articles.
CONCURRENCY = 4

T = TypeVar("T")
R = TypeVar("R")


class Client:
    """Asks a deployed model for titles, greedily: the same article gets the same title. Safe to use from threads.

    Where a single title is doubtful, ``settings.redraws`` others are drawn, and a better one takes its place.
    """

    def __init__(  # noqa: PLR0913 - all of them named where it is made
        self,
        settings: ServeSettings,
        model_directory: Path | None = None,
        prompt: PromptFormat | None = None,
        *,
        model_name: str | None = None,
        max_content_tokens: int | None = None,
        temperature: float = 0.0,
        convert: bool = True,
        taught: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the tokenizer; the server is not asked yet.

        Args:
            settings: where the server is, and the model's context window.
            model_directory: the exported model, for its tokenizer.json; without it, tokens are counted as bytes, of
                which there are never fewer, so that articles are trimmed earlier than they need be.
            prompt: the turns that the model reads; None for those of the exported model's family, else Gemma 3n's.
            model_name: another model than ``settings.model_name``.
            max_content_tokens: token budget of the article, where it is smaller than the context window's; None for
                that of the articles that the model was trained on, where its manifest says so.
            temperature: of sampling, whatever the Modelfile has for those who ask without one; 0 is greedy.
            convert: put Simplified articles and titles into Traditional Chinese, as the training data was.
            taught: the model knows the line that asks for a length and words (``train.control_share``).
            say: is told of what takes longer than it should.

        Raises:
            ServeError: the directory has no tokenizer.
        """
        self.settings = settings
        self.model_name = model_name or settings.model_name
        self.url = server_url(settings.host)
        self.temperature, self.convert, self.taught = temperature, convert, taught
        self._has_tokenizer = model_directory is not None
        self._count = token_counter(model_directory)
        if prompt is None:
            prompt = (DEFAULT_FAMILY if model_directory is None else family_at(model_directory)).prompt
        self.prompt = prompt
        trained = max_content_tokens or trained_content_tokens(model_directory)
        self.content_tokens = content_budget(settings, prompt, self._count, trained)
        self._endpoint = Endpoint(self.url, settings, self.model_name, say)
        # A client that is not closed leaves no open connection behind.
        self._finalizer = weakref.finalize(self, self._endpoint.close)

    def close(self) -> None:
        """Close the connections."""
        self._finalizer()

    def generate(self, article: str) -> Answer:
        """Return a title for an article: the greedy one, or a better one where it is doubtful.

        Raises:
            DataError: nothing of the article is left after cleaning.
            ServeError: the server, the model or its answer cannot be used.
        """
        return self.generate_candidates(article, 1)[0]

    def generate_candidates(self, article: str, number: int, control: Control = NO_CONTROL) -> list[Answer]:
        """Return up to ``number`` different titles, the best first (:func:`titlegen.metrics.ranking.rank_titles`).

        Those that have all that was asked for come before the others; of these, ``unmet`` says what is missing.

        Raises:
            DataError: nothing of the article is left after cleaning.
            ServeError: the server, the model or all of its answers cannot be used.
        """
        return only_titles(self.ask_candidates(article, number, control), self.model_name)[:number]

    def ask_candidates(self, article: str, number: int, control: Control = NO_CONTROL) -> list[Answer]:
        """Return the model's raw answers for an article in ``number`` tries, the best first, titles or not.

        Where a single one is asked for and it is doubtful, those that are drawn then follow the one to take.
        With a control the titles are searched for; what that does not find is drawn, in up to eight tries more.

        Raises:
            DataError: nothing of the article is left after cleaning.
            ServeError: the server or the model cannot be used, or the server cut the prompt.
        """
        read = self.read(article, control)
        if number == 1 and not control:
            return self._ask_single(read)
        answers = self.search(read, control, number) if control else []
        for seed in range(number + (_FURTHER_TRIES if control else 0)):
            if control and sum(not answer.unmet for answer in answers) >= number:
                break
            answer = self.write_candidate(read, seed)
            answers.append(dataclasses.replace(answer, unmet=tuple(control.unmet(answer.title))))
        return rank_answers(answers, read, convert=self.convert)

    def _ask_single(self, read: Article) -> list[Answer]:
        answers = [self.write_candidate(read, 0)]
        if self.settings.redraws and is_doubtful(answers[0], read, convert=self.convert):
            answers += [self.write_candidate(read, seed, again=True) for seed in range(1, self.settings.redraws + 1)]
        return choose_answer(answers, read, convert=self.convert)

    def write_candidate(
        self, read: Article, seed: int, on_text: Callable[[str], None] | None = None, *, again: bool = False
    ) -> Answer:
        """Return the model's raw answer in one try for an article that :meth:`read` returned, a title or not.

        Args:
            read: the article.
            seed: of the draw; 0 is the greedy title.
            on_text: is told what is written so far, as it is written.
            again: drawn for a title that is doubtful, nearer to the likeliest.

        Raises:
            ServeError: the server or the model cannot be used, or the server cut the prompt.
        """
        from titlegen.metrics.ranking import candidate_temperature, redraw_temperature

        options: dict[str, object] = {"seed": seed}
        if seed:
            heat = redraw_temperature if again else candidate_temperature
            options["temperature"] = heat(self.temperature)
        return dataclasses.replace(self._ask(read, options, on_text), seed=seed)

    def search(
        self,
        read: Article,
        control: Control,
        number: int = 1,
        *,
        avoid: Sequence[str] = (),
        on_text: Callable[[str], object] = lambda _: None,
    ) -> list[Answer]:
        """Return up to ``number`` different titles with all that is asked for, by constrained decoding.

        Args:
            read: the article, from :meth:`read`.
            control: what is asked for.
            number: titles at most.
            avoid: words that a title must not have.
            on_text: is told of each beginning of a title that is tried.

        Returns:
            The likeliest first; none where the server refuses, or does not tell of tokens, as Ollama before 0.12.11.

        Raises:
            UnavailableError: the server or the model is missing.
        """
        prompt = self.prompt.render(read.sent).removeprefix(self.prompt.bos)
        expected = self._count(prompt) + self.settings.num_predict
        length = control.length
        seconds, tokens, asked = 0.0, 0, 0

        def write(begun: Sequence[tuple[int, str]]) -> list[list[Place]]:
            nonlocal seconds, tokens, asked
            ((_, text),) = begun
            on_text(text)
            # Behind the longest title nothing is read.
            left = self.settings.num_predict if length is None else length.max_chars - len(text.strip()) + 2
            options: dict[str, object] = {
                "temperature": 0.0,
                "seed": 0,
                "num_predict": min(left, self.settings.num_predict),
            }
            answer = self._endpoint.send(prompt + text, options, expected, likeliest=LIKELIEST)
            self._check_count(read.sent, answer.prompt_eval_count or 0)
            seconds += (answer.total_duration or 0) / 1e9
            tokens += answer.eval_count or 0
            asked = asked or answer.prompt_eval_count or 0
            return [_places(answer)]

        try:
            (titles,) = run_searches([search_titles(control, read.text, number, avoid)], write)
        except UnavailableError:
            raise
        except ServeError:
            # Titles can be drawn as ever, which says what is wrong where that fails, too.
            return []
        found = []
        for title in titles:
            answer = make_answer(
                title,
                read,
                convert=self.convert,
                done_reason="stop",
                prompt_tokens=asked,
                eval_tokens=tokens,
                total_s=seconds,
            )
            found.append(dataclasses.replace(answer, unmet=tuple(control.unmet(answer.title))))
        return found

    def generate_many(
        self, articles: Iterable[str], concurrency: int = CONCURRENCY, *, number: int = 1
    ) -> Generator[list[Answer] | TitlegenError]:
        """Yield each article's titles, or its error, in order; one bad article stops nothing.

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

        return in_order(titles_or_error, articles, concurrency)

    def ask(self, article: str, options: Mapping[str, object] | None = None) -> Answer:
        """Return the model's raw answer for an article, a title or not.

        Raises:
            DataError: nothing of the article is left after cleaning.
            ServeError: the server or the model cannot be used, or the server cut the prompt.
        """
        return self._ask(self.read(article), dict(options or {}))

    def _ask(
        self, article: Article, options: dict[str, object], on_text: Callable[[str], None] | None = None
    ) -> Answer:
        tokens = self._count(self.prompt.render(article.sent)) + self.settings.num_predict
        options = {"temperature": self.temperature, "seed": 0} | options
        answer = self._endpoint.send(article.sent, options, tokens, on_text)
        self._check_count(article.sent, answer.prompt_eval_count or 0)
        return make_answer(
            answer.response or "",
            article,
            convert=self.convert,
            # A repetition makes Ollama stop without saying that it is done.
            done_reason=(answer.done_reason or "") if answer.done else ABORTED,
            prompt_tokens=answer.prompt_eval_count or 0,
            eval_tokens=answer.eval_count or 0,
            total_s=(answer.total_duration or 0) / 1e9,
            load_s=(answer.load_duration or 0) / 1e9,
        )

    def read(self, article: str, control: Control = NO_CONTROL) -> Article:
        """Return the article as titles are checked against it, and as it is sent: cleaned, within the token budget.

        What is sent begins with the line that asks for a control, where there is one and the model knows it.

        Raises:
            DataError: nothing is left of it.
        """
        control = control if self.taught else NO_CONTROL
        budget = self.content_tokens - (self._count(ask("", control)) if control else 0)
        read = read_article(article, budget, self._count, convert=self.convert)
        return dataclasses.replace(read, sent=ask(read.sent, control))

    def facts(self, article: str) -> Facts:
        """Return what titles for an article are checked against.

        Raises:
            DataError: nothing is left of it.
        """
        return self.read(article).facts

    def prepare(self, article: str) -> tuple[str, bool]:
        """Return the article as it is sent, cleaned and within the token budget, and whether it was trimmed.

        Raises:
            DataError: nothing is left of it.
        """
        read = self.read(article)
        return read.sent, read.trimmed

    def expected_tokens(self, content: str) -> int | None:
        """Return how many tokens the server should count for a prepared article; None without a tokenizer."""
        return self._count(self.prompt.render(content)) if self._has_tokenizer else None

    def _check_count(self, content: str, found: int) -> None:
        expected = self.expected_tokens(content)
        if expected is not None and 0 < found < expected:
            raise ServeError(
                f"the server read {found} of the prompt's {expected} tokens: it cut the article, or its tokenizer is "
                f"another one; deploy again, so that its num_ctx is {self.settings.num_ctx}"
            )


def _places(answer: Any) -> list[Place]:
    """Return the places of a title behind its beginning, as far as the server tells of them; none where it does not.

    A server may leave tokens out: parts of a character, or those that it looked up and did not draw.
    """
    response, text = answer.response or "", ""
    told: list[Place] = []
    for place in answer.logprobs or ():
        if not response.startswith(text + place.token):
            break
        others = tuple((other.token, other.logprob) for other in place.top_logprobs or ())
        told.append(Place(place.token, place.logprob, others))
        text += place.token
    ended = answer.done and answer.done_reason == "stop" and text == response
    if ended and not (told and not told[-1].token):
        # Of the token that ends a title, Ollama tells nothing.
        told.append(Place("", _ENDED, ()))
    return told


def in_order(function: Callable[[T], R], items: Iterable[T], concurrency: int) -> Generator[R]:
    """Yield the results in the order of the items, ``concurrency`` of which are worked on at a time."""
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
