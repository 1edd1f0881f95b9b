"""Checkers of the documents: each returns what is wrong with one, so that a tampered document shows that it looks."""

import ast
import contextlib
import importlib.util
import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cyclopts
import yaml

from titlegen import summary
from titlegen.cli import app
from titlegen.environment import SWITCHES
from titlegen.errors import TitlegenError
from titlegen.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
# Programs of others, which the project neither brings nor can check.
EXTERNAL = {
    *("hf", "ollama", "curl", "sudo", "docker", "iconv", "pip", "chown", "nvidia-smi", "export", "mkdir", "."),
    *("pre-commit", "tox", "envsubst", "ray", "sbatch", "srun", "bash", "scontrol", "head"),
}
# Files of a reader's own, in examples.
EXAMPLES = {
    *("article.txt", "articles.jsonl", "articles.csv", "titles.jsonl", "mine.toml", "docker/.env"),
    *("my/articles", "newsroom/titles", ".venv/bin/activate", "ORG/NAME"),
}
# What programs write, and git does not hold.
WRITTEN = {"outputs", ".benchmarks", *summary.FOLDERS.values()}
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_+[A-Z0-9]+)+\b")
_SUFFIXES = "py|md|toml|txt|sh|yml|json|jsonl|jinja|template|png|svg|html|safetensors|gguf"
_PATH = re.compile(rf"[\w.-]*(?:/[\w.-]+)+/?|[\w-]*\.?[\w-]+\.(?:{_SUFFIXES})")
# A part of a path that stands for many, such as PROFILE.
_ANY_PART = re.compile(r"[A-Z]{3,}(?:-[A-Z]+)*(?=[/.]|$)")
_SETTING = re.compile(rf"({'|'.join(Settings.STAGES)})((?:\.\w+)+)")
# A template with less of its own would fit any message.
_FEWEST_LETTERS, _FEWEST_CHARS = 6, 14
_PLACEHOLDERS = {"VERB": "train", "ORG/NAME": "newsroom/titles", "NAME": "quickstart", "mine.toml": "quickstart"}


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    text: str


def blocks(text: str, language: str | None = None) -> list[Block]:
    """Return the fenced blocks, or those of one language."""
    found = [Block(match["language"], match["text"]) for match in _FENCE.finditer(text)]
    return [block for block in found if language in {None, block.language}]


def spans(text: str) -> list[str]:
    """Return what stands in code font within sentences, each on one line."""
    return [" ".join(span.split()) for span in _SPAN.findall(_FENCE.sub("", text))]


def fenced_commands(text: str) -> list[list[str]]:
    """Return the commands of the `sh` blocks, as words."""
    return [command for block in blocks(text, "sh") for line in block.text.splitlines() for command in _split(line)]


def inline_commands(text: str) -> list[list[str]]:
    """Return the commands within sentences, as words."""
    return [command for span in spans(text) if " " in span for command in _split(span)]


def _split(line: str) -> Iterator[list[str]]:
    with contextlib.suppress(ValueError):  # a sentence's code may be another language, with a lone quote
        words = shlex.split(line, comments=True)
        for joined, group in itertools.groupby(words, key=lambda word: word in {"&&", "&"}):
            if not joined:
                yield list(group)


def wrong_commands(text: str) -> list[str]:
    """Return commands that name a program, verb, option, session, file or service that is not there."""
    known = {"titlegen": _titlegen, "nox": _nox, "pytest": _pytest, "python": _python, "docker": _docker, "cp": _files}
    fenced = fenced_commands(text)
    wrong = [f"unknown program {command[0]}" for command in fenced if command[0] not in {*known, *EXTERNAL}]
    for command in [*fenced, *inline_commands(text)]:
        problem = known[command[0]](command) if command[0] in known else ""
        wrong += [f"{' '.join(command)}: {problem}"] if problem else []
    return wrong


