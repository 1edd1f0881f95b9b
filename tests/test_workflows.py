import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from workflow_policy import violations

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
CI, GPU = FOLDER / "ci.yml", FOLDER / "gpu.yml"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def steps(path: Path, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(read(path))["jobs"][job]["steps"]
    return found


def sessions(path: Path, job: str) -> list[str]:
    """The nox sessions that a job runs, in order."""
    scripts = "\n".join(step.get("run", "") for step in steps(path, job))
    return [
        name
        for line in scripts.splitlines()
        if line.strip().startswith("nox -s ")
        for name in line.partition(" -- ")[0].split()[2:]
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_keep_to_the_policy(path: Path) -> None:
    assert violations(read(path)) == []


SECRET = "${{ secrets.HF_TOKEN }}"  # noqa: S105 - an expression, no secret


@pytest.mark.fault
@pytest.mark.parametrize(
    ("path", "right", "wrong", "problem"),
    [
        (GPU, "on:\n", "on:\n  pull_request:\n", "own machine, started by ['pull_request']"),
        (GPU, "on:\n", "on:\n  push:\n", "own machine, started by ['push']"),
        (CI, "runs-on: ubuntu-24.04", "runs-on: [self-hosted, gpu]", "own machine, started by"),
        (CI, "runs-on: ubuntu-24.04", "runs-on: ubuntu-latest", "no pinned version of a hosted machine"),
        (GPU, "[self-hosted, linux, gpu]", "[self-hosted, linux]", "without asking for the label gpu"),
        (GPU, "\n    env:\n", f"\n    env:\n      HF_TOKEN: {SECRET}\n", "shows a secret to every step"),
        (GPU, "jobs:\n", f"env:\n  HF_TOKEN: {SECRET}\njobs:\n", "shows a secret to every job"),
        (
            GPU,
            "        with:\n",
            f"        env:\n          HF_TOKEN: {SECRET}\n        with:\n",
            "secret to actions/",
        ),
        (CI, "    steps:\n", f"    steps:\n      - run: env\n        env:\n          A: {SECRET}\n", "nobody has read"),
        (GPU, "    timeout-minutes: 240\n", "", "six hours"),
    ],
)
def test_a_tampered_workflow_breaks_the_policy(path: Path, right: str, wrong: str, problem: str) -> None:
    """zizmor, in the lint session, finds what no project should do; this is what this project should not."""
    assert right in read(path)
    found = violations(read(path).replace(right, wrong))
    assert any(problem in line for line in found), found


def test_hosted_runners_check_the_code_and_go_the_whole_way_of_the_quickstart() -> None:
    assert [step["run"] for step in steps(CI, "checks") if "run" in step][-1] == "bash .ci/run"
    assert sessions(CI, "quickstart") == ["train", "push", "deploy", "acceptance"]


def test_the_own_machine_releases_to_staging_and_measures() -> None:
    assert sessions(GPU, "release") == ["train", "push", "deploy", "acceptance", "benchmarks"]
    release = {step["run"]: step.get("env", {}) for step in steps(GPU, "release") if "run" in step}
    with_secret = [script for script, env in release.items() if "secrets." in str(env)]
    assert [script.rpartition("nox -s ")[2].split()[0] for script in with_secret] == ["push", "acceptance"]
    assert all("STAGING" in release[script]["HF_REPO"] for script in with_secret)
    # What was skipped is no release.
    for session in ("acceptance", "benchmarks"):
        assert [script for script in release if f"-s {session} " in script and "--release" in script]


@pytest.mark.fault
def test_the_push_of_a_release_stops_without_a_token() -> None:
    (script,) = [step["run"] for step in steps(GPU, "release") if "nox -s push" in step.get("run", "")]
    script = script.replace("nox -s push", "echo pushed")
    for missing in ("HF_TOKEN", "HF_ORG", "HF_REPO"):
        given = {name: "x" for name in ("HF_TOKEN", "HF_ORG", "HF_REPO") if name != missing}
        environment = {"PATH": os.environ["PATH"], **given}
        # As a hosted or own runner starts it.
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode != 0
        assert missing in done.stderr
        assert "pushed" not in done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_reports_are_kept_also_of_a_failed_run(path: Path) -> None:
    uploads = [
        step
        for job in yaml.safe_load(read(path))["jobs"].values()
        for step in job["steps"]
        if "upload-artifact" in step.get("uses", "")
    ]
    assert uploads
    for step in uploads:
        assert step["if"] == "always()"
        folders = {Path(line).name for line in step["with"]["path"].split()}
        assert folders >= {"report", "report-served", "verify", "latency", "acceptance"}


def test_continuous_integration_calls_the_readmes_test_command() -> None:
    script = read(ROOT / ".ci" / "run")
    # The last line that it prints is the suite's.
    assert [line for line in script.splitlines() if line.startswith("nox")] == [
        f"nox -s {n}" for n in ("lint", "slow", "tests")
    ]
    assert "nox -s tests" in read(ROOT / "README.md")
