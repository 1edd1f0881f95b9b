"""The back ends that write titles in a process of the cluster: model servers, or titlegen's decoder."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from titlegen.cluster.job import Job, Titler
from titlegen.errors import DataError, TitlegenError
from titlegen.metrics.title_warnings import Facts
from titlegen.models import family_at
from titlegen.serve.answer import (
    Answer,
    choose_answer,
    content_budget,
    make_answer,
    only_titles,
    rank_answers,
    trained_content_tokens,
)
from titlegen.serve.article import Article, read_article, token_counter
from titlegen.serve.client import Client, in_order
from titlegen.serve.endpoint import UnavailableError

if TYPE_CHECKING:
    from titlegen.generation import Draft

# Seconds after which a server that had gone is asked again.
_LEFT_OUT_S = 60.0


def make_titler(job: Job) -> Titler:
    """Return the back end of a job.

    Raises:
        TitlegenError: it cannot be made on this machine.
    """
    if job.make_titler is not None:
        return job.make_titler(job)
    return Servers(job) if job.ray.backend == "served" else LocalModel(job)


class Servers:
    """Titles from several servers: each article goes to the one that has the least to do."""

    def __init__(self, job: Job, say: Callable[[str], None] = lambda _: None) -> None:
        """Open a client for each server; none is asked yet.

        Raises:
            ServeError: the export has no tokenizer.
        """
        self._clients = [
            Client(job.serve.model_copy(update={"host": host}), job.export, convert=job.convert, say=say)
            for host in job.hosts
        ]
        self._number = job.number
        processes = max(1, job.ray.workers or len(self._clients))
        # Of the requests to all servers, this process' share, whichever block they are for.
        self._concurrency = max(1, -(-job.concurrency * len(self._clients) // processes))
        self._turn = threading.BoundedSemaphore(self._concurrency)
        self._busy = [0] * len(self._clients)
        self._left_out_until = [0.0] * len(self._clients)
        self._lock = threading.Lock()

    def __call__(self, articles: Sequence[str]) -> list[list[Answer] | TitlegenError]:
        """Return the titles of each article, or the error that it met.

        Raises:
            UnavailableError: every server has gone.
        """
        answers = []
        for answer in in_order(self._titles, articles, self._concurrency):
            if isinstance(answer, UnavailableError):
                raise answer
            answers.append(answer)
        return answers

    def _titles(self, article: str) -> list[Answer] | TitlegenError:
        with self._turn:
            return self._ask(article)

    def _ask(self, article: str) -> list[Answer] | TitlegenError:
        gone: TitlegenError | None = None
        tried: set[int] = set()
        while (index := self._choose(tried)) is not None:
            tried.add(index)
            try:
                with self._asking(index):
                    return self._clients[index].generate_candidates(article, self._number)
            except UnavailableError as error:
                gone = error
                with self._lock:
                    self._left_out_until[index] = time.monotonic() + _LEFT_OUT_S
            except TitlegenError as error:
                return error
        return gone or UnavailableError("every model server has gone; start them again")

    def _choose(self, tried: set[int]) -> int | None:
        """Return the server with the least to do; one that had gone is the last resort."""
        now = time.monotonic()
        with self._lock:
            left = [index for index in range(len(self._clients)) if index not in tried]
            return min(left, key=lambda index: (self._left_out_until[index] > now, self._busy[index]), default=None)

    @contextmanager
    def _asking(self, index: int) -> Iterator[None]:
        with self._lock:
            self._busy[index] += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy[index] -= 1


class LocalModel:
    """Titles from the merged model in this process, greedy, articles of like length beside each other."""

    def __init__(self, job: Job) -> None:
        """Load the model on this process' GPU, or the CPU where it has none.

        Raises:
            ExportError: there is no model.
        """
        from titlegen.generation import TransformersGenerator
        from titlegen.settings import EvaluateSettings

        decoding = EvaluateSettings(
            batch_size=job.ray.batch_size, max_new_tokens=job.serve.num_predict, candidates=job.number, seed=0
        )
        self._generator = TransformersGenerator(job.export, None, decoding, job.serve.redraws)
        self._lock = threading.Lock()
        self._job, self._count = job, token_counter(job.export)
        self._budget = content_budget(
            job.serve, family_at(job.export).prompt, self._count, trained_content_tokens(job.export)
        )

    def __call__(self, articles: Sequence[str]) -> list[list[Answer] | TitlegenError]:
        """Return the titles of each article, or the error that it met.

        Raises:
            ConfigError: the GPU has too little memory for a batch.
        """
        read = [self._read(article) for article in articles]
        sent = [Facts(article.sent) for article in read if isinstance(article, Article)]
        # Other blocks are cleaned and checked meanwhile.
        with self._lock:
            drafts = iter(self._generator.draft_again(sent))
        return [
            article if isinstance(article, TitlegenError) else self._answers(article, next(drafts)) for article in read
        ]

    def _read(self, article: str) -> Article | DataError:
        try:
            return read_article(article, self._budget, self._count, convert=self._job.convert)
        except DataError as error:
            return error

    def _answers(self, article: Article, drafts: "Sequence[Draft]") -> list[Answer] | TitlegenError:
        convert = self._job.convert
        answers = [
            make_answer(
                draft.text,
                article,
                convert=convert,
                done_reason="stop" if draft.ended else "length",
                eval_tokens=draft.tokens,
            )
            for draft in drafts
        ]
        try:
            order = choose_answer if self._job.number == 1 else rank_answers
            return only_titles(order(answers, article, convert=convert), self._job.export.name)[: self._job.number]
        except TitlegenError as error:
            return error
