"""Options that acceptance/ and benchmarks/ share; defined here, so that one run may take both folders."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run name the profile, the server, and whether a release depends on it."""
    group = parser.getgroup("titlegen")
    group.addoption("--profile", default="quickstart", help="profile whose outputs are looked at (default: quickstart)")
    group.addoption("--host", metavar="URL", help="model server; default: OLLAMA_HOST, else that of the deployment")
    group.addoption("--release", action="store_true", help="what cannot be checked fails instead of being skipped")
    group.addoption("--spec", action="append", default=[], metavar="ID", help="check this line of docs/spec.md only")
