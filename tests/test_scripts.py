"""Every script, and every command of the images and the compose file, run as they stand, on a tiny model."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tiny_runs import PROFILE

ROOT = Path(__file__).resolve().parents[1]
# What the scripts are for; in the copy it is a tiny one.
MISSION = "gemma3n-e4b"
ENDS = """[export]
gguf_types = ["f16"]
verify_articles = 1
[hub]
offline_port = 0
"""

Execute = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def project(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the images hold, with a tiny profile in the place of the mission's."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("titlegen", "scripts", "serving"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    profile = copy / "titlegen" / "profiles" / f"{MISSION}.toml"
    assert profile.is_file()
    profile.write_text(PROFILE.format(base=tiny_base) + ENDS, encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def execute(project: Path) -> Iterator[Execute]:
    """Runs a command as a container does, but in the copy and without a token."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(project),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "PYTHONPATH": str(project),
        "HF_ORG": "org",
        "HF_REPO": "titles",
    }

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603 - the project's own commands
            command, cwd=project, env=environment, capture_output=True, text=True, check=False
        )

    yield run
    run("titlegen", "serve", "--stop")


def commands(service: str, dockerfile: str, project: Path) -> list[list[str]]:
    """Return what a service runs, and what its image runs by default, without a container's mounts."""
    compose = yaml.safe_load((ROOT / "docker" / "compose.ollama.yml").read_text(encoding="utf-8"))
    (image,) = re.findall(r"^CMD (.*)$", (ROOT / "docker" / dockerfile).read_text(encoding="utf-8"), re.MULTILINE)
    found = [compose["services"][service]["command"], json.loads(image)]
    mounted = [
        [word.replace("$$", "$").replace("/serving_ollama", f"{project}/serving/ollama") for word in c] for c in found
    ]
    return [command for number, command in enumerate(mounted) if command not in mounted[:number]]


def ran(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line.partition(":")[0] for line in done.stderr.splitlines() if line.endswith(": running")]


@pytest.mark.slow
def test_the_containers_commands_run_as_they_stand(project: Path, execute: Execute) -> None:
    for command in commands("trainer", "Dockerfile.train.unsloth", project):
        done = execute(*command)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
    assert (project / "outputs" / MISSION / "verify" / "checks.json").is_file()
    publishing = commands("tools", "Dockerfile.tools", project)
    if shutil.which("envsubst") is None:
        publishing = [[*words[:-1], re.sub(r"^envsubst .*\n", "", words[-1])] for words in publishing]
    for command in publishing:
        done = execute(*command)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr[-2000:]}"
        assert re.search(r"^http://127\.0\.0\.1:\d+/org/titles$", done.stdout, re.MULTILINE)
    # Called without arguments each is of the same profile: there is nothing left to do, and no other folder.
    for script in sorted((project / "scripts").iterdir()):
        done = execute("bash" if script.suffix == ".sh" else "python", str(script))
        assert done.returncode == 0, f"{script.name}\n{done.stderr[-2000:]}"
        assert ran(done) == [], script.name
    assert {path.name for path in (project / "outputs").iterdir()} == {MISSION, "run"}


@pytest.mark.fault
@pytest.mark.parametrize("script", ["prepare_dataset.py", "train_unsloth_sft.py", "export_merged_hf_unsloth.py"])
def test_another_profile_takes_the_place_of_the_missions(execute: Execute, script: str) -> None:
    done = execute("python", f"scripts/{script}", "--profile", "none.toml")
    assert done.returncode == 2
    assert "'none.toml' does not exist" in done.stderr.splitlines()[-1]
