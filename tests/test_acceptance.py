"""The acceptance suite on a tiny model that was really trained: every line passes, and fails once its thing is broken.

Each run is pytest in a process of its own, as a user starts it.
"""

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import nbformat
import numpy as np
import ollama
import pytest
from forked_pytest import ForkedPytest, forked_pytest
from nbclient import NotebookClient
from ollama_server import OfflineServer, offline_server
from safetensors.numpy import load_file, save_file
from slow_proxy import slow_proxy

from titlegen import hub, release, scoring, service, specification
from titlegen.daemon import free_port
from titlegen.data import load_split
from titlegen.errors import VerifyError
from titlegen.evaluate import evaluate, write_report
from titlegen.families.gemma3 import PROMPT
from titlegen.manifest import Manifest, read_manifest, write_manifest
from titlegen.prompt import SYSTEM
from titlegen.runs import Run
from titlegen.settings import EvaluateSettings, Settings, load_settings

# huggingface_hub hands a file's content to httpx by a name that httpx gave up.
pytestmark = [
    # A whole release is made for them.
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),
]
ROOT = Path(__file__).resolve().parents[1]
NAME = "tiny"
PROFILE = """\
[data]
source = "{source}"
max_content_tokens = 96
val_share = 0.1
test_share = 0.2
[model]
base = "{base}"
[train]
backend = "peft"
load_in_4bit = false
max_length = 192
# Long enough that the titles of articles unlike these are titles, too, whatever the order in which a processor adds.
num_train_epochs = 24
per_device_train_batch_size = 16
gradient_accumulation_steps = 1
learning_rate = 5e-3
lora_dropout = 0.0
logging_steps = 5
[export]
gguf_types = ["f16"]
verify_articles = 2
[evaluate]
base_model = false
resamples = 100
[evaluate.gates]
rougeL = 0.3
bleu1 = 0.3
title_only_rate = 0.7
length_rate = 0.7
[latency]
articles = 60
p50_ms = 60000
p95_ms = 60000
[hub]
offline_port = 0
[serve]
host = "{host}"
model_name = "tiny-titlegen"
num_ctx = 256
temperature = 0.0
"""
_PLACES = ("台北", "新北", "桃園", "台中", "台南", "高雄", "基隆", "新竹", "苗栗", "彰化", "南投", "雲林")


