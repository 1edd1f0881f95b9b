import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def conforms(path: Path) -> bool:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - our own command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_conform_to_githubs_schema(path: Path) -> None:
    assert conforms(path)


@pytest.mark.fault
def test_a_broken_workflow_does_not_conform(tmp_path: Path) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("runs-on:", "runs_on:"), encoding="utf-8")
    assert not conforms(path)


def test_the_own_machine_runs_no_pull_request_and_shows_secrets_to_one_step() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "gpu.yml").read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true.
    assert set(workflow[True]) == {"workflow_dispatch", "schedule"}
    steps = workflow["jobs"]["release"]["steps"]
    assert [step["run"].split()[2] for step in steps if "secrets." in str(step)] == ["push"]
    assert "concurrency" in workflow


def test_continuous_integration_calls_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "nox -s tests" in script
    assert "nox -s tests" in (ROOT / "README.md").read_text(encoding="utf-8")
