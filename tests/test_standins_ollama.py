"""What the offline server does when things go wrong, and its own parts; the API itself is in tests/contract."""

import concurrent.futures
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from corpus import tiny_vocabulary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ollama_server import OfflineServer, offline_server, small_disk, wait_until
from scripted_model import write_scripted_gguf

from titlegen.daemon import free_port
from titlegen.gguf_reader import GgufError, read_header
from titlegen.standins.ollama.requests import COPY, CREATE, GENERATE, NAMED
from titlegen.standins.ollama.store import BadNameError, ModelName

TOKENS = tiny_vocabulary()[0]
# Characters that are tokens: each question has an answer of its own.
CHARACTERS = [token for token in TOKENS[400:] if len(token) == 1 and token > "\u4e00"]  # noqa: S105
QUESTIONS, ANSWERS = CHARACTERS[:200], CHARACTERS[200:400]
ENDLESS, AGAIN, LOOP, VOID = CHARACTERS[400:404]
SHORT = {"options": {"num_predict": 8}}
MODEL = "scripted"


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers each question with its answer, and some never stop."""
    path = tmp_path_factory.mktemp("scripted") / "scripted.gguf"
    follows = {**dict(zip(QUESTIONS, ANSWERS, strict=True)), ENDLESS: AGAIN, AGAIN: ENDLESS, LOOP: LOOP}
    # A token that stands for no text.
    follows |= {VOID: "<unused5>", "<unused5>": "<unused5>"}
    write_scripted_gguf(path, tiny_vocabulary(), follows)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, scripted: Path) -> Iterator[OfflineServer]:
    """A server for tests that leave it as it was."""
    with offline_server(tmp_path_factory.mktemp("server"), "--parallel", "2", "--read-timeout", "2") as running:
        running.create(MODEL, scripted)
        yield running


def ask(server: OfflineServer, question: str, **fields: Any) -> dict[str, Any]:
    return server.generate(model=MODEL, prompt=question, **{**SHORT, **fields})


def is_answered(server: OfflineServer) -> bool:
    return bool(ask(server, QUESTIONS[0])["response"] == ANSWERS[0])


def endless(server: OfflineServer) -> dict[str, Any]:
    """A request whose answer takes as long as the window allows, ten times over."""
    assert is_answered(server)
    return {"model": MODEL, "prompt": ENDLESS, "options": {"num_predict": 30_000}}


# Processes that end


@pytest.mark.fault
def test_engine_killed_while_it_answers(server: OfflineServer) -> None:
    answer = server.stream(**endless(server))
    assert next(answer)["response"] == AGAIN
    for engine in server.engines:
        engine.kill()
    *_, last = answer
    assert "terminated" in last["error"]
    # The next request loads the model anew.
    assert is_answered(server)


@pytest.mark.fault
def test_engine_killed_while_an_unstreamed_answer_is_made(server: OfflineServer) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        body = {**endless(server), "stream": False}
        waiting = threads.submit(server.http.post, "/api/generate", json=body)
        wait_until(lambda: busy(server))
        for engine in server.engines:
            engine.kill()
        response = waiting.result()
    assert response.status_code == 500
    assert "terminated" in response.json()["error"]
    assert is_answered(server)


def busy(server: OfflineServer) -> bool:
    """Whether an engine computes: its CPU time goes up."""
    before = [sum(engine.cpu_times()[:2]) for engine in server.engines]
    time.sleep(0.2)
    return any(sum(engine.cpu_times()[:2]) > b for engine, b in zip(server.engines, before, strict=True))


@pytest.mark.fault
def test_engines_end_with_a_killed_server(tmp_path: Path, scripted: Path) -> None:
    with offline_server(tmp_path) as server:
        server.create(MODEL, scripted)
        assert is_answered(server)
        engines = server.engines
        assert engines
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(engine.is_running() for engine in engines))


@pytest.mark.fault
def test_server_killed_during_create_starts_again_without_the_model(tmp_path: Path, scripted: Path) -> None:
    with offline_server(tmp_path) as server:
        server.create(MODEL, scripted)
        digest = server.create("other", scripted)
        body = {"model": "half", "files": {"m.gguf": digest}}
        with server.http.stream("POST", "/api/create", json=body) as response:
            next(response.iter_lines())
            server.process.kill()
            server.process.wait()
    # What a killed upload leaves behind.
    (server.directory / "blobs" / ".upload-123").write_bytes(b"half")
    with offline_server(tmp_path) as server:
        names = [entry["name"] for entry in server.http.get("/api/tags").json()["models"]]
        assert {f"{MODEL}:latest", "other:latest"} <= set(names)
        assert is_answered(server)
        assert not (server.directory / "blobs" / ".upload-123").exists()


def test_stop_lets_an_answer_end(tmp_path: Path, scripted: Path) -> None:
    with offline_server(tmp_path) as server:
        server.create(MODEL, scripted)
        assert is_answered(server)
        body = {"model": MODEL, "prompt": ENDLESS, "options": {"num_predict": 1500}}
        answer = server.stream(**body)
        next(answer)
        engines = server.engines
        server.process.terminate()
        *_, last = answer
        assert last["eval_count"] == 1500
        # uvicorn ends by the signal that it got, once all is done.
        assert server.process.wait(30) == -signal.SIGTERM
        wait_until(lambda: not any(engine.is_running() for engine in engines))


# Room


@pytest.mark.fault
def test_no_room_on_the_disk(tmp_path: Path, scripted: Path) -> None:
    # A limit on file sizes fails as a full disk does: in the middle of a write.
    with offline_server(tmp_path, prefix=small_disk(scripted.stat().st_size + 2**18)) as server:
        server.create(MODEL, scripted)
        content = os.urandom(4 * 2**20)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        response = server.http.post(f"/api/blobs/{digest}", content=content)
        assert response.status_code == 500
        assert "File too large" in response.json()["error"]
        assert server.http.head(f"/api/blobs/{digest}").status_code == 404
        assert not list((server.directory / "blobs").glob(".upload-*"))
        assert is_answered(server)


@pytest.mark.fault
def test_no_room_for_a_quantised_model(tmp_path: Path, scripted: Path, f16_gguf: Path) -> None:
    with offline_server(tmp_path) as server:
        server.create(MODEL, scripted)
        server.create("f16", f16_gguf)
    with offline_server(tmp_path, prefix=small_disk(2**17)) as server:
        before = sorted(path.name for path in (server.directory / "blobs").iterdir())
        body = {"model": "q8", "from": "f16", "quantize": "q8_0"}
        *_, last = server.http.post("/api/create", json=body).text.splitlines()
        assert "quantizing to Q8_0 failed" in json.loads(last)["error"]
        assert sorted(path.name for path in (server.directory / "blobs").iterdir()) == before
        assert server.http.post("/api/show", json={"model": "q8"}).status_code == 404
        assert is_answered(server)


@pytest.mark.fault
def test_evicted_model_is_loaded_again(tmp_path: Path, scripted: Path) -> None:
    other = tmp_path / "other.gguf"
    write_scripted_gguf(other, tiny_vocabulary(), {QUESTIONS[0]: ANSWERS[1]})
    with offline_server(tmp_path, "--max-loaded", "1") as server:
        server.create(MODEL, scripted)
        server.create("other", other)
        for _ in range(2):
            assert is_answered(server)
            assert server.generate(model="other", prompt=QUESTIONS[0], **SHORT)["response"] == ANSWERS[1]
            assert len(server.http.get("/api/ps").json()["models"]) == 1
            wait_until(lambda: len(server.engines) == 1)


def test_expired_model_is_unloaded(server: OfflineServer) -> None:
    ask(server, QUESTIONS[0], keep_alive="100ms")
    wait_until(lambda: not server.engines)
    assert server.http.get("/api/ps").json() == {"models": []}
    ask(server, QUESTIONS[0], keep_alive="5m")


def test_another_window_takes_the_place_of_the_model(server: OfflineServer) -> None:
    ask(server, QUESTIONS[0], options={"num_ctx": 512})
    assert [entry["context_length"] for entry in server.http.get("/api/ps").json()["models"]] == [512]
    assert is_answered(server)
    assert [entry["context_length"] for entry in server.http.get("/api/ps").json()["models"]] == [4096]


# Many and slow clients


@pytest.mark.fault
def test_two_hundred_at_once_get_their_own_answers(server: OfflineServer) -> None:
    def one(number: int) -> tuple[str, int]:
        with httpx.Client(base_url=server.host, timeout=120, trust_env=False) as client:
            body = {"model": MODEL, "prompt": "問題" * number + "\n" + QUESTIONS[number], "stream": False, **SHORT}
            answer = client.post("/api/generate", json=body).json()
            return answer["response"], answer["prompt_eval_count"]

    with concurrent.futures.ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(one, range(200)))
    assert [text for text, _ in answers] == ANSWERS
    counts = [count for _, count in answers]
    assert counts == sorted(counts)
    assert len(set(counts)) == 200


@pytest.mark.fault
def test_full_queue_is_503(tmp_path: Path, scripted: Path) -> None:
    with offline_server(tmp_path, "--max-queue", "1") as server:
        server.create(MODEL, scripted)
        answer = server.stream(**endless(server))
        next(answer)
        response = server.http.post("/api/generate", json={"model": MODEL, "prompt": QUESTIONS[0]})
        assert response.status_code == 503
        assert "busy" in response.json()["error"]
        # A busy server must be able to get rid of a model.
        unloaded = server.http.post("/api/generate", json={"model": MODEL, "keep_alive": 0})
        assert (unloaded.status_code, unloaded.json()["done_reason"]) == (200, "unload")
        answer.close()  # type: ignore[attr-defined]
        wait_until(lambda: server.http.post("/api/generate", json={"model": MODEL}).status_code == 200)


@pytest.mark.fault
@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_frees_its_slot(tmp_path: Path, scripted: Path, *, stream: bool) -> None:
    with offline_server(tmp_path, "--parallel", "1") as server:
        server.create(MODEL, scripted, parameters={"num_ctx": 32768})
        body = json.dumps({**endless(server), "stream": stream, "options": {"num_predict": 300_000}}).encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head(server, len(body)) + body)
            wait_until(lambda: busy(server))
        # The only slot is free long before that many tokens are made.
        assert is_answered(server)
        wait_until(lambda: not busy(server))


@pytest.mark.fault
def test_slow_reader_does_not_hold_the_engine(tmp_path: Path, scripted: Path) -> None:
    with offline_server(tmp_path, "--parallel", "1") as server, socket.socket() as connection:
        server.create(MODEL, scripted)
        assert is_answered(server)
        body = json.dumps({"model": MODEL, "prompt": ENDLESS, "options": {"num_predict": 3000}}).encode()
        # An answer of 300 kB does not fit into these buffers.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head(server, len(body)) + body)
        connection.recv(100)
        assert is_answered(server)


def head(server: OfflineServer, length: int, path: str = "/api/generate") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.fault
def test_slow_heads_are_cut_off(server: OfflineServer) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(50)]
        for number, connection in enumerate(slow):
            connection.settimeout(30)
            connection.sendall(b"POST /api/generate HTTP/1.1\r\nHost: 127" if number % 2 else b"")
        assert is_answered(server)
        # The server closes each: nothing more can be read from it.
        assert [connection.recv(100) for connection in slow] == [b""] * 50


@pytest.mark.fault
def test_slow_body_is_408(server: OfflineServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head(server, 1000) + b'{"model": ')
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.fault
def test_a_body_that_is_too_large_has_its_answer_when_it_is_sent(server: OfflineServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head(server, 20 * 2**20))
        for _ in range(20):
            connection.sendall(b"x" * 2**20)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


# Bodies


@pytest.mark.fault
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"[" * 200_000, 400),
        (b'{"model": NaN}', 400),
        (b'{"model": "scripted", "prompt": "' + b"\xff\xfe" * 10 + b'"}', 200),
        (b'{"model": "scripted", "prompt": "a' + b"\\ud800" + b'"}', 200),
        (b'{"model": "scripted", "prompt": "a' + b"\\u0000" + b'b"}', 200),
        (b'{"model": "scripted", "images": ["a"], "prompt": "a"}', 400),
        (b'{"model": "scripted", "messages": [1]}', 200),
        (b"null", 400),
        (b"x" * (17 * 2**20), 413),
    ],
)
def test_odd_bodies_are_answered(server: OfflineServer, content: bytes, status: int) -> None:
    response = server.http.post("/api/generate", content=content)
    assert response.status_code == status
    assert is_answered(server)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([MODEL, "q8_0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({*GENERATE, *CREATE, *NAMED, *COPY, "keep_alive", "think", "format", "license"} - {"options"})
ROUTES = [("POST", f"/api/{name}") for name in ("generate", "create", "show", "copy")]


@pytest.mark.fault
@given(
    route=st.sampled_from([*ROUTES, ("DELETE", "/api/delete")]),
    body=st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=6),
    cut=st.none() | st.integers(0, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_body_is_answered(
    server: OfflineServer, route: tuple[str, str], body: dict[str, Any], cut: int | None
) -> None:
    changes_names = route[1] not in {"/api/generate", "/api/show"}
    for name in ("model", "name", "destination"):
        # The model that the other tests ask stays.
        if changes_names and body.get(name) == MODEL:
            body[name] = "another"
    content = json.dumps(body | {"options": {"num_predict": 2}}).encode()[:cut]
    response = server.http.request(*route, content=content)
    assert response.status_code in {200, 400, 404, 500}
    if response.status_code != 200:
        # Each refusal is one of ours, with a reason: none is an error that nobody expected.
        assert response.json()["error"]


@pytest.mark.fault
def test_endless_body_is_413(server: OfflineServer) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 2**20

    try:
        response = server.http.post("/api/generate", content=chunks())
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # The server closed the connection before the client had sent everything.
    assert is_answered(server)


@pytest.mark.fault
@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_over_the_window_is_refused(server: OfflineServer, *, stream: bool) -> None:
    body = {"model": MODEL, "prompt": "中" * 2**20, "stream": stream}
    response = server.http.post("/api/generate", json=body)
    assert response.status_code == 400
    assert "exceed_context_size_error" in response.json()["error"]


def test_repetition_ends_without_done(server: OfflineServer) -> None:
    answer = ask(server, LOOP, options={"num_predict": 100})
    assert answer["done"] is False
    assert "done_reason" not in answer
    # Ollama ends at the 31st repetition, which it does not send.
    assert answer["response"] == 31 * LOOP


def test_repetition_of_no_text_is_an_empty_answer(server: OfflineServer) -> None:
    answer = ask(server, VOID, options={"num_predict": 100})
    assert (answer["done"], answer["response"]) == (False, "")


def test_log_holds_no_article(server: OfflineServer) -> None:
    ask(server, "機密的內文" + QUESTIONS[0])
    server.http.post("/api/generate", content='{"model": "機密的內文", bad'.encode())
    server.http.post("/api/generate", json={"model": MODEL, "prompt": "機密的內文" * 5000, "truncate": False})
    server.http.post("/api/generate", json={"model": MODEL, "prompt": QUESTIONS[0], "format": {"type": "機密的內文"}})
    server.http.get("/機密的內文%0A2026 INFO forged?機密的內文")
    log = server.log.read_text()
    assert "/api/generate 200" in log
    assert "機密" not in log
    assert "\n2026 INFO forged" not in log


# Start


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.0.1", "example.com"])  # noqa: S104
def test_only_loopback_is_served(tmp_path: Path, address: str) -> None:
    result = run_server("--host", address, "--directory", str(tmp_path))
    assert result.returncode == 2
    assert "proxy that asks for a password" in result.stderr or "not appear to be an IPv4" in result.stderr


def test_unknown_engine_is_refused(tmp_path: Path) -> None:
    result = run_server("--engine", "no-such-llama-server", "--directory", str(tmp_path))
    assert result.returncode == 2
    assert "no program 'no-such-llama-server'" in result.stderr


def test_directory_has_one_server(server: OfflineServer) -> None:
    result = run_server("--directory", str(server.directory))
    assert result.returncode == 1
    assert "another offline server uses" in result.stderr


def run_server(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "titlegen.standins.ollama", "--port", str(free_port()), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603


@pytest.mark.heavy
def test_memory_stays_flat(tmp_path: Path, scripted: Path) -> None:
    with offline_server(tmp_path) as server:
        server.create(MODEL, scripted)

        def resident() -> int:
            return sum(p.memory_info().rss for p in [psutil.Process(server.process.pid), *server.engines])

        body = {"model": MODEL, "stream": False, "options": {"num_predict": 1}}
        sizes = []
        for number in range(5000):
            answer = server.http.post("/api/generate", json=body | {"prompt": f"{number}\n{QUESTIONS[number % 200]}"})
            assert answer.json()["response"] == ANSWERS[number % 200]
            if number in {1000, 4999}:
                sizes.append(resident())
    assert sizes[1] < 1.05 * sizes[0]


# Files and names


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_damaged_header_is_an_error_and_nothing_else(scripted: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(scripted.read_bytes()[:60_000])
    length = data.draw(st.integers(0, len(content)))
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, 2000))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content[:length])
    with pytest.raises(GgufError):
        read_header(path)


def test_header_of_a_model(scripted: Path) -> None:
    header = read_header(scripted)
    assert (header.architecture, header.quantization, header.bos) == ("gemma3", "F32", "<bos>")
    assert header.number("context_length") == 32768
    assert header.fields["tokenizer.ggml.tokens"] is None


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("news", "news:latest"),
        ("News:v1", "News:v1"),
        ("me/news", "me/news:latest"),
        ("hf.co/me/news:Q8_0", "hf.co/me/news:Q8_0"),
        ("localhost:5000/me/news", "localhost:5000/me/news:latest"),
    ],
)
def test_names(text: str, short: str) -> None:
    assert ModelName.parse(text).short == short


@pytest.mark.parametrize(
    "text", ["", "a b", "../x", "a/../b", "a:..", "..", "hf://a/b", "a/b/c/d", "x:", ":x", "a\n", "a" * 81, "é"]
)
def test_text_that_is_no_name(text: str) -> None:
    with pytest.raises(BadNameError):
        ModelName.parse(text)


def upload(server: OfflineServer, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    server.http.post(f"/api/blobs/{digest}", content=content)
    return digest


@pytest.mark.fault
def test_no_more_engines_run_than_allowed(tmp_path: Path, scripted: Path) -> None:
    with offline_server(tmp_path, "--max-loaded", "1", "--parallel", "2") as server:
        server.create(MODEL, scripted)
        running = []
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            # Each needs an engine of its own.
            asked = [
                threads.submit(ask, server, ENDLESS, options={"num_predict": 2000, "num_ctx": 4096 + 256 * i})
                for i in range(4)
            ]
            while not all(answer.done() for answer in asked):
                running.append(len(server.engines))
                time.sleep(0.02)
        assert all(len(answer.result()["response"]) > 1000 for answer in asked)
        assert max(running) == 1


@pytest.mark.fault
def test_a_client_that_leaves_while_a_model_loads_leaves_no_key(tmp_path: Path, scripted: Path) -> None:
    with offline_server(tmp_path) as server:
        server.create(MODEL, scripted)
        body = json.dumps({"model": MODEL, "prompt": QUESTIONS[0], "stream": False}).encode()
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(head(server, len(body)) + body)
                wait_until(lambda: list(server.directory.glob(".key-*")))
            wait_until(lambda: not list(server.directory.glob(".key-*")))
        assert is_answered(server)


def test_a_replaced_model_takes_its_weights_along(tmp_path: Path, scripted: Path, f16_gguf: Path) -> None:
    with offline_server(tmp_path) as server:
        old = server.create(MODEL, scripted)
        kept = server.create("kept", scripted)
        new = server.create(MODEL, f16_gguf)
        assert old == kept
        blobs = {path.name for path in (server.directory / "blobs").iterdir()}
        assert {digest.replace(":", "-") for digest in (old, new)} <= blobs
        server.create("kept", f16_gguf)
        blobs = {path.name for path in (server.directory / "blobs").iterdir()}
        assert old.replace(":", "-") not in blobs
        assert new.replace(":", "-") in blobs


def test_quantising_the_same_file_again_finds_the_layer(server: OfflineServer, f16_gguf: Path) -> None:
    files = {f16_gguf.name: upload(server, f16_gguf.read_bytes())}
    for name, status in (("first", "creating new"), ("second", "using existing")):
        body = {"model": name, "files": files, "quantize": "q8_0"}
        lines = [json.loads(line) for line in server.http.post("/api/create", json=body).text.splitlines()]
        assert lines[-1] == {"status": "success"}
        assert lines[2]["status"].startswith(f"{status} layer sha256:")
    for name in ("first", "second"):
        server.http.request("DELETE", "/api/delete", json={"model": name})


@pytest.mark.fault
@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ('"options": {"top_k": 1' + 400 * "0" + "}", 500, 'option "top_k" must be of type integer'),
        ('"options": {"temperature": 1e999}', 500, 'option "temperature" must be of type float32'),
    ],
)
def test_values_that_no_engine_takes_are_named(server: OfflineServer, fields: str, status: int, error: str) -> None:
    content = f'{{"model": "{MODEL}", "prompt": "x", "stream": false, {fields}}}'
    response = server.http.post("/api/generate", content=content)
    assert (response.status_code, response.json()) == (status, {"error": error})


@pytest.mark.fault
def test_odd_values_are_taken_as_ollama_takes_them(server: OfflineServer) -> None:
    content = f'{{"model": "{MODEL}", "prompt": "{QUESTIONS[0]}", "stream": false, "keep_alive": 1{400 * "0"}}}'
    assert server.http.post("/api/generate", content=content).status_code == 200
    for headers in ({"Host": "[::1"}, {"Origin": "http://[::1"}):
        assert server.http.get("/api/version", headers=headers).status_code == 403
    response = server.http.post("/api/create", json={"model": "x", "files": {"a\0.gguf": "sha256:" + 64 * "0"}})
    assert (response.status_code, response.json()) == (400, {"error": "invalid file path"})
