"""Ollama's REST API as its clients see it; runs against any server: ``pytest tests/contract --ollama-host URL``.

Without the option the server is that of OLLAMA_HOST, and without both the bundled one.

What is expected was recorded of a real Ollama v0.33 with Gemma 3 270M. Nothing here knows which server answers.
"""

import hashlib
import itertools
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import ollama
import pytest

TEMPLATE = (
    "<start_of_turn>user\n{{ if .System }}{{ .System }}\n\n{{ end }}請將以下內容濃縮成一則新聞標題（僅輸出標題）：\n"
    "{{ .Prompt }}<end_of_turn>\n<start_of_turn>model\n{{ .Response }}"
)
PARAMETERS = {"temperature": 0.3, "num_ctx": 1024, "num_predict": 8, "stop": ["<end_of_turn>"]}
ARTICLE = (
    "臺北市政府今日宣布，自下月起將擴大公共自行車租借站點，預計新增一百二十處，並提供前三十分鐘免費優惠，"
    "希望鼓勵市民多加利用綠色運輸工具，減少空氣污染。交通局表示，新站點將優先設置於捷運站周邊及學校附近，"
    "民眾可透過手機應用程式查詢。"
)
# Its token count with the template, without a system text: seen on the real server.
ARTICLE_TOKENS = 108
RENDERED_P = (
    "<start_of_turn>user\n請將以下內容濃縮成一則新聞標題（僅輸出標題）：\nP<end_of_turn>\n<start_of_turn>model\n"
)
NO_DIGEST = "sha256:" + "0" * 64
GREEDY = {"temperature": 0, "num_predict": 3}
MODEL = "contract-news"

# Every test finds this model on the server.
pytestmark = pytest.mark.usefixtures("model")


@pytest.fixture(scope="module")
def api(ollama_host: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=ollama_host, timeout=300, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(ollama_host: str) -> ollama.Client:
    return ollama.Client(host=ollama_host, timeout=300)


@pytest.fixture(scope="module")
def digest(api: httpx.Client, gemma_gguf: Path) -> str:
    return upload(api, gemma_gguf.read_bytes())


@pytest.fixture(scope="module")
def model(api: httpx.Client, digest: str) -> Iterator[str]:
    body = {"model": MODEL, "files": {"gemma.gguf": digest}, "template": TEMPLATE, "parameters": PARAMETERS}
    assert lines(api.post("/api/create", json=body))[-1] == {"status": "success"}
    yield MODEL
    for entry in api.get("/api/tags").json()["models"]:
        if entry["name"].startswith("contract-"):
            api.request("DELETE", "/api/delete", json={"model": entry["name"]})


@pytest.fixture
def name(api: httpx.Client) -> Iterator[str]:
    """A name for a model of one test."""
    text = f"contract-{next(_numbers)}"
    yield text
    api.request("DELETE", "/api/delete", json={"model": text})


_numbers = itertools.count()


def upload(api: httpx.Client, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if api.head(f"/api/blobs/{digest}").status_code != 200:
        assert api.post(f"/api/blobs/{digest}", content=content).status_code == 201
    return digest


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def generate(api: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = api.post("/api/generate", json={"model": MODEL, "stream": False, "options": GREEDY} | fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def loaded(api: httpx.Client) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in api.get("/api/ps").json()["models"]}


def seconds_left(entry: dict[str, Any]) -> float:
    # Go writes nanoseconds, Python reads microseconds.
    moment = re.sub(r"\.(\d{1,6})\d*", r".\1", entry["expires_at"])
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


# The server


def test_version_is_a_text(api: httpx.Client) -> None:
    response = api.get("/api/version")
    assert response.headers["content-type"].startswith("application/json")
    assert re.match(r"\d+\.\d+\.\d+", response.json()["version"])


def test_root_says_that_it_runs(api: httpx.Client) -> None:
    assert api.get("/").text == "Ollama is running"


def test_root_answers_head(api: httpx.Client) -> None:
    response = api.head("/")
    assert (response.status_code, response.content) == (200, b"")


def test_unknown_path_is_404(api: httpx.Client) -> None:
    response = api.get("/nope")
    assert (response.status_code, response.text) == (404, "404 page not found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", f"/api/{route}") for route in ("generate", "show", "create", "copy")),
        ("POST", "/api/tags"),
        ("POST", "/api/delete"),
    ],
)
def test_wrong_method_is_405(api: httpx.Client, method: str, path: str) -> None:
    response = api.request(method, path)
    assert (response.status_code, response.text) == (405, "405 method not allowed")


