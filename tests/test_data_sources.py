import csv
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from articles import article, seeded, write_jsonl

from titlegen.data.dates import read_date
from titlegen.data.sources import Row, open_source
from titlegen.errors import DataError
from titlegen.settings import DataSettings


def test_jsonl_csv_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        article(number, id=f"a{number}", content=f'第一段，有「引號"」。\n第二段{number}。') for number in range(30)
    ]
    write_jsonl(tmp_path / "news.jsonl", rows)
    with (tmp_path / "news.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "news.parquet")
    read = {
        kind: [replace(row, number=0) for row in open_source(DataSettings(source=str(tmp_path / f"news.{kind}"))).rows]
        for kind in ("jsonl", "csv", "parquet")
    }
    assert read["jsonl"] == read["csv"] == read["parquet"]
    assert read["jsonl"][7] == Row(rows[7]["content"], rows[7]["title"], "news", rows[7]["date"], "a7")


def test_the_embedded_corpus_is_read_whole() -> None:
    source = open_source(DataSettings(source="embedded"))
    rows = list(source.rows)
    assert len(rows) >= 96
    assert len({row.title for row in rows}) == len(rows)
    assert all(read_date(row.date).day and row.source != "embedded" for row in rows)


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [article(number) for number in range(9)])
    rows = list(open_source(DataSettings(source=str(path), limit=4)).rows)
    assert [row.title for row in rows] == [article(number)["title"] for number in range(4)]


SCHEMAS = [
    ({"article": "內容", "headline": "標題"}, {}),
    ({"body": "內容", "head": "標題"}, {"content_column": "body", "title_column": "head"}),
    ({"messages": [{"role": "user", "content": "內容"}, {"role": "assistant", "content": "標題"}]}, {}),
    (
        {
            "messages": [
                {"role": "system", "content": "你是"},
                {"role": "user", "content": "請將以下內容濃縮成一則新聞標題（僅輸出標題）：內容"},
                {"role": "model", "content": "標題"},
            ]
        },
        {"content_column": "messages"},
    ),
    ({"messages": '[{"role": "human", "content": "內容"}, {"role": "assistant", "content": "標題"}]'}, {}),
]


@pytest.mark.parametrize(("record", "options"), SCHEMAS)
def test_other_schemas_are_mapped(tmp_path: Path, record: dict[str, Any], options: dict[str, str]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [record])
    row = next(open_source(DataSettings(source=str(path), **options)).rows)
    assert (row.content, row.title) == ("內容", "標題")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"content_column": "contents"},
            "no column 'contents' for the content; it has content, date, title; name the right one with --data",
        ),
        ({"title_column": "titel"}, "name the right one with --data.title-column title"),
        ({"date_column": "dates"}, "name the right one with --data.date-column date"),
    ],
)
def test_a_renamed_column_is_named_with_a_suggestion(tmp_path: Path, options: dict[str, str], message: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [article(1)])
    with pytest.raises(DataError) as error:
        open_source(DataSettings(source=str(path), **options))
    assert message in str(error.value)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b'{"content": "x", "title": "y"}\n{"content": \n', "line 2 cannot be read: not JSON"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"content,title\nx,y\nx\n", "line 3 cannot be read: the row has 1 fields, not 2"),
        ("a.csv", b"content,title\nx,y,z\n", "line 2 cannot be read: the row has 3 fields, not 2"),
        ("a.csv", b'content,title\nx,"y\n', "line 2 cannot be read: unexpected end of data"),
        ("a.csv", b"content,title\nx,\xff\n", "line 2 cannot be read: not UTF-8 (byte 0xff)"),
        ("a.parquet", b"PAR1 no", "is not a Parquet file"),
        ("a.xlsx", b"PK\x03\x04", "it is a workbook or ZIP archive; save the sheet as CSV UTF-8"),
    ],
)
def test_a_broken_file_is_a_clear_error(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as error:
        list(open_source(DataSettings(source=str(tmp_path / name))).rows)
    assert message in str(error.value)
    assert name in str(error.value)


@pytest.mark.fault
def test_a_damaged_parquet_page_is_a_clear_error(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([article(number) for number in range(200)]), path)
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        list(open_source(DataSettings(source=str(path))).rows)


@pytest.mark.fault
def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"news\.jsonl' does not exist; check the path"):
        open_source(DataSettings(source=str(tmp_path / "news.jsonl")))


