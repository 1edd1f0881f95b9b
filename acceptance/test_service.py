"""Ollama 部署與推論."""

from pathlib import Path
from typing import Any

import pytest
from findings import Finding, latency_gate
from latency_probe import measure_latency
from latency_report import render_latency

from titlegen.data import Example
from titlegen.metrics.contract import title_violations
from titlegen.models import family_at
from titlegen.prompt import SYSTEM
from titlegen.runs import Folder
from titlegen.serve import is_deployed, render_template
from titlegen.settings import Settings

pytestmark = pytest.mark.acceptance
_ARTICLES = 3
_TITLE_CHARS = range(4, 61)


@pytest.mark.spec("SERVE-1")
def test_modelfile(server: Any, settings: Settings, project: Path, outputs: Path, finding: Finding) -> None:
    prompt = family_at(outputs / Folder.EXPORT).prompt
    written = (project / "serving" / "ollama" / "Modelfile.template").read_text(encoding="utf-8")
    assert written == render_template(), "Modelfile.template 與程式產生的不同"
    shown = server.post("/api/show", json={"model": settings.serve.model_name}).raise_for_status().json()
    assert shown["template"] == prompt.template, "伺服器上的提示範本與訓練時不同"
    assert shown["system"] == SYSTEM
    wanted = prompt.parameters(settings.serve.temperature, settings.serve.num_ctx, settings.serve.num_predict)
    served = served_parameters(shown["parameters"])
    assert {name: list(map(_comparable, value)) for name, value in served.items()} == {
        name: list(map(_comparable, value if isinstance(value, list) else [value])) for name, value in wanted.items()
    }
    values = "、".join(f"{name} {' '.join(value)}" for name, value in served.items())
    finding.measured(f"範本 {len(prompt.template.encode())} 位元組相同；{values}")


def _comparable(value: object) -> object:
    """Return a number as one: a server lists 0.0 as 0."""
    try:
        return float(str(value))
    except ValueError:
        return value


def served_parameters(text: str) -> dict[str, list[str]]:
    """Return the values of each parameter as the server lists them: a name and a value on each line."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        found.setdefault(name, []).append(value.strip().strip('"'))
    return found


@pytest.mark.spec("SERVE-2")
def test_created(server: Any, settings: Settings, outputs: Path, finding: Finding) -> None:
    names = [entry["name"] for entry in server.get("/api/tags").raise_for_status().json()["models"]]
    wanted = settings.serve.model_name
    assert wanted in {name.removesuffix(":latest") for name in names}, f"伺服器上只有 {names}"
    assert not [name for name in names if name.endswith("candidate")], "上次部署沒有做完"
    if settings.serve.source == "gguf":
        assert is_deployed(settings.serve, outputs / Folder.GGUF), "伺服器上的模型不是這次匯出的"
    finding.measured(f"{settings.serve.host} 上的 {wanted}（來源：{settings.serve.source}）")


@pytest.mark.spec("SERVE-3")
def test_generate(server: Any, settings: Settings, test_examples: list[Example], finding: Finding) -> None:
    titles = set()
    for example in test_examples[:_ARTICLES]:
        body = {"model": settings.serve.model_name, "prompt": example.content, "stream": False}
        answer = server.post("/api/generate", json=body | {"options": {"temperature": 0}}).raise_for_status().json()
        assert (answer["done"], answer["done_reason"]) == (True, "stop")
        title = answer["response"].strip()
        assert len(title) in _TITLE_CHARS, f"{title!r} 不像標題"
        assert not title_violations(title), f"{title!r} 不只是標題"
        titles.add(title)
    assert len(titles) > 1, "每篇文章都得到同一個標題"
    finding.measured(f"{len(test_examples[:_ARTICLES])} 篇文章得到 {len(titles)} 個不同的標題，例如「{min(titles)}」")


@pytest.mark.spec("SERVE-4")
# Some hundred answers; each has a limit of its own.
@pytest.mark.timeout(0)
def test_latency(
    settings: Settings, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str], finding: Finding
) -> None:
    report = measure_latency(settings, pytestconfig.getoption("host"))
    with capsys.disabled():
        print("\n" + render_latency(report))
    finding.judge(*(latency_gate(report, specified) for specified in report.specification))
