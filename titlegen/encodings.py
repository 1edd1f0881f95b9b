"""A text's encoding: taken from its bytes where these prove it, else refused with the remedy."""

import codecs
import io
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
# What else people call the two; a file named GB2312 has characters that only its successors know.
_NAMES = _LEGACY | dict.fromkeys(("MS950", "CP950"), "cp950") | dict.fromkeys(("GB2312", "GBK", "CP936"), "gb18030")
_HONG_KONG = "big5hkscs"
# Codecs of Python's that are none of files.
_NO_FILES = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "mbcs", "oem"})
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
    if b"\0" in head and (wide := _wide_codec(head)):
        return wide
    if _decodes(head, "utf-8") is not None or not _is_foreign(head):
        return "utf-8"
    names = [
        name for name, codec in _LEGACY.items() if _decodes(_without_own_characters(head, codec), codec) is not None
    ]
    if not names:
        return "utf-8"
    if _decodes(head, _LEGACY["BIG5"]) is None and _decodes(head, _HONG_KONG) is not None:
        names.append("BIG5-HKSCS")
    raise DataError(
        f"{where} is not UTF-8; its bytes may be {' or '.join(names)}, which they do not prove: look at it, then "
        f"convert it with `iconv -f {names[0]} -t UTF-8`, or name its encoding with --data.encoding {names[0].lower()}"
    )


def marked_codec(head: bytes) -> str | None:
    """Return the codec that a byte order mark names, None without one."""
    return next((codec for mark, codec in _MARKS if head.startswith(mark)), None)


def find_codec(head: bytes, where: str, named: str | None = None) -> str:
    """Return Python's codec for a text: the one that a person named, unless a byte order mark proves another.

    Args:
        head: the first ``HEAD_BYTES``, or all there is.
        where: name of the text in the message.
        named: the encoding that a person named, if any.

    Raises:
        DataError: there is no encoding of that name, or none is named and the bytes do not prove one.
    """
    if not named:
        return detect_encoding(head, where)
    codec = python_codec(named)
    if marked := marked_codec(head):
        return marked
    if codec in {"utf-16", "utf-32"}:
        # Python's reader asks for the mark that the file does not have; Windows writes the low byte first.
        wide = _wide_codec(head)
        return wide if wide and wide.startswith(codec) else f"{codec}-le"
    return codec


def python_codec(name: str) -> str:
    """Return Python's codec for an encoding that a person named.

    Raises:
        DataError: there is none of that name.
    """
    try:
        codec = codecs.lookup(_NAMES.get(name.strip().upper().replace("-", ""), name.strip())).name
        # Python has codecs from bytes to bytes, too.
        io.TextIOWrapper(io.BytesIO(), codec)
    except (LookupError, ValueError):
        codec = ""
    if not codec or codec in _NO_FILES:
        raise DataError(
            f"data.encoding {name!r} is no encoding; use big5, gb18030, utf-16 or another that Python knows"
        )
    return codec


def lenient_errors(codec: str) -> str:
    """Return how bytes are read that a codec does not know: as lone surrogates, so that their row can be named."""
    return "strict" if codec.startswith(("utf-16", "utf-32")) else "surrogateescape"


def decode_text(data: bytes, where: str, encoding: str | None = None) -> str:
    """Return a text without its byte order mark.

    Args:
        data: the whole text.
        where: its name in the message.
        encoding: what it is in, where a person said so.

    Raises:
        DataError: it is not in that encoding, or in none that its bytes prove.
    """
    codec = find_codec(data[:HEAD_BYTES], where, encoding)
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


def _wide_codec(head: bytes) -> str | None:
    """Return the one codec of two or four bytes a character in which a head is text."""
    wide = [codec for codec in _WIDE if _is_written(head, codec)]
    return wide[0] if len(wide) == 1 else None


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


def read_at_most(path: Path, size: int) -> bytes:
    """Return the bytes of a file, of one that has more ``size + 1`` of them: a device has no end.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(size + 1)