@pytest.mark.parametrize("header", [("Host", "evil.example"), ("Origin", "http://evil.example")])
def test_foreign_host_or_origin_is_403(api: httpx.Client, ollama_host: str, header: tuple[str, str]) -> None:
    if urlsplit(ollama_host).hostname not in {"127.0.0.1", "localhost", "::1"}:
        pytest.skip("only a server on loopback refuses foreign hosts")
    assert api.get("/api/tags", headers=dict([header])).status_code == 403


# Blobs


def test_unknown_blob_is_404(api: httpx.Client) -> None:
    assert api.head(f"/api/blobs/{NO_DIGEST}").status_code == 404


def test_malformed_digest_is_400(api: httpx.Client) -> None:
    assert api.head("/api/blobs/xyz").status_code == 400
    response = api.post("/api/blobs/xyz", content=b"hello")
    assert (response.status_code, response.json()) == (400, {"error": "invalid digest format"})


def test_new_blob_is_201_and_then_known(api: httpx.Client) -> None:
    content = f"blob of {datetime.now(UTC)}".encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert api.post(f"/api/blobs/{digest}", content=content).status_code == 201
    assert api.head(f"/api/blobs/{digest}").status_code == 200


def test_wrong_digest_is_400_and_nothing_is_kept(api: httpx.Client) -> None:
    response = api.post(f"/api/blobs/{NO_DIGEST}", content=b"hello")
    found = hashlib.sha256(b"hello").hexdigest()
    assert response.status_code == 400
    assert response.json()["error"] == f'digest mismatch, expected "{NO_DIGEST}", got "sha256:{found}"'
    assert api.head(f"/api/blobs/{NO_DIGEST}").status_code == 404


# Create


def test_create_reports_each_step(api: httpx.Client, digest: str, name: str) -> None:
    response = api.post("/api/create", json={"model": name, "files": {"m.gguf": digest}, "template": TEMPLATE})
    assert response.headers["content-type"] == "application/x-ndjson"
    steps = [line["status"] for line in lines(response)]
    assert steps[0] == "parsing GGUF"
    assert f"using existing layer {digest}" in steps
    assert steps[-2:] == ["writing manifest", "success"]


def test_create_unstreamed_is_one_object(api: httpx.Client, model: str, name: str) -> None:
    response = api.post("/api/create", json={"model": name, "from": model, "stream": False})
    assert (response.status_code, response.json()) == (200, {"status": "success"})


def test_equal_content_gives_an_equal_digest(api: httpx.Client, model: str, name: str) -> None:
    # A model made from another one by name remembers that name; a copy has the same manifest.
    assert api.post("/api/copy", json={"source": model, "destination": name}).status_code == 200
    digests = {entry["name"]: entry["digest"] for entry in api.get("/api/tags").json()["models"]}
    assert digests[f"{name}:latest"] == digests[f"{model}:latest"]


