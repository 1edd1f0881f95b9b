"""What the bundled server answers, row by row as a real Ollama 0.33 was seen to answer the same request."""

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from corpus import tiny_vocabulary
from ollama_server import OfflineServer, offline_server
from scripted_model import chain, write_scripted_gguf

MODEL, FULL = "probe", "registry.ollama.ai/library/probe:latest"
TEMPLATE = '<user>\n{{ if .System }}{{ .System }}\n\n{{ end }}"{{ .Prompt }}"\n{{ .Response }}'
SYSTEM = "你是助理。"
PARAMETERS = {"temperature": 0.3, "num_ctx": 512, "num_predict": 8, "stop": ["<end_of_turn>"]}
TITLE = "新聞"
PARAMETERS_LAYER = hashlib.sha256(json.dumps(PARAMETERS, sort_keys=True).encode()).hexdigest()
JSON, BARE_JSON, LINES, TEXT = (
    "application/json; charset=utf-8",
    "application/json",
    "application/x-ndjson",
    "text/plain",
)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_scripted_gguf(path, tiny_vocabulary(), chain(TITLE), context_length=2048)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> Iterator[OfflineServer]:
    with offline_server(tmp_path_factory.mktemp("server")) as running:
        running.create(MODEL, gguf, template=TEMPLATE, system=SYSTEM, parameters=PARAMETERS)
        yield running


@pytest.fixture(scope="module")
def digest(gguf: Path) -> str:
    return f"sha256:{hashlib.sha256(gguf.read_bytes()).hexdigest()}"


class Row(NamedTuple):
    """A request, and what Ollama answered: status, content type, body (a text, or fields that it has)."""

    request: str
    body: Any
    status: int
    kind: str | None
    answer: Any = None


def check(response: httpx.Response, row: Row) -> None:
    assert (response.status_code, response.headers.get("content-type")) == (row.status, row.kind), response.text
    if isinstance(row.answer, str):
        assert response.text == row.answer
    elif row.answer is not None:
        found = response.json()
        assert {key: found.get(key) for key in row.answer} == row.answer


def ask(server: OfflineServer, request: str, body: Any = None, **options: Any) -> httpx.Response:
    method, _, path = request.partition(" ")
    content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    return server.http.request(method, path, content=content, **options)


GONE = "404 page not found"
ROUTES = [
    Row("HEAD /api/version", None, 200, JSON, ""),
    Row("HEAD /api/tags", None, 200, JSON, ""),
    Row("HEAD /api/ps", None, 405, TEXT, ""),
    Row("HEAD /api/generate", None, 405, TEXT, ""),
    Row("GET //api/tags", None, 404, TEXT, GONE),
    Row("PUT /api/generate", None, 405, TEXT, "405 method not allowed"),
    Row("OPTIONS /api/generate", None, 405, TEXT, "405 method not allowed"),
    Row("POST /", None, 405, TEXT, "405 method not allowed"),
    Row("DELETE /api/blobs/sha256:" + 64 * "0", None, 405, TEXT, "405 method not allowed"),
    # Not offered, whatever Ollama answers.
    *(
        Row(request, {"model": MODEL}, 404, TEXT, GONE)
        for request in (
            "POST /api/chat",
            "POST /api/pull",
            "POST /api/push",
            "POST /api/embed",
            "POST /v1/chat/completions",
            "GET /v1/models",
        )
    ),
]


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: row.request)
def test_routes(server: OfflineServer, row: Row) -> None:
    check(ask(server, row.request, row.body), row)


def not_offered(name: str) -> dict[str, str]:
    return {"error": f'"{name}" is not offered by the bundled server; use Ollama'}


ADVICE = "use one such as 10m, or seconds"
NO_DURATIONS: list[Any] = [True, {}, [], "5x", "1h5x", "abc", "5"]
BASE = b'{"model":"probe","prompt":"P","stream":false,"options":{"num_predict":1}}'
ANSWERED = {"model": MODEL, "response": TITLE[0], "done": True, "done_reason": "length"}
# Content of a request, status, fields of the answer.
CONTENTS: list[tuple[bytes, int, dict[str, Any]]] = [
    (b" \n\t" + BASE + b" xyz", 200, ANSWERED),
    (b'{"Model":"probe","PROMPT":"P","Stream":false,"OPTIONS":{"num_predict":1}}', 200, ANSWERED),
    (b'{"model":"nosuch",' + BASE[1:], 200, ANSWERED),
    (b"", 400, {"error": "missing request body"}),
    (b"{bad", 400, {"error": "the request body is no JSON at character 1"}),
    (b"\x1f\x8b\x08", 400, {"error": "the request body is no JSON at character 0"}),
    (b'{"model"', 400, {"error": "the request body is no JSON at character 8"}),
    (b"[1]", 400, {"error": "the request body is no JSON object"}),
]


