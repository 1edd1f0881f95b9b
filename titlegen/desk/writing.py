"""Candidates for one article as they are written: seeds until enough titles differ and are as they were asked for."""

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

from titlegen.desk.rounds import Accepted, Round, printable
from titlegen.desk.schema import (
    MAX_TITLE_CHARS,
    ArticleView,
    Candidate,
    CandidateEvent,
    CheckRequest,
    DroppedEvent,
    ErrorEvent,
    Event,
    Notice,
    ReadEvent,
    ResultEvent,
    Status,
    TextEvent,
    TitleAnswer,
    TitleRequest,
)
from titlegen.desk.store import Made, Shown, Store
from titlegen.desk.wanted import Wanted, read_wanted
from titlegen.errors import DataError, TitlegenError
from titlegen.metrics.evidence import find_evidence
from titlegen.metrics.house_style import HouseStyle, check_style
from titlegen.metrics.reasons import Reason, explain_place
from titlegen.metrics.rule_checks import check_rules
from titlegen.metrics.title_warnings import Facts, find_warnings
from titlegen.serve import Answer, Client, UnavailableError, served_digest
from titlegen.serve.article import Article
from titlegen.settings import Settings
from titlegen.slots import LENGTHS, SLOTS, fill_slots

_REMEMBERED_ARTICLES = 64


class _StoppedError(Exception):
    """Nobody waits for the titles any more."""


class _Searched:
    """Titles that are searched for once, by the first try, and taken one by one."""

    def __init__(self, search: Callable[[Callable[[str], object]], list[Answer]]) -> None:
        self._search, self._lock = search, threading.Lock()
        self._left: list[Answer] | None = None

    def take(self, on_text: Callable[[str], object]) -> Answer | None:
        """Return the next title, None where there is no further one."""
        with self._lock:
            if self._left is None:
                self._left = self._search(on_text)
            return self._left.pop(0) if self._left else None