def _titlegen(command: list[str]) -> str:
    words = [_PLACEHOLDERS.get(word, word) for word in command[1:]]
    if not words or not words[0].islower():
        return ""
    if words[0] not in verbs() and not words[0].startswith("-"):
        return f"no verb {words[0]!r}"
    if len(words) == 1:
        return ""
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)
    except (cyclopts.CycloptsError, TitlegenError) as error:
        return " ".join(str(error).split())
    return ""


def verbs() -> list[str]:
    """Return the verbs of the command line."""
    return [name for name in app if not name.startswith("-")]


@cache
def sessions() -> dict[str, str]:
    """Return the nox sessions and the program whose arguments each takes."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(
            ast.unparse(mark) == "nox.session" for mark in node.decorator_list
        ):
            ran = re.search(r"run\(session, '(\w+)'(?:, '(\w+)')?", ast.unparse(node))
            assert ran, node.name
            found[node.name] = f"titlegen {ran[2]}" if ran[1] == "titlegen" else ran[1]
    return found


def _nox(command: list[str]) -> str:
    if command[1:2] != ["-s"]:
        return "" if len(command) == 1 else f"unknown option {command[1]}"
    words = command[2:]
    names = words[: words.index("--")] if "--" in words else words
    given = words[words.index("--") + 1 :] if "--" in words else []
    if names == ["NAME"]:
        return ""
    unknown = [name for name in names if name not in sessions()]
    if unknown or not names:
        return f"no session {unknown}"
    for name in names if given else []:
        program = sessions()[name].split()
        problem = _titlegen([*program, *given]) if program[0] == "titlegen" else _pytest(["pytest", *given])
        if problem:
            return f"session {name}: {problem}"
    return ""


@cache
def _pytest_options() -> set[str]:
    sources = [ROOT / "conftest.py", *ROOT.glob("*/conftest.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    return set(re.findall(r'addoption\(\s*"(--[\w-]+)"', text)) | {"--benchmark-storage", "--hypothesis-profile"}


def _pytest(command: list[str]) -> str:
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    names = {marker.split(":")[0].split("(")[0] for marker in markers["markers"]}
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            if (marker := next(words, "")) not in names:
                return f"no marker {marker!r}"
        elif word.startswith("--"):
            if word not in _pytest_options():
                return f"no option {word}"
        elif not word.startswith("-") and ("/" in word or word.endswith(".py")) and not (ROOT / word).exists():
            return f"no file {word}"
    return ""


def _python(command: list[str]) -> str:
    if command[1] == "-m":
        if importlib.util.find_spec(command[2].split(".")[0]) is None or (
            command[2].startswith("titlegen") and importlib.util.find_spec(command[2]) is None
        ):
            return f"no module {command[2]}"
        targets = command[command.index(">") + 1 :] if ">" in command else []
        return "".join(f"no file {path}" for path in targets if not (ROOT / path).exists())
    return "" if command[1].startswith("-") or (ROOT / command[1]).is_file() else f"no file {command[1]}"


def _docker(command: list[str]) -> str:
    if command[1] != "compose":
        return ""
    path = ROOT / command[command.index("-f") + 1]
    if not path.is_file():
        return f"no file {path.name}"
    services = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    verb = next((index for index, word in enumerate(command) if word in {"up", "run", "exec"}), len(command))
    service = next((index for index, word in enumerate(command) if index > verb and not word.startswith("-")), None)
    if service is None or command[service] not in services:
        return "no such service"
    profile = command[command.index("--profile") + 1] if "--profile" in command[:verb] else None
    if profile is not None and profile not in services[command[service]]["profiles"]:
        return f"{command[service]} is not in the profile {profile}"
    given = command[service + 1 :]
    if given[:1] == ["titlegen"]:
        return _titlegen(given)
    script = given[1] if given[:1] in (["bash"], ["python"]) else "."
    return "" if (ROOT / script).exists() else f"no file {script}"


def _files(command: list[str]) -> str:
    return "" if (ROOT / command[1]).exists() else f"no file {command[1]}"


@cache
def options() -> set[str]:
    """Return every option of the command line and of our own pytest options."""
    found = {"--", "--version", "--help", "--help-all"} | _pytest_options()
    for verb in verbs():
        found |= {name for argument in app[verb].assemble_argument_collection() for name in argument.names}
        found |= {name for argument in app[verb].assemble_argument_collection() for name in argument.negatives}
    return found


def wrong_options(text: str) -> list[str]:
    """Return options named in sentences that no verb and no session takes."""
    words = [word for span in spans(text) if span.startswith("--") for word in span.split()]
    return [word for word in words if word.startswith("--") and word not in options()]


@cache
def source_text() -> str:
    """Return all of the project's source: what a name must occur in to exist."""
    folders = ("titlegen", "docker", "scripts", "acceptance", "benchmarks", ".github", "serving")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [ROOT / "noxfile.py", ROOT / "pyproject.toml"]
    suffixes = {".py", ".toml", ".yml", ".j2", ".sh", ".ollama", ".unsloth", ".tools", ".example", ".template", ".json"}
    return "\n".join(path.read_text(encoding="utf-8") for path in files if path.suffix in suffixes)


