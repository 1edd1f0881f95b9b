import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hub_server import BreakingProxy, HubServer
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from titlegen import cli
from titlegen.console import EXIT_GATE
from titlegen.daemon import find_daemon, free_port, stop_daemon
from titlegen.errors import GateError, HubError, VerifyError
from titlegen.families.gemma3 import FAMILY as GEMMA3
from titlegen.families.gemma3 import PROMPT
from titlegen.hub import (
    Artefacts,
    HubTarget,
    check_download,
    ensure_hub,
    ollama_files,
    preview_push,
    push_model,
    scan_files,
    verify_remote,
)
from titlegen.hub.assembly import assemble_files
from titlegen.hub.card import CardFacts, read_preference, read_report, render_card
from titlegen.hub.target import connect
from titlegen.manifest import MANIFEST, check_files, read_manifest, write_manifest
from titlegen.prompt import SYSTEM
from titlegen.results import Check, Pushed
from titlegen.settings import HubSettings, Settings, load_settings
from titlegen.standins import HUB_TOKEN

# huggingface_hub hands a file's content to httpx by a name that httpx gave up.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
NUMBERS = itertools.count()
SETTINGS = Settings()
TRAIN = Settings.model_fields["train"].default.model_dump(mode="json", exclude={"backend"})
# Key of field 2000, eight bytes long.
FIELD = b"\x81\x7d"
LFS_FILES = {"model.safetensors", "tokenizer.model", "titlegen-Q8_0.gguf"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    running = HubServer(tmp_path_factory.mktemp("hub"))
    yield running
    running.stop()


@pytest.fixture
def target(server: HubServer) -> HubTarget:
    """A repository that does not exist yet, on a server without faults."""
    server.break_at()
    return HubTarget(server.url, HUB_TOKEN, f"local/x{next(NUMBERS)}", offline=True, directory=server.directory)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No bars, no waiting between two tries, and no token or cache of the person who runs the tests."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http, disable_progress_bars

    disable_progress_bars()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path_factory.getbasetemp() / "no-token"))

    class ShortClock:
        sleep = staticmethod(lambda _seconds: time.sleep(0.01))

    monkeypatch.setattr(_http, "time", ShortClock)
    monkeypatch.setattr("titlegen.hub.target._FIRST_WAIT_S", 0.01)


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def with_hub(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update={"hub": settings.hub.model_copy(update=values)})


def report_content(verdict: str = "pass") -> dict[str, Any]:
    names = ("rouge1", "rouge2", "rougeL", "bleu1", "title_only_rate", "length_rate")
    plain = dict.fromkeys(names, 0.2)
    return {
        "split": "test",
        "rows": 31,
        "scores": {name: {"value": 0.41, "low": 0.35, "high": 0.47} for name in names},
        "baselines": dict.fromkeys(("random", "lead1", "textrank", "oracle", "base_model"), plain),
        "dataset": {"kind": "fictional", "name": "embedded"},
        "gates": [{"name": "rougeL", "limit": 0.3, "value": 0.41, "verdict": verdict}],
        "specification": [{"name": "rougeL", "limit": 0.36, "value": 0.41, "verdict": "undecided"}],
    }


def artefacts_in(folder: Path) -> Artefacts:
    names = ("final-hf", "gguf", "report", "lora", "data")
    export, gguf, report, adapter, data = (folder / name for name in names)
    return Artefacts(export, gguf, report, adapter, data)


