"""``titlegen generate``: one article, several candidates, and a whole file, through the command line."""

import contextlib
import gzip
import io
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from exported_models import ANSWERS, ARTICLE, ECHO_TEMPLATE, TITLE, WRONG_NUMBER, Export, question, quiz
from ollama_server import OfflineServer, offline_server
from scripted_model import chain
from slow_proxy import SlowProxy, slow_proxy

from titlegen import serve
from titlegen.cli import main
from titlegen.console import EXIT_DONE, EXIT_ERROR, EXIT_GATE, EXIT_INTERRUPTED
from titlegen.errors import DataError
from titlegen.families.gemma3 import PROMPT
from titlegen.prompt import SYSTEM
from titlegen.serve.answer import choose_answer, make_answer
from titlegen.serve.article import Article
from titlegen.serve.batch import _resume
from titlegen.settings import DataSettings


class Said(NamedTuple):
    """What a command printed."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed for a program."""
        return json.loads(self.out)


Generate = Callable[..., Said]


@pytest.fixture(scope="module", autouse=True)
def titles(server: OfflineServer, export: Export) -> None:
    """A second model, of the name titles, which writes one of a few titles for any article."""
    export.write({**chain(TITLE), **chain(WRONG_NUMBER), "\n": ("市", "鐵")})
    server.create("titles", export.file, template=PROMPT.template, system=SYSTEM)


@pytest.fixture
def generate(outputs: Path, server: OfflineServer, capsys: pytest.CaptureFixture[str]) -> Generate:
    """Run the command with a model of the server, to the exit code ``ends``."""

    def run(*arguments: object, model: str = "quiz", host: str = server.host, ends: int = EXIT_DONE) -> Said:
        # An answer of one character is doubtful, and the same again.
        fixed = ["--output", str(outputs), "--serve.host", host, "--serve.model-name", model, "--serve.redraws", "0"]
        assert main(["generate", *map(str, arguments), *fixed]) == ends, arguments
        return Said(*capsys.readouterr())

    return run


@pytest.fixture
def article(tmp_path: Path) -> Path:
    """An article in a file."""
    path = tmp_path / "article.txt"
    path.write_text(ARTICLE, encoding="utf-8")
    return path


def write_articles(path: Path, numbers: Any, **fields: Any) -> Path:
    rows = [{"id": f"a{number}", "content": question(number), **fields} for number in numbers]
    return write_lines(path, rows)


def write_lines(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def titles_of(path: Path) -> list[str]:
    return [row["title"] for row in read_lines(path)]


# One article


def test_title_of_a_file(generate: Generate, article: Path) -> None:
    article.write_text("\ufeff" + question(3), encoding="utf-8")
    assert generate(article).out == ANSWERS[3] + "\n"


def test_title_of_standard_input(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(question(4).encode())))
    assert generate("-").out == ANSWERS[4] + "\n"


@pytest.mark.fault
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_a_file_without_an_end_is_not_read_to_one(generate: Generate) -> None:
    assert "has more than 67,108,864 bytes, which no article has" in generate("/dev/zero", ends=EXIT_ERROR).err


def test_trimming_is_said(generate: Generate, article: Path) -> None:
    article.write_text(ARTICLE * 2000, encoding="utf-8")
    assert "its end was left out at a sentence end" in generate(article, model="titles").err


def test_candidates(generate: Generate, article: Path) -> None:
    # The second has a number that the article has not.
    assert generate(article, "--n", "16", model="titles").out.splitlines() == [TITLE, WRONG_NUMBER]
    found = generate(article, "--n", "16", "--json", model="titles").json
    assert found["title"] == TITLE
    assert [candidate["title"] for candidate in found["candidates"]] == [TITLE, WRONG_NUMBER]


def test_a_title_is_searched_for_until_it_is_as_asked_for(generate: Generate, article: Path) -> None:
    said = generate(article, "--include", TITLE[:2], model="titles")
    assert (said.out.splitlines(), said.err) == ([TITLE], "")
    # The model's own title with this word has a number that the article has not.
    (title,) = generate(article, "--include", WRONG_NUMBER[:2], model="titles").out.splitlines()
    assert WRONG_NUMBER[:2] in title
    assert "79" in WRONG_NUMBER
    assert "79" not in title


