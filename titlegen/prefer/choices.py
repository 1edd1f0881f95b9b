"""Titles that editors chose or edited, from a file that the desk exported, as pairs."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from titlegen.data.example import read_jsonl
from titlegen.errors import DataError
from titlegen.prefer.pairs import Pair

SCHEMA = "titlegen.desk.preferences/1"
_KINDS = ("chosen", "edited")
_MAX_CONTENT, _MAX_TITLE, _MAX_DIGEST = 2_000_000, 200, 128
_TEXTS = {
    "article_digest": _MAX_DIGEST,
    "content": _MAX_CONTENT,
    "chosen": _MAX_TITLE,
    "rejected": _MAX_TITLE,
    "model": _MAX_DIGEST,
}
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Choice:
    """One preference of an editor."""

    digest: str
    """SHA-256 of the cleaned article."""
    content: str | None
    """The article; None where the desk was not told to keep it."""
    chosen: str
    rejected: str
    kind: Literal["chosen", "edited"]
    """Chosen over what was shown, or edited over what was chosen."""


def read_choices(path: Path) -> tuple[Choice, ...]:
    """Return the preferences in a desk's file.

    Raises:
        DataError: the file is missing or empty, or a line is not such a record or of another schema.
    """
    if not path.is_file():
        what = "is a folder; name the file in it" if path.is_dir() else "does not exist"
        raise DataError(f"prefer.choices {path} {what}; export the preferences from the desk")
    choices = []
    for number, record in read_jsonl(path):
        _check(record, f"prefer.choices {path}, line {number}")
        choices.append(
            Choice(
                record["article_digest"],
                record.get("content"),
                record["chosen"].strip(),
                record["rejected"].strip(),
                record["kind"],
            )
        )
    if not choices:
        raise DataError(f"prefer.choices {path} is empty; export the preferences again, or leave the setting out")
    return tuple(choices)


def as_pairs(choices: Iterable[Choice], known: Sequence[str], held_out: Sequence[str]) -> list[Pair]:
    """Return the choices about known articles that are not held out: scored articles must not be learned.

    Args:
        choices: of editors.
        known: articles by which a choice without one finds its own.
        held_out: articles of validation and test.
    """
    by_digest = {_digest(content): content for content in known}
    never = {_key(content) for content in held_out} | {_digest(content) for content in held_out}
    pairs = []
    for choice in choices:
        content = choice.content or by_digest.get(choice.digest)
        if content is None or choice.chosen == choice.rejected or {_key(content), choice.digest} & never:
            continue
        pairs.append(Pair(f"choice-{choice.digest[:16]}", content, choice.chosen, choice.rejected, choice.kind))
    return pairs


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _key(content: str) -> str:
    return "".join(content.split())


def _check(record: dict[str, object], where: str) -> None:
    if (schema := record.get("schema")) != SCHEMA:
        raise DataError(f"{where}: schema is {str(schema)[:_SHOWN]!r} instead of {SCHEMA!r}; export it again")
    if record.get("kind") not in _KINDS:
        raise DataError(f"{where}: kind is {str(record.get('kind'))[:_SHOWN]!r} instead of {' or '.join(_KINDS)}")
    for key, longest in _TEXTS.items():
        value = record.get(key)
        if value is None and key == "content":
            continue
        if not isinstance(value, str):
            raise DataError(f"{where}: {key!r} is {type(value).__name__} instead of text; export it again")
        if len(value) > longest:
            raise DataError(f"{where}: {key!r} has {len(value)} characters, {longest} at most; remove that line")
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise DataError(f"{where}: {key!r} holds half a character, which no text has; remove that line")
        if key in {"chosen", "rejected"} and not value.strip():
            raise DataError(f"{where}: {key!r} is empty; remove that line")