def test_create_from_a_model_inherits_and_overrides(api: httpx.Client, model: str, name: str) -> None:
    body = {"model": name, "from": model, "template": "X {{ .Prompt }}", "parameters": {"top_k": 7}, "stream": False}
    assert api.post("/api/create", json=body).status_code == 200
    shown = api.post("/api/show", json={"model": name}).json()
    assert shown["template"] == "X {{ .Prompt }}"
    values = dict(line.split(maxsplit=1) for line in shown["parameters"].splitlines())
    assert values == {
        "temperature": "0.3",
        "num_ctx": "1024",
        "num_predict": "8",
        "top_k": "7",
        "stop": '"<end_of_turn>"',
    }


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"model": "contract-x"}, "neither 'from' or 'files' was specified"),
        ({"model": "contract-x", "modelfile": f"FROM {MODEL}"}, "neither 'from' or 'files' was specified"),
        ({"model": "", "from": MODEL}, "invalid model name"),
        ({"model": "bad name!", "from": MODEL}, "invalid model name"),
        ({"model": "contract-x", "from": "hf://a/b"}, "invalid model name"),
        ({"model": "contract-x", "from": "./x.gguf"}, "invalid model name"),
        ({"model": "contract-x", "from": "/abs/x.gguf"}, "invalid model name"),
        ({"model": "contract-x", "files": {"../m.gguf": NO_DIGEST}}, "file path must be relative"),
        (
            {"model": "contract-x", "from": MODEL, "template": "{{ .Prompt"},
            "template error: template: :1: unclosed action",
        ),
    ],
)
def test_create_refuses(api: httpx.Client, body: dict[str, Any], error: str) -> None:
    response = api.post("/api/create", json=body)
    assert (response.status_code, response.json()) == (400, {"error": error})


@pytest.mark.parametrize("content", [b"", b'{"model":'])
def test_create_refuses_what_is_no_json(api: httpx.Client, content: bytes) -> None:
    response = api.post("/api/create", content=content)
    assert response.status_code == 400
    assert response.json()["error"]


def test_create_with_an_unknown_blob_fails_in_the_stream(api: httpx.Client, name: str) -> None:
    body = {"model": name, "files": {"m.gguf": NO_DIGEST}}
    assert "no such file or directory" in lines(api.post("/api/create", json=body))[-1]["error"]


def test_create_unstreamed_with_an_unknown_blob_is_500(api: httpx.Client, name: str) -> None:
    response = api.post("/api/create", json={"model": name, "files": {"m.gguf": NO_DIGEST}, "stream": False})
    assert response.status_code == 500
    assert "no such file or directory" in response.json()["error"]


def test_create_with_a_malformed_digest_fails_in_the_stream(api: httpx.Client, name: str) -> None:
    answer = lines(api.post("/api/create", json={"model": name, "files": {"m.gguf": "abc"}}))
    assert answer == [{"status": "parsing GGUF"}, {"error": "invalid digest format"}]


def test_create_of_something_else_than_gguf_fails(api: httpx.Client, name: str) -> None:
    digest = upload(api, b"not a gguf")
    answer = lines(api.post("/api/create", json={"model": name, "files": {"m.gguf": digest}}))
    assert answer[-1] == {"error": "supplied file was not in GGUF format"}


def test_create_of_a_cut_off_gguf_fails(api: httpx.Client, name: str, gemma_gguf: Path) -> None:
    with gemma_gguf.open("rb") as file:
        digest = upload(api, file.read(5_000_000))
    body = {"model": name, "files": {"m.gguf": digest}}
    assert lines(api.post("/api/create", json=body))[-1] == {"error": "unexpected EOF"}
    response = api.post("/api/create", json=body | {"stream": False})
    assert (response.status_code, response.json()) == (500, {"error": "unexpected EOF"})


def test_failed_create_leaves_no_model(api: httpx.Client, name: str) -> None:
    api.post("/api/create", json={"model": name, "files": {"m.gguf": NO_DIGEST}})
    assert api.post("/api/show", json={"model": name}).status_code == 404


def test_create_from_an_unknown_model_fails(api: httpx.Client, name: str) -> None:
    answer = lines(api.post("/api/create", json={"model": name, "from": "no-such-model-anywhere"}))
    assert answer[0] == {"status": "pulling manifest"}
    assert answer[-1]["error"].startswith("pull model manifest")


