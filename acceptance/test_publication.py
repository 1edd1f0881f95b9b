"""Hugging Face 上傳."""

import html
from pathlib import Path
from typing import Any

import pytest
from findings import Finding

from titlegen import hub, release
from titlegen.data import Example
from titlegen.results import Pushed
from titlegen.runs import Folder, Run
from titlegen.settings import Settings

pytestmark = pytest.mark.acceptance
# huggingface.co's answers to a client that may not see a repository.
_NEED_A_LOGIN = {401, 403, 404}


@pytest.fixture(scope="module")
def pushed(outputs: Path) -> Pushed:
    """The record of the last push."""
    path = outputs / "push.json"
    assert path.is_file(), "還沒有推送過；先跑 nox -s push"
    return Pushed.model_validate_json(path.read_bytes())


@pytest.fixture(scope="module")
def target(settings: Settings) -> hub.HubTarget:
    """The Hub that the profile pushes to."""
    return hub.ensure_hub(settings.hub, Run(settings).state, settings.profile)


@pytest.mark.spec("HUB-1")
def test_page(pushed: Pushed, target: hub.HubTarget, settings: Settings, finding: Finding) -> None:
    import httpx
    from huggingface_hub import HfApi, ModelCard

    assert pushed.repo_id == target.repo_id
    api = HfApi(endpoint=target.endpoint, token=target.token)
    info = api.model_info(target.repo_id, revision=pushed.commit)
    assert info.private == settings.hub.private
    written = api.hf_hub_download(target.repo_id, "README.md", revision=pushed.commit)
    card: Any = ModelCard(Path(written).read_text(encoding="utf-8"))
    assert card.data.license
    assert card.data.pipeline_tag == "text-generation"
    assert "/api/generate" in card.text
    # As a browser opens the address that was printed; it has no token to send.
    page = httpx.get(pushed.url, headers={"Accept": "text/html"}, timeout=60, trust_env=not target.offline)
    if info.private and not target.offline and page.status_code in _NEED_A_LOGIN:
        pytest.skip(f"{pushed.url} 是私有的，登入後才看得到；自行登入打開確認，或公開後重跑")
    assert page.status_code == httpx.codes.OK, f"{pushed.url} 回覆 {page.status_code}"
    assert page.headers["content-type"].startswith("text/html"), page.headers["content-type"]
    files = [file.rfilename for file in info.siblings or []]
    shown = [target.repo_id, "/api/generate", *(files if target.offline else ())]
    missing = [text for text in shown if text not in html.unescape(page.text)]
    assert not missing, f"頁面沒有顯示 {missing}"
    finding.measured(f"{pushed.url} 回覆 {page.status_code}，顯示模型卡；提交裡有 {len(files)} 個檔案")


@pytest.mark.spec("HUB-2")
def test_download(
    pushed: Pushed, target: hub.HubTarget, settings: Settings, test_examples: list[Example], finding: Finding
) -> None:
    found = hub.verify_remote(target, target.repo_id, release.artefacts(Run(settings)), settings)
    assert found.verified_files == pushed.files
    checked = hub.check_download(
        target, test_examples[0].content, revision=pushed.commit, export=settings.directory / Folder.EXPORT
    )
    assert checked.same_title
    assert checked.verified_files > 0
    finding.measured(f"{found.verified_files} 個檔案逐位元組相同，下載後得到同一個標題「{checked.title}」")
