"""The files that people have: every form, encoding and cell is read as what it is, or refused in one line."""

import bz2
import contextlib
import csv
import datetime as dt
import decimal
import glob
import gzip
import io
import itertools
import json
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from articles import article, seeded, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from titlegen.data.instructions import find_instructions, find_quotes, without_quotes
from titlegen.data.sources import Row, open_source, source_digest
from titlegen.errors import DataError
from titlegen.settings import DataSettings, read_profile

ROWS = [article(number) for number in range(6)]
A, T = "一篇新聞的內文，比其他都長。", "標題"


def read(path: Path | str, *, strict: bool = True, titled: bool = True, **options: Any) -> list[Row]:
    return list(open_source(DataSettings(source=str(path), **options), strict=strict, titled=titled).rows)


def texts(rows: list[Row]) -> list[tuple[Any, Any]]:
    return [(row.content, row.title) for row in rows]


EXPECTED = [(row["content"], row["title"]) for row in ROWS]


def jsonl(end: str = "\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in ROWS)


def table(delimiter: str = ",", end: str = "\r\n", quoting: Any = csv.QUOTE_MINIMAL, header: Any = None) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(header or list(ROWS[0]))
    writer.writerows([list(row.values()) for row in ROWS])
    return file.getvalue()


TEXTS: list[tuple[str, str]] = [
    ("a.jsonl", jsonl()),
    ("a.JSONL", jsonl()),
    ("a.ndjson", jsonl("\r\n")),
    ("a.json", jsonl()),
    ("a.jsonl", jsonl("\r")),
    ("a.jsonl", "\n\n" + jsonl("\n\n") + "  \n"),
    ("a.jsonl", jsonl()[:-1]),
    ("a.jsonl", jsonl().replace("\n", "\n\ufeff")[:-1]),
    ("a.json", json.dumps(ROWS)),
    ("a.jsonl", json.dumps(ROWS, indent=1, ensure_ascii=False)),
    ("a.json", "[" + ",\n".join(json.dumps(row) for row in ROWS) + ",\n]\n"),
    ("a.json", json.dumps({"status": "ok", "total": 6, "data": ROWS})),
    ("a.jsonl", json.dumps({"data": ROWS})),
    ("a.json", json.dumps({"response": {"docs": ROWS, "facets": []}}, indent=2)),
    ("a.json", json.dumps({f"a{number}": row for number, row in enumerate(ROWS)})),
    ("a.json", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
    ("a.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
    ("a.csv", table()),
    ("a.csv", table(end="\n")),
    ("a.CSV", table(end="\r")),
    ("a.csv", table(quoting=csv.QUOTE_ALL)),
    ("a.csv", table(";")),
    ("a.csv", table("\t")),
    ("a.tsv", table("\t")),
    ("a.tsv", table(",")),
    ("a.csv", table("|")),
    ("a.csv", "sep=;\r\n" + table(";")),
    ("a.csv", table() + "\r\n,,\r\n,,\r\n"),
    ("a.csv", table().replace("\r\n", ",,\r\n")),
    ("a.csv", table(header=[" Content ", "TITLE", "date"])),
    ("a.csv", table(header=["\ufeffcontent", "title", "date"])),
    ("a.csv", table(header=["內文", "標題", "日期"])),
    ("a.csv", table(header=["ｃｏｎｔｅｎｔ", "title\u3000", "date"])),
    ("a.csv", table(quoting=csv.QUOTE_ALL).replace('","', '", "')),
]
CODECS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("name", "text"), TEXTS, ids=range(len(TEXTS)))
def test_every_form_in_every_encoding_gives_the_same_rows(tmp_path: Path, name: str, text: str, codec: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode(codec))
    rows = read(path)
    assert texts(rows) == EXPECTED
    assert [row.date for row in rows] == [row["date"] for row in ROWS]
    assert [row.number for row in rows] == sorted({row.number for row in rows})


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.GZ", "a.json"])
def test_a_compressed_file_is_known_by_its_bytes(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    text = table() if "csv" in name else jsonl()
    (tmp_path / name).write_bytes(pack(text.encode("utf-16")))
    rows = read(tmp_path / name)
    assert texts(rows) == EXPECTED
    assert rows[0].source == "a"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", table().encode("utf-8").replace(b",2024", b"\xff,2024", 1), "line 2 cannot be read: not UTF-8"),
        ("a.csv", table(header=["title", "content", "title"]).encode(), "2 columns named 'title'"),
        ("a.csv", table(header=["TITLE", "content", "Title"]).encode(), "2 columns named 'title'"),
        ("a.csv", table().split("\n", 1)[1].encode(), "has no column 'content' for the content; it has"),
        ("a.csv", b"content,title,date\n", "is empty"),
        *(
            ("a.csv", table().replace(",", mark).encode(), "separate the columns by commas, tabs, semicolons or bars")
            for mark in ("^", "~", "\x01", "，", "、")
        ),
        ("a.csv", f"報表：新聞清單\n\n{table()}".encode(), "and remove what stands above their names"),
        ("a.csv", b'content,title\n"a \\"b\\" c",d\n', "a quotation mark inside a cell must be written twice"),
        ("a.jsonl", jsonl().replace("\n", "\r", 3).replace("\r", "\n", 1).encode(), "more than one value in the line"),
        ("a.csv", b'content,title\n"' + b"x" * (9 * 2**20), "a field over 8 MiB, or a quotation mark never closed"),
        ("a.json", b"[]", "is empty"),
        ("a.json", b"  \n", "is empty"),
        ("a.json", json.dumps(ROWS)[:-30].encode(), "near line 1: not JSON"),
        ("a.json", json.dumps(ROWS, indent=1).replace("},", "}", 1).encode(), "not JSON ('{' between two items)"),
        ("a.json", b'[{"content": "' + b"x" * (10 * 2**20) + b'"', "a value over 8 MiB"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b"[1, 2]", "item 1 cannot be read: int instead of an object"),
        ("a.json", b"[[1], [2]]", "item 1 cannot be read: list instead of an object"),
        ("a.json", b'"text"', "item 1 cannot be read: str instead of an object"),
        ("a.json", json.dumps({"news": ROWS, "sports": ROWS}).encode(), "several lists: news, sports"),
        ("a.json", json.dumps({"content": ["a", "b"], "title": ["c", "d"]}).encode(), "is a table by columns"),
        ("a.json", json.dumps({"content": {"0": "a"}, "title": {"0": "c"}}).encode(), "is a table by columns"),
        ("a.jsonl", jsonl().encode() + b"[" * 100_000 + b"\n", "line 7 cannot be read: nested too deeply"),
        ("a.jsonl", jsonl().encode() + b'{"content": ' + b"1" * 5000 + b"}\n", "line 7 cannot be read: not JSON"),
        ("a.jsonl", jsonl().encode("utf-16")[:-3], "is not UTF-16 to its end"),
        ("a.csv", table().encode("utf-16")[:-3], "not UTF-16"),
        ("a.jsonl.gz", gzip.compress(jsonl().encode())[:-20], "cannot be read to its end"),
        ("a.csv.gz", gzip.compress(table().encode())[:-20], "cannot be read to its end"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd....", "it is compressed with zstd"),
        ("a.csv", b"PK\x03\x04....", "it is a workbook or ZIP archive; save the sheet as CSV UTF-8"),
        ("a.xls", b"\xd0\xcf\x11\xe0....", "an old Excel or Word document"),
        ("a.csv.gz", gzip.compress(gzip.compress(table().encode())), "compressed twice; unpack it with `gunzip` once"),
        ("a.csv", b"7z\xbc\xaf\x27\x1c....", "a 7z archive"),
        ("a.csv", b"Rar!\x1a\x07....", "a RAR archive"),
        (
            "a.csv",
            (b"a.csv".ljust(257, b"\0") + b"ustar\0").ljust(512, b"\0"),
            "a tar archive; unpack it with `tar -xf`",
        ),
        ("a.tar.gz", gzip.compress((b"a.csv".ljust(257, b"\0") + b"ustar\0").ljust(512, b"\0")), "a tar archive"),
        ("a.pkl", b"\x80\x04\x95....", "a Python pickle"),
        ("a.npy", b"\x93NUMPY....", "a NumPy array"),
        ("a.avro", b"Obj\x01....", "an Avro file"),
        ("a.txt", b"{\\rtf1\\ansi {}}", "an RTF document"),
        *(
            (name, b"<!DOCTYPE html>\n<html><title>404</title></html>\n", "an HTML page; download the file again")
            for name in ("a.csv", "a.jsonl", "a.parquet", "a.arrow", "a.json")
        ),
        ("a.xls", "\ufeff<table><tr><td>標題</td></tr></table>".encode(), "open the table in a spreadsheet"),
        ("a.csv", b'<?xml version="1.0"?>\n<rss><channel/></rss>', "it is XML; write its articles as JSONL or CSV"),
        *(
            (name, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "with `git lfs pull`")
            for name in ("a.csv", "a.jsonl", "a.parquet", "a.arrow", "a.json")
        ),
        ("a.parquet", b"", "is not a Parquet file, or is cut off"),
        ("a.arrow", b"x", "is not an Arrow file, or is cut off"),
        ("a.txt", "一篇文章".encode(), "ends in none of .jsonl, .ndjson, .json, .csv"),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_read_is_one_line_with_its_place(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        read(path)
    assert message in str(error.value)
    assert name in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("padding", ["\0" * 600, "\x1a", "\n\x1a\n", "\r\n\0"], ids=repr)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_padding_behind_the_last_line_is_no_row(tmp_path: Path, name: str, padding: str) -> None:
    path = tmp_path / name
    path.write_bytes(((table() if name == "a.csv" else jsonl()) + padding).encode())
    assert texts(read(path)) == EXPECTED


def test_cells_that_a_spreadsheet_was_to_take_for_text_are_that_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'id,title,content\n="0012","=""{T}""",{A}\n\'0013,\'{T},\'{A}\'\n', encoding="utf-8")
    # What is quoted by a pair stays so.
    assert [(row.id, row.title, row.content) for row in read(path)] == [("0012", T, A), ("0013", T, f"'{A}'")]


@pytest.mark.fault
@pytest.mark.parametrize(
    "text",
    [
        f"'title','content'\n'{T}','{A}'\n",
        f"'title', 'content'\n'{T}', '{A}'\n",
        f"'title'\t'content'\n'{T}'\t'{A}'\n",
        f"'title','content'\n{T},{A}\n",
        f"“title”,“content”\n“{T}”,“{A}”\n",
        f"`title`|`content`\n{T}|{A}\n",
        f"[title];[content]\n{T};{A}\n",
        f'"""title""","""content"""\n"""{T}""","""{A}"""\n',
        f'"""title""","""content"""\n{T},{A}\n',
        f'\\"title\\",\\"content\\"\n\\"{T}\\",\\"{A}\\"\n',
        f'"title" , "content"\n"{T}" , "{A}"\n',
        f'"title" | "content"\n"{T}" | "{A}"\n',
        f'"title,content"\n"{T},""{A}"""\n',
        f"#title,content\n{T},{A}\n",
        f"# title\tcontent\n{T}\t{A}\n",
        f'"title","content","tags, and\nmore"\n"{T}","{A}","a,b"\n',
    ],
    ids=lambda text: text.partition("\n")[0],
)
def test_names_of_columns_in_any_quotation_marks(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    assert [(row.title, row.content) for row in read(path)] == [(T, A)]


@pytest.mark.fault
def test_cells_in_single_quotation_marks_hold_delimiters_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"'id','title','content'\n'1','{T}, 其二','{A}\n第二段, ''引文''。'\n", encoding="utf-8")
    assert [(row.id, row.title, row.content) for row in read(path)] == [
        ("1", f"{T}, 其二", f"{A}\n第二段, '引文'。"),
    ]


@pytest.mark.fault
def test_marks_that_belong_to_a_cell_stay_where_the_names_have_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"title,content\n“{T}”,'{A}'\n「{T}」,{A}\n", encoding="utf-8")
    assert [(row.title, row.content) for row in read(path)] == [(f"“{T}”", f"'{A}'"), (f"「{T}」", A)]


@pytest.mark.fault
def test_a_name_with_a_space_is_quoted_for_the_shell(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'title,"content\n(全文)"\n{T},{A}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"--data\.content-column 'content \(全文\)'$"):
        read(path)
    assert read(path, content_column="content (全文)")[0].content == A


def test_columns_are_known_by_their_names_in_simplified_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"标题,正文,发布时间\n{T},{A},2024-05-01\n", encoding="utf-8")
    assert [(row.title, row.content, row.date) for row in read(path)] == [(T, A, "2024-05-01")]


@pytest.mark.fault
@pytest.mark.parametrize("own", [b"\xfa\x40", b"\x81\x40", b"\xfe\xfe", b"\xc8\xfe"])
def test_big5_with_characters_that_its_users_added_is_called_big5(tmp_path: Path, own: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(table().encode("cp950").replace("，".encode("cp950"), own))
    with pytest.raises(DataError, match="iconv -f BIG5"):
        read(path)
    # Where it is named, the first row with such a character is, for every reader.
    message = rf"line 2 cannot be read: not CP950 \(byte 0x{own[0]:02x}"
    with pytest.raises(DataError, match=message):
        read(path, encoding="big5")
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl().encode("cp950").replace("，".encode("cp950"), own, 1))
    with pytest.raises(DataError, match=message.replace("2", "1", 1)):
        read(path, encoding="big5")
    problems = [row.problem for row in read(path, encoding="big5", strict=False)]
    assert [bool(problem) for problem in problems] == [True] + [False] * 5


@pytest.mark.fault
def test_the_characters_of_hong_kong_have_an_encoding_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(table().replace("，", "啲嘢𠝹", 1).encode("big5hkscs"))
    with pytest.raises(DataError, match="may be BIG5 or GB18030 or BIG5-HKSCS"):
        read(path)
    assert "啲嘢𠝹" in read(path, encoding="Big5-HKSCS")[0].content


@pytest.mark.fault
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("codec", "named"),
    [
        ("cp950", "Big-5 "),
        ("cp950", "ms950"),
        ("cp950", "CP950"),
        # What Windows calls GB2312 has more characters than that.
        ("gb18030", "GB2312"),
        ("gb18030", "gbk"),
        # Without the mark that Python's reader asks for, and with one that says another thing.
        ("utf-16-le", "utf-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32-be", "utf-32"),
        ("utf-8-sig", "big5"),
        ("utf-16", "big5"),
    ],
)
def test_an_encoding_is_known_by_what_people_call_it(tmp_path: Path, name: str, codec: str, named: str) -> None:
    path = tmp_path / name
    path.write_bytes((jsonl() if name == "a.jsonl" else table()).encode(codec))
    assert texts(read(path, encoding=named)) == EXPECTED


@pytest.mark.fault
@pytest.mark.parametrize("named", ["hex", "rot13", "base64", "idna", "undefined", "unicode_escape", "mbcs", "utf9"])
def test_what_is_no_encoding_of_files_is_refused(tmp_path: Path, named: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(table(), encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.encoding .* is no encoding; use big5"):
        read(path, encoding=named)


@pytest.mark.fault
@pytest.mark.parametrize(("codec", "named"), [("cp950", "BIG5"), ("gb18030", "GB18030")])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("header", [["title", "content"], ["標題", "內文"]])
def test_an_older_encoding_is_read_only_when_it_is_named(
    tmp_path: Path, name: str, codec: str, named: str, header: list[str]
) -> None:
    rows = [{header[0]: row["title"], header[1]: row["content"]} for row in ROWS]
    text = jsonl() if name == "a.jsonl" else "\n".join([",".join(header), *(",".join(r.values()) for r in rows)])
    path = tmp_path / name
    path.write_bytes(text.encode(codec))
    with pytest.raises(DataError, match=rf"is not UTF-8; its bytes may be [^,]*{named}.*iconv -f .*--data\.encoding"):
        read(path)
    assert texts(read(path, encoding=named.lower())) == EXPECTED
    with pytest.raises(DataError, match=r"data\.encoding 'klingon' is no encoding"):
        read(path, encoding="klingon")


@pytest.mark.fault
def test_generate_goes_on_past_a_row_that_stops_prepare(tmp_path: Path) -> None:
    lines = [json.dumps(row).encode() for row in ROWS]
    broken = [b"{", b"\xff", b"[1]", b"NaN", b'{"content": "' + b"x" * (9 * 2**20) + b'"}']
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*lines[:3], *broken, *lines[3:]]))
    rows = read(path, strict=False)
    assert [row.problem.split(" (")[0] for row in rows if row.problem] == [
        *("not JSON", "not UTF-8", "list instead of an object {...}", "float instead of an object {...}"),
        "line over 8 MiB",
    ]
    assert texts([row for row in rows if not row.problem]) == EXPECTED
    assert [row.number for row in rows] == list(range(1, 12))
    path = tmp_path / "a.csv"
    path.write_text(table(end="\n").replace("\n", '\n"a"b,c\nd\ne,f,g,h\n', 1), encoding="utf-8")
    rows = read(path, strict=False)
    assert [row.number for row in rows if row.problem] == [2, 3, 4]
    assert texts(rows[3:]) == EXPECTED


def test_a_line_over_the_limit_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl() + json.dumps({**article(9), "scan": "x" * (9 * 2**20)}), encoding="utf-8")
    rows = read(path)
    assert (texts(rows[:6]), rows[6].problem) == (EXPECTED, "line over 8 MiB")