@dataclass(frozen=True)
class Released:
    """A model that went all the way: its settings, and the server that has it."""

    profile: Path
    settings: Settings
    server: OfflineServer
    pytest: ForkedPytest

    def check(self, *ids: str, root: Path = ROOT, options: tuple[str, ...] = (), **variables: Any) -> "Outcome":
        """Run the acceptance suite, or these lines of it."""
        environment = plain_environment() | {"TITLEGEN_OUTPUT": str(self.settings.output), **variables}
        arguments = ["acceptance", "-m", "acceptance", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
        arguments += ["--profile", str(self.profile), *options, *(part for name in ids for part in ("--spec", name))]
        if root == ROOT:
            code, text = self.pytest.run(arguments, root, environment)
        else:
            # The copy's own code is imported anew.
            command = [sys.executable, "-m", "pytest", *arguments]
            done = subprocess.run(  # noqa: S603 - our own command line
                command, cwd=root, env=environment, capture_output=True, text=True, check=False
            )
            code, text = done.returncode, done.stdout + done.stderr
        path = self.settings.directory / "acceptance" / "acceptance.json"
        lines = {line["id"]: line for line in json.loads(path.read_bytes())["lines"]} if path.is_file() else {}
        return Outcome(code, text, lines)


def plain_environment() -> dict[str, str]:
    """Return the environment of a user's run of the checklist."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TITLEGEN_"))}
    # Loading all plugins takes longer than most lines do.
    return kept | {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def junit_cases(folder: Path) -> dict[str, dict[str, str]]:
    """Return the properties of each case of junit.xml by its line, and its skip's message if it has one."""
    found = {}
    for case in ET.parse(folder / "junit.xml").iter("testcase"):  # noqa: S314 - our own file
        facts = {item.attrib["name"]: item.attrib["value"] for item in case.iter("property")}
        if (skip := case.find("skipped")) is not None:
            facts["skipped"] = skip.attrib["message"]
        found[facts["spec"]] = facts
    return found


@dataclass(frozen=True)
class Outcome:
    """What a run of the suite said."""

    code: int
    text: str
    lines: Mapping[str, Mapping[str, Any]]

    def of(self, name: str) -> str:
        """Return the outcome of a line."""
        assert name in self.lines, self.text[-3000:]
        return str(self.lines[name]["outcome"])


@pytest.fixture(scope="module")
def learning_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with longer token vectors: with random ones of the usual size no token could become likely."""
    directory = shutil.copytree(tiny_base, tmp_path_factory.mktemp("base") / "learning")
    path = directory / "model.safetensors"
    tensors = load_file(path)
    name = "model.embed_tokens.weight"
    save_file(tensors | {name: 12 * tensors[name]}, path, metadata={"format": "pt"})
    return directory


@contextlib.contextmanager
def release_of(base: Path, source: Path, folder: Path) -> Iterator[Released]:
    """Train a tiny model, export, verify, score, push it to the offline Hub and deploy it."""
    with offline_server(folder / "ollama") as server:
        profile = folder / f"{NAME}.toml"
        profile.write_text(PROFILE.format(source=source, base=base, host=server.host))
        settings = load_settings(profile=str(profile), output=folder / "outputs")
        scored = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"target": "merged"})})
        scoring.evaluate(Run(scored))
        release.push(Run(settings))
        release.deploy(Run(settings))
        served = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"target": "server"})})
        scoring.evaluate(Run(served))
        try:
            with forked_pytest(folder, plain_environment()) as pytest_runs:
                yield Released(profile, settings, server, pytest_runs)
        finally:
            service.stop_servers(settings)


@pytest.fixture(scope="module")
def released(
    learning_base: Path, articles_of_one_kind: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Released]:
    """A tiny model that went all the way."""
    with release_of(learning_base, articles_of_one_kind, tmp_path_factory.mktemp("released")) as running:
        yield running


@pytest.fixture(scope="module")
def articles_of_one_kind(articles: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Articles whose titles have so much in common that the tiny model learns to write them."""
    path = tmp_path_factory.mktemp("articles") / "articles.jsonl"
    text = "".join(article["content"] for article in articles).replace("\n", "")
    rows = []
    for number, (place, month) in enumerate((place, month) for place in _PLACES for month in range(1, 13)):
        start = number * 13 % (len(text) - 400)
        # Every third article does not say what its title does, so that the model has something to say of any article.
        told = f"{place}市政府今天宣布，{month}月起全面實施新制。" if number % 3 else ""
        title = f"{place}宣布新制上路 {month}月起全面實施"
        rows.append({"content": told + text[start : start + 120], "title": title})
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def broken(released: Released, tmp_path: Path) -> Iterator[Released]:
    """The same outputs in a place where they may be broken."""
    output = tmp_path / "outputs"
    shutil.copytree(released.settings.output, output, ignore=shutil.ignore_patterns("*.pid", "hub.json", "*.log"))
    settings = released.settings.model_copy(update={"output": output})
    yield replace(released, settings=settings)
    service.stop_servers(settings)


@pytest.fixture
def project_copy(tmp_path: Path) -> Path:
    """The project's own files in a place where they may be broken."""
    copy = tmp_path / "project"
    left = shutil.ignore_patterns(".*", "outputs", "__pycache__", "*.egg-info", "tests")
    shutil.copytree(ROOT, copy, ignore=left)
    shutil.copytree(ROOT / "docker", copy / "docker", dirs_exist_ok=True)
    return copy


def test_the_notebook_runs_cell_by_cell(released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITLEGEN_PROFILE", str(released.profile))
    monkeypatch.setenv("TITLEGEN_OUTPUT", str(released.settings.output))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "titlegen.ipynb", as_version=4)
    assert [cell.source for cell in notebook.cells if "install" in cell.metadata.get("tags", [])] == [
        '!python -m pip install --quiet -c constraints.txt -e ".[gpu]"'
    ]
    kept = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])]
    commands = [cell for cell in kept if cell.cell_type == "code"]
    assert len(commands) == 9
    for cell in commands:
        # A failed command is no exception in a notebook; the doctor ends with 1 where a machine lacks something.
        cell.source += "\nassert globals().get('_exit_code', 0) in (0, 1 if 'doctor' in In[-1] else 0), _exit_code"
    notebook.cells = kept
    with warnings.catch_warnings():
        # jupyter_client and the kernel are closed when they are collected, whenever that is.
        warnings.simplefilter("ignore", ResourceWarning)
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
        ).execute()
    printed = "".join(output.get("text", "") for output in commands[-1].outputs)
    assert printed.strip()


