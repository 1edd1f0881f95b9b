"""What all suites share: options, defined here so that one run may take several folders, and what they run on."""

import pytest

from titlegen.environment import prepare_threads
from titlegen.processor import describe_processor


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run name the profile, the server, and whether a release depends on it."""
    group = parser.getgroup("titlegen")
    group.addoption("--profile", default="quickstart", help="profile whose outputs are looked at (default: quickstart)")
    group.addoption("--host", metavar="URL", help="model server; default: OLLAMA_HOST, else that of the deployment")
    group.addoption("--release", action="store_true", help="what cannot be checked fails instead of being skipped")
    group.addoption("--spec", action="append", default=[], metavar="ID", help="check this line of docs/spec.md only")


def pytest_configure() -> None:
    """Let the threads of torch wait as they do in a run."""
    prepare_threads()


def pytest_report_header() -> str:
    """Say on which processor the suite runs: libraries choose their code by its features."""
    return f"processor: {describe_processor()}"
