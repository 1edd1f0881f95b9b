"""What goes over the wire, to the page and to other programs; places are counted in code points."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from titlegen.desk.documents import MAX_ARTICLE_CHARS
from titlegen.metrics.evidence import Claim
from titlegen.metrics.house_style import StyleFinding
from titlegen.metrics.reasons import Reason
from titlegen.metrics.rule_checks import RuleCheck
from titlegen.metrics.title_warnings import TitleWarning
from titlegen.slots import LENGTHS, Length, Slot
from titlegen.text import is_one_line

MAX_TITLE_CHARS = 200
MAX_CANDIDATES = 10

Article = Annotated[str, Field(max_length=MAX_ARTICLE_CHARS)]
Title = Annotated[str, Field(max_length=MAX_TITLE_CHARS)]
_ENDS = [length.max_chars for length in LENGTHS]


def _ends_a_length(chars: int) -> int:
    if chars not in _ENDS:
        raise ValueError(f"a length ends at one of {_ENDS}")
    return chars


def _is_a_line(title: str) -> str:
    if not title.strip():
        raise ValueError("a title is not empty")
    if not is_one_line(title.strip()):
        raise ValueError("a title is one line without control characters")
    return title


Chars = Annotated[int, AfterValidator(_ends_a_length), Field(json_schema_extra={"enum": _ENDS})]
Words = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=20)], ...], Field(max_length=8)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TitleRequest(_Message):
    """An article, and what its titles have to be."""

    article: Article
    number: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] = 5
    chars: Chars | None = None
    """Most characters that a title should have, and at most four fewer; those that have not come last."""
    must: Words = ()
    """Words that titles should have; those that have not come last."""
    must_not: Words = ()
    """Words that no title has."""
    like: Title = ""
    """A title that the others should be like: the most alike come first."""
    seen: Annotated[tuple[Title, ...], Field(max_length=100)] = ()
    """Titles that are known, and not wanted again."""


class ArticleView(_Message):
    """The article as it was read: cleaned, with its sentences."""

    text: str
    digest: str
    """SHA-256 of the text in UTF-8."""
    sentences: tuple[tuple[int, int], ...]
    trimmed: bool
    """Whether the model read its beginning alone."""


class Candidate(_Message):
    """One title with everything that is known of it."""

    title: str
    evidence: tuple[Claim, ...]
    warnings: tuple[TitleWarning, ...]
    reasons: tuple[Reason, ...]
    checks: tuple[RuleCheck, ...]
    style: tuple[StyleFinding, ...]
    unmet: tuple[str, ...] = ()
    """What was asked for and is missing: ``chars`` for the length, else the word."""


class Notice(_Message):
    """What a person is told, in both languages."""

    message: str
    message_zh: str


class TitleAnswer(_Message):
    """Titles for an article, the best first."""

    generation: str
    """Id under which a choice is kept."""
    article: ArticleView
    candidates: tuple[Candidate, ...]
    slots: dict[str, int | None]
    """Index of the best candidate for each slot; null where none is short enough."""
    shortfall: Notice | None
    """What was asked for and cannot be given."""
    model: str
    model_digest: str
    seconds: float


class ReadEvent(_Message):
    """The article was read."""

    event: Literal["read"] = "read"
    generation: str
    """Id of this round, by which it can be told that the titles so far are enough."""
    article: ArticleView


class TextEvent(_Message):
    """What is written of one title so far."""

    event: Literal["text"] = "text"
    seed: int
    text: str


class CandidateEvent(_Message):
    """One title is done; its place among the others is not known yet."""

    event: Literal["candidate"] = "candidate"
    seed: int
    candidate: Candidate


class DroppedEvent(_Message):
    """A try brought no title that is wanted: none at all, a known one, or another than was asked for."""

    event: Literal["dropped"] = "dropped"
    seed: int


class ResultEvent(_Message):
    """All titles are done."""

    event: Literal["result"] = "result"
    result: TitleAnswer


class ErrorEvent(_Message):
    """No more titles will come."""

    event: Literal["error"] = "error"
    passing: bool
    """Whether asking again may help, once the server answers."""
    notice: Notice


Event = ReadEvent | TextEvent | CandidateEvent | DroppedEvent | ResultEvent | ErrorEvent


class CheckRequest(_Message):
    """A title that somebody is typing, and its article."""

    article: Article
    title: Title
    min_chars: Annotated[int, Field(ge=0, le=MAX_TITLE_CHARS)] = 8
    max_chars: Annotated[int, Field(ge=1, le=MAX_TITLE_CHARS)] | None = 30


class ChoiceRequest(_Message):
    """A title that an editor keeps."""

    generation: Annotated[str, Field(max_length=64)]
    place: Annotated[int, Field(ge=0, le=100)]
    """Of the candidate, from 0."""
    title: Annotated[str, AfterValidator(_is_a_line), Field(min_length=1, max_length=MAX_TITLE_CHARS)]
    slot: Annotated[str, Field(max_length=40)] = ""


class WithdrawalRequest(_Message):
    """A choice that is taken back."""

    choice: Annotated[int, Field(ge=1, lt=2**63)]
    """Its number."""


class EnoughRequest(_Message):
    """Enough titles were written."""

    generation: Annotated[str, Field(max_length=64)]


class LoginRequest(_Message):
    """The token."""

    token: Annotated[str, Field(max_length=1000)]


class UrlRequest(_Message):
    """The address of an article."""

    url: Annotated[str, Field(max_length=2000)]


class Text(_Message):
    """An article out of a file or a page."""

    text: str


class Status(_Message):
    """Whether titles can be written, and what the desk is set to."""

    ready: bool
    notice: Notice
    model: str
    model_digest: str
    candidates: int
    slots: tuple[Slot, ...]
    lengths: tuple[Length, ...]
    """What can be asked for."""
    fetch_urls: bool
    keep_articles: bool


class Kept(_Message):
    """A choice is on the disk."""

    done: Literal[True] = True
    choice: int
    """Its number, under which it can be taken back."""


class Done(_Message):
    """It is done."""

    done: Literal[True] = True