# Source: the manuals of NCCL, of Slurm's srun and of llama.cpp's server. titlegen leaves them to those.
_OTHERS = frozenset({"NCCL_SOCKET_IFNAME", "SLURM_NNODES", "SLURM_NODEID", "SLURM_JOB_NODELIST", "LLAMA_ARG_SPEC_TYPE"})


def wrong_variables(text: str) -> list[str]:
    """Return environment variables that nothing reads."""
    code = [*spans(text), *(block.text for block in blocks(text) if block.language == "sh")]
    return [name for name in _VARIABLE.findall("\n".join(code)) if not _is_variable(name)]


def _is_variable(name: str) -> bool:
    stage, _, field = name.removeprefix(ENV_PREFIX).lower().partition("__")
    if name.startswith(ENV_PREFIX) and name not in SWITCHES and "__" in name:
        return bool(field) and _has_setting(stage, field.split("__"))
    if name.startswith("PET_"):
        # torchrun reads every option of its own from such a variable.
        option = name.removeprefix("PET_").lower().replace("_", "-")
        return f'"--{option}"' in _torchrun()
    return name in _OTHERS or re.search(rf"\b{name}\b", source_text()) is not None


@cache
def _torchrun() -> str:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "distributed" / "run.py").read_text(encoding="utf-8")


def _has_setting(stage: str, fields: list[str]) -> bool:
    model: object = Settings.model_fields[stage].default if stage in Settings.STAGES else None
    for field in fields:
        known = {name.lower(): info for name, info in getattr(type(model), "model_fields", {}).items()}
        if field.lower() not in known:
            return False
        model = known[field.lower()].default
    return True


def wrong_settings(text: str) -> list[str]:
    """Return settings, written `stage.name`, that do not exist."""
    found = [match for span in spans(text) if (match := _SETTING.fullmatch(span)) and not _is_path(span)]
    return [match[0] for match in found if not _has_setting(match[1], match[2].strip(".").split("."))]


def _is_path(span: str) -> bool:
    return _PATH.fullmatch(span) is not None


def wrong_paths(text: str, document: Path) -> list[str]:
    """Return paths that are neither in the project nor written by a stage nor a reader's own."""
    return [
        span
        for span in spans(text)
        if _is_path(span) and span not in EXAMPLES and not _exists(span, document) and span not in source_text()
    ]


def _exists(span: str, document: Path) -> bool:
    if span.split("/", maxsplit=1)[0] in WRITTEN or (ROOT / span).exists() or (document.parent / span).exists():
        return True
    return _ANY_PART.search(span) is not None and any(ROOT.glob(_ANY_PART.sub("*", span).rstrip("/")))


def wrong_links(text: str, document: Path) -> list[str]:
    """Return relative links and pictures that lead nowhere."""
    wrong = []
    for target in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        found = place.exists() and ROOT in place.parents
        if not found or (anchor and anchor not in _anchors(place.read_text(encoding="utf-8"))):
            wrong.append(target)
    return wrong


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_comments(text: str) -> list[Block]:
    """Return the fenced blocks without their comments, which a translation may change."""
    return [Block(b.language, re.sub(r"[ \t]+# .*$", "", b.text, flags=re.MULTILINE)) for b in blocks(text)]


