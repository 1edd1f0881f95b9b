import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from articles import article, seeded, write_jsonl
from dataset_hub import serving

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


@pytest.mark.parametrize(
    "names",
    [
        ("post_title", "post_content", "post_date", "_id"),
        ("news_title", "article_body", "publish_date", "news_id"),
        ("標題", "內文", "刊登日期", "編號"),
        ("文章標題", "文章內容", "上稿時間", "文章編號"),
        ("Headline", "articleBody", "datePublished", "post_id"),
    ],
)
def test_columns_are_known_by_the_names_that_systems_export(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [dict(zip(names, ("標題", "內容", "2024-05-01", "k7"), strict=True))] * 2)
    row = next(open_source(DataSettings(source=str(path))).rows)
    assert (row.title, row.content, row.date, row.id) == ("標題", "內容", "2024-05-01", "k7")


@pytest.mark.fault
def test_a_column_that_is_not_needed_may_be_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("title,content,編號,編號,created_at,created_at\n標題,內容,1,2,3,4\n", encoding="utf-8")
    row = next(open_source(DataSettings(source=str(path))).rows)
    assert (row.id, row.date) == (None, None)


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


@pytest.mark.fault
@pytest.mark.parametrize("source", ["s3://bucket/a.parquet", "gs://bucket/*.jsonl", "https://key:secret@example.org/a"])
def test_an_address_is_told_from_a_path_and_shows_no_secret(source: str) -> None:
    with pytest.raises(DataError, match="is an address, and titlegen reads files: download them, or mount") as caught:
        open_source(DataSettings(source=source))
    assert "secret" not in str(caught.value)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def with_images() -> bytes:
    """Return a Parquet file with a big image column."""
    rng = seeded(0)
    return parquet(
        [
            {
                "image": rng.randbytes(40_000),
                "title": f"標題{number}",
                "content": f"內容{number}",
                "timestamp": "2024-05-01",
            }
            for number in range(50)
        ]
    )


def lines(*numbers: int) -> bytes:
    return "".join(json.dumps(article(number, id=place)) + "\n" for place, number in enumerate(numbers)).encode()


def chat(number: int) -> dict[str, Any]:
    row = article(number)
    turns = [("user", row["content"]), ("assistant", row["title"])]
    return {"messages": [{"role": role, "content": text} for role, text in turns], "extra": 1}


CONFIGURATIONS = b"""---
configs:
- config_name: city
  data_files: city/train.jsonl
- config_name: sport
  data_files:
  - split: train
    path: sport/train.jsonl
  - split: test
    path: sport/test.jsonl
---
"""
HUB = {
    "org/news": {"data/train-00000-of-00001.parquet": with_images()},
    "org/configs": {
        "README.md": CONFIGURATIONS,
        "city/train.jsonl": lines(1, 2),
        "sport/train.jsonl": lines(3, 4, 5),
        "sport/test.jsonl": lines(6),
    },
    "org/script": {"script.py": b"import datasets\n"},
    "org/gated": {},
    "org/chats": {"train.parquet": parquet([chat(number) for number in range(5)])},
    "org/table": {"train.csv": "title,content\n標題,內容\n".encode()},
    "org/nothing": {"README.md": b"# empty\n"},
}


HUB_SCRIPT = """
import json
import sys
from titlegen.data.sources import open_source
from titlegen.errors import DataError
from titlegen.settings import DataSettings
for settings in json.loads(sys.argv[1]):
    try:
        source = open_source(DataSettings(**settings))
        rows = [[row.content, row.title, row.date, row.part, row.number] for row in source.rows]
        print(json.dumps({"rows": rows, "columns": sorted(set(source.columns.values()))}, default=str))
    except DataError as error:
        print(json.dumps({"error": str(error)}))
"""


def read_from_hub(folder: Path, *settings: dict[str, str], **environment: str) -> list[dict[str, Any]]:
    """Return rows or error for each of the settings."""
    # A process of its own: huggingface_hub reads its endpoint when it is imported.
    environment = {
        "HF_HOME": str(folder / "hf"),
        "PATH": "",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **environment,
    }
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", HUB_SCRIPT, json.dumps(settings)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.fault
def test_a_hub_that_cannot_be_reached_is_a_clear_error(tmp_path: Path) -> None:
    (output,) = read_from_hub(tmp_path, {"source": "org/news"}, HF_HUB_OFFLINE="1")
    assert output["error"].startswith("Hub data set 'org/news' cannot be loaded: ")
    assert "choose a local file or `embedded` with --data.source" in output["error"]


