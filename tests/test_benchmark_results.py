"""Benchmarks write into the outputs; only an explicit step changes the figures that the documents rest on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def measured(speed: float, **more: Any) -> dict[str, Any]:
    """What a role of gpu_train.py writes, as far as results are made of it."""
    ours = {"plan": {"batch": 16}, "to_first_step_s": 39.0, "loss_at_start": 12.5, "full_loss_at_start": 12.5}
    ours |= {"reserved_gib": 60.0, "load_peak_gib": 7.0, "parts_s": {"load": 30.0}, "mean_row": 2000.0}
    others = {"first_step_s": 5.0, "gemm_tflop_s": 750.0, "process_s": 100.0, "device": "a card", "versions": {}}
    return {"tok_s": speed, "peak_gib": 50.0} | ours | others | more


ROLES: dict[str, dict[str, Any]] = {
    "plain_1": measured(100.0),
    "plain_2": measured(120.0),
    "unsloth_1": measured(220.0),
    "unsloth_eager_1": measured(90.0),
    "titlegen_1": measured(600.0),
    "titlegen_2": measured(720.0),
    "titlegen_pts_1": measured(550.0),
    "titlegen_pts_2": measured(440.0),
    "titlegen_pts_fp8_1": measured(990.0, fp8_error=0.1),
    "titlegen_pts_cold": measured(500.0, to_first_step_s=85.0),
    **{name: measured(300.0) for name in ("limit_24", "limit_13", "low_memory", "low_memory_32_rows", "long_1400x3")},
    "recomputed_8x2048_1": measured(250.0),
    "resume_e4b": {"metrics": {"largest_difference": 0.005}},
}


def make_results(folder: Path, family: str) -> str:
    """Make result files of what lies in a folder; return what was printed."""
    code = f"import sys, train_results; sys.argv = ['', '.', {family!r}]; train_results.main()"
    done = run(folder, code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_results_of_trainings_are_written_whole(tmp_path: Path) -> None:
    for name, found in ROLES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
    make_results(tmp_path, "gemma3n")
    metrics = {}
    for name in ("train_e4b", "train_e4b_in_turn", "train_e4b_small", "faster", "train_e4b_fp8"):
        written = json.loads((tmp_path / f"{name}.json").read_bytes())
        assert written["device"] == "a card"
        metrics[name] = written["metrics"]
        kept = BENCHMARKS / "results" / f"{name}.json"
        if kept.is_file():
            # So keep.py takes it.
            assert json.loads(kept.read_bytes())["metrics"].keys() <= metrics[name].keys()
    turns, exact = metrics["train_e4b_in_turn"], metrics["train_e4b_fp8"]
    assert (turns["tok_s_plain"], turns["tok_s_titlegen"], turns["tok_s_plain_turns"]) == (110, 660, [100, 120])
    assert (turns["ratio_vs_plain"], turns["ratio_vs_unsloth"], turns["ratio_vs_plain_pts"]) == (6, 3, 4.5)
    assert turns["to_first_step_cold_without_load_s"] == 55
    assert metrics["train_e4b"]["tok_s_unsloth"] == 90
    assert metrics["faster"]["gemm_share"] == pytest.approx(9.07 * 0.66 / 750, rel=0.01)
    assert (exact["ratio_pts_fp8"], exact["fp8_error_titlegen_pts_fp8"]) == (2, 0.1)
    (tmp_path / "unsloth_eager_1.json").unlink()
    assert "train_e4b: not written, for unsloth_eager_1 was not measured" in make_results(tmp_path, "gemma3n")


def test_another_familys_trainings_that_took_turns_become_one_file(tmp_path: Path) -> None:
    for name in ("plain_1", "unsloth_1", "titlegen_1", "titlegen_2"):
        (tmp_path / f"{name}.json").write_text(json.dumps(ROLES[name]), encoding="utf-8")
    make_results(tmp_path, "gemma4")
    metrics = json.loads((tmp_path / "train_gemma4_e4b.json").read_bytes())["metrics"]
    assert (metrics["ratio_vs_plain"], metrics["rows_titlegen"]) == (6.6, 16)
    kept = json.loads((BENCHMARKS / "results" / "train_gemma4_e4b.json").read_bytes())["metrics"]
    assert kept.keys() <= metrics.keys()
    for name in ("titlegen_1", "titlegen_2"):
        (tmp_path / f"{name}.json").unlink()
    assert "not written, for titlegen_1 was not measured" in make_results(tmp_path, "gemma4")


def test_every_label_of_the_small_models_trainings_is_understood(tmp_path: Path) -> None:
    done = run(tmp_path, "import json, gpu_pipeline as p; print(json.dumps({x: p.options_of(x) for x in p.LABELS}))")
    options = json.loads(done.stdout)
    kept = json.loads((BENCHMARKS / "results" / "train_270m.json").read_bytes())["metrics"]
    assert options.keys() == {label for label, found in kept.items() if isinstance(found, dict)}
    wide = "unsloth-16bit, lr 7e-4, batch 16, r 64, alpha 128, dropout 0.1, weight decay 0.1"
    assert " ".join(options[wide]) == (
        "--train.backend unsloth --train.no-load-in-4bit --train.compile false --train.learning-rate 7e-4 "
        "--train.per-device-train-batch-size 4 --train.gradient-accumulation-steps 4 --train.lora-r 64 "
        "--train.lora-alpha 128 --train.lora-dropout 0.1 --train.weight-decay 0.1"
    )


def test_two_computations_of_the_same_losses_are_compared_with_two_seeds(tmp_path: Path) -> None:
    losses = {"fp8_0": [3.0, 2.0], "fp8_1": [3.0, 2.1], "trimmed_0": [3.1, 2.0], "trimmed_1": [3.0, 2.0]}
    done = run(tmp_path, f"import json, gpu_curves; print(json.dumps(gpu_curves.compare({losses})))")
    found = json.loads(done.stdout)
    assert found == pytest.approx(
        {"apart_mean": 0.05, "apart_largest": 0.1, "seeds_apart_mean": 0.05, "seeds_apart_largest": 0.1}
    )
