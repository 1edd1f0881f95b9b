"""Candidates for one article as they are written: seeds until enough titles differ and have the words asked for."""

import hashlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

from titlegen.desk.schema import (
    MAX_TITLE_CHARS,
    ArticleView,
    Candidate,
    CandidateEvent,
    CheckRequest,
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
from titlegen.errors import DataError, TitlegenError
from titlegen.metrics.evidence import Claim, find_evidence
from titlegen.metrics.house_style import HouseStyle, check_style
from titlegen.metrics.overlap import rouge_l
from titlegen.metrics.ranking import judge_titles
from titlegen.metrics.reasons import Reason, explain_place
from titlegen.metrics.rule_checks import check_rules
from titlegen.metrics.title_warnings import Facts, find_warnings
from titlegen.metrics.tokens import tokenize
from titlegen.serve import Answer, Client, UnavailableError, served_digest
from titlegen.settings import Settings
from titlegen.slots import fill_slots

# Tries for each title that is wanted: a sure model writes the same one again and again.
_TRIES, _TRIES_WITH_WORDS = 3, 6
_REMEMBERED_ARTICLES = 64


class _StoppedError(Exception):
    """Nobody waits for the titles any more."""


@dataclass(frozen=True)
class _Written:
    """A title that was accepted."""

    answer: Answer
    title: str
    claims: tuple[Claim, ...]


@dataclass
class _Round:
    """One request while it is carried out."""

    request: TitleRequest
    events: "queue.SimpleQueue[TextEvent | tuple[int, Answer | TitlegenError]]" = field(
        default_factory=queue.SimpleQueue
    )
    stopped: threading.Event = field(default_factory=threading.Event)
    kept: list[_Written] = field(default_factory=list)
    tries: int = 0
    refused: int = 0
    """Titles that had not the words asked for."""

    @property
    def most_tries(self) -> int:
        """How often the model is asked, at most."""
        has_words = self.request.must or self.request.must_not
        return self.request.number * (_TRIES_WITH_WORDS if has_words else _TRIES)


class Writer:
    """Writes, checks and remembers titles; safe to use from threads."""

    def __init__(self, settings: Settings, client: Client, store: Store, style: HouseStyle) -> None:
        """Take what it works with; the server is not asked yet."""
        self.settings, self.client, self.store, self.style = settings, client, store, style
        # What was checked a keystroke ago is checked again.
        self._facts = lru_cache(maxsize=_REMEMBERED_ARTICLES)(Facts)

    def write(self, request: TitleRequest) -> Iterator[Event]:
        """Yield what happens until the titles are there, or until an error; closing the iterator ends the work."""
        started = time.monotonic()
        try:
            read = self.client.read(request.article)
        except DataError as error:
            yield ErrorEvent(passing=False, notice=describe_error(error))
            return
        facts = self._facts(read.text)
        sentences = tuple((sentence.start, sentence.end) for sentence in facts.sentences)
        digest = hashlib.sha256(read.text.encode()).hexdigest()
        article = ArticleView(text=read.text, digest=digest, sentences=sentences, trimmed=read.trimmed)
        yield ReadEvent(article=article)
        work = _Round(request)
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
                    work.events.put((seed, self.client.write_candidate(read, seed, on_text)))
                except TitlegenError as error:
                    work.events.put((seed, error))
                except _StoppedError:
                    pass

            try:
                yield from self._collect(work, facts, lambda: threads.submit(ask, next(seeds)))
                if not work.stopped.is_set():
                    result = self._finish(work, facts, article, model_digest.result(), started)
                    yield ResultEvent(result=result)
            finally:
                work.stopped.set()

    def _collect(self, work: _Round, facts: Facts, submit: Callable[[], object]) -> Iterator[Event]:
        """Yield what is written, and submit another try for each that was of no use."""
        running = 0
        while True:
            while running < self.settings.desk.parallel and work.tries < work.most_tries:
                if len(work.kept) + running >= work.request.number:
                    break
                submit()
                running, work.tries = running + 1, work.tries + 1
            if not running:
                return
            event = work.events.get()
            if isinstance(event, TextEvent):
                yield event
                continue
            running -= 1
            seed, answer = event
            if isinstance(answer, TitlegenError):
                work.stopped.set()
                yield ErrorEvent(passing=not isinstance(answer, DataError), notice=describe_error(answer))
                return
            if (written := self._accept(work, answer, facts)) is not None:
                work.kept.append(written)
                yield CandidateEvent(seed=seed, candidate=self._describe(written, facts, ()))

    def _accept(self, work: _Round, answer: Answer, facts: Facts) -> _Written | None:
        """Return a title unless it is none, is known, or has not the words that were asked for."""
        request, title = work.request, _printable(answer.title)
        known = {written.title for written in work.kept} | set(request.seen)
        if not title or answer.done_reason == "aborted" or title in known:
            return None
        if not all(word in title for word in request.must) or any(word in title for word in request.must_not):
            work.refused += 1
            return None
        return _Written(answer, title, find_evidence(title, facts))

    def _finish(
        self, work: _Round, facts: Facts, article: ArticleView, model_digest: str, started: float
    ) -> TitleAnswer:
        """Put the titles in order, and remember them."""
        standings = judge_titles([written.answer.raw for written in work.kept], facts)
        if like := tokenize(work.request.like):
            order = sorted(range(len(work.kept)), key=lambda index: -rouge_l(tokenize(work.kept[index].title), like).f1)
        else:
            # A title that was cut off comes after every whole one.
            order = sorted(
                range(len(work.kept)),
                key=lambda index: (work.kept[index].answer.done_reason != "stop", standings[index].key),
            )
        ranked = [work.kept[index] for index in order]
        candidates = tuple(
            self._describe(
                work.kept[index],
                facts,
                explain_place(work.kept[index].title, standings[index], work.kept[index].claims, len(ranked)),
            )
            for index in order
        )
        shown = tuple(
            Shown(written.title, tuple(claim.kind for claim in written.claims if not claim.supported))
            for written in ranked
        )
        content = article.text if self.settings.desk.keep_articles else None
        model = self.settings.serve.model_name
        made = Made(article.digest, shown, model, model_digest, content)
        return TitleAnswer(
            generation=self.store.add_candidates(made) if shown else "",
            article=article,
            candidates=candidates,
            slots=fill_slots([written.title for written in ranked]),
            shortfall=_describe_shortfall(work),
            model=model,
            model_digest=model_digest,
            seconds=time.monotonic() - started,
        )

    def check(self, request: CheckRequest) -> Candidate:
        """Return everything that is known of a title which somebody types, but its place among others."""
        facts = self._facts(request.article)
        title = _printable(request.title)
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
            fetch_urls=desk.fetch_urls,
            keep_articles=desk.keep_articles,
        )

    def _describe(self, written: _Written, facts: Facts, reasons: Sequence[Reason]) -> Candidate:
        return Candidate(
            title=written.title,
            evidence=written.claims,
            warnings=written.answer.warnings
            if written.title == written.answer.title
            else find_warnings(written.title, facts),
            reasons=tuple(reasons),
            checks=check_rules(written.title),
            style=check_style(written.title, self.style),
        )

    def _model_digest(self) -> str:
        """Return the digest of what answers under our name; empty where the server does not say."""
        try:
            return served_digest(self.settings.serve)
        except TitlegenError:
            return ""