def test_what_no_title_has_is_said(generate: Generate, article: Path) -> None:
    # Both have no room in one title.
    words = ("臺北捷運環狀線第二期", "月球探測")
    said = generate(article, "--include", words[0], "--include", words[1], "--chars", "13", "--json", model="titles")
    assert said.json["title"] in {TITLE, WRONG_NUMBER}
    assert said.json["unmet"] == list(words)
    assert f"no title has the word {words[0]} and the word {words[1]}, however often it was asked for" in said.err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["article.txt", "--chars", "12"], "a title of 12 characters cannot be asked for; choose 13, 18, 23 or 28"),
        (["article.txt", "--include", "字" * 13], "give a word of 1 to 12 characters"),
        (["articles.jsonl", "--out", "titles.jsonl", "--chars", "13"], "--chars and --include are for one article"),
        (["no.txt"], "cannot read"),
        (["articles.jsonl"], "file or folder of many articles; say with --out"),
        (["no.jsonl", "--out", "titles.jsonl"], "'no.jsonl' does not exist"),
        (["-", "--out", "titles.jsonl"], "'-' does not exist; check the path"),
        (["latin1.txt"], "is not UTF-8 text in line 1"),
        (
            ["big5.txt"],
            "is not UTF-8; its bytes may be BIG5 or GB18030, which they do not prove: look at it, then convert",
        ),
        *((["articles" + suffix], "say with --out") for suffix in (".CSV", ".json", ".parquet", ".tsv.gz")),
        (["folder"], "say with --out"),
        (["*.jsonl"], "say with --out"),
        (["article.txt", "--out", "t"], "article.txt ends in none of .jsonl"),
        (["empty.txt"], "nothing is left of the article"),
        (["article.txt", "--n", "0"], "--n"),
        (["article.txt", "--n", "many"], "--n"),
        (["articles.jsonl", "--out", "titles.jsonl", "--concurrency", "0"], "--concurrency"),
        (["articles.jsonl", "--out", "articles.jsonl"], "is the file of the articles itself"),
        (["articles.jsonl", "--out", "linked.jsonl"], "is the file of the articles itself"),
        (["articles.jsonl", "--out", "."], "cannot write .: Is a directory"),
        (["articles.jsonl", "--out", "article.txt/titles.jsonl"], "cannot write"),
        (["articles.jsonl", "--out", "article.txt"], "is not the result of articles.jsonl: its line 1"),
    ],
)
def test_mistake_is_one_line(
    generate: Generate, article: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: str
) -> None:
    monkeypatch.chdir(article.parent)
    Path("latin1.txt").write_bytes(b"a\xff")
    Path("empty.txt").touch()
    Path("folder").mkdir()
    Path("big5.txt").write_bytes(ARTICLE.encode("cp950"))
    articles = write_articles(Path("articles.jsonl"), range(2)).read_bytes()
    Path("linked.jsonl").symlink_to("articles.jsonl")
    said = generate(*arguments, ends=EXIT_ERROR)
    assert error in said.err.splitlines()[-1]
    assert said.out == ""
    # What was there stays as it was.
    assert Path("articles.jsonl").read_bytes() == articles
    assert article.read_text(encoding="utf-8") == ARTICLE


@pytest.mark.fault
def test_missing_server_and_model_say_what_to_do(generate: Generate, tmp_path: Path) -> None:
    source, target = write_articles(tmp_path / "articles.jsonl", range(3)), tmp_path / "titles.jsonl"
    batch = (source, "--out", target)
    assert "run `titlegen deploy` first" in generate(*batch, model="nosuch", ends=EXIT_ERROR).err
    said = generate(*batch, "--serve.retries", "0", host="http://127.0.0.1:9", ends=EXIT_ERROR).err
    assert "no server answers at http://127.0.0.1:9 ([Errno 111] Connection refused); run `titlegen serve`" in said
    # Who was promised that nothing else is needed is not told to install something.
    assert "ollama" not in said.lower()
    # No article is marked as bad for it: the next run does them all.
    generate(*batch)
    assert titles_of(target) == ANSWERS[:3]


# A file of articles


