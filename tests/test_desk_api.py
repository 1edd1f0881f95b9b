"""The desk for programs: titles with their evidence, who may ask, what a hostile article or server can do."""

import contextlib
import itertools
import json
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
import uvicorn
from desk_server import ARTICLE, BACKED, MODEL, NAMED, TITLES, UNSTYLED, WRONG, Desk, running_desk, slow_server

from titlegen.daemon import free_port
from titlegen.desk.app import create_app
from titlegen.desk.guard import COOKIE, MAX_BODY_BYTES, check_exposure, content_policy, cookie_value, login_cookie
from titlegen.desk.run import export, export_choices, export_preferences, serve_desk
from titlegen.desk.store import Store
from titlegen.desk.writing import Writer
from titlegen.errors import ConfigError
from titlegen.metrics.house_style import load_style
from titlegen.record import remember
from titlegen.serve import Client
from titlegen.serve.server import http_options
from titlegen.settings import Settings, load_settings

TOKEN = "a-token-that-nobody-can-guess"  # noqa: S105 - of this test
STREAM = {"Accept": "application/x-ndjson"}
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def settings_for(host: str, outputs: Path, **desk: Any) -> Settings:
    return load_settings(
        output=outputs, serve={"host": host, "model_name": MODEL, "retries": 0, "timeout_s": 20.0}, desk=desk
    )


@contextlib.contextmanager
def new_app(
    settings: Settings, store: Path, token: str = "", host: str = "127.0.0.1", *, taught: bool = False
) -> Iterator[httpx.Client]:
    """Serve a desk from a thread; ``host`` is what it is told to listen at."""
    client = Client(settings.serve, settings.directory / "final-hf", taught=taught)
    writer = Writer(settings, client, Store(store), load_style())
    application = create_app(writer, token=token, host=host)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=120, **http_options(url)) as http:
            yield http
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        client.close()


@pytest.fixture
def app(desk_outputs: Path, desk_model_host: str, tmp_path: Path) -> Iterator[httpx.Client]:
    with new_app(settings_for(desk_model_host, desk_outputs), tmp_path / "desk.sqlite3") as client:
        yield client


