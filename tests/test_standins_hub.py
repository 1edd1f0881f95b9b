import base64
import hashlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import pytest
from hub_server import HubServer
from hypothesis import given
from hypothesis import strategies as st
from peak_memory import peak_bytes

from titlegen.daemon import free_port
from titlegen.errors import ConfigError, HubError
from titlegen.standins import HUB_TOKEN
from titlegen.standins.hub.__main__ import main
from titlegen.standins.hub.incoming import PART_BYTES, Incoming
from titlegen.standins.hub.records import RefusedError
from titlegen.standins.hub.store import RepositoryStore
from titlegen.standins.hub.wire import (
    MAX_JSON_BYTES,
    MAX_LINE_BYTES,
    REGULAR_BYTES,
    DeletedPath,
    parse,
    require_loopback,
)

# huggingface_hub hands a file's content to httpx by a name that httpx gave up.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),
    pytest.mark.usefixtures("plain_lfs"),
]
NUMBERS = itertools.count()
README = "---\nlicense: gemma\nbase_model: google/gemma-3-270m\n---\n# A model\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    running = HubServer(tmp_path_factory.mktemp("hub"))
    yield running
    running.stop()


@pytest.fixture
def repo(server: HubServer, request: pytest.FixtureRequest) -> str:
    """A new private repository on a server without faults."""
    server.break_at()
    name = f"local/{request.node.name.split('[')[0][:40]}-{next(NUMBERS)}"
    server.api().create_repo(name, private=True)
    return name