def test_quantising_to_an_unknown_type_fails(api: httpx.Client, digest: str, name: str) -> None:
    body = {"model": name, "files": {"m.gguf": digest}, "quantize": "q3_XXL"}
    assert lines(api.post("/api/create", json=body))[-1]["error"] == (
        "unsupported quantization type Q3_XXL - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
    )


def test_quantising_a_quantised_model_fails(api: httpx.Client, digest: str, name: str) -> None:
    body = {"model": name, "files": {"m.gguf": digest}, "quantize": "q4_K_M"}
    assert lines(api.post("/api/create", json=body))[-1]["error"] == (
        "quantization is only supported for F16, BF16 and F32 models"
    )


def test_quantise_f16_to_q8_0(api: httpx.Client, f16_gguf: Path, name: str) -> None:
    digest = upload(api, f16_gguf.read_bytes())
    body = {"model": name, "files": {"m.gguf": digest}, "quantize": "q8_0", "template": TEMPLATE}
    steps = lines(api.post("/api/create", json=body))
    assert steps[-1] == {"status": "success"}
    assert api.post("/api/show", json={"model": name}).json()["details"]["quantization_level"] == "Q8_0"
    assert generate(api, model=name, prompt="P")["eval_count"] > 0


# Tags and show


def test_tags_describe_a_model(api: httpx.Client, model: str) -> None:
    entries = {entry["name"]: entry for entry in api.get("/api/tags").json()["models"]}
    entry = entries[f"{model}:latest"]
    assert entry["model"] == f"{model}:latest"
    assert re.fullmatch(r"[0-9a-f]{64}", entry["digest"])
    assert 250_000_000 < entry["size"] < 256_000_000
    details = {"format": "gguf", "family": "gemma3", "parameter_size": "268.10M", "quantization_level": "Q4_K_M"}
    assert entry["details"].items() >= (details | {"families": ["gemma3"], "parent_model": ""}).items()


def test_show_describes_a_model(api: httpx.Client, model: str, digest: str) -> None:
    shown = api.post("/api/show", json={"model": model}).json()
    assert shown["template"] == TEMPLATE
    assert set(shown["parameters"].splitlines()) == {
        "temperature                    0.3",
        "num_ctx                        1024",
        "num_predict                    8",
        'stop                           "<end_of_turn>"',
    }
    assert digest.replace(":", "-") in shown["modelfile"]
    assert "PARAMETER temperature 0.3" in shown["modelfile"]
    assert shown["model_info"]["general.architecture"] == "gemma3"
    assert shown["model_info"]["gemma3.context_length"] == 32768
    assert shown["capabilities"] == ["completion"]
    assert {"name": "output_norm.weight", "type": "F32", "shape": [640]} in shown["tensors"]


def test_show_of_an_unknown_model_is_404(api: httpx.Client) -> None:
    response = api.post("/api/show", json={"model": "nosuch"})
    assert (response.status_code, response.json()) == (404, {"error": "model 'nosuch:latest' not found"})


def test_show_without_a_name_is_400(api: httpx.Client) -> None:
    response = api.post("/api/show", json={})
    assert (response.status_code, response.json()) == (400, {"error": "model is required"})


# Generate


def test_generate_unstreamed(api: httpx.Client, model: str) -> None:
    answer = generate(api, prompt=ARTICLE)
    assert (answer["model"], answer["done"], answer["done_reason"]) == (model, True, "length")
    assert answer["response"] == "請將以下"
    assert (answer["prompt_eval_count"], answer["eval_count"]) == (ARTICLE_TOKENS, 3)
    for duration in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        assert answer[duration] > 0
    assert answer["total_duration"] >= answer["load_duration"]


def test_generate_streams_by_default(api: httpx.Client, model: str) -> None:
    response = api.post("/api/generate", json={"model": model, "prompt": ARTICLE, "options": GREEDY})
    assert response.headers["content-type"] == "application/x-ndjson"
    *parts, last = lines(response)
    assert [part["response"] for part in parts] == ["請", "將", "以下"]
    assert not any(part["done"] for part in parts)
    assert (last["response"], last["done"], last["done_reason"], last["eval_count"]) == ("", True, "length", 3)


