"""The user's checklist, executable: each line of docs/spec.md is bound to exactly one marked test of this folder."""

import json
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from findings import Finding

from titlegen.data import Example, load_split
from titlegen.errors import TitlegenError
from titlegen.files import write_atomically
from titlegen.record import recall
from titlegen.runs import Folder
from titlegen.settings import Settings, load_settings

HERE = Path(__file__).resolve().parent
SPEC = HERE.parent / "docs" / "spec.md"
_LINE = re.compile(r"^- \[(?P<id>[A-Z]+-\d+)\] (?P<text>.+)$", re.MULTILINE)
_GROUP = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)

Outcome = Literal["passed", "relaxed", "undecided", "failed", "skipped"]
_MARKS: dict[Outcome, str] = {
    "passed": "[x]",
    "relaxed": "[~]",
    "undecided": "[?]",
    "failed": "[ ]",
    "skipped": "[-]",
}
_WORDS: dict[Outcome, str] = {
    "passed": "通過",
    "relaxed": "只達到放寬的門檻",
    "undecided": "無法判定",
    "failed": "未通過",
    "skipped": "略過",
}
_FINDING = pytest.StashKey[Finding]()


class Line(NamedTuple):
    """One line of the checklist; the outcome is that of its test once it ran."""

    group: str
    id: str
    text: str
    outcome: Outcome = "skipped"
    reason: str = ""
    measured: str = ""
    specification: str = ""
    """The specification's limit, where the line has one."""
    profile: str = ""
    """The profile's limit, where it is another."""

    def describe(self) -> str:
        """Return the line with its outcome, what was measured, the limits, and why it is no tick."""
        words = {"量到": self.measured, "規格": self.specification, "設定檔": self.profile}
        parts = [self.reason, *(f"{word} {text}" for word, text in words.items() if text)]
        facts = "；".join(filter(None, parts))
        return f"{_MARKS[self.outcome]} {self.id} {self.text}" + (f"：{facts}" if facts else "")


def read_checklist(path: Path) -> list[Line]:
    """Return the lines of the checklist in their order.

    Raises:
        pytest.UsageError: there is none, or an id occurs twice.
    """
    text = path.read_text(encoding="utf-8")
    groups = [(match.start(), match["title"]) for match in _GROUP.finditer(text)]
    lines = [
        Line([title for start, title in groups if start < match.start()][-1], match["id"], match["text"])
        for match in _LINE.finditer(text)
    ]
    twice = [name for name, count in Counter(line.id for line in lines).items() if count > 1]
    if twice or not lines:
        raise pytest.UsageError(f"{path} holds {'an id twice: ' + ', '.join(twice) if twice else 'no checklist'}")
    return lines


def bound_ids(items: Sequence[pytest.Item], known: Sequence[str]) -> dict[str, pytest.Item]:
    """Return the test of each id.

    Raises:
        pytest.UsageError: a test without an id, an id that the checklist does not have, two tests of one id, or an id
            without a test.
    """
    bound: dict[str, pytest.Item] = {}
    for item in items:
        marks = list(item.iter_markers("spec"))
        if len(marks) != 1:
            raise pytest.UsageError(f"{item.nodeid} has {len(marks)} spec marks; give it exactly one")
        (name,) = marks[0].args
        if name not in known:
            raise pytest.UsageError(f"{item.nodeid}: {SPEC.name} has no line {name!r}; known: {', '.join(known)}")
        if name in bound:
            raise pytest.UsageError(f"{name} is bound to both {bound[name].nodeid} and {item.nodeid}")
        bound[name] = item
    if unbound := [name for name in known if name not in bound]:
        raise pytest.UsageError(f"lines of {SPEC.name} without a test: {', '.join(unbound)}")
    return bound