# Folders


def test_a_folder_is_one_source(tmp_path: Path) -> None:
    folder = tmp_path / "news [2024]"
    (folder / "deep" / "er").mkdir(parents=True)
    write_jsonl(folder / "a.jsonl", ROWS[:2])
    (folder / "deep" / "b.CSV").write_text(table(), encoding="utf-16")
    (folder / "deep" / "er" / "c.json.gz").write_bytes(gzip.compress(json.dumps(ROWS[2:4]).encode()))
    for name in ("README.md", ".hidden.jsonl", "_SUCCESS", "dataset_info.json", "empty.jsonl", "~$b.csv", "#c.csv"):
        (folder / name).write_text("", encoding="utf-8")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "z.jsonl").symlink_to(folder / "a.jsonl")
    source = open_source(DataSettings(source=str(folder)))
    assert texts(list(source.rows)) == EXPECTED[:2] + EXPECTED + EXPECTED[2:4]
    assert source.findings.passed_over == ("README.md",)
    assert list(source.findings.files.values()) == ["JSON lines", "CSV, commas, UTF-16", "JSON array"]
    assert texts(read(f"{glob.escape(str(folder))}/**/*.gz")) == EXPECTED[2:4]
    assert texts(read(f"{tmp_path}/*")) == texts(read(folder))
    before = source_digest(DataSettings(source=str(folder)))
    write_jsonl(folder / "a.jsonl", ROWS[:1])
    assert source_digest(DataSettings(source=str(folder))) != before


