"""The article out of a file that an editor drops on the page: plain text, Word or HTML; every file is untrusted."""

import io
import itertools
import zipfile
from collections.abc import Iterator
from typing import Any

from titlegen.encodings import decode_text
from titlegen.errors import DataError, MissingDependencyError

MAX_FILE_BYTES = 5 * 2**20
MAX_ARTICLE_CHARS = 200_000
# A Word file unpacked; pictures count, too.
_MAX_UNPACKED_BYTES, _MAX_PARTS, _MAX_XML_BYTES = 200 * 2**20, 2000, 20 * 2**20
_MENUS = ("script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "figure", "iframe")
_BLOCKS = frozenset(
    {"p", "div", "br", "li", "h1", "h2", "h3", "h4", "h5", "h6", "tr", "section", "article", "blockquote"}
)
_ZIP = b"PK\x03\x04"


def read_document(raw: bytes, name: str) -> str:
    """Return the text of an uploaded file.

    Args:
        raw: its bytes.
        name: its name; what it holds decides, unless it is a text that a browser would show as a page.

    Raises:
        DataError: it is too large, broken, or of another kind.
        MissingDependencyError: the package that reads Word files is not installed.
    """
    if len(raw) > MAX_FILE_BYTES:
        raise DataError(f"the file has {len(raw):,} bytes, at most {MAX_FILE_BYTES:,} are read; paste the text instead")
    suffix = name.lower().rpartition(".")[2]
    if raw.startswith(_ZIP):
        text = _read_word(raw)
    elif suffix in {"docx", "doc", "odt", "pdf", "rtf"}:
        raise DataError(
            f"the file is no .docx file (a .{suffix} file cannot be read); save it as .docx or paste its text"
        )
    elif suffix in {"html", "htm", "xhtml"}:
        text = read_html(raw)
    else:
        text = decode_text(raw, "the file", None)
    return check_length(text)


def check_length(text: str) -> str:
    """Return an article that is not too long.

    Raises:
        DataError: it is.
    """
    if len(text) > MAX_ARTICLE_CHARS:
        raise DataError(
            f"the article has {len(text):,} characters, at most {MAX_ARTICLE_CHARS:,} are read; give one article"
        )
    return text


def _read_word(raw: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            _check_archive(archive)
    except DataError:
        raise
    except Exception as error:
        # Each way to pack a part has errors of its own.
        raise DataError(f"the Word file is broken ({error}); save it again or paste its text") from error
    # So many lines are too long, whatever is in them.
    return "\n".join(itertools.islice(_paragraphs(raw), MAX_ARTICLE_CHARS + 2))


def _check_archive(archive: zipfile.ZipFile) -> None:
    parts = archive.infolist()
    # zipfile never unpacks more of a part than its head says.
    sizes = [part.file_size for part in parts]
    xml = [part.file_size for part in parts if part.filename.endswith((".xml", ".rels"))]
    if len(parts) > _MAX_PARTS or sum(sizes) > _MAX_UNPACKED_BYTES or max(xml, default=0) > _MAX_XML_BYTES:
        raise DataError("the Word file unpacks to more than a document would; paste its text instead")
    if "word/document.xml" not in archive.namelist():
        raise DataError("the file is a ZIP archive and no .docx file; save it as .docx or paste its text")
    for part in parts:
        # Word writes none, and what declares entities wants them expanded.
        if part.filename.endswith((".xml", ".rels")) and b"<!DOCTYPE" in archive.read(part).upper():
            raise DataError("the Word file declares entities, as no word processor does; paste its text instead")


def _paragraphs(raw: bytes) -> Iterator[str]:
    try:
        # Its parser leaves entities alone (resolve_entities=False in docx/oxml/parser.py).
        import docx
        from docx.table import _Cell
        from docx.text.paragraph import Paragraph
    except ImportError as error:
        raise MissingDependencyError("reading .docx files needs: pip install 'titlegen[desk]'") from error
    try:
        document: Any = docx.Document(io.BytesIO(raw))
        for part in document.iter_inner_content():
            if isinstance(part, Paragraph):
                yield part.text
            else:
                # As they stand in the file: `cells` has one as often as it is wide.
                yield from (" ".join(_Cell(cell, part).text for cell in row._tr.tc_lst) for row in part.rows)  # noqa: SLF001
    except Exception as error:
        # Whatever a library meets in a file that somebody made on purpose.
        raise DataError(f"the Word file cannot be read ({type(error).__name__}); paste its text instead") from error


def read_html(raw: bytes) -> str:
    """Return the text of a page's article: of ``article`` or ``main`` where there is one, without menus and scripts.

    Raises:
        DataError: nothing is in it.
    """
    import lxml.html

    text = decode_text(raw, "the page", None) if b"charset" not in raw[:2048].lower() else None
    try:
        # No network, no entities; libxml2's own limits on depth and size stay on.
        parser = lxml.html.HTMLParser(no_network=True, huge_tree=False, encoding="utf-8" if text else None)
        tree = lxml.html.document_fromstring(text.encode() if text else raw, parser=parser)
    except (lxml.etree.LxmlError, ValueError) as error:
        raise DataError("the page holds no text; paste the article instead") from error
    name = next((name for name in ("article", "main", "body") if tree.find(f".//{name}") is not None), None)
    # One inside another is part of it.
    roots = (
        [tree] if name is None else [node for node in tree.iter(name) if next(node.iterancestors(name), None) is None]
    )
    root = max(roots, key=lambda node: sum(map(len, node.itertext())))
    found = "\n".join(line for line in "".join(_texts(root)).splitlines() if line.strip())
    if not found:
        raise DataError("the page holds no text; paste the article instead")
    return found


def _texts(root: Any) -> Iterator[str]:
    """Yield the text below a node; without recursion, since a page may be nested on purpose."""
    hidden: Any = None
    import lxml.etree

    for event, node in lxml.etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        is_element = isinstance(node.tag, str)
        if event == "start" and is_element:
            if hidden is None and node.tag in _MENUS and node is not root:
                hidden = node
            if hidden is None:
                yield "\n" if node.tag in _BLOCKS else ""
                yield node.text or ""
        elif event in {"end", "comment", "pi"}:
            if hidden is node:
                hidden = None
            if hidden is None and node is not root:
                yield "\n" if node.tag in _BLOCKS else ""
                yield node.tail or ""