def test_greedy_answers_are_equal(api: httpx.Client) -> None:
    first, second = (generate(api, prompt=ARTICLE) for _ in range(2))
    assert first["response"] == second["response"]
    # A cached prompt counts in full.
    assert first["prompt_eval_count"] == second["prompt_eval_count"] == ARTICLE_TOKENS


def test_options_of_the_model_hold_where_the_request_has_none(api: httpx.Client) -> None:
    assert generate(api, prompt=ARTICLE, options={"temperature": 0})["eval_count"] == PARAMETERS["num_predict"]


def test_stop_text_ends_the_answer(api: httpx.Client) -> None:
    answer = generate(api, prompt=ARTICLE, options={"temperature": 0, "stop": ["濃縮"]})
    assert (answer["response"], answer["done_reason"]) == ("請將以下內容", "stop")


@pytest.fixture(scope="module")
def plain(api: httpx.Client, model: str) -> str:
    """A model that reads the prompt as it is."""
    body = {"model": "contract-plain", "from": model, "template": "{{ .Prompt }}", "stream": False}
    assert api.post("/api/create", json=body).status_code == 200
    return "contract-plain"


@pytest.mark.parametrize("prompt", ["你好", "<bos>你好"])
def test_beginning_of_text_is_there_once(api: httpx.Client, plain: str, prompt: str) -> None:
    assert generate(api, model=plain, prompt=prompt)["prompt_eval_count"] == 2


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("台積電\n\n公布", 6),
        ("\n\n", 2),
        ("\n\n\n", 2),
        ("  ", 2),
        ("\t\t", 2),
        ("<table>", 2),
        ("<end_of_turn>\n", 3),
    ],
)
def test_white_space_and_control_tokens_are_tokens(api: httpx.Client, plain: str, text: str, tokens: int) -> None:
    assert generate(api, model=plain, prompt=text)["prompt_eval_count"] == tokens


@pytest.mark.parametrize(
    ("fields", "rendered"),
    [
        ({}, RENDERED_P),
        ({"system": "S"}, RENDERED_P.replace("user\n", "user\nS\n\n")),
        ({"system": ""}, RENDERED_P),
        ({"prompt": "{{ .System }}"}, RENDERED_P.replace("P", "{{ .System }}", 1)),
    ],
)
def test_rendered_prompt(api: httpx.Client, fields: dict[str, Any], rendered: str) -> None:
    answer = generate(api, **{"prompt": "P", "_debug_render_only": True, **fields})
    assert answer["_debug_info"] == {"rendered_template": rendered}
    assert (answer["response"], answer["done"]) == ("", False)


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("T {{ .Prompt }}", "T P"),
        ("{{ .Nope }}{{ .Prompt }}", "<no value>P"),
        ("{{- if .System }}s{{ else }}n{{ end -}}  {{ .Prompt }}", "nP"),
    ],
)
def test_template_of_a_model(api: httpx.Client, model: str, name: str, template: str, rendered: str) -> None:
    body = {"model": name, "from": model, "template": template, "stream": False}
    assert api.post("/api/create", json=body).status_code == 200
    answer = generate(api, model=name, prompt="P", _debug_render_only=True)
    assert answer["_debug_info"] == {"rendered_template": rendered}


def test_empty_texts_inherit(api: httpx.Client, model: str, name: str) -> None:
    for fields in ({"system": "甲"}, {"system": "", "template": ""}):
        source = name if "template" in fields else model
        body = {"model": name, "from": source, "stream": False} | fields
        assert api.post("/api/create", json=body).status_code == 200
    shown = api.post("/api/show", json={"model": name}).json()
    assert (shown["system"], shown["template"]) == ("甲", TEMPLATE)
    answer = generate(api, model=name, prompt="P", system="", _debug_render_only=True)
    assert answer["_debug_info"]["rendered_template"] == RENDERED_P.replace("user\n", "user\n甲\n\n")


