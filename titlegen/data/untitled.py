"""Articles that need no title, cleaned, converted and shortened as those with one."""

from pathlib import Path

from titlegen.data.example import Example
from titlegen.data.shorten import load_counter
from titlegen.data.sources import open_source
from titlegen.errors import DataError
from titlegen.settings import DataSettings
from titlegen.text import clean_content, cut_to_tokens, to_traditional


def load_untitled(settings: DataSettings, tokenizer_file: Path) -> list[Example]:
    """Return the different articles of a source, each with an empty title; rows that cannot be read are passed over.

    Args:
        settings: the source, and how it is read.
        tokenizer_file: the tokenizer that counts.

    Raises:
        DataError: the source cannot be read, or no article is left.
    """
    counter = load_counter(tokenizer_file)
    found: dict[str, Example] = {}
    for row in open_source(settings, titled=False, strict=False).rows:
        if row.problem or not isinstance(row.content, str):
            continue
        text = to_traditional(row.content).text if settings.script == "convert" else row.content
        text = clean_content(text)
        if len(text) < settings.min_content_chars:
            continue
        content = cut_to_tokens(text, settings.max_content_tokens, counter)
        found.setdefault(content, Example(f"further-{row.number}", content, "", settings.source, None))
    if not found:
        raise DataError(
            f"no article of {settings.source!r} has {settings.min_content_chars} characters after cleaning; "
            "give others, or leave prefer.source out"
        )
    return list(found.values())
