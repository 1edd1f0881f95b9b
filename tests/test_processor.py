import subprocess
import sys
from pathlib import Path

import pytest

from titlegen.processor import describe_processor

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


def test_the_suite_says_which_features_it_runs_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own command
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("processor: "))
    assert line == f"processor: {describe_processor()}"
    assert "ATEN_CPU_CAPABILITY=default" in line
