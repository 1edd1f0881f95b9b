"""Options and fixtures of the latency gates."""

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from titlegen.record import recall
from titlegen.settings import Settings, load_settings

_TABLE = pytest.StashKey[str]()
# Facts that tell machines apart; others, such as the current clock rate, change from run to run.
_MACHINE_FIELDS = ("node", "machine", "system", "python_version")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("titlegen").addoption(
        "--articles", type=int, help="articles of a latency measurement (default: the profile's latency.articles)"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # In the name of the benchmark, so that no profile is compared with another's history.
    if "profile" in metafunc.fixturenames:
        metafunc.parametrize("profile", [metafunc.config.getoption("profile")])


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    stable = {name: machine_info[name] for name in _MACHINE_FIELDS}
    cpu = {name: machine_info["cpu"].get(name) for name in ("brand_raw", "count")}
    machine_info.clear()
    machine_info.update(stable, cpu=cpu)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if table := config.stash.get(_TABLE, ""):
        terminalreporter.section("latency")
        terminalreporter.write_line(table)


@pytest.fixture
def settings(profile: str, pytestconfig: pytest.Config) -> Settings:
    articles = pytestconfig.getoption("articles")
    overrides = {"latency": {"articles": articles}} if articles else {}
    return recall(load_settings(profile=profile, **overrides))


@pytest.fixture
def show(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Shows a table at the end of the run, also when nothing failed."""

    def keep(table: str) -> None:
        pytestconfig.stash[_TABLE] = table

    return keep


@pytest.fixture
def unavailable(pytestconfig: pytest.Config) -> Callable[[str], NoReturn]:
    """Skips with a reason; with --release, a missing measurement fails."""

    def stop(reason: str) -> NoReturn:
        if pytestconfig.getoption("release"):
            pytest.fail(reason)
        pytest.skip(reason)

    return stop