def test_system_text_of_the_model_can_be_replaced(api: httpx.Client, model: str, name: str) -> None:
    body = {"model": name, "from": model, "system": "甲", "stream": False}
    assert api.post("/api/create", json=body).status_code == 200
    assert api.post("/api/show", json={"model": name}).json()["system"] == "甲"
    for fields, head in (({}, "user\n甲\n\n"), ({"system": "乙"}, "user\n乙\n\n")):
        answer = generate(api, model=name, prompt="P", _debug_render_only=True, **fields)
        assert answer["_debug_info"]["rendered_template"] == RENDERED_P.replace("user\n", head)


def test_raw_prompt_goes_through_no_template(api: httpx.Client, model: str) -> None:
    rendered = RENDERED_P.replace("\nP<", f"\n{ARTICLE}<")
    fields = {"model": model, "stream": False, "options": GREEDY}
    answers = [
        api.post("/api/generate", json=fields | body).json()
        for body in ({"prompt": ARTICLE}, {"prompt": rendered, "raw": True})
    ]
    assert [answer["prompt_eval_count"] for answer in answers] == [ARTICLE_TOKENS] * 2
    assert answers[0]["response"] == answers[1]["response"]
    # With the beginning of an answer the model goes on behind it.
    first = answers[0]["response"][:1]
    more = api.post("/api/generate", json=fields | {"prompt": rendered + first, "raw": True}).json()
    assert more["prompt_eval_count"] == ARTICLE_TOKENS + 1
    refused = api.post("/api/generate", json=fields | {"prompt": "P", "raw": True, "system": "x"})
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": "raw mode does not support template, system, or context"},
    )


