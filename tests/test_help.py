import re

import pytest
from rich.console import Console

from titlegen.cli import app, main
from titlegen.console import EXIT_DONE
from titlegen.help import _ALWAYS, _SHOWN
from titlegen.settings import Settings

VERBS = sorted(_SHOWN)
# A page of a terminal holds about sixty lines.
_LINES = 60


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == EXIT_DONE
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    # The program keeps the console, and so the width, of the first help that a process shows.
    monkeypatch.setattr(app, "console", Console(width=120))


def test_every_verb_says_which_settings_matter_for_it() -> None:
    assert {name for name in app if not name.startswith("-")} == set(VERBS)
    known = {
        f"{stage}.{name}"
        for stage in Settings.STAGES
        for name in type(Settings.model_fields[stage].default).model_fields
    }
    assert {name for names in _SHOWN.values() for name in names} <= known


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_own_options_come_first_and_help_is_a_page(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, verb, "--help")
    assert text.index("--json") < text.index("--profile")
    options = re.findall(r"--([a-z]+\.[a-z.-]+|profile|output)\b", text)
    assert {name.replace("-", "_") for name in options if ".no-" not in name and ".empty-" not in name} == {
        *_ALWAYS,
        *_SHOWN[verb],
    }
    assert len(text.splitlines()) < _LINES
    assert f"more settings: titlegen {verb} --help-all" in text


@pytest.mark.parametrize("verb", ["prepare", "evaluate"])
def test_all_settings_are_told_on_demand(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, verb, "--help-all").split())
    for stage in Settings.STAGES:
        for name in type(Settings.model_fields[stage].default).model_fields:
            assert f"--{stage}.{name.replace('_', '-')}" in text
    assert "more settings" not in text


@pytest.mark.parametrize(
    ("arguments", "epochs", "source"),
    [
        (["train", "--help"], "0.16", "embedded"),
        (["train", "--help", "--profile", "gemma3n-e4b"], "3", "AWeirdDev/zh-tw-pts-articles-sm"),
        (["train", "--profile=gemma3n-e4b", "-h"], "3", "AWeirdDev/zh-tw-pts-articles-sm"),
    ],
)
def test_defaults_are_those_of_the_profile_in_use(
    arguments: list[str], epochs: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = " ".join(shown(capsys, *arguments).replace("│", "").split())
    assert re.search(rf"--train.num-train-epochs FLOAT Passes over the train split. \[default: {epochs}(\.0)?\]", text)
    assert f"[default: {source}]" in text


def test_the_profile_of_the_environment_counts_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TITLEGEN_PROFILE", "gemma3n-e4b")
    assert "[default: unsloth/gemma-3n-E4B-it]" in shown(capsys, "train", "--help")


@pytest.mark.fault
def test_help_is_given_although_the_settings_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help", "--profile", "quikstart"]) == EXIT_DONE
    captured = capsys.readouterr()
    assert "--train.learning-rate" in captured.out
    assert captured.err == "titlegen: unknown profile 'quikstart'; did you mean 'quickstart'?\n"