def write(folder: Path, **files: bytes | str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def noise(seed: int, size: int) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(size)


def commit_lines(*lines: dict[str, Any]) -> bytes:
    header = {"key": "header", "value": {"summary": "test", "description": ""}}
    return b"".join(json.dumps(line).encode() + b"\n" for line in (header, *lines))


def test_a_push_and_a_download_with_the_real_client(server: HubServer, repo: str, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    weights = noise(1, 300_000)
    folder = write(tmp_path / "m", README__md=README, config__json="{}", model__safetensors=weights, empty__txt=b"")
    api = server.api()
    commit = api.upload_folder(repo_id=repo, folder_path=folder)
    path = snapshot_download(repo, cache_dir=tmp_path / "cache", endpoint=server.url, token=HUB_TOKEN)
    assert Path(path).name == commit.oid
    assert {p.name: p.read_bytes() for p in Path(path).iterdir() if p.name != ".gitattributes"} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }
    again = api.upload_folder(repo_id=repo, folder_path=folder)
    assert again.oid == commit.oid
    commits = api.list_repo_commits(repo)
    assert [entry.title for entry in commits] == ["Upload folder using huggingface_hub", "initial commit"]
    info = api.model_info(repo, files_metadata=True)
    assert info.private
    assert {s.rfilename: s.size for s in info.siblings or []}["model.safetensors"] == len(weights)


def test_small_text_goes_into_git_and_the_rest_into_lfs(server: HubServer, repo: str, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "m",
        text__json="{}",
        binary__dat=b"a\0b",
        model__gguf=b"GGUF",
        large__txt=b"x" * (REGULAR_BYTES + 1),
        README__md=README,
    )
    server.api().upload_folder(repo_id=repo, folder_path=folder)
    from huggingface_hub.hf_api import RepoFile

    listed = [entry for entry in server.api().list_repo_tree(repo) if isinstance(entry, RepoFile)]
    assert {entry.path for entry in listed if entry.lfs} == {"binary.dat", "model.gguf", "large.txt"}
    for entry in listed:
        if entry.lfs:
            assert entry.lfs.sha256 == hashlib.sha256((folder / entry.path).read_bytes()).hexdigest()


def test_a_large_file_comes_in_parts_and_is_read_in_ranges(server: HubServer, repo: str, tmp_path: Path) -> None:
    content = noise(2, 2**20) * (PART_BYTES // 2**20) + b"the last, short part"
    folder = write(tmp_path / "m", model__safetensors=content)
    server.api().upload_folder(repo_id=repo, folder_path=folder)
    parts = [request["bytes"] for request in server.requests() if request["path"].startswith("/lfs/")]
    assert sorted(parts)[1:] == [20, PART_BYTES]
    url = f"/{repo}/resolve/main/model.safetensors"
    answer = server.http.get(url, headers={"Range": f"bytes={PART_BYTES}-"})
    assert (answer.status_code, answer.content) == (206, b"the last, short part")
    assert server.http.get(url, headers={"Range": f"bytes={len(content)}-"}).status_code == 416
    head = server.http.head(url)
    assert head.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert head.headers["Content-Length"] == head.headers["X-Linked-Size"] == str(len(content))
    assert head.headers["X-Repo-Commit"] == server.api().model_info(repo).sha
    assert "X-Xet-Hash" not in head.headers


def test_a_download_that_broke_off_goes_on(server: HubServer, repo: str, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    content = noise(3, 200_000)
    server.api().upload_file(repo_id=repo, path_or_fileobj=content, path_in_repo="model.safetensors")
    digest = hashlib.sha256(content).hexdigest()
    cache = tmp_path / "cache"
    partial = cache / f"models--{repo.replace('/', '--')}" / "blobs" / f"{digest}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content[:150_000])
    path = hf_hub_download(repo, "model.safetensors", cache_dir=cache, endpoint=server.url, token=HUB_TOKEN)
    assert Path(path).read_bytes() == content


def test_branches_tags_and_pull_requests(server: HubServer, repo: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    api = server.api()
    first = str(api.model_info(repo).sha)
    api.create_branch(repo, branch="try/slash")
    with pytest.raises(HfHubHTTPError, match="already exists"):
        api.create_branch(repo, branch="try/slash")
    api.create_branch(repo, branch="try/slash", exist_ok=True)
    on_branch = api.upload_file(repo_id=repo, path_or_fileobj=b"b", path_in_repo="a/b.txt", revision="try/slash")
    pull = api.upload_file(repo_id=repo, path_or_fileobj=b"p", path_in_repo="p.txt", create_pr=True)
    assert pull.pr_revision == "refs/pr/1"
    onto_pull = api.upload_file(repo_id=repo, path_or_fileobj=b"q", path_in_repo="q.txt", revision="refs/pr/1")
    api.create_tag(repo, tag="v1", revision="try/slash")
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "try/slash": on_branch.oid}
    assert [(ref.ref, ref.target_commit) for ref in refs.tags] == [("refs/tags/v1", on_branch.oid)]
    assert [(ref.ref, ref.target_commit) for ref in refs.pull_requests or []] == [("refs/pr/1", onto_pull.oid)]
    assert api.list_repo_files(repo, revision="v1") == [".gitattributes", "a/b.txt"]
    assert api.list_repo_files(repo, revision=on_branch.oid[:8]) == [".gitattributes", "a/b.txt"]
    assert api.list_repo_files(repo, revision="refs/pr/1") == [".gitattributes", "p.txt", "q.txt"]
    assert api.list_repo_files(repo) == [".gitattributes"]
    for missing in ("v2", "refs/pr/9", "0" * 40):
        with pytest.raises(RevisionNotFoundError):
            api.model_info(repo, revision=missing)
    with pytest.raises(HfHubHTTPError):
        api.create_tag(repo, tag="../x")


def test_folders_paths_and_the_file_system(server: HubServer, repo: str, tmp_path: Path) -> None:
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import EntryNotFoundError

    api = server.api()
    write(tmp_path / "m", top__txt="t")
    write(tmp_path / "m" / "a" / "b", deep__txt="deep 字")
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "m")
    assert [e.path for e in api.list_repo_tree(repo)] == [".gitattributes", "a", "top.txt"]
    assert [e.path for e in api.list_repo_tree(repo, "a", recursive=True)] == ["a/b", "a/b/deep.txt"]
    assert [e.path for e in api.list_repo_tree(repo, "a/b")] == ["a/b/deep.txt"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "additional_chat_templates"))
    assert [e.path for e in api.get_paths_info(repo, ["a", "top.txt", "none"])] == ["a", "top.txt"]
    assert api.file_exists(repo, "a/b/deep.txt")
    assert not api.file_exists(repo, "a/b/none.txt")
    files = HfFileSystem(endpoint=server.url, token=HUB_TOKEN)
    assert files.glob(f"{repo}/**/*.txt") == [f"{repo}/a/b/deep.txt", f"{repo}/top.txt"]
    assert files.read_text(f"{repo}/a/b/deep.txt", encoding="utf-8") == "deep 字"
    api.delete_folder("a", repo)
    assert api.list_repo_files(repo) == [".gitattributes", "top.txt"]


def test_a_private_repository_needs_the_token(server: HubServer, repo: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    assert server.api().whoami()["auth"]["accessToken"]["role"] == "write"
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=server.url, token=False).model_info(repo)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=server.url, token="hf_wrong").whoami()  # noqa: S106
    for path, method in ((f"/api/models/{repo}/commit/main", "POST"), (f"/api/models/{repo}/branch/x", "POST")):
        assert httpx.request(method, server.url + path, json={}, trust_env=False).status_code == 401
    server.api().create_repo(f"{repo}-open", private=False)
    assert HfApi(endpoint=server.url, token=False).model_info(f"{repo}-open").private is False


