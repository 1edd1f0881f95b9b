import subprocess
import sys
from pathlib import Path

import pytest

from titlegen.doctor import examine
from titlegen.processor import describe_processor, missing_features
from titlegen.settings import load_settings

XEON = "processor\t: 0\nmodel name\t: Xeon\nflags\t: fpu avx avx2 avx512f avx512_bf16 amx_tile\n\nprocessor\t: 1"
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16 i8mm\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (XEON, "Xeon, avx avx2 avx512f avx512_bf16 amx_tile"),
        (ARM, ", asimd sve i8mm bf16"),
        ("", ", no features known"),
        (None, ", no features known"),
    ],
)
def test_features_come_from_the_first_core(
    text: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titlegen.environment._PROCESSOR_LIMITS", ())
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert describe_processor(tmp_path / "cpuinfo").endswith(expected)


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ("sse2 avx avx2 fma f16c bmi2", []),
        ("sse2 avx f16c", ["avx2", "fma", "bmi2"]),
        ("sse2", ["avx2", "fma", "f16c", "bmi2"]),
        # Not known, or another kind of processor.
        ("", []),
        ("asimd", []),
    ],
)
def test_a_processor_that_llama_cpp_cannot_run_on_is_named(
    flags: str, missing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t: {flags}\n")
    assert missing_features(tmp_path / "cpuinfo") == missing
    monkeypatch.setattr("titlegen.doctor.missing_features", lambda: missing)
    (check,) = (check for check in examine(load_settings(profile="quickstart")) if check.name == "processor")
    assert check.state == ("missing" if missing else "ok")
    assert ", ".join(missing) in check.remedy


def test_the_suite_says_which_features_it_runs_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own command
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("processor: "))
    assert line == f"processor: {describe_processor()}"
    assert "ATEN_CPU_CAPABILITY=default" in line
