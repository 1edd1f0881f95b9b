import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWNERS = metadata.packages_distributions()


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def imported(folder: Path) -> set[str]:
    """Return every top-level module that code imports, without the standard library and its own modules."""
    own = {path.stem for path in folder.rglob("*.py")} | {"titlegen", "conftest"}
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - own - set(sys.stdlib_module_names)


def undeclared(folder: Path, declared: set[str], beside: frozenset[str] = frozenset()) -> set[str]:
    """Return what is imported and not declared; ``beside`` are modules of another folder of the project."""
    # What an extra brings and is not installed here has no owner to look up: its module has its name.
    owners = {
        module: {canonical(name) for name in OWNERS.get(module, [module])} for module in imported(folder) - beside
    }
    return {module for module, names in owners.items() if not names & declared}


RUNTIME = {canonical(line) for line in PROJECT["dependencies"]}
EXTRAS = {extra: {canonical(line) for line in lines} for extra, lines in PROJECT["optional-dependencies"].items()}
DEV = EXTRAS.pop("dev")
# The tests and the checklist measure latency as the benchmarks do; the product may not.
BENCHMARKS = frozenset(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize(
    ("folder", "declared", "beside"),
    [
        ("titlegen", RUNTIME.union(*EXTRAS.values()), frozenset()),
        ("scripts", RUNTIME, frozenset()),
        ("tests", RUNTIME | DEV, BENCHMARKS),
        ("acceptance", RUNTIME | DEV, BENCHMARKS),
    ],
)
def test_what_is_imported_is_declared(folder: str, declared: set[str], beside: frozenset[str]) -> None:
    assert undeclared(ROOT / folder, declared, beside) == set()


@pytest.mark.fault
def test_an_undeclared_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("import numpy.typing\nfrom yaml import safe_load\n", encoding="utf-8")
    assert undeclared(tmp_path, RUNTIME) == {"yaml"}
    assert undeclared(tmp_path, RUNTIME, frozenset({"latency_probe"})) == {"yaml"}