@pytest.fixture
def artefacts(tiny_merged: Path, tiny_adapter: Path, tmp_path: Path) -> Artefacts:
    """A real tiny model with a GGUF file, a report and a data card, as the stages leave them."""
    run = tmp_path / "run"
    made = artefacts_in(run)
    shutil.copytree(tiny_merged, made.export)
    shutil.copytree(tiny_adapter, made.adapter)
    for folder in (made.gguf, made.report, made.data):
        folder.mkdir()
    config = json.loads((made.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "tiny-gemma3"
    (made.adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (made.gguf / "titlegen-Q8_0.gguf").write_bytes(b"GGUF" + bytes(300_000))
    (made.report / "report.json").write_text(json.dumps(report_content()), encoding="utf-8")
    data = {"source": "embedded", "rows": 100, "kept": 90, "splits": {"train": 70, "val": 5, "test": 15}}
    data |= {"steps": [{"step": "missing", "in": 100, "dropped": 10, "out": 90}], "rules": {"content": {"x": "文章"}}}
    (made.data / "data.json").write_text(json.dumps(data, indent=2), encoding="utf-8")
    stamp_files(made)
    refresh(made)
    return made


@dataclasses.dataclass(frozen=True)
class Case:
    """All that a push needs: a server without faults, a repository that does not exist yet, a model, and settings."""

    server: HubServer
    target: HubTarget
    artefacts: Artefacts
    settings: Settings

    def push(self, **hub: Any) -> Pushed:
        return push_model(self.target, self.artefacts, with_hub(self.settings, **hub))

    def preview(self) -> dict[str, Any]:
        return preview_push(self.target, self.artefacts, self.settings)

    @property
    def head(self) -> str:
        """The last commit of main."""
        with connect(self.target) as api:
            return str(api.model_info(self.target.repo_id).sha)

    def refuse(self, match: str, **hub: Any) -> None:
        """Check that neither a push nor its preview sends anything."""
        self.server.break_at()
        for act in (preview_push, push_model):
            with pytest.raises((HubError, GateError), match=match):
                act(self.target, self.artefacts, with_hub(self.settings, **hub))
        assert {request["method"] for request in self.server.requests()} <= {"GET"}


@pytest.fixture
def case(server: HubServer, target: HubTarget, artefacts: Artefacts, settings: Settings) -> Case:
    return Case(server, target, artefacts, settings)


def refresh(artefacts: Artefacts) -> None:
    """Write the manifests again, after a test changed what a stage made."""
    trained = Settings.model_fields["train"].default.model_dump(mode="json")
    inputs = {"adapter": write_manifest(artefacts.adapter, "train", trained, {}, {}).digest}
    export = write_manifest(artefacts.export, "merge", {"dtype": "base"}, inputs, {"parameters": 340_000})
    write_manifest(artefacts.gguf, "gguf", {}, {"merged": export.digest}, {})
    write_manifest(artefacts.report, "evaluate", {}, {"model": export.digest}, {"target": "merged"})


def change_model(artefacts: Artefacts, marker: str) -> None:
    """Make it another model of the same size, with a file of its own."""
    stamp_files(artefacts)
    (artefacts.export / f"NOTICE-{marker}").write_text(marker, encoding="utf-8")
    refresh(artefacts)


def stamp_files(artefacts: Artefacts) -> None:
    """Give the large files content that no other test has: the server keeps equal content once."""
    number = next(NUMBERS)
    for path in (artefacts.export / "model.safetensors", artefacts.gguf / "titlegen-Q8_0.gguf"):
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(struct.pack("<f", number / 1000))
    # A protobuf field that sentencepiece does not know and therefore skips.
    path = artefacts.export / "tokenizer.model"
    kept = path.read_bytes().split(FIELD)[0]
    path.write_bytes(kept + FIELD + struct.pack("<Q", number))


def remote_files(target: HubTarget, revision: str = "main") -> set[str]:
    with connect(target) as api:
        return set(api.list_repo_files(target.repo_id, revision=revision)) - {".gitattributes"}


def uploads(server: HubServer) -> list[dict[str, Any]]:
    return [request for request in server.requests() if request["method"] == "PUT"]


# The way things go when nothing breaks.


def test_the_first_push_arrives_whole(case: Case, tmp_path: Path) -> None:
    case = dataclasses.replace(case, artefacts=dataclasses.replace(case.artefacts, card=tmp_path / "model-card.md"))
    result = case.push(include_adapter=True)
    with connect(case.target) as api:
        card = Path(api.hf_hub_download(case.target.repo_id, "README.md"))
    assert (tmp_path / "model-card.md").read_bytes() == card.read_bytes()
    files = remote_files(case.target)
    assert files == {
        *(path.name for path in case.artefacts.export.iterdir()),
        *("titlegen-Q8_0.gguf", "report.json", "data_card.json", "README.md", MANIFEST),
        *("Modelfile", "template", "system", "params"),
        *("adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
    }
    assert result.committed
    assert result.url == f"{case.server.url}/{case.target.repo_id}"
    assert result.files == result.verified_files == len(files)
    with connect(case.target) as api:
        assert result.commit == api.model_info(case.target.repo_id).sha
        assert api.model_info(case.target.repo_id).private
        assert len(api.list_repo_commits(case.target.repo_id)) == 2
        copy = Path(api.snapshot_download(case.target.repo_id, local_dir=tmp_path / "copy"))
    # A downloaded copy proves itself: its manifest lists every file.
    (copy / ".gitattributes").unlink()
    shutil.rmtree(copy / ".cache")
    check_files(copy, read_manifest(copy))
    assert result.bytes == sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())


def test_an_unchanged_push_makes_no_commit(case: Case) -> None:
    first = case.push()
    case.server.break_at()
    again = case.push()
    assert not again.committed
    assert again.commit == first.commit
    assert uploads(case.server) == []
    assert not [request for request in case.server.requests() if "/commit/" in request["path"]]


def test_a_changed_push_replaces_what_an_earlier_one_left_and_nothing_else(case: Case) -> None:
    change_model(case.artefacts, "one")
    case.push()
    with connect(case.target) as api:
        api.upload_file(repo_id=case.target.repo_id, path_or_fileobj=b"mine", path_in_repo="by-hand.txt")
    (case.artefacts.export / "NOTICE-one").unlink()
    change_model(case.artefacts, "two")
    plan = case.preview()
    assert plan["changes"] == {
        "add": ["NOTICE-two"],
        "update": [MANIFEST, "model.safetensors", "titlegen-Q8_0.gguf", "tokenizer.model"],
        "delete": ["NOTICE-one"],
    }
    result = case.push()
    assert result.extra_files == ["by-hand.txt"]
    assert {"NOTICE-two", "by-hand.txt"} <= remote_files(case.target)
    assert "NOTICE-one" not in remote_files(case.target)


def test_a_dry_run_changes_nothing(case: Case) -> None:
    plan = case.preview()
    assert json.loads(json.dumps(plan)) == plan
    assert plan["files"]["model.safetensors"] == (case.artefacts.export / "model.safetensors").stat().st_size
    assert set(plan["changes"]["add"]) == set(plan["files"])
    assert {request["method"] for request in case.server.requests()} == {"GET"}
    assert case.server.http.get(f"/api/models/{case.target.repo_id}").status_code == 404


def test_a_branch_a_tag_and_a_pull_request(case: Case) -> None:
    first = case.push(tag="v1")
    assert case.push(tag="v1").commit == first.commit
    change_model(case.artefacts, "two")
    with connect(case.target) as api:
        branched = case.push(revision="next")
        pulled = case.push(create_pr=True)
        refs = api.list_repo_refs(case.target.repo_id, include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {
        "main": first.commit,
        "next": branched.commit,
    }
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", first.commit)]
    assert pulled.pull_request == f"{case.target.url}/discussions/1"
    assert pulled.revision == "refs/pr/1"
    assert [ref.target_commit for ref in refs.pull_requests or []] == [pulled.commit]
    assert "NOTICE-two" in remote_files(case.target, "refs/pr/1")
    assert "NOTICE-two" not in remote_files(case.target)


def test_a_tag_never_moves(case: Case) -> None:
    first = case.push(tag="v1")
    change_model(case.artefacts, "two")
    case.server.break_at()
    with pytest.raises(HubError, match="the tag 'v1' is on another model"):
        case.push(tag="v1")
    assert uploads(case.server) == []
    assert case.head == first.commit


LOAD = """
import json, sys
from pathlib import Path
from datasets import load_dataset
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer
repo = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(repo)
tokenizer = AutoTokenizer.from_pretrained(repo)
rows = load_dataset("json", data_files=f"hf://{repo}/data_card.json", split="train")
print(json.dumps({
    "parameters": model.num_parameters(),
    "vocabulary": len(tokenizer),
    "snapshot": sorted(path.name for path in Path(snapshot_download(repo)).iterdir()),
    "kept": rows[0]["kept"],
}))
"""


@pytest.mark.heavy
def test_what_was_pushed_is_loaded_by_the_usual_programs(case: Case, tmp_path: Path) -> None:
    case.push()
    environment = os.environ | case.target.environment() | {"HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD, case.target.repo_id]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    loaded = json.loads(result.stdout.strip().splitlines()[-1])
    assert loaded["parameters"] > 100_000
    assert loaded["vocabulary"] > 1_000
    assert loaded["kept"] == 90
    assert set(loaded["snapshot"]) - {".gitattributes"} == remote_files(case.target)
    program = Path(sys.executable).with_name("hf")
    command = [str(program), "download", case.target.repo_id, "README.md", "--local-dir", str(tmp_path / "cli")]
    subprocess.run(command, env=environment, capture_output=True, check=True)  # noqa: S603 - huggingface_hub's program
    assert "model-index:" in (tmp_path / "cli" / "README.md").read_text(encoding="utf-8")


def test_a_clean_download_gives_the_same_title(case: Case, articles: list[dict[str, str]]) -> None:
    case.push()
    article = articles[0]["content"]
    checked = check_download(case.target, article, export=case.artefacts.export)
    assert checked.same_title
    assert checked.verified_files > 10
    with pytest.raises(HubError, match="titles an article"):
        check_download(case.target, article, expected="另一個標題")


def test_verify_only_compares_every_file(case: Case) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    pushed = case.push()
    verified = verify_remote(case.target, case.target.repo_id, case.artefacts, case.settings)
    assert verified.commit == pushed.commit
    assert verified.verified_files == pushed.files
    changes: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd("config.json", b"{}"),
        CommitOperationAdd("model.safetensors", b"other weights"),
        CommitOperationDelete("template"),
    ]
    with connect(case.target) as api:
        api.create_commit(case.target.repo_id, changes, commit_message="tamper")
    with pytest.raises(HubError, match=r"template is missing; config\.json is different; model\.saf"):
        verify_remote(case.target, case.target.repo_id, case.artefacts, case.settings)
    with pytest.raises(HubError, match="404"):
        verify_remote(case.target, "local/none", case.artefacts, case.settings)


# What is refused before a byte is sent.


def test_an_export_that_is_not_what_its_manifest_says(case: Case) -> None:
    (case.artefacts.export / "config.json").write_text("{}", encoding="utf-8")
    for act in (preview_push, push_model):
        with pytest.raises(VerifyError, match=r"config\.json changed"):
            act(case.target, case.artefacts, case.settings)
    assert case.server.requests() == []


@pytest.mark.parametrize(("named", "key"), [("GGUF", "merged"), ("report", "model")])
def test_artefacts_of_different_models(case: Case, named: str, key: str) -> None:
    write_manifest(getattr(case.artefacts, named.lower()), named, {}, {key: "0" * 64}, {})
    case.refuse(f"the {named} is of another model")
    write_manifest(getattr(case.artefacts, named.lower()), named, {}, {}, {})
    case.refuse(f"the {named} is of another model")


def test_a_report_of_titles_from_elsewhere(case: Case) -> None:
    inputs = {"model": read_manifest(case.artefacts.export).digest}
    write_manifest(case.artefacts.report, "evaluate", {}, inputs, {"target": "theirs.jsonl"})
    case.refuse(r"titles that this model did not write \(theirs.jsonl\)")


@pytest.mark.parametrize("name", ["adapter", "report"])
def test_an_adapter_or_report_that_was_changed(case: Case, name: str) -> None:
    path = getattr(case.artefacts, name) / {"adapter": "adapter_model.safetensors", "report": "report.json"}[name]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(VerifyError, match=f"{path.name} changed"):
        case.push()
    assert case.server.requests() == []


def test_the_adapter_of_another_run(case: Case) -> None:
    path = case.artefacts.adapter / "adapter_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    write_manifest(case.artefacts.adapter, "train", {}, {}, {})
    case.refuse("is another adapter than the one in")


def test_an_export_that_was_not_verified(case: Case, tmp_path: Path) -> None:
    verification = tmp_path / "verify"
    verification.mkdir()
    case = dataclasses.replace(case, artefacts=dataclasses.replace(case.artefacts, verification=verification))
    with pytest.raises(VerifyError, match="does not exist"):
        case.push()
    digest = read_manifest(case.artefacts.export).digest
    passed = vars(Check("weights.merged", "tensors", "0 wrong", "0 wrong", passed=True))
    failed = vars(Check("tokens.gguf", "tokens", "1 wrong", "0 wrong", passed=False))
    gguf = read_manifest(case.artefacts.gguf).digest
    for inputs, checks, match in (
        ({"merged": digest, "gguf": gguf}, [], "no check ran"),
        ({"merged": digest, "gguf": gguf}, [passed, failed], "tokens.gguf"),
        ({"merged": "0" * 64, "gguf": gguf}, [passed], "verification is of another model"),
        # What an export of other types leaves whose verification failed.
        ({"merged": digest, "gguf": "0" * 64}, [passed], "verification is of other GGUF files"),
        ({"merged": digest}, [passed], "verification is of other GGUF files"),
    ):
        write_manifest(verification, "verify", {}, inputs, {"checks": checks})
        case.refuse(match)
    write_manifest(verification, "verify", {}, {"merged": digest, "gguf": gguf}, {"checks": [passed]})
    assert case.preview()["bytes"] > 0


def test_what_would_be_loaded_beside_the_model_is_removed(case: Case) -> None:
    case.push()
    with connect(case.target) as api:
        for name in ("adapter_config.json", "notes.txt"):
            api.upload_file(path_or_fileobj=b"{}", path_in_repo=name, repo_id=case.target.repo_id)
    assert case.preview()["changes"]["delete"] == ["adapter_config.json"]
    # What else others put there is theirs.
    assert case.push().extra_files == ["notes.txt"]


def test_a_failed_gate_needs_consent_and_is_written_into_the_card(case: Case) -> None:
    (case.artefacts.report / "report.json").write_text(json.dumps(report_content("fail")), encoding="utf-8")
    refresh(case.artefacts)
    case.refuse(r"gates failed: rougeL 0\.410 is below 0\.3 \(.*--train\.num-train-epochs")
    result = case.push(allow_failed_gates=True)
    assert result.failed_gates == ["rougeL"]
    with connect(case.target) as api:
        card = Path(api.hf_hub_download(case.target.repo_id, "README.md")).read_text(encoding="utf-8")
    assert "failed the gate rougeL" in card
    (case.artefacts.report / "report.json").write_text(json.dumps(report_content("undecided")), encoding="utf-8")
    refresh(case.artefacts)
    assert case.push().failed_gates == []


@pytest.mark.fault
def test_a_known_failed_gate_ends_a_push_at_once_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TITLEGEN_CACHE", str(tmp_path / "cache"))
    report = tmp_path / "outputs" / "quickstart" / "report"
    report.mkdir(parents=True)
    (report / "report.json").write_text(json.dumps(report_content("fail")), encoding="utf-8")
    assert cli.main(["push", "--output", str(tmp_path / "outputs")]) == EXIT_GATE
    said = capsys.readouterr().err
    assert "gates failed: rougeL 0.410 is below 0.3" in said
    assert "--hub.allow-failed-gates" in said
    # Neither was data prepared, nor the base model fetched, nor a server started.
    assert [path.name for path in (tmp_path / "outputs" / "quickstart").iterdir()] == ["report"]
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "outputs" / "run").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"scores": {}, "gates": [{"name": "a](http://evil)", "limit": 0, "value": 0, "verdict": "pass"}]}',
    ],
)
def test_a_report_that_is_none(case: Case, content: str) -> None:
    (case.artefacts.report / "report.json").write_text(content, encoding="utf-8")
    refresh(case.artefacts)
    case.refuse("is not a report")