class Template(NamedTuple):
    """A text of the program: what stands in it, and None where it is filled in."""

    parts: tuple[str | None, ...]

    def matches(self, message: str) -> bool:
        """Return whether the program can print this message."""
        texts = "".join("\0" if part is None else part for part in self.parts).split("\0")
        if len(texts) == 1:
            return message == texts[0]
        first, *inner, last = texts
        if len(message) < len(first) + len(last) or not (message.startswith(first) and message.endswith(last)):
            return False
        # The leftmost place of each text leaves the most room for the next; an expression would try them all.
        place, end = len(first), len(message) - len(last)
        for text in inner:
            place = message.find(text, place, end)
            if place < 0:
                return False
            place += len(text)
        return True


def message_templates(source: str) -> Iterator[Template]:
    """Yield every text of a module that has enough letters of its own to be told from others."""
    tree = ast.parse(source)
    pieces = {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
            values = [node.value]
        else:
            continue
        # Messages are printed with each run of white space as one space.
        parts = tuple(None if value is None else re.sub(r"\s+", " ", str(value)) for value in values)
        own = "".join(part or "" for part in parts)
        # What begins with a text that is filled in must say more to be told from others.
        if len(own) >= _FEWEST_CHARS or (parts[:1] != (None,) and sum(map(str.isalpha, own)) >= _FEWEST_LETTERS):
            yield Template(parts)


@cache
def all_templates() -> tuple[Template, ...]:
    """Return the texts of all modules."""
    files = sorted((ROOT / "titlegen").rglob("*.py"))
    found = (template for path in files for template in message_templates(path.read_text(encoding="utf-8")))
    return tuple(dict.fromkeys(found))


def quoted_messages(text: str) -> list[str]:
    """Return the program's messages that a document quotes; those of `console` blocks are seen by running them."""
    return [block.text.strip().removeprefix("titlegen: ") for block in blocks(text, "text")]


def templates_of(message: str) -> list[Template]:
    """Return the texts of the program that a message may come from."""
    return [template for template in all_templates() if template.matches(message)]


def wrong_messages(text: str) -> list[str]:
    """Return quoted messages that the program cannot print."""
    return [message for message in quoted_messages(text) if not templates_of(message)]


def wrong_figures(text: str, document: Path) -> list[str]:
    """Return rows of the table of figures whose metric, script or figure is not what stands elsewhere."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| `(\w+)\.(\w+)` \| `(.+?)` \|$", text, re.MULTILINE)
    wrong = []
    for said, place, name, metric, script in rows:
        path = ROOT / "benchmarks" / "results" / f"{name}.json"
        metrics = json.loads(path.read_bytes())["metrics"] if path.is_file() else {}
        linked = _LINK.search(place)
        where = (document.parent / linked[1]).read_text(encoding="utf-8") if linked else text
        shown = [number for number in re.findall(r"\d[\d,]*(?:\.\d+)?", said) if _rounds(metrics.get(metric), number)]
        if not shown:
            wrong.append(f"{said}: {name}.{metric} is {metrics.get(metric)}")
        elif not any(number in where for number in shown):
            wrong.append(f"{said}: {place} does not say so")
        if not (ROOT / script).is_file():
            wrong.append(f"{said}: no script {script}")
    return wrong if rows else ["there is no table of figures"]


def _rounds(value: float | None, printed: str) -> bool:
    decimals = len(printed.partition(".")[2])
    return value is not None and abs(float(printed.replace(",", "")) - value) <= 0.5 * 10**-decimals + 1e-12


CHECKS: dict[str, Callable[[str, Path], list[str]]] = {
    "commands": lambda text, _: wrong_commands(text),
    "options": lambda text, _: wrong_options(text),
    "variables": lambda text, _: wrong_variables(text),
    "settings": lambda text, _: wrong_settings(text),
    "paths": wrong_paths,
    "links": wrong_links,
    "messages": lambda text, _: wrong_messages(text),
}