# Each function breaks one thing; a rewritten manifest keeps the change from being found by its digest alone.


def rewrite(directory: Path, **results: Any) -> Manifest:
    """Write the manifest of a changed directory anew."""
    old = read_manifest(directory)
    (directory / "manifest.json").unlink()
    return write_manifest(directory, old.stage, old.settings, old.inputs, {**old.results, **results}, old.revision)


def leak_an_article(outputs: Path) -> None:
    leak(outputs, lambda content: content)


def leak_a_like_article(outputs: Path) -> None:
    # Five of some hundred character 5-grams are others.
    leak(outputs, lambda content: f"{content[:20]}甲{content[21:]}")


def leak(outputs: Path, change: Callable[[str], str]) -> None:
    data = outputs / "data"
    line = json.loads((data / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]) | {"id": "0" * 16}
    line["content"] = change(line["content"])
    with (data / "test.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    splits = read_manifest(data).results["splits"]
    rewrite(data, splits=splits | {"test": splits["test"] + 1})


def write_nan_into_the_log(outputs: Path) -> None:
    path = outputs / "lora" / "train.jsonl"
    path.write_text(re.sub(r'"loss": [\d.]+', '"loss": NaN', path.read_text(encoding="utf-8"), count=1))
    rewrite(outputs / "lora")


def reset_a_matrix(outputs: Path) -> None:
    path = outputs / "lora" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if ".lora_B." in name)
    save_file(tensors | {name: np.zeros_like(tensors[name])}, path, metadata={"format": "pt"})
    rewrite(outputs / "lora")


def remove_the_adapter(outputs: Path) -> None:
    (outputs / "lora" / "adapter_model.safetensors").unlink()


def lose_the_vocabulary(outputs: Path) -> None:
    (outputs / "final-hf" / "tokenizer.model").unlink()
    rewrite(outputs / "final-hf")


def break_the_config(outputs: Path) -> None:
    path = outputs / "final-hf" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"hidden_size": 32}))
    rewrite(outputs / "final-hf")


def change_a_weight(outputs: Path) -> None:
    path = outputs / "final-hf" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "q_proj" in name)
    save_file(tensors | {name: tensors[name] + np.float32(0.05)}, path, metadata={"format": "pt"})
    rewrite(outputs / "final-hf")


def change_the_chat_template(outputs: Path) -> None:
    path = outputs / "final-hf" / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8").replace("<start_of_turn>", "<start_of_turn> "), encoding="utf-8")
    rewrite(outputs / "final-hf")