def test_file_keeps_order_and_goes_on_past_bad_articles(generate: Generate, tmp_path: Path) -> None:
    numbers = random.Random(0).sample(range(200), 60)
    rows: list[Any] = [{"id": number, "content": question(number)} for number in numbers]
    bad = [
        b"{broken",
        {"id": "c"},
        {"id": "e", "content": ""},
        {"id": "n", "content": None},
        b"\xff\xfe",
        b'{"id": "L", "content": "' + b"x" * 9 * 2**20 + b'"}',
        b"[" * 100_000,
        {"id": "\ud800", "content": "\ud800\0"},
        {"id": "b", "content": "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0"},
    ]
    for index, row in enumerate(bad):
        rows.insert(7 * index, row)
    source, target = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out" / "titles.jsonl"
    result = generate(source, "--out", target, "--json", ends=EXIT_GATE).json
    assert (result["lines"], result["resumed"], result["failed"]) == (len(rows), 0, len(bad))
    found = read_lines(target)
    assert [row.get("title") for row in found] == [
        ANSWERS[row["id"]] if isinstance(row, dict) and isinstance(row["id"], int) else None for row in rows
    ]
    # The row's own id, or else the number of its line.
    assert [row["id"] for row in found if "error" in row] == [1, "c", "e", "n", 29, 36, 43, "\ud800", "b"]
    assert all(row["error"].startswith(f"line {n}: ") for n, row in enumerate(found, 1) if "error" in row)


def test_tables_arrays_and_folders_are_read_as_for_prepare(generate: Generate, tmp_path: Path) -> None:
    rows = [{"id": f"a{number}", "content": question(number)} for number in range(4)]
    folder = tmp_path / "folder"
    folder.mkdir()
    table = "\r\n".join(["id;content", *(f"{row['id']};{row['content']}" for row in rows)])
    chats = [{"messages": [{"role": "user", "content": row["content"]}]} for row in rows]
    sources = {
        folder / "a.csv": table.encode("utf-16"),
        tmp_path / "a.json": json.dumps(rows, indent=1).encode("utf-8-sig"),
        tmp_path / "a.jsonl": b"\xef\xbb\xbf" + b"\n\n".join(json.dumps(row).encode() for row in rows) + b"\n\n",
        tmp_path / "chats.jsonl.gz": gzip.compress("\n".join(map(json.dumps, chats)).encode()),
    }
    for source, data in sources.items():
        source.write_bytes(data)
    for number, place in enumerate([*map(str, sources), str(folder), f"{tmp_path}/*.json"]):
        target = tmp_path / f"titles{number}"
        generate(place, "--out", target)
        assert titles_of(target) == ANSWERS[:4]
    (tmp_path / "empty.jsonl").touch()
    assert "is empty" in generate(tmp_path / "empty.jsonl", "--out", tmp_path / "t", ends=EXIT_ERROR).err


def test_candidates_for_every_article_of_a_file(generate: Generate, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"text": ARTICLE}, {"text": "短訊。" + ARTICLE}])
    target = tmp_path / "titles.jsonl"
    generate(source, "--out", target, "--n", "12", "--data.content-column", "text", model="titles")
    assert [row["titles"] for row in read_lines(target)] == [[TITLE, WRONG_NUMBER]] * 2
    assert titles_of(target) == [TITLE] * 2


@pytest.mark.fault
def test_an_interrupted_file_is_resumed(generate: Generate, tmp_path: Path) -> None:
    source, target = write_articles(tmp_path / "in.jsonl", range(10)), tmp_path / "titles.jsonl"
    generate(source, "--out", target)
    whole = target.read_bytes()
    kept = whole.splitlines(keepends=True)
    for length in (0, 1, 5, 10, len(kept[5]) - 1):
        # Cut off in the middle of the sixth line.
        target.write_bytes(b"".join(kept[:5]) + kept[5][:length])
        assert "5 had been done before" in generate(source, "--out", target).out
        assert target.read_bytes() == whole