def test_only_the_needed_columns_of_a_hub_data_set_are_fetched(tmp_path: Path) -> None:
    with serving(HUB) as hub:
        (found,) = read_from_hub(tmp_path, {"source": "org/news"}, HF_ENDPOINT=hub.url)
        assert (len(found["rows"]), found["rows"][3]) == (50, ["內容3", "標題3", "2024-05-01", 0, 4])
        assert found["columns"] == ["content", "timestamp", "title"]
        assert 0 < hub.bytes_sent < len(HUB["org/news"]["data/train-00000-of-00001.parquet"]) / 5


CHOSEN: list[tuple[dict[str, str], list[int], list[int]]] = [
    ({"source": "org/configs", "config_name": "city"}, [1, 2], [0, 0]),
    ({"source": "org/configs", "config_name": "sport"}, [3, 4, 5, 6], [0, 0, 0, 1]),
    ({"source": "org/configs", "config_name": "sport", "source_split": "test"}, [6], [0]),
    ({"source": "org/configs", "config_name": "sport", "source_split": "test+train"}, [6, 3, 4, 5], [0, 1, 1, 1]),
    ({"source": "org/chats"}, [0, 1, 2, 3, 4], [0] * 5),
]
REFUSED: list[tuple[dict[str, str], str]] = [
    ({"source": "org/script"}, "is a loading script, a program that titlegen does not run; read its Parquet branch"),
    ({"source": "org/configs"}, "has several configurations: city, sport; choose one with --data.config-name"),
    ({"source": "org/configs", "config_name": "cty"}, "has several configurations: city, sport; choose one"),
    (
        {"source": "org/configs", "config_name": "sport", "source_split": "validation"},
        "has no split 'validation'; it has train, test: name one",
    ),
    ({"source": "org/news", "source_split": "train[:10%]"}, "has no split 'train[:10%]'; it has train"),
    ({"source": "org/gated"}, "is gated: ask for access at https://huggingface.co/datasets/org/gated and run `hf"),
    ({"source": "org/private"}, "does not exist, or is private and needs a token that may read it (run `hf auth"),
    ({"source": "org/nothing"}, "cannot be loaded"),
    ({"source": "org/news", "title_column": "head"}, "has no column 'head' for the title; it has content, image"),
]


@pytest.fixture(scope="module")
def found_on_hub(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What all of the settings above give; one process for all, since importing takes most of the time."""
    wanted = [*(case[0] for case in CHOSEN), *(case[0] for case in REFUSED)]
    with serving(HUB) as hub:
        return read_from_hub(tmp_path_factory.mktemp("hub"), *wanted, HF_ENDPOINT=hub.url)


@pytest.mark.parametrize("number", range(len(CHOSEN)))
def test_configuration_and_split_of_a_hub_data_set_are_chosen(found_on_hub: list[dict[str, Any]], number: int) -> None:
    _, articles, parts = CHOSEN[number]
    rows = found_on_hub[number]["rows"]
    assert [row[:2] for row in rows] == [[article(number)[key] for key in ("content", "title")] for number in articles]
    assert [row[3] for row in rows] == parts


@pytest.mark.fault
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_a_hub_data_set_that_cannot_be_read_says_what_to_do(found_on_hub: list[dict[str, Any]], number: int) -> None:
    settings, message = REFUSED[number]
    error = found_on_hub[len(CHOSEN) + number]["error"]
    assert settings["source"] in error
    assert message in error


def test_a_record_may_lack_what_later_ones_have(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    rows = [{"content": "內文", "title": "標題"}, {"content": "內文", "title": "標題", "date": "2024-05-01", "id": 7}]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    first, second = open_source(DataSettings(source=str(path))).rows
    assert (first.date, first.id) == (None, None)
    assert (second.date, second.id) == ("2024-05-01", 7)