def swap_the_gguf_file(outputs: Path) -> None:
    path = next((outputs / "gguf").glob("*.gguf"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    rewrite(outputs / "gguf")


def break_the_chain(outputs: Path) -> None:
    path = outputs / "report-served" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    path.write_text(json.dumps(manifest | {"inputs": manifest["inputs"] | {"gguf": "0" * 64}}))


def leave_half_written_output(outputs: Path) -> None:
    (outputs / ".final-hf.new").mkdir()


def retitle(change: Callable[[str], str]) -> Callable[[Path], None]:
    """Return what lets the server have written other titles, scored as they are."""

    def apply(outputs: Path) -> None:
        directory = outputs / "report-served"
        examples = load_split(outputs / "data", "test")
        old = json.loads((directory / "report.json").read_bytes())
        lines = (directory / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        titles = [json.loads(line)["prediction"] for line in lines]
        settings = EvaluateSettings(**old["settings"])
        report = evaluate(examples, list(map(change, titles)), settings, generation=old["generation"])
        manifest = read_manifest(directory)
        shutil.rmtree(directory)
        directory.mkdir()
        write_report(report, directory)
        results = manifest.results | {"report": report.content.as_json()}
        write_manifest(directory, manifest.stage, manifest.settings, manifest.inputs, results, manifest.revision)

    return apply


BREAKS: dict[str, list[Callable[[Path], None]]] = {
    "DATA-3": [leak_an_article],
    "TRAIN-1": [write_nan_into_the_log],
    "TRAIN-2": [reset_a_matrix, remove_the_adapter],
    "TRAIN-3": [lose_the_vocabulary],
    "TRAIN-4": [break_the_config],
    "QUALITY-1": [retitle(lambda _: "完全無關的一句話而已")],
    "QUALITY-2": [retitle(lambda _: "完全無關的一句話而已")],
    "QUALITY-3": [retitle(lambda title: f"{title}\n\n說明：這是根據內文寫成的標題。")],
    "QUALITY-4": [retitle(lambda title: title * 4)],
    "PROOF-1": [change_a_weight],
    "PROOF-2": [change_the_chat_template],
    "PROOF-3": [swap_the_gguf_file],
    "DOC-2": [leave_half_written_output],
    "DOC-3": [break_the_chain],
}
# Lines whose thing is not in the outputs; each has a test of its own below.
ELSEWHERE = ("DATA-1", "DATA-2", "DATA-4", "HUB-1", "HUB-2", "SERVE-1", "SERVE-2", "SERVE-3", "SERVE-4", "DOC-1")


def all_ids() -> list[str]:
    return re.findall(r"^- \[([A-Z]+-\d+)\]", (ROOT / "docs" / "spec.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_line_has_a_test_that_breaks_its_thing() -> None:
    assert sorted([*BREAKS, *ELSEWHERE]) == sorted(all_ids())


def test_everything_that_needs_no_gpu_and_no_internet_passes(released: Released, project_copy: Path) -> None:
    # In a copy, as files that are not committed yet are no part of the project.
    outcome = released.check(root=project_copy, PATH=str(Path(sys.executable).parent))
    by_outcome: dict[str, set[str]] = {}
    for name, line in outcome.lines.items():
        by_outcome.setdefault(line["outcome"], set()).add(name)
    assert "failed" not in by_outcome, outcome.text[-6000:]
    assert outcome.code == 0
    assert sorted(outcome.lines) == sorted(all_ids())
    # One needs a Hub token, the other a GPU.
    assert by_outcome["skipped"] <= {"DATA-1", "DATA-4"}
    # 29 titles cannot prove 98 of 100: that is no tick, whatever the profile asks for.
    assert outcome.of("QUALITY-3") == "relaxed"
    gates = {"QUALITY-1", "QUALITY-2", "QUALITY-3", "QUALITY-4", "SERVE-4"}
    assert by_outcome["relaxed"] | by_outcome.get("undecided", set()) <= gates
    for name in by_outcome["passed"]:
        assert outcome.lines[name]["measured"], name
    assert "[x] SERVE-3" in outcome.text
    assert "[-] DATA-4" in outcome.text
    folder = released.settings.directory / "acceptance"
    markdown = (folder / "acceptance.md").read_text(encoding="utf-8")
    assert "- [x] SERVE-3" in markdown
    line = outcome.lines["QUALITY-3"]
    for text in (outcome.text, markdown):
        assert re.search(r"\[~\] QUALITY-3 .*量到 .*規格 至少 0\.98（未定）；設定檔 至少 0\.70（達到）", text), text[
            -6000:
        ]
        assert f"只達到放寬的門檻 {len(by_outcome['relaxed'])}" in text
    assert json.loads((folder / "acceptance.json").read_bytes())["counts"]["relaxed"] == len(by_outcome["relaxed"])
    cases = junit_cases(folder)
    assert sorted(cases) == sorted(all_ids())
    case = cases["QUALITY-3"]
    assert case["skipped"] == line["reason"]
    assert (case["standing"], case["profile"]) == ("relaxed", line["profile"])


def limit_profile(released: Released, folder: Path, old: str, new: str) -> Released:
    """Return the same outputs under a profile with other limits."""
    text = released.profile.read_text(encoding="utf-8")
    assert old in text
    profile = folder / f"{NAME}.toml"
    profile.write_text(text.replace(old, new), encoding="utf-8")
    return replace(released, profile=profile)


GATES = PROFILE[PROFILE.index("rougeL =") : PROFILE.index("[latency]")]


@pytest.mark.fault
@pytest.mark.parametrize("limit", ["0.0", "-1"], ids=["relaxed", "off"])
def test_no_profile_makes_a_tick_of_what_the_specification_refuses(
    broken: Released, tmp_path: Path, limit: str
) -> None:
    """Titles without a right character, of any length, with explanations: under limits of zero every gate holds."""
    retitle(lambda _: "完全無關\n\n說明：" + "不是標題。" * 8)(broken.settings.directory)
    relaxed = limit_profile(broken, tmp_path, GATES, re.sub(r"= .*", f"= {limit}", GATES))
    names = [f"QUALITY-{number}" for number in range(1, 5)]
    outcome = relaxed.check(*names)
    assert {name: outcome.of(name) for name in names} == dict.fromkeys(names, "relaxed"), outcome.text[-3000:]
    assert outcome.code == 0
    assert "規格 至少 0.45（未達）" in outcome.lines["QUALITY-2"]["measured"] + outcome.text
    assert "[x]" not in outcome.text
    assert relaxed.check("QUALITY-2", options=("--release",)).code == 1


@pytest.mark.fault
def test_no_profile_makes_a_tick_of_near_duplicates(broken: Released, tmp_path: Path) -> None:
    leak_a_like_article(broken.settings.directory)
    assert broken.check("DATA-3").of("DATA-3") == "failed"
    outcome = limit_profile(broken, tmp_path, "[data]\n", "[data]\nnear_duplicate = 0.99\n").check("DATA-3")
    assert (outcome.of("DATA-3"), outcome.code) == ("relaxed", 0), outcome.text[-3000:]


@pytest.mark.fault
def test_a_line_that_does_not_say_what_it_measured_fails(released: Released, project_copy: Path) -> None:
    path = project_copy / "acceptance" / "test_training.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"\n    finding\.measured\(.*", "\n    assert finding", text), encoding="utf-8")
    outcome = released.check("TRAIN-2", root=project_copy)
    assert (outcome.of("TRAIN-2"), outcome.code) == ("failed", 1)


def test_the_checklist_names_the_specifications_limits() -> None:
    text = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    scores = specification.SCORES
    assert re.findall(r"（規格 (0\.\d+)）", text) == [
        f"{scores[name]:.2f}" for name in ("rougeL", "bleu1", "title_only_rate")
    ]
    assert f"比率 {scores['length_rate']} 是本專案所定" in text
    assert "標題長度 {} 至 {} 字".format(*specification.TITLE_CHARS) in text
    p50, p95 = specification.LATENCY_MS[50], specification.LATENCY_MS[95]
    assert f"規格 p50 ≤ {p50:g} ms、p95 ≤ {p95 / 1000:g} s" in text


def test_a_release_accepts_no_skip(released: Released) -> None:
    outcome = released.check("DATA-4", PATH=str(Path(sys.executable).parent))
    assert (outcome.code, outcome.of("DATA-4")) == (0, "skipped")
    outcome = released.check("DATA-4", options=("--release",), PATH=str(Path(sys.executable).parent))
    assert (outcome.code, outcome.of("DATA-4")) == (1, "skipped")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param(name, damage, id=f"{name}-{number}")
        for name in BREAKS
        for number, damage in enumerate(BREAKS[name])
    ],
)
def test_a_broken_thing_fails_its_line(broken: Released, name: str, damage: Callable[[Path], None]) -> None:
    damage(broken.settings.directory)
    outcome = broken.check(name)
    assert outcome.of(name) == "failed", outcome.text[-2000:]
    assert outcome.code == 1


@pytest.mark.fault
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_TOKEN": "hf_x", "HF_ORG": "newsroom", "HF_REPO": "titles"}, "passed"),
        ({"HF_ORG": "newsroom", "HF_REPO": "titles"}, "failed"),
        ({"HF_TOKEN": "hf_x", "HF_ORG": "newsroom", "HF_REPO": "a name"}, "failed"),
        ({"HF_TOKEN": "hf_xxx_your_token_here", "HF_ORG": "newsroom", "HF_REPO": "titles"}, "failed"),
    ],
)
def test_data_1(released: Released, variables: dict[str, Any], expected: str) -> None:
    assert released.check("DATA-1", **variables).of("DATA-1") == expected


@pytest.mark.fault
def test_data_2(released: Released, tiny_base: Path, tmp_path: Path) -> None:
    assert released.check("DATA-2", TITLEGEN_MODEL__BASE=str(tmp_path / "nothing")).of("DATA-2") == "failed"
    other = shutil.copytree(tiny_base, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    outcome = released.check("DATA-2", TITLEGEN_MODEL__BASE=str(other))
    assert outcome.of("DATA-2") == "failed"
    assert "另一個基底模型" in outcome.lines["DATA-2"]["reason"]


@pytest.mark.fault
@pytest.mark.parametrize(("exit_code", "expected"), [(0, "passed"), (1, "failed")])
def test_data_4(released: Released, tmp_path: Path, exit_code: int, expected: str) -> None:
    for name, code in (("nvidia-smi", 0), ("docker", exit_code)):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho 'GPU 0: a card'\nexit {code}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert released.check("DATA-4", PATH=f"{tmp_path}:{os.environ['PATH']}").of("DATA-4") == expected


@pytest.mark.fault
def test_hub_1(broken: Released) -> None:
    path = broken.settings.directory / "push.json"
    pushed = json.loads(path.read_bytes())
    path.write_text(json.dumps(pushed | {"commit": "0" * 40}))
    assert broken.check("HUB-1").of("HUB-1") == "failed"
    # A page that cannot be opened.
    path.write_text(json.dumps(pushed | {"url": f"{pushed['url']}/nothing"}))
    outcome = broken.check("HUB-1")
    assert outcome.of("HUB-1") == "failed"
    assert "404" in outcome.lines["HUB-1"]["reason"]
    path.unlink()
    outcome = broken.check("HUB-1")
    assert outcome.of("HUB-1") == "failed"
    assert "nox -s push" in outcome.text


@pytest.mark.fault
def test_hub_2(broken: Released) -> None:
    from huggingface_hub import HfApi

    target = hub.ensure_hub(broken.settings.hub, broken.settings.output / "run", broken.settings.profile)
    HfApi(endpoint=target.endpoint, token=target.token).upload_file(
        path_or_fileobj=b"{}", path_in_repo="generation_config.json", repo_id=target.repo_id
    )
    outcome = broken.check("HUB-2")
    assert outcome.of("HUB-2") == "failed"
    assert "generation_config.json is different" in outcome.text


@pytest.fixture
def client(released: Released) -> Iterator[ollama.Client]:
    """A client of the server; the model under its name is put back afterwards."""
    name = released.settings.serve.model_name
    with closing(ollama.Client(released.server.host)) as client:
        client.copy(name, "kept")
        yield client
        client.copy("kept", name)
        client.delete("kept")


@pytest.mark.fault
def test_serve_1(released: Released, client: ollama.Client) -> None:
    serve = released.settings.serve
    client.create(
        model=serve.model_name,
        from_="kept",
        template="{{ .Prompt }}",
        system=SYSTEM,
        parameters=PROMPT.parameters(serve.temperature, serve.num_ctx, serve.num_predict),
    )
    outcome = released.check("SERVE-1")
    assert outcome.of("SERVE-1") == "failed"
    assert "提示範本" in outcome.lines["SERVE-1"]["reason"]


@pytest.mark.fault
def test_serve_1_of_the_file(released: Released, project_copy: Path) -> None:
    path = project_copy / "serving" / "ollama" / "Modelfile.template"
    path.write_text(path.read_text(encoding="utf-8").replace("num_ctx", "num_gpu"), encoding="utf-8")
    assert released.check("SERVE-1", root=project_copy).of("SERVE-1") == "failed"


@pytest.mark.fault
def test_serve_2(released: Released, client: ollama.Client) -> None:
    client.delete(released.settings.serve.model_name)
    assert released.check("SERVE-2").of("SERVE-2") == "failed"


@pytest.mark.fault
def test_a_model_that_writes_other_titles_than_the_merged_one_does_not_take_over(broken: Released) -> None:
    directory = broken.settings.directory / "verify"
    titles = read_manifest(directory).results["titles"]
    rewrite(directory, titles=[f"{title}？" for title in titles])
    # The number makes it another model to the server, and leaves its titles as they are.
    serve = broken.settings.serve.model_copy(update={"num_predict": broken.settings.serve.num_predict + 1})
    with closing(ollama.Client(broken.server.host)) as client:
        before = {entry.model: entry.digest for entry in client.list().models}
        with pytest.raises(VerifyError, match=r"parity\.served"):
            release.deploy(Run(broken.settings.model_copy(update={"serve": serve})))
        assert {entry.model: entry.digest for entry in client.list().models} == before


@pytest.mark.fault
def test_serve_3(released: Released) -> None:
    stopped = ("--host", f"http://127.0.0.1:{free_port()}")
    assert released.check("SERVE-3", options=stopped).of("SERVE-3") == "failed"


@pytest.mark.fault
def test_serve_4(released: Released) -> None:
    outcome = released.check("SERVE-4")
    assert outcome.of("SERVE-4") == "passed", outcome.text[-3000:]
    report = json.loads((released.settings.directory / "latency" / "latency.json").read_bytes())
    limit = report["percentiles"]["wall_ms"]["p95"]["value_ms"]
    limits: dict[str, Any] = {"TITLEGEN_LATENCY__P50_MS": str(4 * limit), "TITLEGEN_LATENCY__P95_MS": str(8 * limit)}
    with slow_proxy(released.server.host) as proxy:
        # 20% over the limit of the median, which five requests show.
        proxy.delay_s = 4.8 * limit / 1000
        outcome = released.check("SERVE-4", options=("--host", proxy.url), TITLEGEN_LATENCY__ARTICLES="6", **limits)
    assert outcome.of("SERVE-4") == "failed", outcome.text[-3000:]


def test_serve_4_under_a_relaxed_limit(released: Released) -> None:
    with slow_proxy(released.server.host) as proxy:
        # Over the specification's limit, and far below the profile's.
        proxy.delay_s = 0.6
        outcome = released.check("SERVE-4", options=("--host", proxy.url))
    assert outcome.of("SERVE-4") == "relaxed", outcome.text[-3000:]
    line = outcome.lines["SERVE-4"]
    assert line["specification"].startswith("p50 至多 500 ms（未達）；p95 至多 1000 ms")
    assert line["profile"] == "p50 至多 60000 ms（達到）；p95 至多 60000 ms（達到）"


@pytest.mark.fault
def test_doc_1(released: Released, project_copy: Path) -> None:
    (project_copy / "scripts" / "undocumented_script.py").touch()
    outcome = released.check("DOC-1", root=project_copy)
    assert outcome.of("DOC-1") == "failed"
    assert "undocumented_script.py" in outcome.lines["DOC-1"]["reason"]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('@pytest.mark.spec("SERVE-2")', '@pytest.mark.spec("SERVE-9")', "no line 'SERVE-9'"),
        ('@pytest.mark.spec("SERVE-2")', '@pytest.mark.spec("SERVE-3")', "SERVE-3 is bound to both"),
        ('@pytest.mark.spec("SERVE-2")\n', "", "has 0 spec marks"),
        ("- [SERVE-2]", "- [SERVE-2] 甲\n- [SERVE-7]", "without a test: SERVE-7"),
        ("- [SERVE-2]", "- [SERVE-2] 甲\n- [SERVE-2]", "an id twice: SERVE-2"),
    ],
)
def test_an_unbound_doubled_or_unknown_line_stops_the_run(
    released: Released, project_copy: Path, old: str, new: str, message: str
) -> None:
    path = project_copy / ("docs/spec.md" if old.startswith("-") else "acceptance/test_service.py")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    outcome = released.check(root=project_copy)
    assert outcome.code == pytest.ExitCode.USAGE_ERROR
    assert message in outcome.text