@pytest.mark.fault
def test_ctrl_c_keeps_what_is_done(generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = write_articles(tmp_path / "in.jsonl", range(20)), tmp_path / "titles.jsonl"

    def interrupt(done: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    original = serve.generate_file
    with monkeypatch.context() as patch:
        patch.setattr(serve, "generate_file", lambda *a, **fields: original(*a, **{**fields, "on_line": interrupt}))
        generate(source, "--out", target, ends=EXIT_INTERRUPTED)
    assert titles_of(target) == ANSWERS[:6]
    assert "6 had been done before" in generate(source, "--out", target).out
    assert titles_of(target) == ANSWERS[:20]


@pytest.mark.fault
def test_server_killed_in_the_middle_of_a_file(outputs: Path, export: Export, tmp_path: Path) -> None:
    """What is done stays, nothing is marked as bad, and the same command does the rest once a server is back."""
    source, target = write_articles(tmp_path / "in.jsonl", range(200)), tmp_path / "titles.jsonl"
    export.write(quiz())
    fixed = [str(source), "--out", str(target), "--output", str(outputs), "--serve.model-name", "quiz"]
    with offline_server(tmp_path) as server:
        server.create("quiz", export.file, template=ECHO_TEMPLATE, system=SYSTEM)
        settings = ["--serve.host", server.host, "--serve.retries", "0"]
        with killed_after(server, target, 20):
            assert main(["generate", *fixed, *settings]) == EXIT_ERROR
    done = read_lines(target)
    assert 20 <= len(done) < 200
    assert [row["title"] for row in done] == ANSWERS[: len(done)]
    with offline_server(tmp_path) as server:
        assert main(["generate", *fixed, "--serve.host", server.host]) == EXIT_DONE
    assert titles_of(target) == ANSWERS


@contextlib.contextmanager
def killed_after(server: OfflineServer, target: Path, lines: int) -> Iterator[None]:
    """Kill a server as soon as a file has this many lines."""

    def watch() -> None:
        while not target.exists() or target.read_bytes().count(b"\n") < lines:
            time.sleep(0.005)
        server.process.kill()
        server.process.wait()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()


@pytest.mark.fault
def test_lines_with_an_error_are_done_again(generate: Generate, server: OfflineServer, tmp_path: Path) -> None:
    source, target = write_articles(tmp_path / "in.jsonl", range(8)), tmp_path / "titles.jsonl"
    command = (source, "--out", target, "--concurrency", "1", "--serve.retries", "1")
    with slow_proxy(server.host) as proxy:
        proxy.answer = (500, b'{"error":"an error was encountered while running the model: unexpected EOF"}')
        threading.Thread(target=answer_after, args=(proxy, 6, None)).start()
        said = generate(*command, host=proxy.url, ends=EXIT_GATE)
        failed = [number for number, row in enumerate(read_lines(target), 1) if "error" in row]
        assert failed == list(range(1, len(failed) + 1))
        assert 1 <= len(failed) <= 4
        assert "line 1: " in said.err
        assert "unexpected EOF" in said.err
        assert "run the command again" in said.out
        asked = len(proxy.prompts)
        generate(*command, host=proxy.url)
        # Only they are asked for again.
        assert len(proxy.prompts) == asked + len(failed)
    assert titles_of(target) == ANSWERS[:8]
    assert set(tmp_path.iterdir()) == {source, target}


def answer_after(proxy: SlowProxy, requests: int, answer: tuple[int, bytes] | None) -> None:
    """After so many requests let the proxy give an answer, or with None the server again."""
    while len(proxy.prompts) < requests:
        time.sleep(0.001)
    proxy.answer = answer


@pytest.mark.fault
def test_doing_lines_again_can_be_interrupted(generate: Generate, server: OfflineServer, tmp_path: Path) -> None:
    """What is done again stays done, what is not keeps its error, and no line is lost or doubled."""
    source, target = write_articles(tmp_path / "in.jsonl", range(8)), tmp_path / "titles.jsonl"
    command = (source, "--out", target, "--concurrency", "1", "--serve.retries", "0")
    with slow_proxy(server.host) as proxy:
        proxy.answer = (500, b'{"error":"llama-server process no longer running"}')
        generate(*command, host=proxy.url, ends=EXIT_GATE)
        assert all("error" in row for row in read_lines(target))
        # Three are answered, then the server is away.
        away = (proxy, len(proxy.prompts) + 3, (503, b'{"error":"server busy"}'))
        threading.Thread(target=answer_after, args=away).start()
        proxy.answer = None
        generate(*command, host=proxy.url, ends=EXIT_ERROR)
        found = read_lines(target)
        assert [row["id"] for row in found] == [f"a{number}" for number in range(8)]
        titles = [row.get("title") for row in found]
        assert [title for title in titles if title] == ANSWERS[: sum(map(bool, titles))]
        assert 1 <= sum(map(bool, titles)) < 8
        proxy.answer = None
        generate(*command, host=proxy.url)
    assert titles_of(target) == ANSWERS[:8]


@pytest.mark.fault
@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b" \n\n"])
def test_an_empty_file_is_an_error(generate: Generate, tmp_path: Path, content: bytes) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "titles.jsonl"
    source.write_bytes(content)
    assert "in.jsonl' is empty" in generate(source, "--out", target, ends=EXIT_ERROR).err
    assert not target.exists()


