"""An article as the model reads it: cleaned, in the script of training, and within the token budget."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from titlegen.errors import DataError, ServeError
from titlegen.families import neutralise_control_tokens
from titlegen.metrics.title_warnings import Facts
from titlegen.text import Converted, clean_content, cut_to_tokens, to_traditional

# A book; what is longer is cut before cleaning, whose time grows with the text.
_MAX_CHARS = 2_000_000
# Bytes that no text holds, and the replacement character of failed decoding.
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f\ufffd]")
_MAX_BINARY_SHARE = 0.05
# Checking a title takes time in proportion to its article, so that a book's is bounded.
_MAX_FACTS_CHARS = 200_000


@dataclass(frozen=True)
class Article:
    """An article, cleaned."""

    text: str
    """All of it: what a title is checked against."""
    sent: str
    """Its beginning, as much as the model reads."""
    trimmed: bool
    """Whether the end was left out, at a sentence end."""
    converted: bool
    """Whether it was written in Simplified Chinese."""

    @cached_property
    def facts(self) -> Facts:
        """What titles for it are checked against."""
        return Facts(self.text[:_MAX_FACTS_CHARS])


def read_article(raw: str, budget: int, count: Callable[[str], int], *, convert: bool = True) -> Article:
    """Clean an article as training does.

    Args:
        raw: any text.
        budget: tokens of what is sent, at most.
        count: returns the tokens of a text.
        convert: put Simplified Chinese into Traditional, as ``data.script`` does.

    Raises:
        DataError: nothing is left of it.
    """
    if len(_BINARY.findall(raw[:_MAX_CHARS])) > _MAX_BINARY_SHARE * len(raw):
        raise DataError(f"the article is no text (it begins with {raw[:20]!r}); give UTF-8 text")
    as_written = Converted(raw[:_MAX_CHARS])
    converted = to_traditional(as_written.text) if convert else as_written
    text = clean_content(converted.text)
    if convert:
        # Characters may come out of entities and broken encodings.
        converted = converted.or_else(to_traditional(text))
        text = converted.text
    text = neutralise_control_tokens(text).strip()
    if not any(char.isalnum() for char in text):
        shown = raw.strip()[:40]
        raise DataError(f"nothing is left of the article after cleaning (it began with {shown!r}); give its text")
    sent = cut_to_tokens(text, budget, count)
    if not sent:
        raise DataError(f"the article's first word alone has more than {budget} tokens; give a text in sentences")
    return Article(text, sent, len(sent) < len(text) or len(raw) > _MAX_CHARS, bool(converted.example))


def token_counter(model_directory: Path | None) -> Callable[[str], int]:
    """Return what counts the tokens of a text: the model's tokenizer, else its bytes, of which there are never fewer.

    Raises:
        ServeError: the directory has no tokenizer.
    """
    if model_directory is None:
        return _count_bytes
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