class Checklist:
    """Collects the outcome of every line; prints it, and writes it beside the profile's outputs."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config, self.settings = config, settings
        self.directory = settings.directory / "acceptance"
        self.known = read_checklist(SPEC)
        self.ran: dict[str, Line] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the outcome of a test, or of the fixtures that it needed."""
        found = {name: str(value) for name, value in report.user_properties}
        name = found.get("spec")
        if name is None or (report.when != "call" and report.passed):
            return
        line = next(line for line in self.known if line.id == name)
        # A test that failed and then could not clean up has failed.
        if name not in self.ran or self.ran[name].outcome != "failed":
            facts = {key: found[key] for key in ("measured", "specification", "profile") if key in found}
            # Why a gate is no tick is a skip to pytest, and more than that to a reader.
            outcome: Any = found.get("standing", "skipped") if report.skipped else report.outcome
            self.ran[name] = line._replace(outcome=outcome, reason=_reason(report), **facts)

    def rows(self) -> list[Line]:
        """Return the lines whose tests ran, in the checklist's order."""
        return [self.ran[line.id] for line in self.known if line.id in self.ran]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the checklist."""
        if not self.ran:
            return
        terminalreporter.section(f"驗收清單（{self.settings.profile}）")
        group = ""
        for line in self.rows():
            if line.group != group:
                group = line.group
                terminalreporter.write_line(group)
            terminalreporter.write_line(f"  {line.describe()}")
        terminalreporter.write_line(self._total())

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write acceptance.md and acceptance.json; a release accepts ticks alone."""
        if not self.ran:
            return
        rows = self.rows()
        parts = [f"# 驗收結果：{self.settings.profile}", self._total()]
        for group in dict.fromkeys(line.group for line in rows):
            # The marks are markup of our own; everything after them is text.
            shown = [(line.describe()[:3], line.describe()[3:]) for line in rows if line.group == group]
            parts += [f"## {group}", "\n".join(f"- {mark}{_plain(text)}" for mark, text in shown)]
        write_atomically(self.directory / "acceptance.md", "\n\n".join(parts) + "\n")
        content: dict[str, Any] = {
            "profile": self.settings.profile,
            "release": self.release,
            "counts": self._counts(),
            "lines": [line._asdict() for line in rows],
        }
        write_atomically(self.directory / "acceptance.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        if self.release and any(line.outcome != "passed" for line in rows) and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @property
    def release(self) -> bool:
        """Whether a line that is no tick counts as failed."""
        return bool(self.config.getoption("release"))

    def _total(self) -> str:
        counts, number = self._counts(), len(self.rows())
        words = "、".join(f"{_WORDS[outcome]} {counts[outcome]}" for outcome in _WORDS if counts[outcome])
        refused = "；發行只接受通過" if self.release and counts["passed"] < number else ""
        return f"共 {number} 項：{words}{refused}"

    def _counts(self) -> dict[Outcome, int]:
        counts = Counter(line.outcome for line in self.rows())
        return {outcome: counts[outcome] for outcome in _WORDS}


def _reason(report: pytest.TestReport) -> str:
    """Return why a line was skipped or failed, in one line."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    return text.splitlines()[0].removeprefix("AssertionError: ") if text else ""


def _plain(text: str) -> str:
    """Return text without what Markdown or HTML would take for markup."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Resolve the profile's settings, once the checklist is what is being run."""
    expression = config.option.markexpr
    if "acceptance" not in expression or "not acceptance" in expression:
        return
    try:
        host = config.getoption("host")
        overrides = {"serve": {"host": host}} if host else {}
        settings = recall(load_settings(profile=config.getoption("profile"), **overrides))
    except TitlegenError as error:
        raise pytest.UsageError(str(error)) from error
    checklist = Checklist(config, settings)
    config.pluginmanager.register(checklist, "titlegen-checklist")
    if not config.option.xmlpath:
        config.option.xmlpath = str(checklist.directory / "junit.xml")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bind tests and lines to each other, and leave the lines that were not asked for."""
    ours = [item for item in items if HERE in item.path.parents]
    # A part of the folder cannot have a test for every line.
    if {item.path for item in ours} != set(HERE.glob("test_*.py")):
        return
    bound = bound_ids(ours, [line.id for line in read_checklist(SPEC)])
    for name, item in bound.items():
        item.user_properties.append(("spec", name))
    asked = config.getoption("spec")
    if unknown := [name for name in asked if name not in bound]:
        raise pytest.UsageError(f"--spec {unknown[0]}: {SPEC.name} has no such line; known: {', '.join(bound)}")
    if asked:
        items[:] = [bound[name] for name in asked]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the findings of a line's test into its report; a test without findings proves nothing."""
    finding = item.stash.get(_FINDING, Finding())
    is_line = call.when == "call" and any(item.iter_markers("spec"))
    if is_line:
        item.user_properties.extend(finding.properties.items())
    report = yield
    if is_line and report.passed and "measured" not in finding.properties:
        report.outcome, report.longrepr = "failed", f"{item.nodeid} did not say what it measured; call finding.measured"
    return report


@pytest.fixture
def finding(request: pytest.FixtureRequest) -> Finding:
    """The findings of this line's test."""
    return request.node.stash.setdefault(_FINDING, Finding())


@pytest.fixture(scope="session")
def settings(pytestconfig: pytest.Config) -> Settings:
    """The settings of the profile under acceptance."""
    checklist = pytestconfig.pluginmanager.get_plugin("titlegen-checklist")
    assert isinstance(checklist, Checklist)
    return checklist.settings


@pytest.fixture(scope="session")
def outputs(settings: Settings) -> Path:
    """The folder with the profile's outputs."""
    return settings.directory


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root."""
    return HERE.parent


@pytest.fixture(scope="session")
def test_examples(outputs: Path) -> list[Example]:
    """The held-out articles with their titles."""
    return load_split(outputs / Folder.DATA, "test")


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[Any]:
    """An HTTP client of the model server."""
    import httpx

    from titlegen.serve.server import http_options, server_url

    url = server_url(settings.serve.host)
    with httpx.Client(base_url=url, timeout=settings.serve.timeout_s, **http_options(url)) as client:
        yield client