@pytest.mark.fault
def test_a_folder_without_tables_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").touch()
    with pytest.raises(DataError, match=r"has no file that ends in .*; it has notes\.docx"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"nothing\*' does not exist; check the path"):
        read(tmp_path / "nothing*")
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(DataError, match="is empty"):
        read(tmp_path)


# Cells


def turns(*said: tuple[str, Any], speaker: str = "role", speech: str = "content") -> list[dict[str, Any]]:
    return [{speaker: who, speech: what} for who, what in said]


CHATS: list[dict[str, Any]] = [
    {"messages": turns(("system", "你是編輯" * 20), ("user", A), ("assistant", T))},
    {"messages": turns(("User", A), ("Assistant", T))},
    {"messages": json.dumps(turns(("user", A), ("assistant", T)))},
    {"messages": turns(("user", [{"type": "text", "text": A}]), ("assistant", [{"type": "text", "text": T}]))},
    {"messages": turns(("user", [{"type": "image_url", "image_url": {}}, {"type": "text", "text": A}]), ("model", T))},
    {"messages": turns(("user", "請看下文"), ("user", A), ("assistant", T))},
    {"messages": turns(("user", A), ("assistant", T), ("user", "再短一點"), ("assistant", "短"))},
    {"conversations": turns(("human", A), ("gpt", T), speaker="from", speech="value")},
    {"conversations": turns(("system", "x"), ("human", A), ("gpt", T), speaker="from", speech="value")},
    {"conversation": [{"system": "x", "input": A, "output": T}]},
    {"conversation": [{"human": A, "assistant": T}]},
    {"conversations": [A, T]},
    {"messages": {"messages": turns(("user", A), ("assistant", T))}},
    {"prompt": turns(("user", A)), "completion": turns(("assistant", T))},
    {"prompt": A, "completion": T},
    {"prompt": A, "response": T},
    {"prompt": A, "label": T, "predict": "猜"},
    {"instruction": "寫標題", "input": A, "output": T},
    {"instruction": A, "input": "", "output": T},
    {"instruction": A, "output": T},
    {"instruction": "寫標題", "input": A, "output": T, "text": "### 寫標題"},
    {"content": [A[:5], A[5:]], "title": [T]},
    {"content": {"text": A}, "title": {"rendered": T}},
    {"content": [{"type": "paragraph", "text": A}], "title": T},
    {"content": [{"text": A}, {"type": "image", "src": "x"}], "title": T},
    {"content": {"body": A, "lang": "zh"}, "title": T},
    {"content": {"only": {"text": [A]}}, "title": T},
    {"messages": turns(("user", A), ("assistant", ""), ("assistant", T))},
    {"messages": turns(("user", A), ("assistant", None), ("tool", "x" * 99), ("assistant", T))},
    {"messages": turns(("user", A), ("assistant", f"<think>先想\n一想</think>\n\n{T}"))},
    {
        "messages": turns(
            ("user", A), ("assistant", [{"type": "thinking", "thinking": "想"}, {"type": "text", "text": T}])
        )
    },
    {"content": json.dumps([A[:5], A[5:]]), "title": json.dumps({"rendered": T})},
    {"content": json.dumps({"text": A}, indent=1), "title": json.dumps([T])},
    {"content": repr([A[:5], A[5:]]), "title": repr({"text": T, "lang": None})},
    {"content": f"['{A[:5]}'\n '{A[5:]}']", "title": T},
    {"content": repr([{"type": "paragraph", "text": A}]), "title": T},
    {"messages": repr(turns(("user", A), ("assistant", T)))},
    {
        "content": {"blocks": [{"key": "a", "text": A, "type": "unstyled", "data": {"k": 1}}], "entityMap": {"k": 1}},
        "title": T,
    },
    {"content": {"time": 1, "blocks": [{"type": "paragraph", "data": {"text": A}}], "version": "2"}, "title": T},
    {
        "content": {
            "type": "doc",
            "content": [
                {"type": "paragraph", "content": [{"type": "text", "text": A}]},
                {"type": "image", "attrs": {"k": 1}},
            ],
        },
        "title": T,
    },
    {"turns": turns(("user", A), ("assistant", T))},
    {"prompt": turns(("user", A)), "chosen": turns(("assistant", T)), "rejected": turns(("assistant", "差"))},
    {"input_text": A, "output_text": T},
    # As Gemini has it: the turns in contents, their texts in parts.
    {"contents": turns(("user", [{"text": A}]), ("model", [{"text": T}]), speech="parts")},
    {
        "systemInstruction": {"role": "system", "parts": [{"text": "你是編輯" * 20}]},
        "contents": turns(("user", [{"text": A}]), ("model", [{"text": T}]), speech="parts"),
    },
    {
        "contents": turns(
            ("user", [{"text": A[:5]}, {"inlineData": {"mimeType": "image/png", "data": "eA=="}}, {"text": A[5:]}]),
            ("model", [{"text": "先想一想", "thought": True}, {"text": T}]),
            speech="parts",
        )
    },
    {"contents": turns(("user", [{"fileData": {"fileUri": "x"}}, {"text": A}]), ("model", [T]), speech="parts")},
    {"contents": json.dumps(turns(("user", [{"text": A}]), ("model", [{"text": T}]), speech="parts"))},
    {"contents": turns(("user", [{"text": A}]), speech="parts"), "title": T},
    {"contents": turns(("user", {"text": A}), speech="parts"), "title": T},
    {"contents": A, "title": T},
    # Speakers and speech under other names, in other languages, and calls of tools between them.
    {"messages": turns(("user", A), ("assistant", T), speaker="author")},
    {"messages": turns(("user", A), ("bot", T), speaker="sender", speech="text")},
    {"messages": turns(("user", A), ("assistant", T), speech="message")},
    {"messages": turns(("使用者", A), ("助理", T))},
    {"conversations": turns(("Q", A), ("A", T), speech="text")},
    {"conversations": turns(("human", A), ("bard", T), speaker="from", speech="value")},
    {"conversations": turns(("human", A), ("function_call", "{}"), ("observation", "好"), ("gpt", T), speaker="from")},
    {
        "messages": [
            *turns(("user", A)),
            {"role": "assistant", "channel": "analysis", "content": "We"},
            *turns(("gpt", T)),
        ]
    },
    {
        "messages": turns(
            ("user", A), ("assistant", [{"type": "tool_use", "id": "1", "input": {}}, {"type": "text", "text": T}])
        )
    },
    {
        "contents": turns(
            ("user", [{"text": A}]), ("model", [{"functionCall": {"name": "f"}}, {"text": T}]), speech="parts"
        )
    },
    {"messages": json.dumps(json.dumps(turns(("user", A), ("assistant", T))))},
    {"query": A, "response": T, "history": []},
    {"instruction": "寫標題", "context": A, "response": T},
    {"prompt": A, "completion": T, "label": True},
    # Texts as JSON or Python print them.
    {"content": json.dumps(A, ensure_ascii=False), "title": json.dumps(T)},
    {"content": repr(A.encode()), "title": T},
]