def test_a_repository_is_created_once(server: HubServer, repo: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    with pytest.raises(HfHubHTTPError, match="409"):
        server.api().create_repo(repo)
    assert server.api().create_repo(repo, exist_ok=True).repo_id == repo


def test_invalid_card_metadata_is_refused_before_the_upload(server: HubServer, repo: str) -> None:
    bad = "---\nbase_model: not a/valid/name\nmodel-index: 3\n---\n"
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        server.api().upload_file(repo_id=repo, path_or_fileobj=bad.encode(), path_in_repo="README.md")
    assert not server.api().file_exists(repo, "README.md")


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", ".git/config", "a\\b", "a\nb", "", "..", "a/.."],
)
def test_a_path_cannot_leave_the_repository(server: HubServer, repo: str, path: str) -> None:
    content = base64.b64encode(b"x").decode()
    for line in (
        {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}},
        {"key": "deletedFile", "value": {"path": path}},
    ):
        answer = server.http.post(f"/api/models/{repo}/commit/main", content=commit_lines(line))
        assert answer.status_code == 400
    assert server.api().list_repo_files(repo) == [".gitattributes"]


@given(st.text(alphabet=st.sampled_from("ab./\\\0\n 字"), max_size=12))
def test_every_accepted_path_stays_inside(path: str) -> None:
    try:
        accepted = parse(DeletedPath, {"path": path}).path
    except RefusedError:
        return
    assert "\\" not in accepted
    assert not PurePosixPath(accepted).is_absolute()
    assert os.path.normpath(f"/repo/{accepted}").startswith("/repo/")