@pytest.mark.parametrize(("content", "status", "answer"), CONTENTS)
def test_bodies(server: OfflineServer, content: bytes, status: int, answer: dict[str, Any]) -> None:
    check(ask(server, "POST /api/generate", content), Row("", None, status, JSON, answer))


# Fields of a request for text, status, fields of the answer.
FIELDS: list[tuple[dict[str, Any], int, dict[str, Any]]] = [
    ({"model": " probe "}, 200, ANSWERED | {"model": " probe "}),
    *(
        ({"model": name}, 400, {"error": "invalid model name"})
        for name in (
            "probe:",
            "/probe",
            "a/b/c/d",
            "http://x/probe",
            "x" * 100,
            "模型",
            "probe@sha256:abc",
            ".probe",
            "-probe",
        )
    ),
    ({"options": {"stop": "x"}}, 500, {"error": 'option "stop" must be of type array'}),
    ({"options": {"stop": [1]}}, 500, {"error": 'option "stop" must be of an array of strings'}),
    ({"options": {"use_mmap": "yes"}}, 500, {"error": 'option "use_mmap" must be of type boolean'}),
    ({"options": {"use_mmap": True, "num_predict": 1}}, 200, ANSWERED),
    ({"options": {"temperature": None, "stop": None, "num_predict": 1}}, 200, ANSWERED),
    ({"options": {"num_ctx": -5, "num_predict": 1}}, 200, ANSWERED),
    ({"options": None}, 200, {"response": TITLE, "done_reason": "stop"}),
    ({"think": False}, 200, ANSWERED),
    ({"images": []}, 200, ANSWERED),
    *(
        ({"keep_alive": value}, 400, {"error": f"keep_alive = {json.dumps(value)} is no duration; {ADVICE}"})
        for value in NO_DURATIONS
    ),
    ({"keep_alive": "1h0m1.5s"}, 200, ANSWERED),
    *(({name: value}, 400, not_offered(name)) for name, value in (("template", "x"), ("context", [1]))),
    *(({name: value}, 400, not_offered(name)) for name, value in (("format", "json"), ("suffix", "x"))),
    ({"think": "max"}, 400, not_offered("think")),
    ({"images": ["a"]}, 400, not_offered("images")),
    ({"raw": False, "template": "", "context": [], "format": "", "logprobs": None}, 200, ANSWERED),
]


@pytest.mark.parametrize(("fields", "status", "answer"), FIELDS, ids=lambda value: str(value)[:60])
def test_fields(server: OfflineServer, fields: dict[str, Any], status: int, answer: dict[str, Any]) -> None:
    body = {"model": MODEL, "prompt": "P", "stream": False, "options": {"num_predict": 1}} | fields
    check(ask(server, "POST /api/generate", body), Row("", None, status, JSON, answer))


def test_an_answer_has_the_keys_of_ollamas_but_the_context(server: OfflineServer) -> None:
    answer = server.generate(model=MODEL, prompt="P")
    counts = [f"{what}_{kind}" for what in ("prompt_eval", "eval") for kind in ("count", "duration")]
    times = ["total_duration", "load_duration"]
    assert list(answer) == ["model", "created_at", "response", "done", "done_reason", *times, *counts]


@pytest.mark.parametrize(("wanted", "length"), [(0, 4), (3, 4), (-5, 4), (256, 256), (50_000, 2048)])
def test_windows_are_neither_tiny_nor_larger_than_the_models(server: OfflineServer, wanted: int, length: int) -> None:
    server.generate(model=MODEL, prompt="P", options={"num_ctx": wanted, "num_predict": 1})
    assert [entry["context_length"] for entry in server.http.get("/api/ps").json()["models"]] == [length]


# Models


def steps(response: httpx.Response) -> list[dict[str, str]]:
    assert (response.status_code, response.headers["content-type"]) == (200, LINES)
    return [json.loads(line) for line in response.text.splitlines()]


