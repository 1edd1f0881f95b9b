import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from titlegen import doctor
from titlegen.cli import main
from titlegen.console import EXIT_ERROR
from titlegen.settings import load_settings


def test_importing_the_command_line_loads_no_heavy_package() -> None:
    heavy = [
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "unsloth",
        "xllamacpp",
        "matplotlib",
        "uvicorn",
    ]
    assert imported("titlegen.cli", heavy) == "[]"


def test_preparing_imports_nothing_that_scores() -> None:
    wanted = ["titlegen.evaluate", "titlegen.metrics", "titlegen.generation", "titlegen.data"]
    assert imported("titlegen.stages, titlegen.summary, titlegen.data", wanted) == "['titlegen.data']"


def imported(modules: str, wanted: list[str]) -> str:
    code = f"import sys, {modules}; print([name for name in {wanted!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - our own code


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], 'Did you mean "train"'),
        (["train", "--train.max-lenght", "3"], "Did you mean --train.max-length"),
        (["generate", "a.txt", "--serve.start-offline", "false"], "nothing takes 'false'; a switch has no value"),
        (["train", "--train.max-length", "long"], "setting 'train.max_length' = 'long'"),
        (["train", "--profile", "quikstart"], "did you mean 'quickstart'"),
        (["train", "--profile", "gemma3n-e4b"], "needs an NVIDIA GPU"),
        (["generate"], "ARTICLE"),
        (["prepare", "--model", "./nowhere"], "model.base './nowhere' is not a directory"),
        (["prepare", "--model=./nowhere"], "model.base './nowhere' is not a directory"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    if torch.cuda.is_available() and "gemma3n-e4b" in arguments:
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == EXIT_ERROR
    captured = capsys.readouterr()
    assert expected in captured.err.splitlines()[-1]
    assert captured.err.splitlines()[-1].startswith("titlegen: ")
    assert captured.out == ""


def test_debug_switch_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITLEGEN_DEBUG", "1")
    with pytest.raises(Exception, match="quikstart"):
        main(["train", "--profile", "quikstart"])


def test_doctor_reports_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    assert "disk" in capsys.readouterr().out
    main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)
    assert {"Python", "memory", "disk", "torch", "GPU", "base model", "Hub token", "model server"} <= {
        c["name"] for c in checks
    }


def test_doctor_says_what_the_mission_needs_here(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert main(["doctor", "--profile", "gemma3n-e4b"]) == 1
    out = capsys.readouterr().out
    assert "MISSING  GPU" in out
    assert "--profile quickstart" in out


@pytest.mark.fault
def test_doctor_reports_what_it_cannot_even_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor", "--model.base", "/no/such directory"]) == 1
    out = capsys.readouterr().out
    assert "MISSING  torch" in out
    assert "unknown without torch" in out
    assert "/no/such directory is neither a directory nor a Hub name" in out


@pytest.mark.parametrize(
    ("total_gib", "state", "shown"),
    # What a machine of 24 GiB says of itself, and one of 22.
    [(23.5, "ok", "24 GiB"), (22.0, "missing", "22.0 GiB")],
)
def test_doctor_counts_memory_as_people_do(
    monkeypatch: pytest.MonkeyPatch, total_gib: float, state: str, shown: str
) -> None:
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=total_gib * 2**30))
    check = doctor._memory(load_settings(profile="gemma3n-e4b"))
    assert check.state == state
    assert check.found.startswith(shown)


@pytest.mark.parametrize(("free_gib", "state", "shown"), [(5.0, "ok", "5 GiB"), (4.99, "missing", "4.9 GiB")])
def test_doctor_shows_no_disk_as_missing_that_looks_enough(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, state: str, shown: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_gib * 2**30))
    check = doctor._disk(load_settings())
    assert check.state == state
    assert check.found.startswith(shown)


@pytest.mark.parametrize(
    ("gib", "nccl", "linked", "state", "shown"),
    [
        ((80,), True, True, "absent", "1 card; one process trains"),
        ((80, 80), True, True, "ok", "card 0 80 GiB, card 1 80 GiB; training takes all 2 cards"),
        ((80, 24), True, True, "ok", "the slowest sets the pace, and the smallest decides about memory"),
        ((80, 80), True, False, "ok", "no direct access between 0 and 1: gradients take the way through host memory"),
        ((80, 80), False, True, "missing", "torch has no NCCL"),
    ],
)
def test_doctor_says_what_several_cards_need(
    monkeypatch: pytest.MonkeyPatch, gib: tuple[int, ...], nccl: bool, linked: bool, state: str, shown: str
) -> None:
    import torch

    monkeypatch.setattr(doctor, "find_cards", lambda: (len(gib), "/dev"))
    cards = [SimpleNamespace(name=f"card {number}", total_memory=size * 2**30) for number, size in enumerate(gib)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: cards[number])
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda _, __: linked)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    check = doctor._cards(load_settings(profile="gemma3n-e4b"))
    assert check.state == state
    assert shown in check.found


@pytest.mark.parametrize(("card_gib", "state"), [(15.6, "ok"), (14.7, "missing")])
def test_doctor_takes_a_card_of_16_gib_for_one(monkeypatch: pytest.MonkeyPatch, card_gib: float, state: str) -> None:
    import torch

    card = SimpleNamespace(name="a card", total_memory=card_gib * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert doctor._gpu(load_settings(profile="gemma3n-e4b")).state == state
