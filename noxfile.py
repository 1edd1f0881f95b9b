"""The sessions that drive titlegen; all of them share one environment, installed once from one lock."""

import argparse
import collections
import hashlib
import logging
import os
import platform
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Sequence
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
# How much longer the median latency may be than in the first run of the same machine: less is noise.
SLOWER = "25%"
# Options of one verb that are not settings, and that other verbs do not know.
ONE_VERB = {"--remake", "--rollback", "--dry-run"}
# A module's tests stay together: they share what is made for it. conftest.py says which begin first.
WORKERS = ["-n", "logical", "--dist", "loadfile", "--no-loadscope-reorder"]
NO_HEAVY = "not heavy and not acceptance"
# Tests patch what a module imports, and write a function with a side effect as one expression.
MYPY_TESTS = [
    *("--config-file", str(ROOT / "pyproject.toml"), "--allow-untyped-calls", "--no-warn-return-any"),
    *("--implicit-reexport", "--disable-error-code=func-returns-value"),
]
# Files that follow a published JSON schema.
SCHEMAS = {"github-workflows": ".github/workflows/*.yml", "compose-spec": "docker/compose*.yml"}
# Seconds between two lines on an installation, on a terminal and in a log.
TICK_S, LOG_TICK_S = 1.0, 10.0
SHOWN_CHARS = 78

# nox looks for uv, which no session needs.
logging.getLogger("nox").addFilter(lambda record: record.getMessage() != "uv binary not found.")


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
    pip = [python, "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check"]
    if (code := run_with_progress([*pip, "-c", str(LOCK), "-e", f"{ROOT}[{extras}]"])) != 0:
        session.error(f"pip failed with exit code {code}; its last lines are above")
    stamp.write_text(f"{wanted} {extras}", encoding="utf-8")


def run_with_progress(command: Sequence[str]) -> int:
    """Run a command, show its progress on one moving line, and its last output where it fails; returns its exit code.

    pip writes nothing for minutes while it unpacks what it has downloaded, so that the line also tells the time.
    """
    on_terminal = sys.stderr.isatty()
    said: collections.deque[str] = collections.deque([""], maxlen=20)
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603

        def listen() -> None:
            said.extend(line.strip() for line in process.stdout or () if line.strip())

        listener = threading.Thread(target=listen)
        listener.start()
        while listener.is_alive():
            listener.join(TICK_S if on_terminal else LOG_TICK_S)
            text = f"  {time.monotonic() - started:4.0f} s  {said[-1]}"[:SHOWN_CHARS]
            sys.stderr.write(f"\r{text:{SHOWN_CHARS}}" if on_terminal else f"{text}\n")
            sys.stderr.flush()
        code = process.wait()
    sys.stderr.write("\n" * on_terminal + "".join(f"{line}\n" for line in said if code))
    return code


def wants_gpu(session: nox.Session) -> bool:
    """Return whether the session's arguments or environment name a profile that trains with Unsloth."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", default=os.environ.get("TITLEGEN_PROFILE", "quickstart"))
    parser.add_argument("--train.backend", dest="backend", default=os.environ.get("TITLEGEN_TRAIN__BACKEND"))
    given, _ = parser.parse_known_args(session.posargs)
    if given.backend is not None:
        return bool(given.backend == "unsloth")
    is_file = given.profile.endswith(".toml")
    path = Path(given.profile) if is_file else ROOT / "titlegen" / "profiles" / f"{given.profile}.toml"
    try:
        profile = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # titlegen says what is wrong with it.
        return False
    # As in titlegen/settings, which cannot be imported before it is installed.
    return bool(profile.get("train", {}).get("backend", "unsloth") == "unsloth")


def run(session: nox.Session, program: str, *arguments: str) -> None:
    """Run a program of the shared environment from the project's root."""
    session.run(str(BIN / program), *arguments, external=True)


def settings_of(session: nox.Session) -> list[str]:
    """Return the session's arguments without the options of one verb, which came with those of another session."""
    return [argument for argument in session.posargs if argument not in ONE_VERB]


def default(session: nox.Session, option: str, value: str) -> list[str]:
    """Return an option with its value, unless the session's arguments have it: none may be given twice."""
    given = {argument.partition("=")[0] for argument in session.posargs}
    return [] if option in given else [option, value]