def layer(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("fields", "replaced", "shown"),
    [
        ({}, {}, {"system": SYSTEM, "template": TEMPLATE}),
        ({"system": "", "template": "", "quantize": ""}, {}, {"system": SYSTEM, "template": TEMPLATE}),
        ({"template": 'a "q" {{ .Prompt }}'}, {"template": 'a "q" {{ .Prompt }}'}, {"system": SYSTEM}),
        ({"system": "甲"}, {"system": "甲"}, {"system": "甲"}),
        ({"files": {"m.gguf": "sha256:" + 64 * "0"}}, {}, {"system": SYSTEM, "template": TEMPLATE}),
    ],
)
def test_a_model_made_of_another(
    server: OfflineServer, digest: str, fields: dict[str, Any], replaced: dict[str, str], shown: dict[str, str]
) -> None:
    answer = steps(ask(server, "POST /api/create", {"model": "made", "from": MODEL} | fields))
    # Weights, what is inherited, what is new in its place behind it, and the parameters.
    texts = {
        kind: text for kind, text in (("template", TEMPLATE), ("system", SYSTEM)) if kind not in replaced
    } | replaced
    layers = [digest, *map(layer, texts.values()), f"sha256:{PARAMETERS_LAYER}"]
    assert [step["status"].partition(" layer ")[2] for step in answer[:-2]] == layers
    assert [step["status"] for step in answer[-2:]] == ["writing manifest", "success"]
    found = ask(server, "POST /api/show", {"model": "made"}).json()
    assert {key: found[key] for key in shown} == shown
    assert found["details"]["parent_model"] == "probe:latest"
    listed = {entry["name"]: entry for entry in server.http.get("/api/tags").json()["models"]}
    assert listed["made:latest"]["details"]["parent_model"] == "probe:latest"
    assert ask(server, "DELETE /api/delete", {"name": "made"}).status_code == 200


@pytest.mark.parametrize(
    ("parameters", "lines"),
    [
        ({"foo": 1}, {"foo": "1"}),
        ({"stop": "x"}, {"stop": '"x"'}),
        ({"stop": []}, {"stop": None}),
        ({"temperature": 1, "top_p": 0.123456789}, {"temperature": "1", "top_p": "0.123456789"}),
        ({"use_mmap": True}, {"use_mmap": "true"}),
    ],
)
def test_parameters(server: OfflineServer, parameters: dict[str, Any], lines: dict[str, str | None]) -> None:
    steps(ask(server, "POST /api/create", {"model": "made", "from": MODEL, "parameters": parameters}))
    shown = ask(server, "POST /api/show", {"model": "made"}).json()
    found = dict(line.split(maxsplit=1) for line in shown["parameters"].splitlines())
    assert {name: found.get(name) for name in lines} == lines
    stated = [f"PARAMETER {name} {value.strip(chr(34))}" for name, value in lines.items() if value is not None]
    assert set(stated) <= set(shown["modelfile"].splitlines())


QUANTISED = "quantization is only supported for F16, BF16 and F32 models"
CREATE_ROWS = [
    ({"template": "{{ nofunc }}"}, 400, BARE_JSON, 'template error: template: :1: function "nofunc" not defined'),
    ({"template": "{{ if .System }}x"}, 400, BARE_JSON, "template error: template: :1: unexpected EOF"),
    ({"quantize": "q4_K_M", "from": "quantised"}, 500, BARE_JSON, QUANTISED),
    ({"files": ["x"]}, 400, JSON, "files must be an object"),
    ({"parameters": [1]}, 400, JSON, "parameters must be an object"),
    ({"template": 5}, 400, JSON, "template must be a text"),
    ({"model": "模型"}, 400, JSON, "invalid model name"),
    ({"license": "MIT"}, 400, JSON, not_offered("license")["error"]),
    ({"adapters": {"a.gguf": "x"}}, 400, JSON, not_offered("adapters")["error"]),
    ({"messages": [{"role": "user", "content": "x"}]}, 400, JSON, not_offered("messages")["error"]),
]


@pytest.mark.parametrize(("fields", "status", "kind", "error"), CREATE_ROWS)
def test_models_that_are_refused(
    server: OfflineServer, f16_gguf: Path, fields: dict[str, Any], status: int, kind: str, error: str
) -> None:
    if fields.get("from") == "quantised":
        server.create("quantised", f16_gguf, quantize="q8_0")
    response = ask(server, "POST /api/create", {"model": "refused", "from": MODEL} | fields)
    check(response, Row("", None, status, kind, {"error": error}))
    assert ask(server, "POST /api/show", {"model": "refused"}).status_code == 404