def describe_error(error: TitlegenError) -> Notice:
    """Return what a person is told of an error."""
    if isinstance(error, UnavailableError):
        zh = "模型伺服器沒有回應；恢復之後會自動繼續，已輸入的內容都還在"
    elif isinstance(error, DataError):
        zh = "這篇文章或這個檔案無法使用"
    else:
        zh = "模型沒有給出可用的回答"
    return Notice(message=str(error), message_zh=zh)


def _describe_shortfall(work: _Round) -> Notice | None:
    request, given = work.request, len(work.kept)
    if given >= request.number:
        return None
    words = [*(f"+{word}" for word in request.must), *(f"-{word}" for word in request.must_not)]
    if words and work.refused:
        return Notice(
            message=f"{given} of {request.number} titles: the model wrote {work.refused} others in {work.tries} tries "
            f"that have not the words asked for ({' '.join(words)}); write them in yourself, or ask for less",
            message_zh=f"只有 {given} 則，要 {request.number} 則：模型試了 {work.tries} 次，{work.refused} 則不符"
            f"用字條件（{' '.join(words)}）；請自行加上，或放寬條件",
        )
    return Notice(
        message=f"{given} of {request.number} titles: in {work.tries} tries the model wrote no other one",
        message_zh=f"只有 {given} 則（要 {request.number} 則）：模型試了 {work.tries} 次，沒有其他不同的標題",
    )


def _printable(text: str) -> str:
    """Return a title on one line of bounded length, without what would steer a page or a terminal."""
    return "".join(char for char in text[:MAX_TITLE_CHARS] if char.isprintable() or char == "\u3000").strip()


def _first_seed(seen: Sequence[str]) -> int:
    """Return a seed behind those that wrote the titles which are known, the same for the same ones."""
    return int.from_bytes(hashlib.sha256("\n".join(seen).encode()).digest()[:3], "big")
