"""Benchmarks write into the outputs; only an explicit step changes the figures that the documents rest on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


def run(output: Path, code: str, folder: Path = BENCHMARKS) -> subprocess.CompletedProcess[str]:
    """Run Python with the benchmarks' folder as that of its script."""
    environment = {"TITLEGEN_OUTPUT": str(output), "PYTHONPATH": f"{folder}:{ROOT}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=output, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The benchmarks' folder with two results, in a place where they may change."""
    folder = tmp_path / "benchmarks"
    (folder / "results").mkdir(parents=True)
    for name in ("machine.py", "keep.py"):
        (folder / name).write_bytes((BENCHMARKS / name).read_bytes())
    (folder / "results" / "speed.json").write_text(json.dumps({"metrics": {"a": 1.0, "b": 2.0}}), encoding="utf-8")
    planned = tmp_path / "titlegen" / "plan" / "measured.json"
    planned.parent.mkdir(parents=True)
    planned.write_text(json.dumps({"speed.b": 2.0, "speed_b.b": 3.0}), encoding="utf-8")
    return folder


def measure(output: Path, metrics: str, folder: Path) -> None:
    done = run(output, f"from machine import write_result; write_result('speed', {metrics}, 'notes', 'numpy')", folder)
    assert done.returncode == 0, done.stderr


def test_a_result_lies_in_the_outputs_until_it_is_kept(tmp_path: Path, copy: Path) -> None:
    kept = copy / "results" / "speed.json"
    before = kept.read_bytes()
    measure(tmp_path, "{'a': 1.5}", copy)
    measure(tmp_path, "{'b': 0.123456}", copy)
    assert kept.read_bytes() == before
    written = json.loads((tmp_path / "benchmarks" / "speed.json").read_bytes())
    assert written["metrics"] == {"a": 1.5, "b": 0.1235}
    assert {"name", "device", "date", "versions", "notes"} < written.keys()
    done = run(tmp_path, "import sys, keep; sys.argv = ['keep.py', 'speed']; keep.main()", copy)
    assert done.returncode == 0, done.stderr
    assert json.loads(kept.read_bytes()) == written
    assert "a: 1.0 -> 1.5" in done.stdout
    assert "b: 2.0 -> 0.1235" in done.stdout
    # `titlegen plan` uses one of them.
    planned = json.loads((tmp_path / "titlegen" / "plan" / "measured.json").read_bytes())
    assert planned == {"speed.b": 0.1235, "speed_b.b": 3.0}


@pytest.mark.fault
def test_a_result_that_lacks_a_figure_or_was_not_measured_is_not_kept(tmp_path: Path, copy: Path) -> None:
    kept = copy / "results" / "speed.json"
    before = kept.read_bytes()
    measure(tmp_path, "{'a': 1.5}", copy)
    for name, said in (("speed", "lacks b, which speed.json has"), ("other", "measured is: speed")):
        done = run(tmp_path, f"import sys, keep; sys.argv = ['keep.py', {name!r}]; keep.main()", copy)
        assert done.returncode == 1
        assert said in done.stderr
    assert kept.read_bytes() == before


def test_no_benchmark_writes_into_the_project() -> None:
    """Only ``keep.py`` knows where the project's figures are."""
    for path in sorted(BENCHMARKS.glob("*.py")):
        if path.name != "keep.py":
            assert '"results"' not in path.read_text(encoding="utf-8").replace('["results"]', ""), path.name


def test_trainings_that_took_turns_become_one_file(tmp_path: Path) -> None:
    speeds = {"plain_1": 100.0, "plain_2": 120.0, "titlegen_1": 600.0, "titlegen_2": 720.0, "unsloth_1": 220.0}
    ours = {"plan": {"batch": 16}, "to_first_step_s": 9.0, "loss_at_start": 12.5, "full_loss_at_start": 12.5}
    for name, speed in speeds.items():
        found = {"tok_s": speed, "peak_gib": 50.0, "device": "a card", "versions": {}} | ours
        (tmp_path / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
    code = "import sys, in_turn; sys.argv = ['in_turn.py', '.', 'train_gemma4_e4b']; in_turn.main()"
    assert run(tmp_path, code).returncode == 0
    written = json.loads((tmp_path / "train_gemma4_e4b.json").read_bytes())
    metrics = written["metrics"]
    assert (metrics["tok_s_plain"], metrics["tok_s_titlegen"]) == (110, 660)
    assert (metrics["ratio_vs_plain"], metrics["ratio_vs_unsloth"]) == (6, 3)
    assert written["turns"]["plain"] == [100, 120]
    for name in speeds:
        (tmp_path / f"{name}.json").unlink()
    assert "holds no result of a turn" in run(tmp_path, code).stderr