@pytest.mark.parametrize("record", CHATS, ids=range(len(CHATS)))
def test_structured_cells_are_flattened(tmp_path: Path, record: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = read(write_jsonl(tmp_path / "a.jsonl", [record, record]))
    with contextlib.suppress(pa.ArrowInvalid):  # cells of two types, which Arrow has not
        pq.write_table(pa.Table.from_pylist([record, record]), tmp_path / "a.parquet")
        assert texts(found) == texts(read(tmp_path / "a.parquet"))
    assert [(str(row.content).replace("\n", ""), row.title) for row in found] == [(A, T)] * 2
    source = open_source(DataSettings(source=str(tmp_path / "a.jsonl")))
    cells = [value for key, value in record.items() if key not in {"history", "label"}]
    structured = any(not isinstance(value, str) or value[:1] in ("[", "{", '"', "b") for value in cells)
    assert (sum(1 for _ in source.rows), bool(source.findings.flattened)) == (2, structured)


def span(text: str, **marks: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **marks}


# The two paragraphs of an article as editors store them, the first in two runs, around a picture.
LEAD, REST = "市府公布新制，明年上路。", "里長說，居民已經等了三年。"
RUNS = [span(LEAD[:5], marks=[{"type": "bold"}]), span(LEAD[5:])]
PICTURE = {"type": "image", "attrs": {"src": "x"}}
DOCUMENTS: dict[str, Any] = {
    "quill": {
        "ops": [
            {"insert": LEAD[:5], "attributes": {"bold": True}},
            {"insert": f"{LEAD[5:]}\n"},
            {"insert": {"image": "x"}},
            {"insert": f"{REST}\n"},
        ]
    },
    "quill's list": [{"insert": f"{LEAD}\n"}, {"insert": f"{REST}\n", "attributes": {"align": "center"}}],
    "draft.js": {
        "blocks": [
            {"key": "a", "text": LEAD, "type": "unstyled", "data": {"k": 1}},
            {"key": "b", "text": " ", "type": "atomic"},
            {"key": "c", "text": REST, "type": "unstyled"},
        ],
        "entityMap": {"0": {"type": "IMAGE"}},
    },
    "draft.js alone": {"blocks": [{"text": LEAD, "type": "unstyled"}, {"text": REST, "type": "unstyled"}]},
    "editor.js": {
        "time": 1,
        "version": "2",
        "blocks": [
            {"type": "header", "data": {"text": LEAD, "level": 2}},
            {"type": "image", "data": {"file": {"url": "x"}, "caption": "圖說"}},
            {"type": "delimiter", "data": {"k": 1}},
            {"type": "embed", "data": {"service": "youtube", "source": "x", "caption": "圖說"}},
            {"type": "list", "data": {"style": "ordered", "items": [REST]}},
        ],
    },
    "editor.js nested list": {
        "blocks": [
            {"type": "paragraph", "data": {"text": LEAD}},
            {"type": "list", "data": {"items": [{"content": REST, "items": []}]}},
        ]
    },
    "prosemirror": {
        "type": "doc",
        "content": [
            {"type": "paragraph", "attrs": {"textAlign": "left"}, "content": RUNS},
            PICTURE,
            {
                "type": "bulletList",
                "content": [{"type": "listItem", "content": [{"type": "paragraph", "content": [span(REST)]}]}],
            },
        ],
    },
    "tiptap's list": [{"type": "paragraph", "content": RUNS}, {"type": "paragraph", "content": [span(REST)]}],
    "hard break": {
        "type": "doc",
        "content": [{"type": "paragraph", "content": [span(LEAD), {"type": "hardBreak"}, span(REST)]}],
    },
    "slate": [
        {"type": "paragraph", "children": [{"text": LEAD[:5], "bold": True}, {"text": LEAD[5:]}]},
        {"type": "image", "children": [{"text": ""}]},
        {"type": "paragraph", "children": [{"text": REST}]},
    ],
    "slate link": [
        {"children": [{"text": LEAD[:5]}, {"type": "link", "url": "x", "children": [{"text": LEAD[5:]}]}]},
        {"children": [{"text": REST}]},
    ],
    "lexical": {
        "root": {
            "type": "root",
            "children": [
                {"type": "paragraph", "children": RUNS, "indent": 0},
                {"type": "paragraph", "children": [span(REST)]},
            ],
        }
    },
    "contentful": {
        "nodeType": "document",
        "content": [
            {"nodeType": "paragraph", "content": [{"nodeType": "text", "value": LEAD, "marks": []}]},
            {"nodeType": "embedded-asset-block", "content": []},
            {"nodeType": "paragraph", "content": [{"nodeType": "text", "value": REST}]},
        ],
    },
    "portable text": [
        {
            "_type": "block",
            "style": "normal",
            "children": [{"_type": "span", "text": LEAD[:5], "marks": ["em"]}, {"_type": "span", "text": LEAD[5:]}],
        },
        {"_type": "image", "asset": {"_ref": "x"}},
        {"_type": "block", "children": [{"_type": "span", "text": REST}]},
    ],
    "notion": [
        {"type": "paragraph", "paragraph": {"rich_text": [{"plain_text": LEAD[:5]}, {"plain_text": LEAD[5:]}]}},
        {"type": "image", "image": {"file": {"url": "x"}}},
        {"type": "quote", "quote": {"rich_text": [{"plain_text": REST}]}},
    ],
    "notion's texts": [
        {"type": "paragraph", "paragraph": {"rich_text": [{"type": "text", "text": {"content": text}}]}}
        for text in (LEAD, REST)
    ],
    "wordpress": [
        {"blockName": "core/paragraph", "innerHTML": LEAD, "innerBlocks": []},
        {
            "blockName": "core/group",
            "innerHTML": "",
            "innerBlocks": [
                {"blockName": "core/paragraph", "innerHTML": REST},
                {"blockName": "core/image", "innerHTML": "圖說"},
            ],
        },
    ],
}


@pytest.mark.fault
@pytest.mark.parametrize("editor", DOCUMENTS)
@pytest.mark.parametrize("as_text", [False, True])
def test_documents_of_editors_are_read_run_by_run_and_paragraph_by_paragraph(
    tmp_path: Path, editor: str, as_text: bool
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    document = DOCUMENTS[editor]
    rows = [{"content": json.dumps(document, ensure_ascii=False) if as_text else document, "title": T}]
    assert texts(read(write_jsonl(tmp_path / "a.jsonl", rows))) == [(f"{LEAD}\n{REST}", T)]
    with contextlib.suppress(pa.ArrowInvalid):  # nodes of two types, which Arrow has not
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        assert texts(read(tmp_path / "a.parquet")) == [(f"{LEAD}\n{REST}", T)]


@pytest.mark.fault
def test_a_document_that_is_endlessly_deep_is_no_text(tmp_path: Path) -> None:
    node: dict[str, Any] = span(LEAD)
    for _ in range(200):
        node = {"type": "blockquote", "children": [node]}
    (row,) = read(write_jsonl(tmp_path / "a.jsonl", [{"content": [node], "title": T}]))
    assert not isinstance(row.content, str)


@pytest.mark.fault
def test_quotation_marks_around_most_answers_of_a_model_go() -> None:
    titles = [f"「標題{number}號」" for number in range(4)]
    assert find_quotes([*titles, "「甲」與「乙」"]) == "「」"
    assert [without_quotes(title, "「」") for title in ("「甲」", "「甲」與「乙」", "甲", "『甲』")] == [
        *("甲", "「甲」與「乙」", "甲", "『甲』")
    ]
    assert find_quotes([*titles, *["標題"] * 4]) == ""
    assert find_quotes(titles[:2]) == ""


@pytest.mark.fault
def test_quotation_marks_of_a_newsroom_stay_and_those_of_a_model_go(tmp_path: Path) -> None:
    chats = [{"messages": turns(("user", row["content"]), ("assistant", f"「{row['title']}」"))} for row in ROWS]
    source = open_source(DataSettings(source=str(write_jsonl(tmp_path / "a.jsonl", chats))))
    assert texts(list(source.rows)) == EXPECTED
    assert source.findings.flattened["title, quotation marks"] == len(ROWS)
    plain = [{**row, "title": f"「{row['title']}」"} for row in ROWS]
    assert [row.title for row in read(write_jsonl(tmp_path / "b.jsonl", plain))] == [row["title"] for row in plain]


@pytest.mark.fault
def test_one_record_of_conversations_is_no_table_by_columns(tmp_path: Path) -> None:
    record = {"prompt": turns(("user", A)), "chosen": turns(("assistant", T)), "rejected": turns(("assistant", "差"))}
    assert texts(read(write_jsonl(tmp_path / "a.jsonl", [record]))) == [(A, T)]


@pytest.mark.fault
@pytest.mark.parametrize(
    "value",
    [
        5,
        1.5,
        True,
        math.inf,
        {},
        [],
        [[]],
        {"zh": A, "en": "x"},
        [A, 5],
        [[[[[[A]]]]]],
        {"text": A, "body": A},
        [{}],
        json.dumps({"zh": A, "en": "x"}),
        repr({"zh": A, "en": A}),
    ],
    ids=str,
)
def test_a_cell_whose_meaning_is_not_clear_is_left_out(tmp_path: Path, value: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"content": value, "title": T}, {"content": A, "title": T}])
    first, second = read(path)
    assert not isinstance(first.content, str)
    assert second.content == A