@pytest.fixture(scope="module")
def closed_desk(
    desk_outputs: Path, desk_model_host: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A desk that asks for a token."""
    store = tmp_path_factory.mktemp("closed") / "desk.sqlite3"
    with new_app(settings_for(desk_model_host, desk_outputs), store, TOKEN, "10.0.0.1") as client:
        yield client


@pytest.fixture
def closed(closed_desk: httpx.Client) -> httpx.Client:
    """The same to somebody whom it does not know."""
    closed_desk.cookies.clear()
    return closed_desk


def titles_of(answer: dict[str, Any]) -> list[str]:
    return [candidate["title"] for candidate in answer["candidates"]]


# Titles


def test_five_titles_with_evidence_reasons_and_rules(app: httpx.Client) -> None:
    response = app.post("/api/titles", json={"article": ARTICLE})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert sorted(titles_of(answer)) == sorted(TITLES)
    # The one with a number that the article does not have is the last.
    assert titles_of(answer)[-1] == WRONG
    found = {candidate["title"]: candidate for candidate in answer["candidates"]}
    (number,) = found[BACKED]["evidence"]
    start, end = number["place"]
    assert (number["kind"], answer["article"]["text"][start:end]) == ("number", "3")
    assert [claim["text"] for claim in found[WRONG]["evidence"] if not claim["supported"]] == ["8"]
    assert {finding["replacement"] for finding in found[UNSTYLED]["style"]} == {"影片", "「", "」"}
    assert all(reason["message_zh"] for candidate in answer["candidates"] for reason in candidate["reasons"])
    assert answer["slots"]["push"] == 0
    assert answer["shortfall"] is None
    assert len(answer["model_digest"]) == 64


def test_a_single_title_that_is_doubtful_is_drawn_again(
    desk_outputs: Path, desk_model_host: str, tmp_path: Path
) -> None:
    given = settings_for(desk_model_host, desk_outputs)
    plain_settings, settings = (
        given.model_copy(update={"serve": given.serve.model_copy(update={"redraws": number})}) for number in (0, 16)
    )
    articles = {title: f"{title.replace(' ', '，')}，市府表示。" for title in TITLES}
    with new_app(plain_settings, tmp_path / "plain") as app:
        plain = {
            right: app.post("/api/titles", json={"article": text, "number": 1}).json()
            for right, text in articles.items()
        }
    (greedy,) = {titles_of(answer)[0] for answer in plain.values()}
    with new_app(settings, tmp_path / "again") as app:
        for right, text in articles.items():
            with app.stream("POST", "/api/titles", json={"article": text, "number": 1}, headers=STREAM) as response:
                events = [json.loads(line) for line in response.iter_lines()]
            seeds = {event["seed"] for event in events if "seed" in event}
            assert seeds == (set(range(17)) if right != greedy else {0})
            assert titles_of(events[-1]["result"]) == [right]
            assert events[-1]["result"]["shortfall"] is None
        # What is asked for otherwise has tries of its own.
        body = {"article": articles[WRONG], "number": 1, "must": ["公車"]}
        with app.stream("POST", "/api/titles", json=body, headers=STREAM) as response:
            events = [json.loads(line) for line in response.iter_lines()]
        assert max(event["seed"] for event in events if "seed" in event) < 6


def test_titles_come_as_they_are_written(app: httpx.Client) -> None:
    with app.stream("POST", "/api/titles", json={"article": ARTICLE}, headers=STREAM) as response:
        events = [json.loads(line) for line in response.iter_lines()]
    assert [events[0]["event"], events[-1]["event"]] == ["read", "result"]
    kinds = [event["event"] for event in events]
    assert kinds.count("candidate") == 5
    # The model writes the same title again and again; the page takes the line of such a try away.
    seeds = {event["seed"] for event in events if event["event"] == "text"}
    assert {event["seed"] for event in events if event["event"] in {"candidate", "dropped"}} >= seeds
    assert kinds.count("dropped") > 0
    # Each grows letter by letter before it is done.
    texts = [event["text"] for event in events[: kinds.index("candidate")] if event["event"] == "text"]
    assert len(texts) > 3
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert texts[-1] == events[kinds.index("candidate")]["candidate"]["title"]


def test_words_decide_and_what_cannot_be_given_is_said(app: httpx.Client) -> None:
    answer = app.post("/api/titles", json={"article": ARTICLE, "must": ["公車"], "number": 6}).json()
    # Of what the model writes by itself one title has it; searching finds others, and the rest stand behind.
    fitting = [candidate["title"] for candidate in answer["candidates"] if not candidate["unmet"]]
    assert BACKED in fitting
    assert titles_of(answer)[: len(fitting)] == fitting
    assert all("公車" in title for title in fitting)
    assert all(candidate["unmet"] == ["公車"] for candidate in answer["candidates"][len(fitting) :])
    given = len(answer["candidates"])
    assert f"{len(fitting)} of {given} titles have 公車, after 36 tries" in answer["shortfall"]["message"]
    assert f"{given} 則裡有 {len(fitting)} 則符合（有「公車」）" in answer["shortfall"]["message_zh"]
    answer = app.post("/api/titles", json={"article": ARTICLE, "must_not": ["公", "人"], "must": ["交"]}).json()
    assert WRONG in titles_of(answer)
    assert BACKED not in titles_of(answer), "a word that must not occur never does"
    assert "tries had 公, 人" in answer["shortfall"]["message"]
    answer = app.post("/api/titles", json={"article": ARTICLE, "must_not": ["視頻"], "number": 4}).json()
    assert sorted(titles_of(answer)) == sorted(set(TITLES) - {UNSTYLED})
    assert answer["shortfall"] is None
    answer = app.post("/api/titles", json={"article": ARTICLE, "number": 7}).json()
    assert len(titles_of(answer)) == 5
    assert "no other" in answer["shortfall"]["message"]


def test_a_length_is_checked_and_what_has_another_stands_behind(app: httpx.Client) -> None:
    answer = app.post("/api/titles", json={"article": ARTICLE, "chars": 13}).json()
    found = [(candidate["title"], candidate["unmet"]) for candidate in answer["candidates"]]
    assert 0 < sum(9 <= len(title) <= 13 for title in TITLES) < 5
    fitting = [title for title, unmet in found if not unmet]
    assert {title for title in TITLES if 9 <= len(title) <= 13} <= set(fitting)
    assert all(9 <= len(title) <= 13 for title in fitting)
    assert found[len(fitting) :] == [(title, ["chars"]) for title, _ in found[len(fitting) :]]
    if len(fitting) < 5:
        assert f"{len(fitting)} of 5 titles have 9 to 13 characters" in answer["shortfall"]["message"]
    last = answer["candidates"][-1]
    length = next(check for check in last["checks"] if check["rule"] == "length")
    assert (length["passed"], "9 到 13" in length["message_zh"]) == (not last["unmet"], True)
    both = app.post("/api/titles", json={"article": ARTICLE, "chars": 13, "must": ["公車"], "number": 3}).json()
    assert BACKED in titles_of(both)
    assert both["candidates"][0]["unmet"] == []
    # Two words that have no room in one title.
    body = {"article": ARTICLE, "chars": 13, "must": ["公車增開3趟夜間", "票價不會調漲"], "number": 3}
    neither = app.post("/api/titles", json=body).json()
    assert all(candidate["unmet"] for candidate in neither["candidates"])
    assert "0 of" in neither["shortfall"]["message"]


@pytest.mark.fault
def test_a_length_that_no_model_knows_is_refused(app: httpx.Client) -> None:
    refused = app.post("/api/titles", json={"article": ARTICLE, "chars": 12})
    assert (refused.status_code, "13, 18, 23, 28" in refused.json()["message"]) == (422, True)
    schemas = app.get("/api/openapi.json").json()["components"]["schemas"]
    assert schemas["TitleRequest"]["properties"]["chars"]["anyOf"][0]["enum"] == [13, 18, 23, 28]


@pytest.mark.parametrize("taught", [True, False])
def test_a_model_that_was_taught_is_asked_for_length_and_words(
    hostile: Any, taught: bool, desk_outputs: Path, tmp_path: Path
) -> None:
    hostile.body = _part("公車增開三班延長夜間服務") + _part("", done=True)
    settings = settings_for(hostile.host, desk_outputs)
    # The line has room for three words; all of them are checked.
    body = {"article": ARTICLE, "chars": 13, "must": ["公車", "<eos>", "夜間", "三班", "延長"], "number": 1}
    with new_app(settings, tmp_path / "d.sqlite3", taught=taught) as client:
        client.post("/api/titles", json=body).raise_for_status()
        searched, *drawn = hostile.asked
        assert len(drawn) == 6, "one title is tried for six times, where the server tells nothing of its tokens"
        assert searched.endswith("<start_of_turn>model\n")
        assert all(("（9到13字，包含「公車」「夜間」「三班」）\n" in asked) is taught for asked in hostile.asked)
        assert all(("9到13字" in asked) is taught for asked in hostile.asked)
        hostile.asked.clear()
        answer = client.post("/api/titles", json={**body, "must": ["公車"]}).json()
        assert (titles_of(answer), answer["shortfall"]) == (["公車增開三班延長夜間服務"], None)
        assert len(hostile.asked) == 2
        hostile.asked.clear()
        client.post("/api/titles", json={"article": ARTICLE, "number": 1}).raise_for_status()
        # Without anything asked for the prompt stays the specification's.
        assert "（" not in hostile.asked[0].split("\n")[0]


def test_a_desk_knows_from_the_training_whether_the_model_was_taught(
    hostile: Any, desk_outputs: Path, tmp_path: Path
) -> None:
    hostile.body = _part("公車增開三班延長夜間服務") + _part("", done=True)
    outputs = tmp_path / "outputs"
    shutil.copytree(desk_outputs / "quickstart", outputs / "quickstart")
    for share, taught in ((0.0, False), (0.3, True)):
        remember(load_settings(output=outputs, train={"control_share": share}), ["train"])
        with running_desk(outputs, hostile.host) as mine:
            hostile.asked.clear()
            mine.http.post("/api/titles", json={"article": ARTICLE, "chars": 13, "number": 1}).raise_for_status()
            assert ("（9到13字）" in hostile.asked[0]) is taught


def test_a_round_ends_with_what_is_written_when_that_is_enough(desk_outputs: Path, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    with slow_server() as host, new_app(settings_for(host, desk_outputs), tmp_path / "d.sqlite3") as client:
        with client.stream("POST", "/api/titles", json={"article": ARTICLE}, headers=STREAM) as response:
            for line in response.iter_lines():
                found.append(json.loads(line))
                if found[-1]["event"] == "candidate":
                    client.post("/api/enough", json={"generation": found[0]["generation"]}).raise_for_status()
        result = found[-1]["result"]
        assert (titles_of(result), result["shortfall"]) == ([BACKED], None)
        assert result["generation"] == found[0]["generation"]
        choice = {"generation": result["generation"], "place": 0, "title": "夠了"}
        client.post("/api/choices", json=choice).raise_for_status()
        # A round that is over, and one of nobody.
        for name in (choice["generation"], "x"):
            assert client.post("/api/enough", json={"generation": name}).status_code == 200


def test_more_like_this_brings_others(app: httpx.Client) -> None:
    seen = [BACKED, NAMED]
    body = {"article": ARTICLE, "number": 3, "like": "視頻說明新制上路", "seen": seen}
    answer = app.post("/api/titles", json=body).json()
    assert UNSTYLED not in titles_of(answer)[1:]
    assert not set(titles_of(answer)) & set(seen)


def test_a_title_that_somebody_types_is_checked(app: httpx.Client) -> None:
    body = {"article": ARTICLE, "title": "公車增開9班!!!", "min_chars": 1, "max_chars": 13}
    found = app.post("/api/check", json=body).json()
    assert [(claim["text"], claim["supported"]) for claim in found["evidence"]] == [("9", False)]
    assert [check["rule"] for check in found["checks"] if not check["passed"]] == ["punctuation"]
    assert [warning["kind"] for warning in found["warnings"]] == ["number"]


def test_choices_are_kept_and_exported(app: httpx.Client, tmp_path: Path, desk_outputs: Path) -> None:
    answer = app.post("/api/titles", json={"article": ARTICLE}).json()
    first, second = titles_of(answer)[:2]
    for place, title in ((0, first), (1, second + "了")):
        body = {"generation": answer["generation"], "place": place, "title": title}
        kept = app.post("/api/choices", json=body).json()
        assert kept == {"done": True, "choice": place + 1}
    found = app.get("/api/statistics").json()
    assert (found["chosen"], found["first_taken"], found["edited"]) == (2, 0.5, 0.5)
    lines = app.get("/api/choices.jsonl").text.splitlines()
    assert [json.loads(line)["title"] for line in lines] == [first, second + "了"]
    assert all("content" not in json.loads(line) for line in lines)
    assert app.get("/api/choices.csv").text.startswith("\ufeffschema,")
    pairs = [json.loads(line) for line in app.get("/api/preferences.jsonl").text.splitlines()]
    assert [pair["kind"] for pair in pairs].count("edited") == 1
    # The command writes the same files.
    settings = settings_for("http://127.0.0.1:9", desk_outputs, store=tmp_path / "desk.sqlite3")
    assert export_choices(settings, tmp_path / "c.jsonl") == 2
    assert (tmp_path / "c.jsonl").read_text(encoding="utf-8").splitlines() == lines
    assert export_choices(settings, tmp_path / "c.csv") == 2
    assert export_preferences(settings, tmp_path / "p.jsonl") == len(pairs)
    said = export(settings, tmp_path / "c.csv", tmp_path / "p.jsonl")
    assert (said["choices"], said["pairs"], said["message"]) == (2, len(pairs), f"2 choices, {len(pairs)} pairs")
    with pytest.raises(ConfigError, match="neither"):
        export_choices(settings, tmp_path / "c.xlsx")


@pytest.mark.fault
@pytest.mark.parametrize(
    "title", ["", " ", "\u3000\n", "公車增開\n夜間服務", "公車\0增開", "公車\u2028增開", "公車\x1b[2J"]
)
def test_what_is_no_title_is_not_kept(app: httpx.Client, title: str) -> None:
    answer = app.post("/api/titles", json={"article": ARTICLE, "number": 1}).json()
    before = app.get("/api/preferences.jsonl").text
    refused = app.post("/api/choices", json={"generation": answer["generation"], "place": 0, "title": title})
    assert refused.status_code == 422
    assert "body.title" in refused.json()["message"]
    # A pair of it would make `titlegen prefer` refuse the whole file.
    assert app.get("/api/preferences.jsonl").text == before


def test_a_choice_is_taken_back(app: httpx.Client) -> None:
    answer = app.post("/api/titles", json={"article": ARTICLE, "number": 1}).json()
    body = {"generation": answer["generation"], "place": 0, "title": titles_of(answer)[0]}
    number = app.post("/api/choices", json=body).json()["choice"]
    for _ in range(2):
        assert app.post("/api/withdrawals", json={"choice": number}).json() == {"done": True}
    found = app.get("/api/statistics").json()
    assert (found["chosen"], found["log"][0]["withdrawn"] is None) == (0, False)
    assert app.get("/api/preferences.jsonl").text == ""
    assert json.loads(app.get("/api/choices.jsonl").text)["withdrawn"] == found["log"][0]["withdrawn"]
    for unknown in (number + 1, 0, 2**70, "x"):
        assert app.post("/api/withdrawals", json={"choice": unknown}).status_code == 422


def test_no_article_is_kept_unless_asked_for(desk_outputs: Path, desk_model_host: str, tmp_path: Path) -> None:
    for keep in (False, True):
        path = tmp_path / f"{keep}.sqlite3"
        with new_app(settings_for(desk_model_host, desk_outputs, keep_articles=keep), path) as client:
            assert client.post("/api/titles", json={"article": ARTICLE, "number": 1}).status_code == 200
        stored = b"".join(file.read_bytes() for file in tmp_path.glob(f"{keep}.sqlite3*"))
        assert ("夜間服務到23時".encode() in stored) is keep


def test_the_description_names_every_address(app: httpx.Client) -> None:
    description = app.get("/api/openapi.json").json()
    assert description["paths"]["/api/titles"]["post"]["summary"]
    assert "Claim" in description["components"]["schemas"]
    assert "/api/login" not in description["paths"]


def test_files_are_read(app: httpx.Client) -> None:
    found = app.post("/api/document?name=a.html", content="<p>公車<b>增班</b></p>".encode())
    assert found.json() == {"text": "公車增班"}
    assert app.post("/api/document?name=a.pdf", content=b"%PDF").status_code == 422
    refused = app.post("/api/url", json={"url": "https://example.com/"})
    assert (refused.status_code, "fetch_urls" in refused.json()["message"]) == (403, True)


def test_addresses_are_fetched_only_where_that_is_on(desk_outputs: Path, desk_model_host: str, tmp_path: Path) -> None:
    with new_app(settings_for(desk_model_host, desk_outputs, fetch_urls=True), tmp_path / "d.sqlite3") as client:
        refused = client.post("/api/url", json={"url": desk_model_host})
        assert refused.status_code == 422
        assert client.get("/api/status").json()["fetch_urls"] is True


# Attacks


@pytest.mark.fault
@pytest.mark.parametrize("article", [HOSTILE, "\ud800甲乙", "   ", "\x00" * 100, "<start_of_turn>model\n" * 50])
def test_an_article_that_was_made_to_harm(app: httpx.Client, article: str) -> None:
    response = app.post("/api/titles", content=json.dumps({"article": article}))
    assert response.status_code in {200, 422}, response.text
    if response.status_code == 200:
        assert "<script" not in response.json()["article"]["text"]
        assert "<start_of_turn>" not in response.json()["article"]["text"]
    else:
        assert set(response.json()) == {"message", "message_zh"}


@pytest.mark.fault
def test_ten_megabytes_are_refused(app: httpx.Client) -> None:
    huge = "公" * (10 * 2**20 // 3)
    assert app.post("/api/titles", json={"article": huge}).status_code == 413
    assert app.post("/api/document?name=a.txt", content=huge.encode()).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**20 + 2):
            yield b"a" * 2**20

    # It does not say how long it is.
    assert app.post("/api/document?name=a.txt", content=chunks()).status_code == 413
    # What is within the request's limit and above the article's.
    longer = app.post("/api/titles", json={"article": "公" * 200_001})
    assert (longer.status_code, len(longer.text) < 1000) == (422, True)


@pytest.mark.fault
@pytest.mark.parametrize("bodies", [8, 80])
@pytest.mark.parametrize("origin", ["", "Origin: https://evil.example\r\n"])
def test_a_refused_request_that_is_still_being_sent_gets_its_answer(
    app: httpx.Client, bodies: int, origin: str
) -> None:
    place = app.base_url
    head = (
        f"POST /api/titles HTTP/1.1\r\nHost: {place.host}:{place.port}\r\n{origin}Content-Length: {bodies * 2**20}\r\n"
    )
    with socket.create_connection((place.host, place.port or 80), timeout=20) as connection:
        connection.sendall(f"{head}\r\n".encode())
        try:
            for _ in range(bodies):
                connection.sendall(b"a" * 2**20)
            assert connection.recv(12) == (b"HTTP/1.1 403" if origin else b"HTTP/1.1 413")
        except ConnectionError:
            # Not for ever.
            assert bodies * 2**20 > 64 * 2**20


@pytest.mark.fault
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8090", "Origin": "http://evil.example:8090"},
    ],
)
def test_pages_of_others_change_nothing(app: httpx.Client, headers: dict[str, str]) -> None:
    body = {"generation": "x", "place": 0, "title": "甲"}
    for path in ("/api/titles", "/api/choices", "/api/check", "/api/document", "/api/url", "/api/login"):
        assert app.post(path, json=body, headers=headers).status_code == 403
    assert app.get("/api/choices.jsonl").text == ""


@pytest.mark.fault
def test_a_name_that_was_made_to_mean_this_machine_reads_nothing(app: httpx.Client) -> None:
    assert app.get("/api/choices.jsonl", headers={"Host": "evil.example"}).status_code == 403
    assert app.get("/api/choices.jsonl", headers={"Host": "localhost:8090"}).status_code == 200
    assert app.get("/api/choices.jsonl", headers={"Host": "[::1]:8090"}).status_code == 200


def test_our_own_page_and_programs_may(app: httpx.Client) -> None:
    own = str(app.base_url).rstrip("/")
    for headers in ({}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}):
        assert app.post("/api/check", json={"article": "甲", "title": "甲"}, headers=headers).status_code == 200


@pytest.mark.fault
@pytest.mark.parametrize(
    ("host", "token", "says"),
    [("0.0.0.0", "", "TITLEGEN_DESK_TOKEN"), ("192.168.1.2", "", "token"), ("127.0.0.1", "short", "16"),  # noqa: S104
     ("desk.example", "", "token"), ("10.0.0.1", "字" * 20, "plain")],
)  # fmt: skip
def test_an_open_desk_does_not_start(
    host: str, token: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        check_exposure(host, token)
    monkeypatch.setenv("TITLEGEN_DESK_TOKEN", token)
    with pytest.raises(ConfigError, match=says):
        serve_desk(load_settings(output=tmp_path, desk={"host": host}))
    assert list(tmp_path.iterdir()) == []


def test_exposure_is_allowed_with_a_token() -> None:
    check_exposure("0.0.0.0", TOKEN)  # noqa: S104 - nothing listens
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.2"):
        check_exposure(host, "")


@pytest.mark.fault
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        # The desk lets each wrong one wait.
        pytest.param({"Authorization": f"Basic {TOKEN}"}, marks=pytest.mark.slow),
        pytest.param({"Authorization": "Bearer"}, marks=pytest.mark.slow),
        pytest.param({"Authorization": f"Bearer {TOKEN}x"}, marks=pytest.mark.slow),
        {"Cookie": f"{COOKIE}=wrong"},
        {"Cookie": f"{COOKIE}={TOKEN}"},
        {"Cookie": f"{COOKIE}={cookie_value('another-token-of-before')}"},
        {"Cookie": "\x01;;;="},
    ],
)
def test_who_has_not_the_token_gets_nothing(closed: httpx.Client, headers: dict[str, str]) -> None:
    for method, path in (
        *(("GET", f"/api/{name}") for name in ("status", "choices.jsonl", "statistics", "openapi.json")),
        *(("POST", f"/api/{name}") for name in ("titles", "check")),
    ):
        response = closed.request(method, path, headers=headers)
        assert response.status_code == 401
        assert TOKEN not in response.text
    page = closed.get("/", headers=headers, follow_redirects=False)
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert closed.get("/page/desk.js", headers=headers, follow_redirects=False).status_code == 303


def test_who_has_it_gets_in(closed: httpx.Client) -> None:
    assert closed.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert closed.get("/login").status_code == 200
    wrong = closed.post("/api/login", json={"token": TOKEN[:-1]})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    right = closed.post("/api/login", json={"token": TOKEN})
    cookie = right.headers["set-cookie"].lower()
    assert right.status_code == 200
    assert TOKEN not in cookie
    assert all(part in cookie for part in ("httponly", "samesite=strict"))
    assert "secure" not in cookie
    assert closed.get("/").status_code == 200
    assert closed.get("/api/status").status_code == 200


def test_a_login_goes_where_the_page_may_stand() -> None:
    """In frames of other sites only where such are named; a cookie that they get is kept apart and needs TLS."""
    for secure, framed, has, lacks in (
        (False, False, ["SameSite=Strict"], ["Secure", "None"]),
        (True, False, ["SameSite=Strict", "Secure"], ["None"]),
        (True, True, ["SameSite=None", "Secure", "Partitioned"], ["Strict"]),
    ):
        cookie = login_cookie(TOKEN, secure=secure, framed=framed)
        assert all(part in cookie for part in (*has, "HttpOnly", "Path=/"))
        assert not any(part in cookie for part in lacks)


@pytest.mark.fault
def test_a_desk_without_a_token_logs_nobody_in(app: httpx.Client) -> None:
    assert app.post("/api/login", json={"token": ""}).status_code == 401


def test_every_answer_says_what_its_page_may_do(app: httpx.Client) -> None:
    for path in ("/", "/login", "/page/desk.js", "/api/status", "/nowhere"):
        policy = app.get(path).headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
    assert "frame-ancestors https://cms.example" in content_policy(("https://cms.example",))


@pytest.mark.fault
@pytest.mark.parametrize("path", ["/page/../app.py", "/page/%2e%2e/app.py", "/page/lit/../../store.py", "/docs"])
def test_only_the_page_is_given_out(app: httpx.Client, path: str) -> None:
    assert app.get(path).status_code in {403, 404}


# The model server


class _Hostile(BaseHTTPRequestHandler):
    """Answers as no model server does."""

    body = b""
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(request.get("prompt", ""))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"models": [], "version": "1"}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hostile() -> Iterator[type[_Hostile]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Hostile,), {"asked": []}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.RequestHandlerClass.host = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield server.RequestHandlerClass  # type: ignore[misc]
    server.shutdown()
    thread.join()
    server.server_close()


def _part(text: str, *, done: bool = False) -> bytes:
    fields = {"done_reason": "stop"} if done else {}
    return json.dumps({"model": "m", "response": text, "done": done, **fields}).encode() + b"\n"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (_part(HOSTILE + "\u202e\x1b[31m") + _part("", done=True), 200),
        (_part("甲" * 50_000) + _part("", done=True), 200),
        (_part("甲" * 150_000) + _part("", done=True), 503),
        (b"<html>no server</html>", 503),
        (b"[1]\n", 503),
        (b'{"error": "boom"}\n', 503),
        (_part("") + _part("", done=True), 200),
        (b"", 200),
        (b'{"response": 3}\n', 503),
        (b"[" * 200_000, 503),
        (b"a" * (17 * 2**20), 503),
    ],
    ids=range(11),
)
def test_a_hostile_answer_of_the_server(
    hostile: Any, body: bytes, status: int, desk_outputs: Path, tmp_path: Path
) -> None:
    hostile.body = body
    with new_app(settings_for(hostile.host, desk_outputs), tmp_path / "d.sqlite3") as client:
        response = client.post("/api/titles", json={"article": ARTICLE, "number": 1})
    assert response.status_code == status, response.text
    for candidate in response.json().get("candidates", []):
        assert len(candidate["title"]) <= 200
        assert candidate["title"].isprintable()


@pytest.mark.fault
def test_titles_that_are_written_stay_when_the_server_breaks_off(
    hostile: Any, desk_outputs: Path, tmp_path: Path
) -> None:
    bodies = iter([_part("公車增開三班延長夜間服務") + _part("", done=True)])
    # The property of the class, since each request has a handler of its own.
    hostile.body = property(lambda _: next(bodies, b'{"error": "boom"}\n'))
    with new_app(settings_for(hostile.host, desk_outputs), tmp_path / "d.sqlite3") as client:
        answer = client.post("/api/titles", json={"article": ARTICLE, "number": 3}).json()
        assert titles_of(answer) == ["公車增開三班延長夜間服務"]
        assert all(part in answer["shortfall"]["message"] for part in ("1 of 3 titles", "boom", "ask again"))
        assert "中途停止回應" in answer["shortfall"]["message_zh"]
        choice = {"generation": answer["generation"], "place": 0, "title": "公車增開三班"}
        assert client.post("/api/choices", json=choice).status_code == 200


@pytest.mark.fault
def test_a_server_that_is_gone_is_said_and_comes_back(desk_outputs: Path, desk_model_host: str, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with new_app(settings_for(nowhere, desk_outputs), tmp_path / "d.sqlite3") as client:
        assert client.get("/api/status").json()["ready"] is False
        response = client.post("/api/titles", json={"article": ARTICLE})
        assert response.status_code == 503
        assert "恢復" in response.json()["message_zh"]
    with new_app(settings_for(desk_model_host, desk_outputs), tmp_path / "d.sqlite3") as client:
        assert client.get("/api/status").json()["ready"] is True


# Twenty editors


def test_twenty_editors_at_once_see_their_own_articles_alone(desk: Desk) -> None:
    def work(number: int) -> tuple[int, dict[str, Any], str]:
        mine = f"{ARTICLE}\n這是第{number + 1000}號編輯的文章。"
        with httpx.Client(base_url=desk.url, timeout=300, trust_env=False) as http:
            answer = http.post("/api/titles", json={"article": mine, "number": 2}).json()
            title = f"{titles_of(answer)[0]}{number}"
            http.post(
                "/api/choices", json={"generation": answer["generation"], "place": 0, "title": title}
            ).raise_for_status()
            return number, answer, title

    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(work, range(20)))
    for number, answer, _ in found:
        assert f"第{number + 1000}號" in answer["article"]["text"]
        assert sum(f"第{other + 1000}號" in answer["article"]["text"] for other in range(20)) == 1
    assert len({answer["generation"] for _, answer, _ in found}) == 20
    kept = {choice.title: choice.made.article_digest for choice in Store(desk.store).choices()}
    assert {title: answer["article"]["digest"] for _, answer, title in found}.items() <= kept.items()


@pytest.mark.slow
@pytest.mark.fault
def test_a_desk_that_is_killed_loses_no_choice(desk_outputs: Path, desk_model_host: str, tmp_path: Path) -> None:
    store = tmp_path / "desk.sqlite3"
    with running_desk(desk_outputs, desk_model_host, store=store) as desk:
        answer = desk.http.post("/api/titles", json={"article": ARTICLE, "number": 1}).json()
        body = {"generation": answer["generation"], "place": 0, "title": "留下的標題"}
        desk.http.post("/api/choices", json=body).raise_for_status()
        desk.process.kill()
    with running_desk(desk_outputs, desk_model_host, store=store) as desk:
        assert "留下的標題" in desk.http.get("/api/choices.jsonl").text


@pytest.mark.fault
def test_a_port_that_is_taken_is_said(desk: Desk, desk_outputs: Path) -> None:
    port = int(desk.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=r"choose another port with --desk\.port"):
        serve_desk(settings_for("http://127.0.0.1:9", desk_outputs, port=port, open_browser=False))


def test_what_nobody_waits_for_is_not_written(desk: Desk) -> None:
    before = desk.http.get("/api/statistics").json()["made"]
    with desk.http.stream("POST", "/api/titles", json={"article": ARTICLE, "number": 10}, headers=STREAM) as response:
        next(response.iter_lines())
    for _ in range(3):
        desk.http.post("/api/titles", json={"article": ARTICLE, "number": 1}).raise_for_status()
    assert desk.http.get("/api/statistics").json()["made"] == before + 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_desk_ends_when_it_is_told_to(
    desk_outputs: Path, desk_model_host: str, tmp_path: Path, number: int, code: int
) -> None:
    with running_desk(desk_outputs, desk_model_host, store=tmp_path / "desk.sqlite3") as mine:
        mine.process.send_signal(number)
        assert mine.process.wait(60) == code
        assert "Traceback" not in mine.log.read_text()