class Writer:
    """Writes, checks and remembers titles; safe to use from threads."""

    def __init__(self, settings: Settings, client: Client, store: Store, style: HouseStyle) -> None:
        """Take what it works with; the server is not asked yet.

        Args:
            settings: all settings.
            client: asks the model.
            store: keeps what is made.
            style: the house style.
        """
        self.settings, self.client, self.store, self.style = settings, client, store, style
        self._rounds: dict[str, Round] = {}
        # What was checked a keystroke ago is checked again.
        self._facts = lru_cache(maxsize=_REMEMBERED_ARTICLES)(Facts)

    def write(self, request: TitleRequest) -> Iterator[Event]:
        """Yield what happens until the titles are there, or until an error; closing the iterator ends the work."""
        started = time.monotonic()
        wanted = read_wanted(request)
        try:
            read = self.client.read(request.article, wanted.control)
        except DataError as error:
            yield ErrorEvent(passing=False, notice=describe_error(error))
            return
        facts = self._facts(read.text)
        work = Round(request, wanted, self.settings.serve.redraws)
        searched = _Searched(partial(self._search, read, wanted, request))
        # The first titles stay what `titlegen generate` prints; further ones are drawn with new seeds.
        seeds = itertools.count(0 if not request.seen else 1 + _first_seed(request.seen))
        with ThreadPoolExecutor(self.settings.desk.parallel + 1) as threads:
            model_digest = threads.submit(self._model_digest)

            def ask(seed: int) -> None:
                def on_text(text: str) -> None:
                    if work.stopped.is_set():
                        raise _StoppedError
                    work.events.put(TextEvent(seed=seed, text=text[:MAX_TITLE_CHARS]))

                try:
                    answer = searched.take(on_text) or self.client.write_candidate(
                        read, seed, on_text, again=work.redraws_until > 0
                    )
                    work.events.put((seed, answer))
                except _StoppedError:
                    pass
                except Exception as error:  # noqa: BLE001 - raised by whoever waits for this try
                    work.events.put((seed, error))

            self._rounds[work.name] = work
            try:
                yield from self._collect(work, facts, read, lambda: threads.submit(ask, next(seeds)))
                if not work.stopped.is_set():
                    # Nobody waits for what is still written.
                    work.stopped.set()
                    result = self._finish(work, facts, read, model_digest.result(), started)
                    yield ResultEvent(result=result)
            finally:
                work.stopped.set()
                del self._rounds[work.name]

    def _search(
        self, read: Article, wanted: Wanted, request: TitleRequest, on_text: Callable[[str], object]
    ) -> list[Answer]:
        """Return titles as they are wanted, also those that are known; none where any title will do."""
        if not wanted.control:
            return []
        number = request.number + len(request.seen)
        return self.client.search(read, wanted.control, number, avoid=wanted.must_not, on_text=on_text)

    def end_round(self, name: str) -> None:
        """End a round with the titles that it has; nothing happens where it is over."""
        if (work := self._rounds.get(name)) is not None:
            work.ended = True
            work.events.put(None)

    def _collect(self, work: Round, facts: Facts, read: Article, submit: Callable[[], object]) -> Iterator[Event]:
        """Yield what is written, and submit another try for each that was of no use.

        The model never waits: what the page is told takes time, and is made after the next try was submitted.
        """
        running = 0
        make: Callable[[], Event] | None = partial(_tell_read, work, read, facts)
        while True:
            while running < self.settings.desk.parallel and work.wants_another(running):
                submit()
                running, work.tries = running + 1, work.tries + 1
            if make is not None:
                yield make()
                make = None
            if not running:
                return
            event = work.events.get()
            if event is None:
                return
            if isinstance(event, TextEvent):
                yield event
                continue
            running -= 1
            seed, answer = event
            if isinstance(answer, Exception) and not isinstance(answer, TitlegenError):
                raise answer
            if isinstance(answer, TitlegenError):
                work.failure = answer
                # What is written can be used, and is no worse for it.
                if not work.kept:
                    work.stopped.set()
                    yield ErrorEvent(passing=not isinstance(answer, DataError), notice=describe_error(answer))
                return
            make = partial(self._tell_tried, work.wanted, seed, work.accept(answer, facts))

    def _tell_tried(self, wanted: Wanted, seed: int, written: Accepted | None) -> Event:
        if written is None:
            return DroppedEvent(seed=seed)
        return CandidateEvent(seed=seed, candidate=self._describe(wanted, written, ()))

    def _finish(self, work: Round, facts: Facts, read: Article, model_digest: str, started: float) -> TitleAnswer:
        """Put the titles in order, and remember them."""
        article = _view(read, facts)
        ranked = work.rank(facts)
        candidates = tuple(
            self._describe(
                work.wanted,
                one,
                explain_place(one.title, standing, one.claims, len(ranked), wanted=work.wanted.length),
            )
            for one, standing in ranked
        )
        shown = tuple(
            Shown(written.title, tuple(claim.kind for claim in written.claims if not claim.supported))
            for written, _ in ranked
        )
        content = article.text if self.settings.desk.keep_articles else None
        model = self.settings.serve.model_name
        made = Made(article.digest, shown, model, model_digest, content)
        return TitleAnswer(
            generation=self.store.add_candidates(made, work.name) if shown else "",
            article=article,
            candidates=candidates,
            slots=fill_slots([written.title for written, _ in ranked]),
            shortfall=work.describe_shortfall(len(ranked)),
            model=model,
            model_digest=model_digest,
            seconds=time.monotonic() - started,
        )

    def check(self, request: CheckRequest) -> Candidate:
        """Return everything that is known of a title which somebody types, but its place among others."""
        facts = self._facts(request.article)
        title = printable(request.title)
        return Candidate(
            title=title,
            evidence=find_evidence(title, facts),
            warnings=find_warnings(title, facts),
            reasons=(),
            checks=check_rules(title, min_chars=request.min_chars, max_chars=request.max_chars),
            style=check_style(title, self.style),
        )

    def status(self) -> Status:
        """Return whether the server answers and has the model."""
        desk, digest, error = self.settings.desk, "", None
        try:
            digest = served_digest(self.settings.serve)
        except TitlegenError as failure:
            error = failure
        notice = Notice(message="ready", message_zh="可以使用")
        if error is not None:
            notice = Notice(message=str(error), message_zh="模型伺服器沒有回應，或沒有模型；恢復之後會自動繼續")
        return Status(
            ready=error is None,
            notice=notice,
            model=self.settings.serve.model_name,
            model_digest=digest,
            candidates=desk.candidates,
            slots=SLOTS,
            lengths=LENGTHS,
            fetch_urls=desk.fetch_urls,
            keep_articles=desk.keep_articles,
        )

    def _describe(self, wanted: Wanted, written: Accepted, reasons: Sequence[Reason]) -> Candidate:
        length = wanted.length
        return Candidate(
            title=written.title,
            evidence=written.claims,
            warnings=written.answer.warnings
            if written.title == written.answer.title
            else find_warnings(written.title, written.facts),
            reasons=tuple(reasons),
            checks=check_rules(written.title, min_chars=length.min_chars, max_chars=length.max_chars)
            if length
            else check_rules(written.title),
            style=check_style(written.title, self.style),
            unmet=wanted.unmet(written.title),
        )

    def _model_digest(self) -> str:
        """Return the digest of what answers under our name; empty where the server does not say."""
        try:
            return served_digest(self.settings.serve)
        except TitlegenError:
            return ""


def _tell_read(work: Round, read: Article, facts: Facts) -> ReadEvent:
    return ReadEvent(generation=work.name, article=_view(read, facts))


def _view(read: Article, facts: Facts) -> ArticleView:
    return ArticleView(
        text=read.text,
        digest=hashlib.sha256(read.text.encode()).hexdigest(),
        sentences=tuple((sentence.start, sentence.end) for sentence in facts.sentences),
        trimmed=read.trimmed,
    )


def describe_error(error: TitlegenError) -> Notice:
    """Return what a person is told of an error."""
    if isinstance(error, UnavailableError):
        zh = "模型伺服器沒有回應；恢復之後會自動繼續，已輸入的內容都還在"
    elif isinstance(error, DataError):
        zh = "這篇文章或這個檔案無法使用"
    else:
        zh = "模型沒有給出可用的回答"
    return Notice(message=str(error), message_zh=zh)


def _first_seed(seen: Sequence[str]) -> int:
    """Return a seed behind those that wrote the titles which are known, the same for the same ones."""
    return int.from_bytes(hashlib.sha256("\n".join(seen).encode()).digest()[:3], "big")