@pytest.mark.parametrize("value", [None, math.nan], ids=str)
def test_a_missing_value_is_missing(tmp_path: Path, value: Any) -> None:
    assert read(write_jsonl(tmp_path / "a.jsonl", [{"content": value, "title": value}]))[0].content is None


@pytest.mark.fault
@pytest.mark.parametrize("cell", ["no JSON", "[1, 2]", '{"a": 1}', "[{'role': 'user', 'content': x}]", "null"])
def test_a_chat_that_is_none_is_no_article(tmp_path: Path, cell: str) -> None:
    (row,) = read(write_jsonl(tmp_path / "a.jsonl", [{"messages": cell}]))
    assert not isinstance(row.content, str)
    assert not isinstance(row.title, str)


ORDER = "請為以下新聞寫一個標題："


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (ORDER, ""),
        (f"{ORDER}\n", ""),
        (f"{ORDER}\n\n「", ""),
        (f"你是編輯。\n{ORDER}\n\n新聞：", ""),
        ("Write a headline for this article.\n\nArticle:\n", ""),
        ("以下是今天的稿子\n", ""),
        ("", "\n\n請為上面的新聞寫一個標題。"),
        (f"{ORDER}\n", "\n\n標題請給我十五字以內："),
        ("以下是一篇新聞，請下標題。\n\n", "\n\n標題："),
        (ORDER, "\n### Response:\n"),
    ],
)
def test_an_instruction_that_all_turns_share_is_taken_off(tmp_path: Path, before: str, behind: str) -> None:
    rows = [
        {"messages": turns(("user", f"{before}{row['content']}{behind}"), ("assistant", row["title"]))} for row in ROWS
    ]
    source = open_source(DataSettings(source=str(write_jsonl(tmp_path / "a.jsonl", rows))))
    assert texts(list(source.rows)) == EXPECTED
    assert sum(source.findings.instructions.values()) == 6


