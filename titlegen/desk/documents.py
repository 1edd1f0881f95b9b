"""The article out of a file that an editor drops on the page: plain text, Word or HTML; every file is untrusted."""

import io
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
                    raise DataError(
                        "the Word file declares entities, as no word processor does; paste its text instead"
                    )
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise DataError(f"the Word file is broken ({error}); save it again or paste its text") from error
    return "\n".join(_paragraphs(raw))


def _paragraphs(raw: bytes) -> Iterator[str]:
    try:
        # Its parser leaves entities alone (resolve_entities=False in docx/oxml/parser.py).
        import docx
        from docx.text.paragraph import Paragraph
    except ImportError as error:
        raise MissingDependencyError("reading .docx files needs: pip install 'titlegen[desk]'") from error
    try:
        document: Any = docx.Document(io.BytesIO(raw))
        for part in document.iter_inner_content():
            if isinstance(part, Paragraph):
                yield part.text
            else:
                yield from (" ".join(cell.text for cell in row.cells) for row in part.rows)
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
    roots = [node for name in ("article", "main", "body") for node in tree.iter(name)] or [tree]
    first = roots[0].tag
    root = max((node for node in roots if node.tag == first), key=lambda node: len(node.text_content()))
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
