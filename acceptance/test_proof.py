"""可證明性."""

from pathlib import Path
from typing import Any

import pytest
from findings import Finding

from titlegen.data import Example
from titlegen.export import gguf_name
from titlegen.manifest import read_manifest
from titlegen.models import load_tokenizer, resolve_base
from titlegen.results import ConvertedFiles, read_result
from titlegen.runs import Folder
from titlegen.serve import Client
from titlegen.settings import Settings
from titlegen.verify import (
    check_export,
    check_gguf,
    check_prompt_bytes,
    check_served_file,
    check_token_ids,
    failures,
)

pytestmark = pytest.mark.acceptance
_ARTICLES = 3


@pytest.fixture(scope="module")
def ggufs(outputs: Path) -> list[Path]:
    """The exported GGUF files, the deployed one first."""
    directory = outputs / Folder.GGUF
    return [directory / gguf_name(kind) for kind in read_result(ConvertedFiles, read_manifest(directory)).types]


@pytest.mark.spec("PROOF-1")
def test_weights(outputs: Path, settings: Settings, ggufs: list[Path], finding: Finding) -> None:
    checks = check_export(outputs / Folder.EXPORT, resolve_base(settings.model), outputs / Folder.ADAPTER)
    for path in ggufs:
        checks += check_gguf(path, outputs / Folder.EXPORT)
    wrong = failures(checks)
    assert not wrong, f"{wrong[0].name}: {wrong[0].detail or wrong[0].figure}"
    assert {"weights.merged"} <= {check.name for check in checks}
    merged = next(check for check in checks if check.name == "weights.merged")
    finding.measured(f"{len(checks)} 項檢查；{merged.name}：{merged.figure}（上限 {merged.bound}）")


@pytest.mark.spec("PROOF-2")
def test_prompt(
    outputs: Path, settings: Settings, ggufs: list[Path], test_examples: list[Example], finding: Finding
) -> None:
    export = outputs / Folder.EXPORT
    articles = [example.content for example in test_examples]
    titles = [example.title for example in test_examples]
    tokenizer = load_tokenizer(export)
    checks = check_token_ids(export, ggufs, [*articles, *titles], tokenizer)
    wrong = failures([check_prompt_bytes(export, articles, tokenizer), *checks])
    assert not wrong, wrong[0].detail
    client = Client(settings.serve, export)
    try:
        for article in articles[:_ARTICLES]:
            content, _ = client.prepare(article)
            assert client.ask(article).prompt_tokens == client.expected_tokens(content), "伺服器讀到的 token 數不同"
    finally:
        client.close()
    asked = len(articles[:_ARTICLES])
    finding.measured(f"{len(articles)} 篇文章的提示相同，其中 {asked} 篇由伺服器讀到的 token 數也相同")


@pytest.mark.spec("PROOF-3")
def test_served_file(server: Any, settings: Settings, ggufs: list[Path], finding: Finding) -> None:
    shown = server.post("/api/show", json={"model": settings.serve.model_name}).raise_for_status().json()
    check = check_served_file(ggufs[0], shown["modelfile"])
    assert check.passed, f"伺服器上執行的不是匯出的 GGUF：{check.detail}"
    finding.measured(f"{check.compared}：{check.figure}")