def test_each_of_several_instructions_is_taken_off() -> None:
    orders = [ORDER, "根據下文擬定新聞標題：\n", "Generate a title for:\n"]
    found = find_instructions([orders[number % 3] + article(number)["content"] for number in range(60)])
    for number in range(60):
        content = article(number)["content"]
        assert found.take_off(orders[number % 3] + content) == (content, orders[number % 3].strip())


@pytest.mark.fault
def test_what_belongs_to_the_articles_stays() -> None:
    same_town = [f"山腳鎮公所{article(number)['content']}" for number in range(40)]
    found = find_instructions(same_town)
    assert [found.take_off(text)[0] for text in same_town] == same_town
    # Two that are nearly one.
    twins = [f"{A}\n{A}第一版", f"{A}\n{A}第二版"]
    assert [find_instructions(twins).take_off(text)[0] for text in twins] == twins
    assert find_instructions([ORDER, ORDER]).take_off(ORDER)[0] == ORDER
    assert find_instructions([]).take_off(A) == (A, "")


# Values


def write_parquet(path: Path, **columns: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def arrow_columns() -> dict[str, Any]:
    import pyarrow as pa

    contents, titles = [row["content"] for row in ROWS], [row["title"] for row in ROWS]
    return {
        "large_string": (pa.array(contents, pa.large_string()), pa.array(titles, pa.large_string())),
        "view": (pa.array(contents, pa.string_view()), pa.array(titles, pa.string_view())),
        "binary": (pa.array([c.encode() for c in contents]), pa.array([t.encode() for t in titles], pa.large_binary())),
        "dictionary": (pa.array(contents).dictionary_encode(), pa.array(titles).dictionary_encode()),
        "list": (
            pa.array([[c[:9], c[9:]] for c in contents]),
            pa.array([[t] for t in titles], pa.large_list(pa.string())),
        ),
        "struct": (pa.array([{"text": c} for c in contents]), pa.array([{"rendered": t} for t in titles])),
        "map": (
            pa.array([[("text", c)] for c in contents], pa.map_(pa.string(), pa.string())),
            pa.array([[("text", t)] for t in titles], pa.map_(pa.string(), pa.string())),
        ),
    }


@pytest.mark.parametrize("kind", ["large_string", "view", "binary", "dictionary", "list", "struct", "map"])
def test_texts_of_every_arrow_type_are_read(tmp_path: Path, kind: str) -> None:
    content, title = arrow_columns()[kind]
    rows = read(write_parquet(tmp_path / "a.parquet", content=content, title=title))
    assert [(row.content.replace("\n", ""), row.title) for row in rows] == EXPECTED


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([dt.datetime(2024, 5, 1, 8)], ("timestamp", "ns", None), dt.datetime(2024, 5, 1, 8)),  # noqa: DTZ001
        ([1714521600000000001], ("timestamp", "ns", None), dt.datetime(2024, 5, 1)),  # noqa: DTZ001
        ([1714521600000000001], ("timestamp", "ns", "Asia/Taipei"), dt.datetime(2024, 5, 1, tzinfo=dt.UTC)),
        ([1714521600], ("timestamp", "s", "+08:00"), dt.datetime(2024, 5, 1, tzinfo=dt.UTC)),
        ([dt.date(2024, 5, 1)], ("date32",), dt.date(2024, 5, 1)),
        ([dt.date(2024, 5, 1)], ("date64",), dt.date(2024, 5, 1)),
        ([None], ("timestamp", "ns", None), None),
        ([decimal.Decimal("20240501.00")], ("decimal128", 12, 2), 20240501),
        ([10**9], ("date32",), "1000000000"),
        ([2**62], ("timestamp", "us", None), str(2**62)),
    ],
    ids=str,
)
def test_moments_and_numbers_of_every_arrow_type_are_python_values(
    tmp_path: Path, values: list[Any], kind: tuple[Any, ...], expected: Any
) -> None:
    import pyarrow as pa

    arrow_type = getattr(pa, kind[0])(*[part for part in kind[1:] if part is not None])
    column = pa.array(values, pa.int32()).cast(arrow_type) if values == [10**9] else pa.array(values, arrow_type)
    (row,) = read(write_parquet(tmp_path / "a.parquet", content=[A], title=[T], date=column))
    assert row.date == expected


