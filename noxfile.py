"""The sessions that drive titlegen; all of them share one environment, installed once from one lock."""

import hashlib
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
# Our own environment is shared by the sessions, so nox has none to make.
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]

ROOT = Path(__file__).parent
ENVIRONMENT = ROOT / ".venv"
LOCK = ROOT / "constraints.txt"
BIN = ENVIRONMENT / "bin"


def install(session: nox.Session, *, gpu: bool = False) -> None:
    """Create and fill the environment, unless it already holds what the lock and pyproject.toml ask for."""
    extras = "dev,gpu" if gpu or wants_gpu(session) else "dev"
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = ENVIRONMENT / "titlegen-installed"
    installed = stamp.read_text(encoding="utf-8").split() if stamp.is_file() else ["", ""]
    if installed[0] == wanted and set(extras.split(",")) <= set(installed[1].split(",")):
        return
    session.log("installing titlegen and its dependencies, once (a few minutes)")
    session.run(sys.executable, "-m", "venv", str(ENVIRONMENT), external=True)
    python = str(BIN / "python")
    session.run(python, "-m", "pip", "install", "--quiet", "-c", str(LOCK), "-e", f"{ROOT}[{extras}]", external=True)
    stamp.write_text(f"{wanted} {extras}", encoding="utf-8")


def wants_gpu(session: nox.Session) -> bool:
    """Return whether the session's arguments name a profile that trains on a GPU."""
    return "gemma3n-e4b" in session.posargs


def run(session: nox.Session, program: str, *arguments: str) -> None:
    """Run a program of the shared environment from the project's root."""
    session.run(str(BIN / program), *arguments, external=True)


@nox.session
def train(session: nox.Session) -> None:
    """Prepare, fit, merge, convert to GGUF and evaluate; arguments go to the command line."""
    install(session)
    # Every verb brings the ones before it up to date: this is the whole way from raw data to scores.
    run(session, "titlegen", "evaluate", "--evaluate.target", "merged", *session.posargs)


@nox.session
def push(session: nox.Session) -> None:
    """Publish the model to the Hub, or to the bundled offline Hub when no token is configured."""
    install(session)
    run(session, "titlegen", "push", *session.posargs)


@nox.session
def deploy(session: nox.Session) -> None:
    """Create the model on the Ollama server, smoke-test it, and score what it serves."""
    install(session)
    run(session, "titlegen", "deploy", *session.posargs)
    run(session, "titlegen", "evaluate", "--evaluate.target", "server", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and layers."""
    install(session)
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "mypy")
    run(session, "lint-imports")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    install(session)
    run(session, "pytest", *session.posargs)


@nox.session
def acceptance(session: nox.Session) -> None:
    """Run the specification's checklist against the outputs, the Hub and the server of a profile."""
    install(session)
    run(session, "pytest", "acceptance", "-m", "acceptance", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Run the latency gates and the ratio benchmarks."""
    install(session)
    run(session, "pytest", "benchmarks", *session.posargs)
