"""A tiny Gemma 4 that really learned: through every stage, to the Hub and the server, and the checklist on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gemma4_models import write_tiny_gemma4
from safetensors.numpy import load_file, save_file
from test_acceptance import Released, articles_of_one_kind, release_of  # noqa: F401 - one is a fixture

from titlegen import serve
from titlegen.errors import VerifyError
from titlegen.manifest import read_manifest
from titlegen.runs import Folder

# huggingface_hub hands a file's content to httpx by a name that httpx gave up.
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),
]


@pytest.fixture(scope="module")
def released(
    articles_of_one_kind: Path,  # noqa: F811 - a fixture
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Released]:
    """A tiny Gemma 4, trained, exported, verified, scored, pushed to the offline Hub and deployed."""
    folder = tmp_path_factory.mktemp("gemma4-released")
    base = folder / "tiny-gemma4"
    base.mkdir()
    write_tiny_gemma4(base)
    # With random vectors of the usual size no token could become likely.
    name, path = "model.embed_tokens.weight", base / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {name: 5 * tensors[name]}, path, metadata={"format": "pt"})
    with release_of(base, articles_of_one_kind, folder) as running:
        yield running


def test_it_learned_what_its_articles_have_in_common(released: Released) -> None:
    report = read_manifest(released.settings.directory / Folder.REPORT).results["report"]
    assert {gate["name"]: gate["verdict"] for gate in report["gates"]}["rougeL"] == "pass"
    assert report["scores"]["title_only_rate"]["value"] >= 0.9
    trained = read_manifest(released.settings.directory / Folder.ADAPTER).results
    assert trained["completion_trim"]
    assert trained["loss_at_start"] == pytest.approx(trained["full_loss_at_start"], rel=1e-4)
    assert trained["last_loss"] < trained["first_loss"] / 3


def test_what_is_published_names_its_own_licence_and_prompt(released: Released) -> None:
    folder = released.settings.directory
    card = (folder / "model-card.md").read_text("utf-8")
    assert "license: apache-2.0" in card
    assert "Gemma Terms" not in card
    assert "Apache License" in " ".join((folder / Folder.EXPORT / "NOTICE").read_text("utf-8").split())
    shown = released.server.http.post("/api/show", json={"model": released.settings.serve.model_name}).json()
    assert "<|turn>system" in shown["template"]
    assert "<|think|>" not in shown["template"]
    assert "<turn|>" in shown["parameters"]


def test_acceptance_passes(released: Released) -> None:
    outcome = released.check()
    failed = {name: line for name, line in outcome.lines.items() if line["outcome"] == "failed"}
    assert not failed, outcome.text[-3000:]
    assert outcome.of("PROOF-1") == outcome.of("PROOF-2") == outcome.of("SERVE-1") == "passed"


@pytest.mark.fault
def test_a_model_of_another_familys_prompt_is_not_deployed(released: Released, tmp_path: Path) -> None:
    export = Path(shutil.copytree(released.settings.directory / Folder.EXPORT, tmp_path / "final-hf"))
    config = (export / "config.json").read_text("utf-8")
    (export / "config.json").write_text(config.replace("gemma4_text", "gemma3_text"), encoding="utf-8")
    with pytest.raises(VerifyError, match="is a Gemma 4 model, and the merged model beside it says Gemma 3"):
        serve.deploy(export, released.settings.directory / Folder.GGUF, released.settings.serve, tmp_path)