def invalid_strings(kind: str, values: list[bytes]) -> Any:
    import pyarrow as pa

    column = pa.array(values, pa.binary()).view(pa.string())
    return pa.StructArray.from_arrays([column], ["text"]) if kind == "struct" else column


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["string", "struct"])
@pytest.mark.parametrize("column", ["content", "title", "id", "source", "date"])
def test_invalid_utf8_of_arrow_names_its_column_and_row(tmp_path: Path, kind: str, column: str) -> None:
    values = [text.encode() for text in ("甲", "乙", "丙")]
    values[1] = b"\xd4x"
    columns = {"content": [A] * 3, "title": [T] * 3, column: invalid_strings(kind, values)}
    path = write_parquet(tmp_path / "a.parquet", **columns)
    with pytest.raises(
        DataError, match=rf"a\.parquet, row 2 cannot be read: column '{column}' is not UTF-8 \(byte 0xd4"
    ):
        read(path)
    assert [bool(row.problem) for row in read(path, strict=False)] == [False, True, False]


@pytest.mark.fault
def test_invalid_utf8_among_categories_refuses_the_file(tmp_path: Path) -> None:
    import pyarrow as pa

    # Arrow itself refuses the whole column.
    categories = pa.DictionaryArray.from_arrays([0, 1], invalid_strings("string", [A.encode(), b"\xd4x"]))
    with pytest.raises(DataError, match=r"a\.parquet cannot be read: Invalid UTF8 payload"):
        read(write_parquet(tmp_path / "a.parquet", content=categories, title=[T] * 2))