class ParquetHub(ThreadingHTTPServer):
    """The part of the Hub's protocol that reading a data set takes, over one Parquet file with a big image column."""

    FILE = "data/train-00000-of-00001.parquet"
    COMMIT = "a" * 40

    def __init__(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rng = seeded(0)
        columns = {
            "image": [rng.randbytes(40_000) for _ in range(50)],
            "title": [f"標題{number}" for number in range(50)],
            "content": [f"內容{number}" for number in range(50)],
            "timestamp": ["2024-05-01"] * 50,
        }
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer)
        self.data = buffer.getvalue()
        self.bytes_sent = 0
        super().__init__(("127.0.0.1", 0), _HubHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def size(self) -> int:
        return len(self.data)


class _HubHandler(BaseHTTPRequestHandler):
    server: ParquetHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        headers = {"ETag": '"1"', "X-Repo-Commit": ParquetHub.COMMIT}
        entry = {"type": "file", "path": ParquetHub.FILE, "size": self.server.size, "oid": "1"}
        if path.endswith(ParquetHub.FILE):
            self._answer_file(headers)
        elif "/resolve/" in path:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif path.endswith("/data"):
            self._answer(200, json.dumps([entry]).encode())
        elif "/tree/" in path:
            self._answer(200, json.dumps([{"type": "directory", "path": "data", "oid": "2"}]).encode())
        elif path.startswith("/api/datasets/org/news"):
            info = {
                "id": "org/news",
                "sha": ParquetHub.COMMIT,
                "siblings": [{"rfilename": ParquetHub.FILE}],
                "tags": [],
            }
            self._answer(200, json.dumps(info).encode())
        else:
            self._answer(404, b"{}")

    def _answer_file(self, headers: dict[str, str]) -> None:
        data = self.server.data
        if self.command == "HEAD" or "Range" not in self.headers:
            self._answer(200, data, headers)
            return
        start, end = (int(place) for place in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = data[start : end + 1]
        self._answer(206, part, {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.server.bytes_sent += len(body)
            self.wfile.write(body)


@pytest.fixture
def parquet_hub() -> Iterator[ParquetHub]:
    with ParquetHub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


HUB_SCRIPT = """
import sys
from titlegen.data.sources import open_source
from titlegen.errors import DataError
from titlegen.settings import DataSettings
try:
    source = open_source(DataSettings(source="org/news"))
    rows = list(source.rows)
    print(len(rows), rows[3].title, rows[3].date, sorted(source.columns.values()))
except DataError as error:
    print("DataError:", error)
"""


def run_hub_script(tmp_path: Path, **environment: str) -> str:
    # A process of its own: huggingface_hub reads its endpoint when it is imported.
    environment = {
        "HF_HOME": str(tmp_path / "hf"),
        "PATH": "",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **environment,
    }
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", HUB_SCRIPT], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.fault
def test_a_hub_that_cannot_be_reached_is_a_clear_error(tmp_path: Path) -> None:
    output = run_hub_script(tmp_path, HF_HUB_OFFLINE="1")
    assert output.startswith("DataError: Hub data set 'org/news' cannot be loaded: ")
    assert "choose a local file or `embedded` with --data.source" in output


def test_only_the_needed_columns_of_a_hub_data_set_are_fetched(tmp_path: Path, parquet_hub: ParquetHub) -> None:
    output = run_hub_script(tmp_path, HF_ENDPOINT=parquet_hub.url)
    assert output.strip() == "50 標題3 2024-05-01 ['content', 'timestamp', 'title']"
    assert 0 < parquet_hub.bytes_sent < parquet_hub.size / 5


def test_a_record_may_lack_what_later_ones_have(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    rows = [{"content": "內文", "title": "標題"}, {"content": "內文", "title": "標題", "date": "2024-05-01", "id": 7}]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    first, second = open_source(DataSettings(source=str(path))).rows
    assert (first.date, first.id) == (None, None)
    assert (second.date, second.id) == ("2024-05-01", 7)
