"""Hugging Face 上傳."""

import json
from pathlib import Path
from typing import Any

import pytest

from titlegen import hub, release
from titlegen.data import Example
from titlegen.runs import Folder, Run
from titlegen.settings import Settings

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def pushed(outputs: Path) -> dict[str, Any]:
    """What the last push recorded."""
    path = outputs / "push.json"
    assert path.is_file(), "還沒有推送過；先跑 nox -s push"
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


@pytest.fixture(scope="module")
def target(settings: Settings) -> hub.HubTarget:
    """The Hub that the profile pushes to."""
    return hub.ensure_hub(settings.hub, Run(settings).state, settings.profile)


@pytest.mark.spec("HUB-1")
def test_repository(pushed: dict[str, Any], target: hub.HubTarget, settings: Settings) -> None:
    from huggingface_hub import HfApi, ModelCard

    assert pushed["repo_id"] == target.repo_id
    api = HfApi(endpoint=target.endpoint, token=target.token)
    info = api.repo_info(target.repo_id, revision=pushed["commit"])
    assert info.private == settings.hub.private
    page = api.hf_hub_download(target.repo_id, "README.md", revision=pushed["commit"])
    card = ModelCard(Path(page).read_text(encoding="utf-8"))
    assert card.data.license
    assert card.data.pipeline_tag == "text-generation"
    assert "/api/generate" in card.text


@pytest.mark.spec("HUB-2")
def test_download(
    pushed: dict[str, Any], target: hub.HubTarget, settings: Settings, test_examples: list[Example]
) -> None:
    found = hub.verify_remote(target, target.repo_id, release.artefacts(Run(settings)), settings)
    assert found["verified_files"] == pushed["files"]
    checked = hub.check_download(
        target, test_examples[0].content, revision=pushed["commit"], export=settings.directory / Folder.EXPORT
    )
    assert checked["same_title"]
    assert checked["verified_files"] > 0