@pytest.mark.fault
def test_a_parquet_file_of_no_rows_or_two_like_columns_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DataError, match="is empty"):
        read(write_parquet(tmp_path / "a.parquet", content=pa.array([], pa.string()), title=pa.array([], pa.string())))
    twice = pa.Table.from_arrays([pa.array([A])] * 3, names=["content", "title", "title"])
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="2 columns named 'title'"):
        read(tmp_path / "b.parquet")
    data = write_parquet(tmp_path / "c.parquet", content=[A], title=[T]).read_bytes()
    for length in (0, 3, 40, len(data) - 4, len(data) - 1):
        (tmp_path / "c.parquet").write_bytes(data[:length])
        with pytest.raises(DataError, match="is not a Parquet file, or is cut off"):
            read(tmp_path / "c.parquet")


def test_what_datasets_saves_is_read(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")})
    saved.save_to_disk(str(tmp_path / "saved"))
    rows = read(tmp_path / "saved")
    assert texts(rows) == EXPECTED * 2
    assert {row.part for row in rows} == {0, 1}


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        (7, 7),
        ("7", "7"),
        (7.0, 7),
        (math.nan, None),
        (None, None),
        (True, None),
        ([1], None),
        ({"$oid": "65f0"}, "65f0"),
        ("NULL", None),
        ("\\N", None),
    ],
    ids=str,
)
def test_an_id_is_text_or_a_whole_number(tmp_path: Path, value: Any, identity: Any) -> None:
    (row,) = read(write_jsonl(tmp_path / "a.jsonl", [{"content": A, "title": T, "id": value}]))
    assert row.id == identity


def test_a_profile_with_a_byte_order_mark_or_in_utf16_is_read(tmp_path: Path) -> None:
    for codec in ("utf-8-sig", "utf-16"):
        (tmp_path / "p.toml").write_text('output = "x"\n', encoding=codec)
        assert read_profile(str(tmp_path / "p.toml")) == {"output": "x"}


# Anything


names = st.sampled_from(["content", "title", "id", "date", "messages", "input", "output", " Title", "", "\ud800", "x"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["user", "system", A]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "text", "type", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
records = st.dictionaries(names, values, max_size=5)


def attempt(path: Path) -> None:
    """Read a file in every way: rows, or one error of ours."""
    for strict in (True, False):
        for titled in (True, False):
            try:
                rows = read(path, strict=strict, titled=titled)
            except DataError as error:
                assert str(path.name) in str(error)  # noqa: PT017
            else:
                assert all(isinstance(row, Row) for row in rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(rows=st.lists(records, min_size=1, max_size=4), form=st.sampled_from(["lines", "array", "object", "indented"]))
def test_no_record_is_a_traceback(tmp_path: Path, rows: list[dict[str, Any]], form: str) -> None:
    text = {
        "lines": "\n".join(json.dumps(row) for row in rows),
        "array": json.dumps(rows),
        "object": json.dumps({"a": 1, "rows": rows}),
        "indented": "\n".join(json.dumps(row, indent=1) for row in rows),
    }[form]
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    attempt(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    name=st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.arrow", "a.csv.gz"]),
    data=st.binary(max_size=200)
    | st.text(alphabet='content,title;\t|"\n\r{}[]:0標題\0\ufeff', max_size=200).map(str.encode)
    | st.sampled_from(TEXTS).map(lambda item: item[1].encode("utf-16")[:401]),
)
def test_no_bytes_are_a_traceback(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    attempt(path)


@pytest.mark.fault
def test_a_damaged_file_of_every_form_is_no_traceback(tmp_path: Path) -> None:
    rng = seeded(3)
    parquet = write_parquet(tmp_path / "a.parquet", content=[A] * 50, title=[T] * 50).read_bytes()
    for name, whole in (
        ("a.parquet", parquet),
        ("a.jsonl.gz", gzip.compress(jsonl().encode())),
        ("a.csv", table().encode()),
    ):
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.choices(range(len(data)), k=3):
                data[place] = rng.randrange(256)
            (tmp_path / name).write_bytes(data)
            attempt(tmp_path / name)
