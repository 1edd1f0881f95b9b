"""A text's encoding: taken from its bytes where these prove it, else refused with the remedy."""

import codecs
import re
import unicodedata
from pathlib import Path

from titlegen.errors import DataError

HEAD_BYTES = 2**16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # Before UTF-16, whose mark begins it.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
# Characters that any table, JSON text or article has near its beginning.
_MARKUP = frozenset('\n\r\t,;:{["')
# Name for iconv, name for Python. Python's big5 lacks characters that Windows writes.
_LEGACY = {"BIG5": "cp950", "GB18030": "gb18030"}
# Pairs from the left on: a trailing byte may look like a leading one.
_BIG5_CHARACTER = re.compile(rb"[\x81-\xfe][\x40-\x7e\xa1-\xfe]")
# Where Windows keeps them; names with rare characters such as 堃 are written so.
_OWN_CHARACTER = re.compile(rb"(?:[\x81-\xa0\xfa-\xfe][\x40-\x7e\xa1-\xfe]|[\xc7\xc8].|\xc6[\xa1-\xfe])", re.DOTALL)
# A file whose invalid bytes are fewer than this share of its other letters is UTF-8 with a damaged line.
_DAMAGED_SHARE = 0.25


def detect_encoding(head: bytes, where: str) -> str:
    """Return the codec of a text that begins with ``head``: UTF-8, or what its byte order mark or zero bytes prove.

    A text that is UTF-8 but for a few bytes is called UTF-8, so that the line that holds them can be named.

    Args:
        head: the first ``HEAD_BYTES``, or all there is.
        where: name of the text in the message.

    Raises:
        DataError: the text is in an older encoding; Big5 and GB18030 overlap, so that bytes prove neither.
    """
    if marked := marked_codec(head):
        return marked
    if b"\0" in head:
        wide = [codec for codec in _WIDE if _is_written(head, codec)]
        if len(wide) == 1:
            return wide[0]
    if _decodes(head, "utf-8") is not None or not _is_foreign(head):
        return "utf-8"
    names = [
        name for name, codec in _LEGACY.items() if _decodes(_without_own_characters(head, codec), codec) is not None
    ]
    if not names:
        return "utf-8"
    raise DataError(
        f"{where} is not UTF-8; its bytes may be {' or '.join(names)}, which they do not prove: look at it, then "
        f"convert it with `iconv -f {names[0]} -t UTF-8`, or name its encoding with --data.encoding {names[0].lower()}"
    )


def marked_codec(head: bytes) -> str | None:
    """Return the codec that a byte order mark names, None without one."""
    return next((codec for mark, codec in _MARKS if head.startswith(mark)), None)


def python_codec(name: str) -> str:
    """Return Python's codec for an encoding that a person named.

    Raises:
        DataError: there is none of that name.
    """
    try:
        return codecs.lookup(_LEGACY.get(name.upper().replace("-", ""), name)).name
    except LookupError as error:
        raise DataError(
            f"data.encoding {name!r} is no encoding; use big5, gb18030, utf-16 or another that Python knows"
        ) from error


def decode_text(data: bytes, where: str, encoding: str | None = None) -> str:
    """Return a text without its byte order mark.

    Args:
        data: the whole text.
        where: its name in the message.
        encoding: what it is in, where a person said so.

    Raises:
        DataError: it is not in that encoding, or in none that its bytes prove.
    """
    codec = python_codec(encoding) if encoding else detect_encoding(data[:HEAD_BYTES], where)
    try:
        return data.decode("utf-8-sig" if codec == "utf-8" else codec)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where} is not {codec.upper()} text in line {line}; save it as UTF-8") from error


def read_text(path: Path) -> str:
    """Return the text of a file without its byte order mark.

    Raises:
        DataError: the file cannot be read, or is not in an encoding that its bytes prove.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}; see that it is there and may be read") from error
    return decode_text(data, repr(str(path)))


def _decodes(head: bytes, codec: str) -> str | None:
    # Incremental: the last character of a head may be cut.
    try:
        return codecs.getincrementaldecoder(codec)().decode(head, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        return None


def _without_own_characters(head: bytes, codec: str) -> bytes:
    """Return a head without Big5's user-defined characters, which no codec knows."""
    if codec != _LEGACY["BIG5"]:
        return head
    return _BIG5_CHARACTER.sub(lambda pair: b"" if _OWN_CHARACTER.fullmatch(pair[0]) else pair[0], head)


def _is_written(head: bytes, codec: str) -> bool:
    """Return whether a head is text in a codec: letters that exist, no zeros, and marks of a table."""
    text = _decodes(head, codec)
    return text is not None and not _MARKUP.isdisjoint(text) and not any(map(_is_no_letter, set(text)))


def _is_no_letter(character: str) -> bool:
    return character == "\0" or unicodedata.category(character) in {"Cn", "Co", "Cs"}


def _is_foreign(head: bytes) -> bool:
    """Return whether the letters beyond ASCII are mostly not UTF-8."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    broken = text.count("\ufffd") - head.count("\ufffd".encode())
    return broken > _DAMAGED_SHARE * sum(1 for character in text if "\x7f" < character != "\ufffd")