@pytest.mark.fault
def test_warnings_stand_in_every_answer(
    generate: Generate, server: OfflineServer, export: Export, article: Path, tmp_path: Path
) -> None:
    export.write(chain(WRONG_NUMBER))
    server.create("wrong", export.file, template=PROMPT.template, system=SYSTEM)
    said = generate(article, model="wrong")
    assert said.out == WRONG_NUMBER + "\n"
    assert "the article does not have the number 79" in said.err
    found = generate(article, "--json", model="wrong").json
    (warning,) = found["warnings"]
    assert {claim["text"]: claim["supported"] for claim in found["evidence"]}["79"] is False
    assert {reason["subject"]: reason["good"] for reason in found["reasons"]}["facts"] is False
    assert all(check["passed"] for check in found["checks"])
    assert (warning["kind"], warning["text"], warning["message_zh"]) == ("number", "79", "內文沒有「79」這個數字")
    source, target = write_lines(tmp_path / "in.jsonl", [{"content": ARTICLE}] * 2), tmp_path / "titles.jsonl"
    assert "2 with a warning" in generate(source, "--out", target, model="wrong").out
    assert [[warning["kind"] for warning in row["warnings"]] for row in read_lines(target)] == [["number"]] * 2


@pytest.mark.fault
def test_the_same_command_prints_the_same_title(generate: Generate, article: Path, server: OfflineServer) -> None:
    """Also beside other requests, and whatever temperature the Modelfile has."""
    with slow_proxy(server.host) as proxy:
        printed = set()
        for _ in range(4):
            other = threading.Thread(target=server.generate, kwargs={"model": "titles", "prompt": ARTICLE + "甲"})
            other.start()
            printed.add(generate(article, model="titles", host=proxy.url).out)
            other.join()
    assert len(printed) == 1
    assert [options["temperature"] for options in proxy.options] == [0.0] * 4


@pytest.mark.fault
def test_full_disk_is_said(generate: Generate, tmp_path: Path) -> None:
    said = generate(write_articles(tmp_path / "in.jsonl", range(3)), "--out", "/dev/full", ends=EXIT_ERROR).err
    assert "cannot write /dev/full: No space left on device; make room" in said


@pytest.mark.fault
def test_results_of_something_else_are_not_touched(tmp_path: Path) -> None:
    source = write_articles(tmp_path / "in.jsonl", range(3))
    for content in (
        b"notes\n",
        b"notes without an end",
        b'{"id": "a0", "sha256": "0000000000000000", "title": "x"}\n',
        b"[]\n",
        b"\n",
        b"[" * 100_000 + b"\n",
    ):
        target = tmp_path / "titles.jsonl"
        target.write_bytes(content)
        with pytest.raises(DataError, match="is not the result of"):
            _resume(DataSettings(source=str(source)), target)
        assert target.read_bytes() == content


def test_longer_result_is_another_files(generate: Generate, tmp_path: Path) -> None:
    source, target = write_articles(tmp_path / "in.jsonl", range(4)), tmp_path / "titles.jsonl"
    generate(source, "--out", target)
    before = target.read_bytes()
    # The same ids, but fewer articles, and then other ones.
    write_articles(source, range(3))
    generate(source, "--out", target, ends=EXIT_ERROR)
    # A column that no title is made of may change.
    write_articles(source, range(4), note="changed")
    generate(source, "--out", target)
    assert target.read_bytes() == before


@pytest.mark.fault
@pytest.mark.parametrize(
    ("raw", "title"),
    [
        ("臺\ud800南宣布", "臺\ufffd南宣布"),
        ("\x1b[31m臺南\0宣布\x07新制\u202e上路", "臺南宣布新制上路"),
        ("\0\n臺南宣布", "臺南宣布"),
    ],
)
def test_a_title_holds_nothing_that_a_terminal_obeys_or_no_file_takes(raw: str, title: str) -> None:
    article = Article("臺南宣布新制上路。", "臺南宣布新制上路。", trimmed=False, converted=False)
    answer = make_answer(raw, article, convert=True, done_reason="stop")
    assert answer.title == title
    # What decides among several titles reads everything that was written.
    assert choose_answer([answer], article, convert=True) == [answer]
    answer.raw.encode()