@nox.session
def train(session: nox.Session) -> None:
    """Prepare, fit, merge, convert to GGUF and evaluate; arguments go to the command line."""
    install(session)
    # Every verb brings the ones before it up to date: this is the whole way from raw data to scores.
    run(session, "titlegen", "evaluate", *default(session, "--evaluate.target", "merged"), *settings_of(session))


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
    # After a rollback, another model than the exported one answers.
    if "--rollback" not in session.posargs:
        run(session, "titlegen", "evaluate", *default(session, "--evaluate.target", "server"), *settings_of(session))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and layers, images and workflows."""
    install(session)
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "mypy")
    run(session, "mypy", "noxfile.py", "conftest.py", "scripts")
    for folder in ("tests", "acceptance", "benchmarks"):
        # Each has modules of the same names, such as conftest, and finds its own as pytest does.
        with session.chdir(ROOT / folder):
            places = os.pathsep.join(str(ROOT / place) for place in (".", folder, "tests", "benchmarks"))
            session.run(str(BIN / "mypy"), *MYPY_TESTS, ".", external=True, env={"MYPYPATH": places})
    run(session, "lint-imports")
    run(session, "hadolint", *map(str, sorted(ROOT.glob("docker/Dockerfile.*"))))
    # Offline: it asks GitHub about the actions otherwise, and for a token.
    run(session, "zizmor", "--offline", "--persona=auditor", ".github/workflows")
    for schema, files in SCHEMAS.items():
        paths = map(str, sorted(ROOT.glob(files)))
        run(session, "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *paths)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, on all cores; with arguments, which go to pytest, on one."""
    install(session)
    run(session, "pytest", *(session.posargs or WORKERS))


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take long by nature, on all cores."""
    install(session)
    run(session, "pytest", "-m", "slow and not heavy", *WORKERS, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests, long ones too, and show which lines and branches of titlegen none of them reaches."""
    install(session)
    run(session, "coverage", "erase")
    run(session, "coverage", "run", "-m", "pytest", *(session.posargs or [*WORKERS, "-m", NO_HEAVY]))
    run(session, "coverage", "combine", "--quiet")
    run(session, "coverage", "report", "--skip-covered", "--show-missing")


@nox.session
def docs(session: nox.Session) -> None:
    """Check the documents: their commands, names, links and figures, and run what can run here."""
    install(session)
    run(session, "pytest", "tests/test_docs.py", "tests/test_plan.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Show what the GPU profile would do and need; nothing is downloaded or changed."""
    install(session)
    run(session, "titlegen", "plan", *default(session, "--profile", "gemma3n-e4b"), *session.posargs)


@nox.session
def acceptance(session: nox.Session) -> None:
    """Run the specification's checklist against the outputs, the Hub and the server of a profile."""
    install(session)
    run(session, "pytest", "acceptance", "-m", "acceptance", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Run the latency gates, and compare with this machine's first run; with ``-- -m slow`` the ratio benchmarks."""
    install(session)
    run(session, "pytest", "benchmarks", *session.posargs, *history(session))


def history(session: nox.Session) -> list[str]:
    """Return the options that keep each run, and fail one that is slower than the first run kept.

    The first, since otherwise a regression would be the next run's measure. To accept one, remove the folder.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", default="quickstart")
    parser.add_argument("--host", default="")
    parser.add_argument("--benchmark-storage", type=Path, default=ROOT / ".benchmarks")
    given, _ = parser.parse_known_args(session.posargs)
    # pytest-benchmark tells machines apart by system and Python version alone.
    name = "-".join(filter(None, [platform.node(), Path(given.profile).stem, given.host]))
    folder = given.benchmark_storage.expanduser().resolve() / re.sub(r"[^\w.-]+", "-", name)
    options = [f"--benchmark-storage=file://{folder}", "--benchmark-autosave"]
    # pytest-benchmark warns of what is no mistake: nothing was deployed, or only ratio benchmarks were asked for.
    options += ["-W", "ignore:Not saving anything:pytest_benchmark.logger.PytestBenchmarkWarning"]
    if any(folder.glob("*/0001_*.json")):
        options += ["--benchmark-compare=*/0001", f"--benchmark-compare-fail=median:{SLOWER}"]
    return options