SECRETS = {
    "a Hugging Face token": b"hf_" + b"aB3" * 12,
    "a GitHub token": b"ghp_" + b"x1Y2" * 9,
    "a GitLab token": b"glpat-" + b"x1Y2" * 5,
    "an AWS key": b"AKIA" + b"ABCD1234" * 2,
    "a Google key": b"AIza" + b"x1Y2-" * 7,
    "a Slack token": b"xoxb-" + b"1234-" * 5,
    "an API key": b"sk-proj-" + b"x1Y2" * 8,
    "a password in an address": b"https://me:pass@example.com/simple",
    "a private key": b"-----BEGIN RSA PRIVATE KEY-----",
    "the path of a home directory": b'"_name_or_path": "/home/someone/models/x"',
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("name", ["generation_config.json", "NOTICE", "model.gguf"])
def test_a_secret_is_found_and_not_repeated(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"x" * 5000 + b' "' + SECRETS[kind] + b'"')
    (found,) = scan_files({name: path}, [])
    assert found == f"{name} holds {kind}"
    # Inside of a longer word it is something else.
    path.write_bytes(b"x" * 5000 + SECRETS[kind].replace(b'"', b"").replace(b"_name_or_path: ", b""))
    assert kind == "a private key" or scan_files({name: path}, []) == []


def test_a_secret_keeps_a_push_from_starting(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    path = case.artefacts.export / "generation_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"made_by": "wangxiaoming"}), encoding="utf-8")
    refresh(case.artefacts)
    assert case.preview()["bytes"] > 0
    monkeypatch.setattr("getpass.getuser", lambda: "wangxiaoming")
    case.refuse("generation_config.json holds the user name of this machine")


def test_the_token_in_use_is_found_in_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(100_000) + b"odd-token")
    assert scan_files({"model.safetensors": path}, ["odd-token"]) == ["model.safetensors holds the Hub token in use"]
    assert scan_files({"model.safetensors": path}, ["another"]) == []
    (tmp_path / "empty").touch()
    assert scan_files({"empty": tmp_path / "empty"}, ["odd-token"]) == []


@pytest.mark.parametrize(
    ("repo_id", "match"),
    [("a/b/c", "not a valid name"), ("a/--b", "not a valid name"), ("../x", "not a valid name"), ("x", "no owner")],
)
def test_a_name_that_cannot_be(case: Case, repo_id: str, match: str) -> None:
    dataclasses.replace(case, target=dataclasses.replace(case.target, repo_id=repo_id)).refuse(match)


def test_settings_that_exclude_each_other(case: Case) -> None:
    case.refuse("goes to main", create_pr=True, revision="next")
    case.refuse("not a release", create_pr=True, tag="v1")


def test_a_public_repository_for_a_private_model(case: Case) -> None:
    case.server.api().create_repo(case.target.repo_id, private=False)
    case.refuse("is public, and hub.private is on")
    assert case.push(private=False).committed


def test_a_disk_that_is_too_small(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(case.server.directory)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage._replace(free=1000))
    case.refuse("GiB are free")


def test_a_token_that_may_not_write_there(artefacts: Artefacts, settings: Settings) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    role = "read"

    def whoami(_: Any) -> JSONResponse:
        user = {"name": "me", "orgs": [{"name": "club"}], "auth": {"accessToken": {"role": role}}}
        return JSONResponse(user)

    def missing(_: Any) -> JSONResponse:
        return JSONResponse({"error": "no"}, 404, {"X-Error-Code": "RepoNotFound"})

    app = Starlette(routes=[Route("/api/whoami-v2", whoami), Route("/{rest:path}", missing)])
    with serving(uvicorn.Config(app, port=free_port(), log_level="critical", ws="none")) as url:
        target = HubTarget(url, "hf_read", "stranger/x", offline=False)
        with pytest.raises(HubError, match="the Hub token of me may only read"):
            preview_push(target, artefacts, settings)
        role = "write"
        with pytest.raises(HubError, match="me is not a member of stranger; use one of club, me"):
            preview_push(target, artefacts, settings)
        assert preview_push(dataclasses.replace(target, repo_id="club/x"), artefacts, settings)["repo_id"] == "club/x"


@contextlib.contextmanager
def serving(config: Any) -> Iterator[str]:
    import uvicorn

    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{config.port}"
    server.should_exit = True
    thread.join()


# The card and the other files that titlegen writes.


def card_of(artefacts: Artefacts, settings: Settings, repo_id: str = "club/titles") -> str:
    with assemble_files(artefacts, settings, repo_id) as staged:
        return (staged.folder / "README.md").read_text(encoding="utf-8")


def test_the_card_has_valid_metadata_and_says_what_a_user_needs(artefacts: Artefacts, settings: Settings) -> None:
    from huggingface_hub import ModelCard

    text = card_of(artefacts, settings)
    data: Any = ModelCard(text, ignore_metadata_errors=False).data
    assert (data.license, data.language, data.pipeline_tag) == ("gemma", "zh", "text-generation")
    assert data.base_model == "google/gemma-3-270m"
    assert data.library_name == "transformers"
    assert {"gguf", "ollama"} <= set(data.tags)
    scores = {result.metric_name: result.metric_value for result in data.eval_results}
    assert scores["ROUGE-L"] == 0.41
    assert len(scores) == 6
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    assert "Measured on 31 fictional articles of the test split" in text
    # The profile's limit and the specification's, each with its verdict.
    assert "| ROUGE-L | 0.410 | 0.350 to 0.470 | 0.300 | **pass** | 0.360 | **undecided** |" in text
    for heading in ("## Use", "### Ollama", "### transformers", "## Scores", "## Data", "## Training", "## Limits"):
        assert heading in text
    assert "ollama run hf.co/club/titles:Q8_0" in text
    assert "http://localhost:11434/api/generate" in text
    assert "70 train, 5 val, 15 test" in text
    assert "nox -s train -- --profile quickstart" in text
    assert str(artefacts.export) not in text


def test_the_card_of_the_mission_names_its_base_and_its_data(artefacts: Artefacts) -> None:
    from huggingface_hub import ModelCard

    text = card_of(artefacts, load_settings(profile="gemma3n-e4b"))
    data: Any = ModelCard(text, ignore_metadata_errors=False).data
    assert data.base_model == "unsloth/gemma-3n-E4B-it"
    assert data.datasets == ["AWeirdDev/zh-tw-pts-articles-sm"]
    assert "The rights in the articles stay with their publishers" in text


def test_the_card_names_no_path_of_this_machine(artefacts: Artefacts, settings: Settings, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    source = tmp_path / "articles.jsonl"
    source.touch()
    (artefacts.data / "data.json").write_text(json.dumps({"source": str(source), "rows": 1}), encoding="utf-8")
    local = settings.model_copy(
        update={
            "data": settings.data.model_copy(update={"source": str(source)}),
            "model": settings.model.model_copy(update={"base": str(artefacts.export)}),
        }
    )
    with assemble_files(artefacts, local, "club/titles") as staged:
        text = (staged.folder / "README.md").read_text(encoding="utf-8")
        assert json.loads((staged.folder / "data_card.json").read_text(encoding="utf-8"))["source"] == "articles.jsonl"
    data: Any = ModelCard(text, ignore_metadata_errors=False).data
    assert data.base_model is None
    assert data.datasets is None
    assert str(tmp_path) not in text


def test_a_model_without_report_data_card_or_gguf(artefacts: Artefacts, settings: Settings) -> None:
    for folder in (artefacts.report, artefacts.data, artefacts.gguf, artefacts.adapter):
        shutil.rmtree(folder)
    without = with_hub(settings, include_gguf=False)
    with assemble_files(artefacts, without, "club/titles") as staged:
        text = (staged.folder / "README.md").read_text(encoding="utf-8")
        assert not {"report.json", "data_card.json", "Modelfile"} & set(staged.files)
        assert not staged.evaluated
    assert "This model was not evaluated." in text
    assert "model-index" not in text
    with pytest.raises(VerifyError, match="does not exist"), assemble_files(artefacts, settings, "club/titles"):
        pass
    with (
        pytest.raises(HubError, match=r"adapter_config\.json does not exist"),
        assemble_files(artefacts, with_hub(without, include_adapter=True), "club/titles"),
    ):
        pass


@given(text=st.text(max_size=40))
@hypothesis_settings(max_examples=25)
def test_a_setting_cannot_leave_its_place_in_the_card(text: str) -> None:
    facts = CardFacts("club/x", SETTINGS, GEMMA3, {"backend": text, **TRAIN}, None, None, {}, ())
    line = next(line for line in render_card(facts).splitlines() if line.startswith("| backend |"))
    assert line.count("`") == 2
    assert line.startswith("| backend | `")
    assert line.endswith("` |")


def test_the_card_says_that_titles_were_chosen(tmp_path: Path) -> None:
    content = report_content()
    given: list[tuple[dict[str, object], str]] = [
        ({"strategy": "greedy"}, ""),
        ({"candidates": 1}, ""),
        ({"candidates": 16}, "the best of 16 that the model wrote"),
        ({"candidates": 1, "redraws": 4}, "was doubtful, 4 others were drawn"),
    ]
    for decoding, said in given:
        (tmp_path / "report.json").write_text(json.dumps(content | {"generation": {"decoding": decoding}}))
        text = render_card(CardFacts("club/x", SETTINGS, GEMMA3, {}, read_report(tmp_path), None, {}, ()))
        for phrase in ("the best of 16 that the model wrote", "was doubtful, 4 others were drawn"):
            assert (phrase in text) is (phrase == said)


@pytest.mark.parametrize("accepted", [True, False])
def test_the_card_says_how_a_preferred_model_was_made(settings: Settings, tmp_path: Path, *, accepted: bool) -> None:
    score = {"value": 0.02, "low": 0.004, "high": 0.036}
    decision = {"accepted": accepted, "rows": 100, "sft": {"rougeL": 0.348}, "preferred": {"rougeL": 0.371}}
    results = {"pairs": 6000, "choices": 12, "decision": decision | {"differences": {"rougeL": score}}}
    write_manifest(tmp_path, "prefer", {"objective": "dpo"}, {}, results)
    preference = read_preference(tmp_path)
    assert preference is not None
    trained = {**TRAIN, "control_share": 0.3}
    facts = CardFacts("club/x", settings, GEMMA3, trained, None, None, {}, (), preference)
    text = render_card(facts)
    assert "30% of the rows asked for their title's length" in text
    made = "on 6000 pairs of titles: the model's own best over worse ones, and 12 that editors chose or edited" in text
    assert made is accepted
    assert ("ROUGE-L went from 0.348 to 0.371 (difference +0.004 to +0.036)" in text) is accepted
    assert ("was not taken over: on 100 validation articles it was no better" in text) is not accepted


def test_staging_the_same_twice_gives_the_same_bytes(artefacts: Artefacts, settings: Settings) -> None:
    with assemble_files(artefacts, settings, "club/x") as one, assemble_files(artefacts, settings, "club/x") as two:
        assert one.files == two.files
        assert one.folder != two.folder
        link = one.folder / "model.safetensors"
        assert link.samefile(artefacts.export / "model.safetensors")
        assert one.total_bytes == sum(path.stat().st_size for path in one.folder.rglob("*") if path.is_file())
    assert not one.folder.exists()


def test_ollama_reads_the_prompt_from_the_repository() -> None:
    files = ollama_files(load_settings().serve, ["titlegen-Q8_0.gguf"], PROMPT)
    assert files["template"] == PROMPT.template
    assert files["system"] == SYSTEM
    parameters = json.loads(files["params"])
    assert parameters["stop"] == ["<end_of_turn>"]
    assert parameters["num_predict"] == 48
    modelfile = files["Modelfile"]
    assert modelfile.startswith("FROM ./titlegen-Q8_0.gguf\n")
    assert f'TEMPLATE """{PROMPT.template}"""' in modelfile
    assert "PARAMETER stop <end_of_turn>\n" in modelfile
    assert "PARAMETER temperature 0.3\n" in modelfile


# What breaks, one thing at a time.


@pytest.mark.fault
@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 10))])
def test_a_connection_cut_and_resumed_sends_nothing_whole_twice(case: Case, seed: int) -> None:
    import random

    size = sum(path.stat().st_size for path in case.artefacts.export.iterdir()) + 300_000
    proxy = BreakingProxy(case.server.port)
    case.server.break_at()
    try:
        through = dataclasses.replace(case.target, endpoint=proxy.url)
        # The first requests are small; from here on most bytes are those of files.
        proxy.break_after(random.Random(seed).randrange(4_000, size))
        with pytest.raises(HubError, match="push again"):
            push_model(through, case.artefacts, case.settings)
        before = case.server.requests()
        whole = [request["bytes"] for request in before if request["method"] == "PUT" and request["status"] == 200]
        proxy.mend()
        case.server.break_at()
        assert push_model(through, case.artefacts, case.settings).committed
    finally:
        proxy.close()
    again = [request["bytes"] for request in uploads(case.server)]
    # The three large files have three sizes: each was received whole exactly once.
    sizes = [(case.artefacts.export / name).stat().st_size for name in ("model.safetensors", "tokenizer.model")]
    assert sorted(whole + again) == sorted([*sizes, 300_004])