def test_the_likeliest_tokens_of_each_place_are_told(api: httpx.Client, model: str) -> None:
    fields = {"model": model, "prompt": ARTICLE, "options": GREEDY, "logprobs": True}
    answer = api.post("/api/generate", json=fields | {"top_logprobs": 3, "stream": False}).json()
    places = answer["logprobs"]
    assert "".join(place["token"] for place in places) == answer["response"]
    for place in places:
        assert list(place) == ["token", "logprob", "bytes", "top_logprobs"]
        assert bytes(place["bytes"]).decode() == place["token"]
        assert place["logprob"] <= 0
        # Greedy: what is written is the likeliest.
        assert place["top_logprobs"][0] == {name: place[name] for name in ("token", "logprob", "bytes")}
        values = [other["logprob"] for other in place["top_logprobs"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
    parts = lines(api.post("/api/generate", json=fields))
    assert [list(part["logprobs"][0]) for part in parts if part["response"]] == [["token", "logprob", "bytes"]] * 3
    assert "logprobs" not in api.post("/api/generate", json=fields | {"logprobs": False, "stream": False}).json()
    refused = api.post("/api/generate", json=fields | {"top_logprobs": 21})
    assert (refused.status_code, refused.json()) == (400, {"error": "top_logprobs must be between 0 and 20"})


def test_unknown_options_do_not_matter(api: httpx.Client) -> None:
    assert generate(api, prompt=ARTICLE, options=GREEDY | {"nope": 1})["response"] == "請將以下"


def test_option_of_a_wrong_type_is_500(api: httpx.Client, model: str) -> None:
    body = {"model": model, "prompt": "P", "options": {"num_predict": "2"}}
    response = api.post("/api/generate", json=body)
    assert (response.status_code, response.json()) == (
        500,
        {"error": 'option "num_predict" must be of type integer'},
    )


def test_parameter_of_a_wrong_type_fails_when_it_is_used(api: httpx.Client, model: str, name: str) -> None:
    body = {"model": name, "from": model, "parameters": {"num_ctx": "abc"}, "stream": False}
    assert api.post("/api/create", json=body).status_code == 200
    response = api.post("/api/generate", json={"model": name, "prompt": "P"})
    assert (response.status_code, response.json()) == (500, {"error": 'option "num_ctx" must be of type integer'})


@pytest.mark.parametrize("name", ["nosuch", f"{MODEL}:v9", ""])
def test_unknown_model_is_404(api: httpx.Client, name: str) -> None:
    response = api.post("/api/generate", json={"model": name, "prompt": "P"})
    assert (response.status_code, response.json()) == (404, {"error": f"model '{name}' not found"})


def test_names_have_no_case(api: httpx.Client, model: str) -> None:
    assert generate(api, model=model.upper(), prompt="P")["model"] == model.upper()


@pytest.mark.parametrize("content", [b"", b"{bad", b"[1]", b'{"model": "x", "prompt": 5}'])
def test_generate_refuses_what_is_no_request(api: httpx.Client, content: bytes) -> None:
    response = api.post("/api/generate", content=content)
    assert response.status_code == 400
    assert response.json()["error"]


def test_wrong_type_is_named(api: httpx.Client, model: str) -> None:
    response = api.post("/api/generate", json={"model": model, "prompt": 5})
    assert response.status_code == 400
    assert "prompt" in response.json()["error"]


@pytest.mark.parametrize("fields", [{"suffix": "b"}, {"think": True}])
def test_what_the_model_cannot_do_is_400(api: httpx.Client, model: str, fields: dict[str, Any]) -> None:
    response = api.post("/api/generate", json={"model": model, "prompt": "a", "stream": False} | fields)
    assert response.status_code == 400
    assert response.json()["error"]


def test_prompt_over_the_window_is_400_when_it_must_not_be_cut(api: httpx.Client, model: str) -> None:
    body = {"model": model, "prompt": ARTICLE * 20, "truncate": False, "stream": False}
    response = api.post("/api/generate", json=body)
    assert response.status_code == 400
    inner = json.loads(response.json()["error"])["error"]
    assert (inner["type"], inner["n_ctx"]) == ("exceed_context_size_error", PARAMETERS["num_ctx"])


# Loading and unloading


@pytest.mark.parametrize("fields", [{}, {"stream": False}])
def test_empty_prompt_loads(api: httpx.Client, model: str, fields: dict[str, Any]) -> None:
    response = api.post("/api/generate", json={"model": model} | fields)
    assert response.headers["content-type"].startswith("application/json")
    answer = response.json()
    assert (answer["response"], answer["done"], answer["done_reason"]) == ("", True, "load")
    assert "eval_count" not in answer
    entry = loaded(api)[f"{model}:latest"]
    assert entry["context_length"] == PARAMETERS["num_ctx"]
    assert entry["size"] > 0
    assert entry["size_vram"] >= 0
    assert entry["details"]["family"] == "gemma3"


def test_keep_alive_of_zero_unloads(api: httpx.Client, model: str) -> None:
    generate(api, prompt="P")
    answer = generate(api, keep_alive=0)
    assert (answer["response"], answer["done"], answer["done_reason"]) == ("", True, "unload")
    wait_until(lambda: f"{model}:latest" not in loaded(api))
    # Once more, with nothing to unload.
    assert generate(api, keep_alive=0)["done_reason"] == "unload"


def test_keep_alive_lasts_for_later_requests(api: httpx.Client, model: str) -> None:
    generate(api, keep_alive=0)
    wait_until(lambda: f"{model}:latest" not in loaded(api))
    assert generate(api, keep_alive=-1)["done_reason"] == "load"
    century = timedelta(days=36500).total_seconds()
    assert seconds_left(loaded(api)[f"{model}:latest"]) > century
    generate(api, prompt="P")
    assert seconds_left(loaded(api)[f"{model}:latest"]) > century
    generate(api, prompt="P", keep_alive="10m")
    wait_until(lambda: 300 < seconds_left(loaded(api)[f"{model}:latest"]) <= 600)


@pytest.mark.parametrize("value", ["-1", "abc"])
def test_keep_alive_that_is_no_duration_is_400(api: httpx.Client, model: str, value: str) -> None:
    response = api.post("/api/generate", json={"model": model, "keep_alive": value})
    assert response.status_code == 400
    assert value in response.json()["error"]


def wait_until(condition: Any) -> None:
    import time

    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Copy and delete


def test_copy_gives_a_second_name(api: httpx.Client, model: str, name: str) -> None:
    response = api.post("/api/copy", json={"source": model, "destination": name})
    assert (response.status_code, response.content) == (200, b"")
    assert generate(api, model=name, prompt=ARTICLE)["response"] == "請將以下"


def test_copy_replaces_the_destination(api: httpx.Client, model: str, name: str) -> None:
    api.post("/api/create", json={"model": name, "from": model, "template": "X {{ .Prompt }}", "stream": False})
    assert api.post("/api/copy", json={"source": model, "destination": name}).status_code == 200
    assert api.post("/api/show", json={"model": name}).json()["template"] == TEMPLATE


@pytest.mark.parametrize(
    ("source", "destination", "status", "error"),
    [
        ("nosuch", "contract-b", 404, 'model "nosuch" not found'),
        (MODEL, "bad name!", 400, 'destination "bad name!" is invalid'),
    ],
)
def test_copy_refuses(api: httpx.Client, source: str, destination: str, status: int, error: str) -> None:
    response = api.post("/api/copy", json={"source": source, "destination": destination})
    assert (response.status_code, response.json()) == (status, {"error": error})


@pytest.mark.parametrize("field", ["model", "name"])
def test_delete_removes_a_name(api: httpx.Client, model: str, name: str, field: str) -> None:
    api.post("/api/copy", json={"source": model, "destination": name})
    assert api.request("DELETE", "/api/delete", json={field: name}).status_code == 200
    response = api.request("DELETE", "/api/delete", json={field: name})
    assert (response.status_code, response.json()) == (404, {"error": f"model '{name}' not found"})
    # The other name still has its weights.
    assert generate(api, prompt="P")["done"]


def test_delete_without_a_name_is_400(api: httpx.Client) -> None:
    response = api.request("DELETE", "/api/delete", json={})
    assert (response.status_code, response.json()) == (400, {"error": "model is required"})


# The Python client


def test_client_lists_shows_and_generates(client: ollama.Client, model: str) -> None:
    assert f"{model}:latest" in [entry.model for entry in client.list().models]
    assert client.show(model).template == TEMPLATE
    assert client.generate(model=model, prompt=ARTICLE, options=GREEDY).response == "請將以下"
    assert [part.response for part in client.generate(model=model, prompt=ARTICLE, options=GREEDY, stream=True)]
    assert f"{model}:latest" in [entry.model for entry in client.ps().models]


def test_client_uploads_and_creates(client: ollama.Client, name: str, f16_gguf: Path) -> None:
    digest = client.create_blob(f16_gguf)
    steps = [step.status for step in client.create(model=name, files={"m.gguf": digest}, stream=True)]
    assert steps[-1] == "success"
    client.copy(name, f"{name}:b")
    client.delete(f"{name}:b")


def test_client_raises_what_failed(client: ollama.Client, name: str) -> None:
    def status(call: Any) -> int:
        with pytest.raises(ollama.ResponseError) as caught:
            call()
        return int(caught.value.status_code)

    files = {"m.gguf": NO_DIGEST}
    assert status(lambda: list(client.create(model=name, files=files, stream=True))) == -1
    assert status(lambda: client.create(model=name, files=files)) == 500
    assert status(lambda: client.create(model=name, from_="hf://a/b")) == 400
    assert status(lambda: client.generate(model="nosuch", prompt="P")) == 404
    assert status(lambda: client.delete("nosuch")) == 404


def test_client_finds_no_server() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ConnectionError):
        ollama.Client(host=host).list()
