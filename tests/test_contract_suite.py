"""The contract tests stay neutral: they run against any Ollama server, and know nothing of the one that answers."""

import ast
import re
import sys
from pathlib import Path

import pytest
from ollama_server import chosen_server

SUITE = Path(__file__).parent / "contract" / "test_ollama_api.py"
PUBLIC = {"httpx", "ollama", "pytest"}


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level packages that a module imports, anywhere in it."""
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_contract_imports_nothing_of_ours() -> None:
    tree = ast.parse(SUITE.read_text(encoding="utf-8"))
    assert imported(tree) - set(sys.stdlib_module_names) <= PUBLIC
    assert not re.search(r"titlegen|offline", SUITE.read_text(encoding="utf-8"))


@pytest.mark.fault
@pytest.mark.parametrize("line", ["import titlegen.serve", "from conftest import SHARED", "from . import x"])
def test_an_import_of_ours_is_found(line: str) -> None:
    assert not imported(ast.parse(f"def f():\n    {line}")) - set(sys.stdlib_module_names) <= PUBLIC


@pytest.mark.parametrize(
    ("option", "environment", "server"),
    [
        ("gpu:8000", {"OLLAMA_HOST": "other"}, "http://gpu:8000"),
        ("https://gpu", {}, "https://gpu:443"),
        (None, {"OLLAMA_HOST": "127.0.0.1:11500"}, "http://127.0.0.1:11500"),
        (None, {"OLLAMA_HOST": "[::]:5"}, "http://[::1]:5"),
        (None, {"OLLAMA_HOST": ""}, None),
        (None, {}, None),
    ],
)
def test_the_server_is_that_of_the_option_or_else_of_ollama_host(
    option: str | None, environment: dict[str, str], server: str | None
) -> None:
    assert chosen_server(option, environment) == server
