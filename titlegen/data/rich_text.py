"""The text of documents as editors of web pages store them: trees of blocks, and lists of what was inserted.

Known are Quill (``ops``), Draft.js, Editor.js (``blocks``), ProseMirror and TipTap, Slate, Lexical, Contentful, Strapi,
Sanity, Notion and WordPress. Runs of a paragraph are joined, paragraphs stand on lines of their own, and pictures,
embedded pages and separators are no text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_KINDS = ("type", "_type", "nodeType", "blockName")
_ROOTS = frozenset({"doc", "document"})
# Where the parts of a node are; those of the second kind stand in one line, those of the third decide by themselves.
_BLOCKS = ("blocks", "items", "innerBlocks")
_RUNS = ("ops", "rich_text")
_EITHER = ("children", "content", "text")
_TEXTS = ("plain_text", "text", "value", "insert", "content", "innerHTML")
_BREAKS = frozenset({"hardbreak", "hard_break", "linebreak", "br"})
_IN_LINE = frozenset({"link", "autolink", "hyperlink", "a", "mention"})
_PICTURE = re.compile(r"image|img|picture|photo|figure|video|audio|file|embed|gallery|inline_?data", re.IGNORECASE)
_MOST_DEPTH = 40

Node = Mapping[str, Any]


def document_text(value: Any) -> str | None:
    """Return the text of an editor's document; None for any other value, and for a document without text."""
    if not _is_document(value):
        return None
    text = _below(value, _MOST_DEPTH) if isinstance(value, dict) else _joined(value, _MOST_DEPTH)
    return "\n".join(filter(None, map(str.strip, text.split("\n")))) or None


def is_picture(kind: str) -> bool:
    """Return whether the name of a part of a text says that it is a picture, a film or another file."""
    return _PICTURE.search(kind) is not None


def _is_document(value: Any) -> bool:
    if isinstance(value, dict):
        lists = (value.get(key) for key in ("ops", "blocks"))
        return (
            any(isinstance(nodes, list) and nodes and all(isinstance(n, dict) for n in nodes) for nodes in lists)
            or _kind(value) in _ROOTS
            or (set(value) == {"root"} and isinstance(value["root"], dict))
        )
    if not isinstance(value, list) or not value or not all(isinstance(node, dict) for node in value):
        return False
    return (
        all("insert" in node for node in value)
        or any(isinstance(node.get("children"), list) or "innerHTML" in node or _named(node) for node in value)
        or all(_kind(node) and isinstance(node.get("content", []), list) for node in value)
    )


def _below(node: Node, depth: int) -> str:
    """Return the text of all parts of a node, each list of them on lines of its own."""
    texts = [
        _joined(node[key], depth - 1, in_line=key in _RUNS if key not in _EITHER else None)
        for key in (*_BLOCKS, *_RUNS, *_EITHER)
        if isinstance(node.get(key), list)
    ]
    parts = (node.get("data"), node.get("root"), _named(node))
    texts += [_text(part, depth - 1) for part in parts if isinstance(part, dict)]
    return "\n".join(filter(None, texts))


def _joined(nodes: Sequence[Any], depth: int, *, in_line: bool | None = None) -> str:
    nodes = [node for node in nodes if isinstance(node, str | dict)] if depth > 0 else []
    if in_line is None:
        in_line = any(isinstance(node, dict) and _is_run(node) for node in nodes)
    return ("" if in_line else "\n").join(_text(node, depth) for node in nodes)


def _text(node: str | Node, depth: int) -> str:
    if isinstance(node, str):
        return node
    kind = _kind(node)
    if kind in _BREAKS:
        return "\n"
    if is_picture(kind) or depth <= 0:
        return ""
    own = next((node[key] for key in _TEXTS if isinstance(node.get(key), str)), "")
    if not own and isinstance(held := node.get("text"), dict):
        own = str(held.get("content", ""))
    below = _below(node, depth)
    return f"{own}\n{below}" if own and below else own or below


def _is_run(node: Node) -> bool:
    """Return whether a node is a piece of a line: text alone, or a link."""
    has_text = any(isinstance(node.get(key), str) for key in _TEXTS) and "innerHTML" not in node
    return _kind(node) in _IN_LINE or (has_text and not any(isinstance(node.get(key), list) for key in _EITHER))


def _kind(node: Node) -> str:
    return next((str(node[key]).lower() for key in _KINDS if isinstance(node.get(key), str)), "")


def _named(node: Node) -> Any:
    """Return the part of a block of Notion's that is named like its type."""
    part = node.get(_kind(node))
    return part if isinstance(part, dict) and isinstance(part.get("rich_text") or part.get("text"), list) else None
