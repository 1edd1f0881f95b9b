"""The sessions' own code: what is installed, what is passed on, and what a person sees of an installation."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from titlegen.settings import TrainSettings, profile_names

ROOT = Path(__file__).resolve().parents[1]


def session(*arguments: str) -> SimpleNamespace:
    return SimpleNamespace(posargs=list(arguments))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["--profile", "quickstart"], False),
        (["--profile", "gemma3n-e4b"], True),
        (["--profile=gemma3n-e4b"], True),
        (["--profile", "gemma4-e4b"], True),
        (["--output", "gemma3n-e4b"], False),
        (["--profile", "mine.toml"], True),
        (["--profile", "cpu.toml"], False),
        (["--profile", "default.toml"], True),
        (["--profile", "empty.toml"], True),
        (["--profile", "none.toml"], False),
        (["--profile", "broken.toml"], False),
        (["--profile", "unknown"], False),
        (["--train.backend", "unsloth"], True),
        (["--profile", "gemma3n-e4b", "--train.backend=peft"], False),
        (["--train.seed", "3", "--profile", "mine.toml", "--json"], True),
    ],
)
def test_the_gpus_packages_are_installed_for_a_profile_that_trains_with_unsloth(
    noxfile: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "mine": '[train]\nbackend = "unsloth"',
        "cpu": '[train]\nbackend = "peft"',
        "default": "[data]\nlimit = 3",
        "empty": "",
        "broken": "[train",
    }.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    assert noxfile.wants_gpu(session(*arguments)) is expected


def test_the_environment_names_a_profile_too(noxfile: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITLEGEN_PROFILE", "gemma3n-e4b")
    assert noxfile.wants_gpu(session())
    assert not noxfile.wants_gpu(session("--profile", "quickstart"))
    monkeypatch.setenv("TITLEGEN_TRAIN__BACKEND", "peft")
    assert not noxfile.wants_gpu(session())


def test_a_profile_without_a_back_end_has_the_settings_one() -> None:
    assert TrainSettings().backend == "unsloth"
    assert profile_names() == ["gemma3n-e4b", "gemma4-e4b", "quickstart"]


def test_what_one_verb_knows_is_not_passed_to_another(noxfile: ModuleType) -> None:
    given = session("--remake", "--train.seed", "3", "--rollback", "--dry-run", "--json")
    assert noxfile.settings_of(given) == ["--train.seed", "3", "--json"]


def test_no_option_is_given_twice(noxfile: ModuleType) -> None:
    assert noxfile.default(session(), "--profile", "x") == ["--profile", "x"]
    assert noxfile.default(session("--profile", "y"), "--profile", "x") == []
    assert noxfile.default(session("--profile=y"), "--profile", "x") == []
    assert noxfile.default(session("--evaluate.target-x"), "--evaluate.target", "x") == ["--evaluate.target", "x"]


def test_an_installation_says_what_it_is_at(
    noxfile: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noxfile, "LOG_TICK_S", 0.05)
    code = "import time; print('Collecting torch', flush=True); time.sleep(0.5); print('Installing collected packages')"
    assert noxfile.run_with_progress([sys.executable, "-c", code]) == 0
    lines = capsys.readouterr().err.splitlines()
    # Also while the command itself says nothing.
    assert sum("Collecting torch" in line for line in lines) > 2
    assert "Installing collected packages" in lines[-1]
    assert max(map(len, lines)) <= noxfile.SHOWN_CHARS


@pytest.mark.fault
def test_a_failed_installation_shows_its_last_lines(noxfile: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('ERROR: no matching distribution for ' + 'x' * 200); sys.exit(3)"
    assert noxfile.run_with_progress([sys.executable, "-c", code]) == 3
    assert "x" * 200 in capsys.readouterr().err


def test_nox_does_not_miss_what_no_session_needs(tmp_path: Path) -> None:
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    path = tmp_path / "noxfile.py"
    path.write_text(f"{text}\n\n@nox.session\ndef nothing(session):\n    session.log('it ran')\n", encoding="utf-8")
    command = [sys.executable, "-m", "nox", "-f", str(path), "-s", "nothing"]
    # Without uv on the path.
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)  # noqa: S603
    assert "it ran" in done.stderr
    assert "uv" not in done.stderr
