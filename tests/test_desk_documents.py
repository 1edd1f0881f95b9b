"""Articles out of files and pages: what is read, and what was made to break a reader."""

import contextlib
import io
import socket
import time
import zipfile
from pathlib import Path

import docx
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titlegen.desk import apart
from titlegen.desk.apart import read_apart
from titlegen.desk.documents import MAX_ARTICLE_CHARS, MAX_FILE_BYTES, check_length, read_document, read_html
from titlegen.desk.fetch import check_address, fetch_article, is_public
from titlegen.errors import DataError

_TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/word/document.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_RELATIONS = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="r" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)
_BODY = (
    '{head}<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>'
    "{text}</w:t></w:r></w:p></w:body></w:document>"
)
_BOMB = "".join(
    [
        '<!DOCTYPE x [<!ENTITY a "哈哈哈哈哈哈哈哈哈哈">',
        *(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "]>",
    ]
)


def word(text: str, head: str = "", /, **extra: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", _TYPES)
        archive.writestr("_rels/.rels", _RELATIONS)
        archive.writestr("word/document.xml", _BODY.format(text=text, head=head))
        for name, content in extra.items():
            archive.writestr(name, content)
    return target.getvalue()


@pytest.mark.parametrize(
    ("raw", "name", "text"),
    [
        ("公車增班\n下月上路".encode(), "a.txt", "公車增班\n下月上路"),
        ("公車增班".encode("utf-16"), "a.txt", "公車增班"),
        ("<p>公車增班</p>".encode(), "a.txt", "<p>公車增班</p>"),
        (word("公車增班"), "a.docx", "公車增班"),
        # What a file holds decides, not what it is called.
        (word("公車增班"), "a.txt", "公車增班"),
        (
            "<html><body><nav>首頁</nav><p>公車增班</p><p>下月上路</p></body></html>".encode(),
            "a.html",
            "公車增班\n下月上路",
        ),
    ],
)
def test_files_are_read(raw: bytes, name: str, text: str) -> None:
    assert read_document(raw, name) == text


def test_a_word_file_with_a_table(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_paragraph("第一段。")
    cells = document.add_table(rows=1, cols=2).rows[0].cells
    cells[0].text, cells[1].text = "甲", "乙"
    document.add_paragraph("第二段。")
    document.save(str(tmp_path / "a.docx"))
    assert read_document((tmp_path / "a.docx").read_bytes(), "a.docx") == "第一段。\n甲 乙\n第二段。"


def test_the_article_of_a_page_is_read_without_its_menus() -> None:
    page = (
        "<html><head><meta charset='utf-8'><title>報</title><script>alert(1)</script></head><body><nav>選單</nav>"
        "<article>短</article><article><h1>公車增班</h1><p>下月<b>上路</b>。<!-- 註 --><style>p{}</style></p>"
        "<aside>廣告</aside>尾段</article><footer>版權</footer></body></html>"
    )
    assert read_html(page.encode()) == "公車增班\n下月上路。\n尾段"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("raw", "name", "says"),
    [
        (b"a" * (MAX_FILE_BYTES + 1), "a.txt", "at most"),
        ("甲".encode() * (MAX_ARTICLE_CHARS + 1), "a.txt", "characters"),
        (b"%PDF-1.7", "a.pdf", r"\.pdf"),
        (b"\xd0\xcf\x11\xe0", "a.doc", r"no \.docx"),
        (b"\xff\xfe\xfd\x00\x01", "a.txt", "the file"),
        (b"PK\x03\x04" + b"\x00" * 50, "a.docx", "broken"),
        (word("x")[:-30], "a.docx", "broken"),
        (word("x", "<!DOCTYPE x>"), "a.docx", "entities"),
        (word("&i;", _BOMB), "a.docx", "entities"),
        (word("&e;", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'), "a.docx", "entities"),
        (word("<w:p>"), "a.docx", "cannot be read"),
        (word("x", **{"word/media/big.bin": b"\0" * (201 * 2**20)}), "a.docx", "unpacks"),
        (word("x", **{"word/styles.xml": b" " * (21 * 2**20)}), "a.docx", "unpacks"),
        (word("x", **{f"word/{number}.xml": b"" for number in range(2001)}), "a.docx", "unpacks"),
        (b"", "a.html", "no text"),
    ],
    ids=range(15),
)
def test_files_that_were_made_to_harm_are_refused(raw: bytes, name: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_document(raw, name)


@pytest.mark.fault
def test_entities_that_another_encoding_hides_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("機密", encoding="utf-8")
    head = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{(tmp_path / "secret").as_uri()}"><!ENTITY f "展開">]>'
    body = '<?xml version="1.0" encoding="UTF-16"?>' + _BODY.format(text="甲&e;&f;", head=head)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("[Content_Types].xml", _TYPES)
        archive.writestr("_rels/.rels", _RELATIONS)
        archive.writestr("word/document.xml", body.encode("utf-16"))
    with contextlib.suppress(DataError):
        text = read_document(target.getvalue(), "a.docx")
        assert "機密" not in text
        assert "展開" not in text


@pytest.mark.fault
def test_an_archive_that_is_no_word_file() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.txt", "甲")
    with pytest.raises(DataError, match="ZIP"):
        read_document(target.getvalue(), "a.docx")


@pytest.mark.fault
def test_a_page_nested_on_purpose_is_read_or_refused() -> None:
    with contextlib.suppress(DataError):
        assert "甲" in read_html(b"<meta charset='utf-8'>" + b"<div>" * 50_000 + "甲".encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(raw: bytes) -> None:
    for name in ("a.txt", "a.html", "a.docx"):
        # Nothing else is raised.
        with contextlib.suppress(DataError):
            assert isinstance(read_document(raw, name), str)


@pytest.mark.fault
def test_a_cell_as_wide_as_somebody_says_is_read_once() -> None:
    cell = '<w:tc><w:tcPr><w:gridSpan w:val="2000000000"/></w:tcPr><w:p><w:r><w:t>甲</w:t></w:r></w:p></w:tc>'
    text = f"</w:t></w:r></w:p><w:tbl><w:tr>{cell}</w:tr></w:tbl><w:p><w:r><w:t>乙"
    assert read_document(word(text), "a.docx").split() == ["甲", "乙"]


@pytest.mark.fault
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_part_that_is_broken_in_any_packing_is_refused(packing: int) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", packing) as archive:
        archive.writestr("word/document.xml", "甲乙丙丁" * 1000)
        start = archive.infolist()[0].header_offset + 30 + len("word/document.xml")
        end = archive.start_dir
    raw = bytearray(target.getvalue())
    for place in range(start, end):
        broken = raw.copy()
        broken[place] ^= 0xFF
        if place % max(1, (end - start) // 40) == 0:
            with pytest.raises(DataError):
                read_document(bytes(broken), "a.docx")


@pytest.mark.fault
def test_many_articles_in_one_another_take_time_in_proportion() -> None:
    text, times = "甲" * 1_000_000, []
    for depth in (1, 200):
        started = time.process_time()
        assert read_html(("<article>" * depth + text).encode()) == text
        times.append(time.process_time() - started)
    assert times[1] < 4 * max(times[0], 0.02)


def test_a_file_is_read_in_a_process_of_its_own() -> None:
    assert read_apart(word("公車增班"), "新聞\0\ud800" * 100_000 + ".docx") == "公車增班"
    with pytest.raises(DataError, match=r"a \.pdf file cannot be read"):
        read_apart(b"%PDF-1.7", "a.pdf")


# What libxml2 takes hours for within the size that is allowed, and what takes a gigabyte.
_ATTRIBUTES = b"<p " + b" ".join(b"a%d" % number for number in range(200_000)) + b">"
_PARAGRAPHS = word("</w:t></w:r></w:p>" + "<w:p/>" * 3_000_000 + "<w:p><w:r><w:t>")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("limit", "value", "raw", "says"),
    [
        ("_MOST_CPU_S", 2, _ATTRIBUTES, "more time or memory"),
        ("_MOST_S", 4, _ATTRIBUTES, "more time or memory"),
        ("_MOST_BYTES", 256 * 2**20, _PARAGRAPHS, r"cannot be read \(XMLSyntaxError\)|more time or memory"),
    ],
    ids=["processor", "clock", "memory"],
)
def test_a_file_that_takes_hours_or_all_memory_is_given_up(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int, raw: bytes, says: str
) -> None:
    monkeypatch.setattr(apart, limit, value)
    # As much is enough for an article.
    assert read_apart(word("x"), "a.docx") == "x"
    with pytest.raises(DataError, match=says):
        read_apart(raw, "a.html")


def test_an_article_has_a_longest_length() -> None:
    assert check_length("甲" * MAX_ARTICLE_CHARS)
    with pytest.raises(DataError, match="200,001"):
        check_length("甲" * (MAX_ARTICLE_CHARS + 1))


# Addresses


@pytest.mark.fault
@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1%eth0", "fd00::1",  # noqa: S104
     "224.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "100.64.0.1", "2002:7f00:1::", "64:ff9b::7f00:1",
     "64:ff9b::10.0.0.1", "64:ff9b:1::1", "::127.0.0.1", "localhost", ""],
)  # fmt: skip
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_public_addresses_are() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2001:4860:4860::8888")
    assert is_public("64:ff9b::808:808")


@pytest.mark.fault
@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://example.com/", "http://", "https://user:pass@example.com/", "http://example.com:22/",
     "gopher://example.com", "http://[::1", "//example.com", ""],
)  # fmt: skip
def test_what_is_no_address_of_a_page_is_refused(url: str) -> None:
    with pytest.raises(DataError):
        check_address(url)


@pytest.mark.fault
@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://0x7f000001/"])
def test_this_machine_is_never_asked(url: str) -> None:
    with pytest.raises(DataError):
        fetch_article(url)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every name mean the addresses in a list."""
    found = ["93.184.215.14"]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in found]
    )
    return found


@pytest.mark.fault
def test_a_name_that_means_a_private_address_too_is_refused(names: list[str]) -> None:
    names.append("10.0.0.1")
    with pytest.raises(DataError, match="private"):
        fetch_article("http://news.example/")


@pytest.mark.fault
def test_the_connection_goes_to_what_was_checked(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import httpcore

    asked: list[str] = []

    def connect(_: object, host: str, *__: object, **___: object) -> None:
        # The name means another address by now: nobody asks again.
        asked.append(host)
        raise httpcore.ConnectError("no network here")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(DataError, match="cannot be read"):
        fetch_article("http://news.example/")
    assert asked == names


def test_reading_takes_time_in_proportion() -> None:
    page = ("<p>" + "甲" * 50 + "</p>") * 500
    times = []
    for size in (1, 8):
        started = time.process_time()
        read_html((page * size).encode())
        times.append(time.process_time() - started)
    assert times[1] < 40 * max(times[0], 0.005)


def test_httpx_still_has_what_the_transport_needs() -> None:
    transport = httpx.HTTPTransport(trust_env=False)
    assert hasattr(transport._pool, "_network_backend")