@pytest.mark.fault
def test_a_connection_cut_once_is_taken_up_by_the_same_push(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titlegen.hub.target._FIRST_WAIT_S", 1.0)
    proxy = BreakingProxy(case.server.port)
    proxy.break_after(500_000)
    threading.Timer(1.0, proxy.mend).start()
    try:
        result = push_model(dataclasses.replace(case.target, endpoint=proxy.url), case.artefacts, case.settings)
    finally:
        proxy.close()
    assert result.committed
    assert len({request["path"] for request in uploads(case.server) if request["status"] == 200}) == 3


REFUSALS = [
    (401, "GET /api/whoami-v2", "the token is not valid"),
    (401, ".*/commit/main", "the token is not valid"),
    (403, ".*/preupload/main", "may not write there"),
    (404, ".*/preupload/main", "check hub.repo_id"),
    (409, ".*/commit/main", "another operation on the repository"),
    (413, "PUT .*", "larger than this Hub accepts"),
    (413, ".*/commit/main", "larger than this Hub accepts"),
    (429, ".*/commit/main", "limits the rate"),
    (500, "PUT .*", "what arrived whole is not sent twice"),
    (507, "PUT .*", "the Hub's disk is full"),
]


@pytest.mark.fault
@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_a_refusal_leaves_the_old_revision_and_says_what_to_do(case: Case, refusal: tuple[int, str, str]) -> None:
    status, at, remedy = refusal
    first = case.push()
    change_model(case.artefacts, "two")
    case.server.break_at({"at": at, "status": status, "times": 1000})
    with pytest.raises(HubError, match=remedy) as caught:
        case.push()
    assert f"status {status}" in str(caught.value)
    assert "\n" not in str(caught.value)
    case.server.break_at()
    assert case.head == first.commit
    assert case.push().committed


@pytest.mark.fault
@pytest.mark.parametrize(("status", "remedy"), [(403, "may not write there"), (402, "see its billing page")])
def test_a_repository_that_may_not_be_created(case: Case, status: int, remedy: str) -> None:
    case.server.break_at({"at": "POST /api/repos/create", "status": status, "times": 1000})
    with pytest.raises(HubError, match=remedy):
        case.push()
    assert uploads(case.server) == []


PASSING = [
    (429, "POST /api/repos/create"),
    (429, ".*/preupload/main"),
    (429, ".*/commit/main"),
    (500, "GET /api/whoami-v2"),
    (500, "PUT .*"),
    (500, ".*/commit/main"),
    (503, ".*/objects/batch"),
    (409, ".*/commit/main"),
]


@pytest.mark.fault
@pytest.mark.parametrize(("status", "at"), PASSING)
def test_a_passing_failure_is_waited_out(case: Case, status: int, at: str) -> None:
    case.server.break_at({"at": at, "status": status, "headers": {"Retry-After": "0"}})
    assert case.push().committed
    assert [request["status"] for request in case.server.requests()].count(status) == 1
    with connect(case.target) as api:
        assert len(api.list_repo_commits(case.target.repo_id)) == 2


@pytest.mark.fault
@pytest.mark.parametrize("asked", ["7", "100000", "soon"])
def test_the_hub_is_given_the_time_it_asks_for(
    server: HubServer,
    target: HubTarget,
    artefacts: Artefacts,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
) -> None:
    settings, slept = load_settings(), list[float]()
    # Where the Hub does not say how long, the pause is random in part.
    waits = {"7": [7], "100000": [], "soon": [pytest.approx(0.015, abs=0.005)]}[asked]
    monkeypatch.setattr("time.sleep", slept.append)
    server.break_at({"at": "POST /api/repos/create", "status": 429, "headers": {"Retry-After": asked}})
    if waits:
        push_model(target, artefacts, settings)
    else:
        with pytest.raises(HubError, match="wait a few minutes"):
            push_model(target, artefacts, settings)
    assert slept == waits


@pytest.mark.fault
@pytest.mark.parametrize("step", ["write", "object", "commit", "ref"])
def test_a_full_disk_on_the_server(case: Case, step: str) -> None:
    first = case.push()
    change_model(case.artefacts, "two")
    incoming = set((case.server.directory / "incoming").iterdir())
    case.server.break_at({"at": step, "errno": "ENOSPC", "times": 1000})
    with pytest.raises(HubError, match="disk is full; free space"):
        case.push()
    case.server.break_at()
    assert case.head == first.commit
    assert set((case.server.directory / "incoming").iterdir()) == incoming
    assert case.push().committed


@pytest.mark.fault
@pytest.mark.parametrize("pattern", [r"PUT .*", r".*/commit/main"])
def test_a_file_that_is_corrupted_on_arrival_is_found(case: Case, pattern: str) -> None:
    # One flipped bit in the last large file, or in the last small one, after the server has checked it.
    skip = 2 if pattern.startswith("PUT") else 8
    case.server.break_at({"at": "object", "corrupt": True, "skip": skip})
    with pytest.raises(HubError, match=r"does not hold what was sent: .* is different") as caught:
        case.push()
    found = {name for name in remote_files(case.target) if f"{name} is different" in str(caught.value)}
    assert len(found) == 1
    assert (found <= LFS_FILES) == pattern.startswith("PUT")


@pytest.mark.fault
def test_a_download_that_differs_from_the_manifest_is_found(case: Case) -> None:
    case.push()
    record = read_manifest(case.artefacts.export).files["model.safetensors"]
    stored = case.server.directory / "objects" / record.sha256[:2] / record.sha256
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    try:
        with pytest.raises(HubError, match=r"differs from its manifest: model\.safetensors"):
            check_download(case.target, "內容")
    finally:
        # The server is shared, and other repositories hold the same file.
        shutil.copyfile(case.artefacts.export / "model.safetensors", stored)


PUSH = """
import json, sys
from pathlib import Path
from titlegen.hub import Artefacts, HubTarget, ensure_hub, push_model
from titlegen.settings import load_settings
given = json.loads(sys.argv[1])
settings = load_settings()
if "repo_id" in given:
    target = HubTarget(given["endpoint"], given["token"], given["repo_id"], offline=True)
else:
    hub = settings.hub.model_copy(update={"repo_id": given["hub"]})
    target = ensure_hub(hub, Path(given["state"]), settings.profile)
    print(target, target.describe(), file=sys.stderr)
print(json.dumps(push_model(target, Artefacts(*map(Path, given["artefacts"])), settings).as_json()))
"""


def start_push(given: dict[str, Any], artefacts: Artefacts, **environment: str) -> subprocess.Popen[str]:
    folders = (artefacts.export, artefacts.gguf, artefacts.report, artefacts.adapter, artefacts.data)
    text = json.dumps(given | {"artefacts": [str(folder) for folder in folders]})
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", PUSH, text],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.fault
def test_two_pushes_at_once_are_not_mixed(case: Case, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(case.artefacts.export.parent, other)
    second = artefacts_in(other)
    change_model(case.artefacts, "one")
    change_model(second, "two")
    case.server.api().create_repo(case.target.repo_id, private=True)
    # Both see the empty repository before either of them commits.
    case.server.break_at({"at": ".*/commit/main", "pause_s": 3.0})
    given = {"endpoint": case.target.endpoint, "token": HUB_TOKEN, "repo_id": case.target.repo_id}
    running = [start_push(given, made) for made in (case.artefacts, second)]
    for process in running:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert json.loads(output.splitlines()[-1])["committed"]
    statuses = [request["status"] for request in case.server.requests() if request["path"].endswith("/commit/main")]
    assert statuses.count(412) >= 1
    with connect(case.target) as api:
        commits = [commit.commit_id for commit in api.list_repo_commits(case.target.repo_id)][:-1]
        assert len(commits) == 2
        seen = set()
        for commit in commits:
            files = set(api.list_repo_files(case.target.repo_id, revision=commit))
            (mine,) = [made for made in (case.artefacts, second) if next(made.export.glob("NOTICE-*")).name in files]
            seen.add(mine)
            with assemble_files(mine, case.settings, case.target.repo_id) as staged:
                assert files - {".gitattributes"} == set(staged.files)
                infos: dict[str, Any] = {
                    entry.path: entry for entry in api.list_repo_tree(case.target.repo_id, revision=commit)
                }
                assert infos["model.safetensors"].lfs.sha256 == staged.files["model.safetensors"].sha256
        assert len(seen) == 2


@pytest.mark.fault
def test_a_server_killed_in_the_commit_keeps_the_old_revision(
    tmp_path: Path, artefacts: Artefacts, settings: Settings
) -> None:
    server = HubServer(tmp_path / "hub")
    try:
        target = HubTarget(server.url, HUB_TOKEN, "local/x", offline=True, directory=server.directory)
        first = push_model(target, artefacts, settings)
        change_model(artefacts, "two")
        server.break_at({"at": "ref", "pause_s": 60})

        def kill_when_committing() -> None:
            while not [r for r in server.requests() if r["path"].endswith("/commit/main") and r["bytes"]]:
                time.sleep(0.05)
            time.sleep(0.3)
            server.kill()

        killer = threading.Thread(target=kill_when_committing)
        killer.start()
        with pytest.raises(HubError, match="does not answer"):
            push_model(target, artefacts, settings)
        killer.join()
        server.start()
        with connect(target) as api:
            assert api.model_info("local/x").sha == first.commit
            assert "NOTICE-two" not in api.list_repo_files("local/x")
        server.break_at()
        assert push_model(target, artefacts, settings).committed
        assert uploads(server) == []
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.fault
def test_the_token_is_nowhere(tmp_path: Path, artefacts: Artefacts) -> None:
    """The way to the real Hub, up to its address: a token in HF_TOKEN, the endpoint in HF_ENDPOINT."""
    import psutil
    import uvicorn
    from faulty_hub import faulty_app

    secret = "hf_" + "Zq7" * 12
    app = faulty_app(tmp_path / "hub", secret)
    with serving(uvicorn.Config(app, port=free_port(), log_level="critical", ws="none")) as url:
        given = {"hub": "local/x", "state": str(tmp_path / "state")}
        environment = {
            "HF_TOKEN": secret,
            "HF_ENDPOINT": url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_DEBUG": "1",
            "HF_HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path),
        }
        said = []
        for status in (None, 403, 500):
            if status is not None:
                change_model(artefacts, f"v{status}")
                fault = {"at": ".*/commit/main", "status": status, "times": 1000}
                httpx.post(f"{url}/_faults", json=[fault], trust_env=False)
            process = start_push(given, artefacts, **environment)
            commands = []
            while process.poll() is None:
                for other in psutil.process_iter():
                    with contextlib.suppress(psutil.Error):
                        commands.append(" ".join(other.cmdline()))
                for path in tmp_path.glob("titlegen-push-*/*"):
                    with contextlib.suppress(OSError):
                        commands.append(path.read_bytes().decode("utf-8", "ignore"))
                time.sleep(0.2)
            output, errors = process.communicate()
            assert (process.returncode == 0) == (status is None), errors
            said += [output, errors, *commands]
    assert any("HubError" in text and "status 403" in text for text in said)
    assert not [text for text in said if secret in text]
    assert "[HF_DEBUG]" in "".join(said) or "Request" in "".join(said)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


# Which Hub it is.


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    stop_daemon("hub", tmp_path / "state")


def test_without_a_token_the_bundled_hub_is_started_once(
    state: Path, artefacts: Artefacts, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A company's proxy must not be asked for a server on this machine.
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "intranet.example")
    hub = HubSettings(offline_port=0)
    target = ensure_hub(hub, state, "profiles/mine.toml")
    assert target.offline
    assert target.repo_id == "local/titlegen-mine"
    assert "no Hub token" in target.describe()
    assert target.environment() == {"HF_ENDPOINT": target.endpoint, "HF_TOKEN": HUB_TOKEN}
    assert os.environ["no_proxy"] == "intranet.example,127.0.0.1,localhost,::1"
    result = push_model(target, artefacts, settings)
    assert result.url == f"{target.endpoint}/local/titlegen-mine"
    first = find_daemon("hub", state)
    assert ensure_hub(hub, state, "quickstart").endpoint == target.endpoint
    assert find_daemon("hub", state) == first


def test_a_bundled_hub_that_died_is_started_again_with_its_files(
    state: Path, artefacts: Artefacts, settings: Settings
) -> None:
    import psutil

    hub = HubSettings(offline_port=0)
    target = ensure_hub(hub, state, "quickstart")
    pushed = push_model(target, artefacts, settings)
    running = find_daemon("hub", state)
    assert running is not None
    process = psutil.Process(running.pid)
    process.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait()
    again = ensure_hub(hub, state, "quickstart")
    assert verify_remote(again, again.repo_id, artefacts, settings).commit == pushed.commit


def hang_up(listener: socket.socket) -> None:
    """Take connections and end them, like a program that is no offline Hub."""
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


def test_a_port_in_use_is_named_with_its_owner(state: Path, server: HubServer) -> None:
    with pytest.raises(HubError, match=f"port {server.port} is in use by an offline Hub for {server.directory}"):
        ensure_hub(HubSettings(offline_port=server.port), state, "quickstart")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        threading.Thread(target=hang_up, args=(other,), daemon=True).start()
        with pytest.raises(HubError, match=rf"port {port} is in use by another program; .*--hub\.offline-port"):
            ensure_hub(HubSettings(offline_port=port), state, "quickstart")


def test_with_a_token_it_is_the_real_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    target = ensure_hub(HubSettings(repo_id="club/titles"), tmp_path, "quickstart")
    assert (target.endpoint, target.repo_id, target.offline) == (constants.ENDPOINT, "club/titles", False)
    assert "hf_secret" not in repr(target) + target.describe()
    assert target.environment() == {}
    with pytest.raises(HubError, match="HF_ORG and HF_REPO"):
        ensure_hub(HubSettings(), tmp_path, "quickstart")
    assert list(tmp_path.iterdir()) == []


def test_offline_mode_and_an_unreachable_hub_are_explained(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    gone = dataclasses.replace(case.target, endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(HubError, match=r"does not answer .*check the network, HF_ENDPOINT and the proxy"):
        push_model(gone, case.artefacts, case.settings)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        case.push()


def test_a_report_is_optional_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_report(tmp_path) is None
    (tmp_path / "report.json").write_text(json.dumps(report_content()), encoding="utf-8")
    report = read_report(tmp_path)
    assert report is not None
    assert report.rows == 31
    monkeypatch.setattr("titlegen.hub.card._MAX_REPORT_BYTES", 10)
    with pytest.raises(HubError, match="larger than 10 bytes"):
        read_report(tmp_path)