@pytest.mark.parametrize("name", ["m.gguf", "M.GGUF", "model", "a/b.gguf", "a.bin"])
def test_a_file_is_known_by_its_name_or_its_beginning(server: OfflineServer, digest: str, name: str) -> None:
    for written in (digest, digest.replace(":", "-")):
        answer = steps(ask(server, "POST /api/create", {"model": "made", "files": {name: written}}))
        assert [step["status"] for step in answer] == [
            "parsing GGUF",
            "verifying conversion",
            f"using existing layer {digest}",
            "writing manifest",
            "success",
        ]
    shown = ask(server, "POST /api/show", {"model": "made"}).json()
    assert not {"parameters", "system"} & shown.keys()
    assert "\nTEMPLATE {{ .Prompt }}\n" in shown["modelfile"]


@pytest.mark.fault
def test_safetensors_are_refused_with_the_reason(server: OfflineServer) -> None:
    digests = {}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        digests[name] = layer(name)
        ask(server, f"POST /api/blobs/{digests[name]}", name.encode())
    response = ask(server, "POST /api/create", {"model": "made", "files": digests})
    assert response.status_code == 500
    assert response.json()["error"].startswith("the bundled server takes GGUF files alone")


def test_show(server: OfflineServer) -> None:
    shown = ask(server, "POST /api/show", {"model": MODEL, "template": "x"}).json()
    assert (shown["system"], shown["template"]) == (SYSTEM, TEMPLATE)
    assert list(shown)[:5] == ["modelfile", "parameters", "template", "system", "details"]
    assert f'\nTEMPLATE """{TEMPLATE}"""\nSYSTEM {SYSTEM}\nPARAMETER num_ctx 512\n' in shown["modelfile"]
    info = shown["model_info"]
    assert list(info) == sorted(info)
    assert not {"general.name", "tokenizer.chat_template"} & info.keys()
    assert info["gemma3.attention.layer_norm_rms_epsilon"] == 1e-6
    assert info["tokenizer.ggml.tokens"] is None


def names(server: OfflineServer, route: str = "tags") -> list[str]:
    return sorted(entry["name"] for entry in server.http.get(f"/api/{route}").json()["models"])


def test_a_name_keeps_its_case(server: OfflineServer) -> None:
    for name in ("Cased", "cASED"):
        assert ask(server, "POST /api/copy", {"source": MODEL, "destination": name}).status_code == 200
        assert [found for found in names(server) if found.lower() == "cased:latest"] == ["Cased:latest"]
    ask(server, "POST /api/create", {"model": "CASED", "from": MODEL})
    assert "Cased:latest" in names(server)
    assert ask(server, "DELETE /api/delete", {"model": "caseD"}).status_code == 200
    assert "Cased:latest" not in names(server)


def test_a_loaded_model_keeps_the_name_under_which_it_was_loaded(server: OfflineServer) -> None:
    server.generate(model=MODEL, keep_alive=0)
    ask(server, "POST /api/copy", {"source": MODEL, "destination": "second"})
    for name in (MODEL, "second"):
        server.generate(model=name, prompt="P")
        assert names(server, "ps") == ["probe:latest"]
    ask(server, "DELETE /api/delete", {"model": "second"})
    (entry,) = server.http.get("/api/ps").json()["models"]
    assert list(entry) == ["name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length"]


# Pages


PAGES = [
    ("http://localhost:3000", 200),
    ("https://127.0.0.1", 200),
    ("http://0.0.0.0:80", 200),
    ("vscode-webview://abc", 200),
    ("app://x", 200),
    ("null", 403),
    ("http://evil.example", 403),
    ("http://localhost.evil.example", 403),
    ("http://10.1.2.3", 403),
    ("javascript://localhost", 403),
]


@pytest.mark.parametrize(("origin", "status"), PAGES)
def test_pages_of_this_machine_may_ask(server: OfflineServer, origin: str, status: int) -> None:
    answer = server.http.get("/api/tags", headers={"Origin": origin})
    allowed = origin if status == 200 else None
    assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (status, allowed)
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    preflight = server.http.options("/api/generate", headers=asked)
    assert preflight.status_code == (204 if status == 200 else 403)
    assert preflight.headers.get("access-control-allow-origin") == allowed
    if allowed:
        assert preflight.headers["access-control-allow-methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
        assert "Content-Type" in preflight.headers["access-control-allow-headers"].split(",")


HOSTS = ["localhost", "LOCALHOST", "foo.localhost", "foo.local", "box.internal", "[::1]:11434", "10.1.2.3", "0.0.0.0"]  # noqa: S104


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in HOSTS),
        (socket.gethostname(), 200),
        *((host, 403) for host in ("evil.example", "localhost.evil.example", "evillocal", "8.8.8.8", "[::1")),
    ],
)
def test_hosts(server: OfflineServer, host: str, status: int) -> None:
    assert server.http.get("/api/tags", headers={"Host": host}).status_code == status