@pytest.mark.parametrize(
    "path",
    [
        "/api/models/../../etc",
        "/api/models/%2e%2e/%2e%2e/revision/main",
        "/api/models/..%2f..%2f..%2fetc/passwd/refs",
        "/local/x/resolve/main/..%2f..%2flock",
        "/local/x/resolve/..%2f..%2flock/y",
        "/lfs/..%2f..%2flock/1",
    ],
)
def test_an_address_cannot_leave_the_directory(server: HubServer, repo: str, path: str) -> None:
    raw = path.replace("/local/x", f"/{repo}")
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        # httpx would tidy the path up.
        request = (
            f"GET {raw} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {HUB_TOKEN}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert int(answer.split()[1]) in {400, 404, 405}


MALFORMED: dict[str, tuple[str, bytes, int]] = {
    "no JSON": ("/api/repos/create", b"{", 400),
    "no object": ("/api/repos/create", b"[]", 400),
    "no name": ("/api/repos/create", b"{}", 400),
    "bad name": ("/api/repos/create", b'{"name": "../x"}', 400),
    "another kind": ("/api/repos/create", b'{"name": "x", "type": "dataset"}', 400),
    "long body": ("/api/repos/create", b" " * (MAX_JSON_BYTES + 1), 413),
    "negative size": ("REPO/preupload/main", b'{"files": [{"path": "x", "size": -1}]}', 400),
    "bad digest": ("GIT/info/lfs/objects/batch", b'{"objects": [{"oid": "../../lock", "size": 1}]}', 400),
    "no header": ("REPO/commit/main", b'{"key": "deletedFile", "value": {"path": "x"}}', 400),
    "unknown operation": ("REPO/commit/main", commit_lines({"key": "copy", "value": {}}), 400),
    "not base64": ("REPO/commit/main", commit_lines({"key": "file", "value": {"path": "x", "content": "!"}}), 400),
    "not uploaded": (
        "REPO/commit/main",
        commit_lines({"key": "lfsFile", "value": {"path": "x", "oid": "0" * 64, "size": 1}}),
        400,
    ),
    "long line": ("REPO/commit/main", commit_lines() + b"x" * (MAX_LINE_BYTES + 1), 413),
    "no branch": ("REPO/commit/none", commit_lines(), 404),
    "old parent": (
        "REPO/commit/main",
        b'{"key": "header", "value": {"summary": "x", "parentCommit": "' + b"0" * 40 + b'"}}',
        412,
    ),
    "nameless tag": ("REPO/tag/main", b"{}", 400),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_request_is_turned_down(server: HubServer, repo: str, case: str) -> None:
    path, body, status = MALFORMED[case]
    path = path.replace("REPO", f"/api/models/{repo}").replace("GIT", f"/{repo}.git")
    answer = server.http.post(path, content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert server.api().list_repo_files(repo) == [".gitattributes"]


def upload_address(server: HubServer, repo: str, content: bytes, size: int | None = None) -> str:
    wanted = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content) if size is None else size}
    answer = server.http.post(f"/{repo}.git/info/lfs/objects/batch", json={"objects": [wanted]}).json()
    return str(answer["objects"][0]["actions"]["upload"]["href"])


@pytest.mark.parametrize(("sent", "status"), [(b"CONTENT", 400), (b"con", 400), (b"content+", 413), (b"", 400)])
def test_wrong_content_is_not_kept(server: HubServer, repo: str, sent: bytes, status: int) -> None:
    # The server is shared, and knows by now what an earlier case has sent.
    tail = f" for a case that answers {status} to {len(sent)} bytes".encode()
    content = b"content" + tail
    address = upload_address(server, repo, content)
    assert server.http.put(address, content=sent + tail if sent else b"").status_code == status
    digest = hashlib.sha256(content).hexdigest()
    assert not (server.directory / "objects" / digest[:2] / digest).exists()
    again = upload_address(server, repo, content)
    assert server.http.put(again, content=content).status_code == 200
    assert (server.directory / "objects" / digest[:2] / digest).read_bytes() == content


def test_an_object_larger_than_the_disk_is_refused_before_a_byte(server: HubServer, repo: str) -> None:
    wanted = {"oid": "0" * 64, "size": 10**18}
    answer = server.http.post(f"/{repo}.git/info/lfs/objects/batch", json={"objects": [wanted]}).json()
    assert answer["objects"][0]["error"]["code"] == 507
    assert "actions" not in answer["objects"][0]


def test_parts_may_come_in_any_order_and_twice(tmp_path: Path) -> None:
    content = noise(4, PART_BYTES) + b"second" + b"x" * (PART_BYTES - 6) + b"third"
    incoming = Incoming(tmp_path / "object", hashlib.sha256(content).hexdigest(), len(content))
    order = [2, 1, 2, 3, 1]
    for part in order:
        offset, length = incoming.span(part)
        with incoming.writer(part) as file:
            file.write(b"?" * length if order.index(part) and part == 1 else content[offset : offset + length])
        incoming.hash_received()
    with pytest.raises(RefusedError, match="sha256"):
        incoming.check()
    with incoming.writer(1) as file:
        file.write(content[:PART_BYTES])
    incoming.check()
    assert (tmp_path / "object").read_bytes() == content
    with pytest.raises(RefusedError, match="part 4"):
        incoming.span(4)
    missing = Incoming(tmp_path / "other", incoming.sha256, len(content))
    with missing.writer(2) as file:
        file.write(b"")
    with pytest.raises(RefusedError, match="2 of 3 parts"):
        missing.check()


def test_an_upload_that_nobody_continues_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RepositoryStore(tmp_path)
    name = store.announce("0" * 64, 100)
    with store.upload(name).writer(1) as file:
        file.write(b"x")
    assert list((tmp_path / "incoming").iterdir())
    monkeypatch.setattr("titlegen.standins.hub.store.ABANDONED_S", -1)
    store.announce("1" * 64, 1)
    assert not list((tmp_path / "incoming").iterdir())
    with pytest.raises(RefusedError, match="no longer"):
        store.upload(name)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.com", "8.8.8.8"])  # noqa: S104
def test_an_address_that_others_reach_is_refused(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="not a loopback address"):
        require_loopback(host)
    assert main(["--host", host, "--port", "1", "--directory", str(tmp_path / "none")]) == 2
    assert host in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_is_taken(host: str) -> None:
    require_loopback(host)


def test_another_site_cannot_use_the_server_through_a_browser(server: HubServer) -> None:
    assert server.http.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert server.http.get("/", headers={"Host": f"localhost:{server.port}"}).status_code == 200


def test_one_directory_has_one_server(server: HubServer) -> None:
    command = [sys.executable, "-m", "titlegen.standins.hub", "--port", str(free_port())]
    command += ["--directory", str(server.directory)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own server
    assert result.returncode == 2
    assert "another offline Hub already serves" in result.stderr
    with pytest.raises(HubError, match="another offline Hub"):
        RepositoryStore(server.directory)


def in_background(action: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        try:
            action()
        except httpx.TransportError:
            return

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.fault
@pytest.mark.parametrize("step", ["object", "commit", "ref"])
def test_killed_in_a_commit_the_old_revision_is_intact(tmp_path: Path, step: str) -> None:
    server = HubServer(tmp_path)
    try:
        api = server.api()
        api.create_repo("local/x")
        before = api.upload_file(repo_id="local/x", path_or_fileobj=b"old", path_in_repo="a.txt").oid
        content = base64.b64encode(b"new").decode()
        body = commit_lines({"key": "file", "value": {"path": "a.txt", "content": content}})
        server.break_at({"at": step, "pause_s": 30})
        thread = in_background(lambda: server.http.post("/api/models/local/x/commit/main", content=body, timeout=60))
        # The request has arrived whole, so the server waits at the step.
        while not [r for r in server.requests() if r["method"] == "POST" and r["bytes"] == len(body)]:
            time.sleep(0.02)
        time.sleep(0.2)
        server.kill()
        thread.join()
        server.start()
        assert api.model_info("local/x").sha == before
        assert Path(api.hf_hub_download("local/x", "a.txt", cache_dir=tmp_path / "cache")).read_bytes() == b"old"
        assert not list((tmp_path / "incoming").iterdir())
        assert server.http.post("/api/models/local/x/commit/main", content=body).status_code == 200
        assert Path(api.hf_hub_download("local/x", "a.txt", cache_dir=tmp_path / "cache")).read_bytes() == b"new"
        assert len(api.list_repo_commits("local/x")) == 3
    finally:
        server.stop()


@pytest.mark.fault
@pytest.mark.parametrize("step", ["write", "object", "commit", "ref"])
def test_a_full_disk_fails_the_request_and_nothing_else(server: HubServer, repo: str, step: str) -> None:
    before = server.api().model_info(repo).sha
    content = base64.b64encode(b"new").decode()
    body = commit_lines({"key": "file", "value": {"path": "a.txt", "content": content}})
    server.break_at({"at": step, "errno": "ENOSPC"})
    answer = server.http.post(f"/api/models/{repo}/commit/main", content=body)
    assert answer.status_code == 507
    assert "No space left" in answer.json()["error"]
    assert server.api().model_info(repo).sha == before
    assert server.http.post(f"/api/models/{repo}/commit/main", content=body).status_code == 200


SPARSE_PUSH = """
import sys
from huggingface_hub import HfApi, constants
from peak_memory import peak_bytes
constants.HF_HUB_DISABLE_XET = True
start = peak_bytes()
HfApi(endpoint=sys.argv[1], token=sys.argv[2]).upload_folder(repo_id="local/large", folder_path=sys.argv[3])
print(start, peak_bytes())
"""


@pytest.mark.heavy
def test_five_gib_go_through_without_being_loaded_into_memory(tmp_path: Path) -> None:
    import psutil

    size = 5 * 2**30 + 12345
    if shutil.disk_usage(tmp_path).free < 2 * size:
        pytest.skip("less than 10 GiB of disk space are free")
    server = HubServer(tmp_path / "hub")
    try:
        (tmp_path / "m").mkdir()
        with (tmp_path / "m" / "model.safetensors").open("wb") as file:
            file.truncate(size)
        server.api().create_repo("local/large")
        assert server.process is not None
        before = psutil.Process(server.process.pid).memory_info().rss
        command = [sys.executable, "-c", SPARSE_PUSH, server.url, HUB_TOKEN, str(tmp_path / "m")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)  # noqa: S603 - ours
        start, peak = map(int, result.stdout.split())
        server_peak = peak_bytes(server.process.pid)
        (info,) = [entry for entry in server.api().list_repo_tree("local/large") if entry.path == "model.safetensors"]
        assert info.size == size  # type: ignore[union-attr]
        parts = [request for request in server.requests() if request["method"] == "PUT"]
        assert len(parts) == -(-size // PART_BYTES)
        assert peak - start < 200 * 2**20
        assert server_peak - before < 200 * 2**20
    finally:
        server.stop()
