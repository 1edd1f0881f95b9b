"""The offline Hub in a browser: what a push prints can be opened, and nothing that was pushed can run there."""

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlparse

import httpx
import pytest
from hub_server import HubServer
from hypothesis import given
from hypothesis import strategies as st

from titlegen.standins.hub.pages import _MAX_CARD_BYTES, _parser, wants_page

# huggingface_hub hands a file's content to httpx by a name that httpx gave up.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning"),
    pytest.mark.usefixtures("plain_lfs"),
]
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
CARD = """---
license: gemma
---
# A model 標題

| score | value |
| --- | ---: |
| ROUGE-L | 0.41 |

See [the report](report.json), [the Hub](https://huggingface.co/local/x) and `code <b>`.
"""
# What Markdown's own markup becomes, and the page around it.
_PAGE = "html head meta title style body header main article section details summary bdi span div"
_TEXT = "h1 h2 h3 h4 h5 h6 p a ul ol li table thead tbody tr th td code pre em strong blockquote hr br"
TAGS = frozenset(f"{_PAGE} {_TEXT}".split(" "))
ATTRIBUTES = {"href", "title", "class", "lang", "scope", "start", "tabindex", "style", "charset", "name", "content"}
ATTACKS = {
    "script": "<script>alert(1)</script>",
    "handler": "<img src=x onerror=alert(1)><svg/onload=alert(1)>",
    "link": "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](&#106;avascript:x) [d](\x01javascript:alert(1))",
    "reference": "[a][b]\n\n[b]: javascript:alert(1)",
    "autolink": "<javascript:alert(1)> <vscode://file/etc/passwd> <data:text/html,x>",
    "program": "[a](ms-msdt:/id) [b](file:///etc/passwd) [c](data:text/html;base64,PHNjcmlwdD4=) [d](blob:x)",
    "picture": "![a](https://example.com/track.png) ![b](javascript:alert(1))",
    "attribute": '[a](https://example.com "x\\" onmouseover=\\"alert(1)") <a href="x" onclick=y>z</a>',
    "break-out": "</article></main><style>*{display:none}</style><iframe src=//example.com></iframe>",
    "front matter": "---\nx: </pre><script>alert(1)</script>\n---\ntext",
    "unclosed front matter": "---\n<script>alert(1)</script>",
    "code": '```"><script>alert(1)</script>\n</code><script>alert(1)</script>\n```',
    "comment": "<!-- --><![CDATA[<script>alert(1)</script>]]><?php x ?>",
}


class Reader(HTMLParser):
    """Collects tags, attributes and links of a page, and fails what only an attack could have put there."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, (tag, name)
            # Columns of a Markdown table; the page's policy forbids even this.
            assert name != "style" or re.fullmatch(r"text-align:(left|right|center)", str(value)), value
            if name == "href":
                assert urlparse(str(value)).scheme in {"", "http", "https"}, value
                self.links.append(str(value))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    running = HubServer(tmp_path_factory.mktemp("hub"), faults=False)
    yield running
    running.stop()


def publish(server: HubServer, name: str, files: dict[str, bytes | str]) -> str:
    """Push files into a private repository and return the address that is printed."""
    from huggingface_hub import CommitOperationAdd

    repo_id = f"local/{name}"
    api = server.api()
    api.create_repo(repo_id, private=True, exist_ok=True)
    operations = [
        CommitOperationAdd(path, content if isinstance(content, bytes) else content.encode())
        for path, content in files.items()
    ]
    api.create_commit(repo_id, operations, commit_message="Publish <b>the model</b>")
    return f"{server.url}/{repo_id}"


def browse(address: str) -> httpx.Response:
    """Open an address as a browser does: it says that it reads HTML, and has no token."""
    return httpx.get(address, headers=BROWSER, trust_env=False)


def test_the_printed_address_shows_card_and_files_to_a_browser(server: HubServer) -> None:
    weights = b"\0" * 3000
    address = publish(server, "card", {"README.md": CARD, "model.safetensors": weights, "report.json": "{}"})
    page = browse(address)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>A model 標題</h1>" in page.text
    assert "<td" in page.text
    assert "0.41" in page.text
    reader = Reader(page.text)
    assert "2.9 KiB" in reader.text
    assert "license: gemma" in reader.text
    assert "Publish <b>the model</b>" in reader.text
    assert hashlib.sha256(weights).hexdigest()[:12] in reader.text
    (link,) = [link for link in reader.links if link.endswith("/model.safetensors")]
    saved = browse(urljoin(address, link))
    assert saved.content == weights
    assert saved.headers["content-disposition"].startswith("attachment")
    # A relative link of the card is one to a file of the same commit.
    (link, _) = [link for link in reader.links if link.endswith("/report.json")]
    shown = browse(urljoin(address, link))
    assert (shown.text, shown.headers["content-type"]) == ("{}", "text/plain; charset=utf-8")


def test_every_kind_of_address_that_the_client_is_given_opens(server: HubServer) -> None:
    address = publish(server, "addresses", {"README.md": "# one"})
    api = server.api()
    commit = api.upload_file(
        path_or_fileobj=b"# two", path_in_repo="README.md", repo_id="local/addresses", create_pr=True
    )
    api.create_tag("local/addresses", tag="v1")
    assert "<h1>one</h1>" in browse(address).text
    assert "<h1>two</h1>" in browse(commit.commit_url).text
    assert "<h1>two</h1>" in browse(str(commit.pr_url)).text
    assert "<h1>one</h1>" in browse(f"{address}/tree/v1").text
    assert 'href="/local/addresses"' in browse(server.url).text


def test_what_is_not_there_is_a_page_to_a_browser_and_json_to_a_program(server: HubServer) -> None:
    publish(server, "known", {"README.md": "# one"})
    for path in ("/local/nothing", "/local/known/tree/nothing", "/local/known/raw/main/nothing", "/x/y/z/w", "/x"):
        page = browse(server.url + path)
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8"), path
        assert "default-src 'none'" in page.headers["content-security-policy"]
        Reader(page.text)
    for path in ("/datasets/local/articles", "/spaces/local/app", "/datasets"):
        page = browse(server.url + path)
        assert (page.status_code, "models only" in page.text) == (404, True)
    missing = httpx.get(f"{server.url}/api/models/local/nothing", trust_env=False)
    assert (missing.status_code, missing.headers["x-error-code"]) == (404, "RepoNotFound")
    assert httpx.get(server.url, trust_env=False).json()["service"] == "titlegen offline Hub"
    assert not wants_page_of("*/*")
    assert wants_page_of(BROWSER["Accept"])


def wants_page_of(accept: str) -> bool:
    from starlette.requests import Request

    return wants_page(Request({"type": "http", "method": "GET", "headers": [(b"accept", accept.encode())]}))


@pytest.mark.fault
@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_nothing_in_a_card_runs_or_leads_to_another_program(server: HubServer, text: str) -> None:
    page = browse(publish(server, "attack", {"README.md": text}))
    assert page.status_code == 200
    reader = Reader(page.text)
    assert all(urlparse(link).netloc in {"", "example.com"} for link in reader.links)


@given(st.text(alphabet="<>&\"'`[]()!:/\\#=*_|~-\n\t\x00 ahrefscriptonjv.;", max_size=80))
def test_whatever_a_card_holds_only_markdown_becomes_markup(text: str) -> None:
    Reader(_parser().render(text, {"base": "/local/x/raw/main/"}))


@pytest.mark.fault
def test_names_of_files_are_text(server: HubServer) -> None:
    names = [
        '<img src=x onerror="alert(1)">.md',
        '" onmouseover="alert(1)',
        "javascript:alert(1)",
        "folder/a?b#c&amp;d.txt",
        "標題 100%25.txt",
        "</table><script>alert(1)<",
    ]
    address = publish(server, "names", {name: name for name in names})
    page = browse(address)
    reader = Reader(page.text)
    for name in names:
        assert html.escape(name) in page.text.replace("&#34;", "&quot;"), name
    found = {browse(urljoin(address, link)).text for link in reader.links if "/raw/" in link}
    assert found >= set(names)


@pytest.mark.fault
def test_a_page_may_load_and_send_nothing(server: HubServer) -> None:
    page = browse(publish(server, "policy", {"README.md": "# one", "page.html": "<script>alert(1)</script>"}))
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'")
    assert page.headers["x-content-type-options"] == "nosniff"
    file = browse(f"{server.url}/local/policy/raw/main/page.html")
    assert file.headers["content-type"].startswith("text/plain")
    assert file.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert file.headers["x-content-type-options"] == "nosniff"


@pytest.mark.fault
def test_pages_are_read_only_and_answer_this_machines_names_alone(server: HubServer) -> None:
    address = publish(server, "readonly", {"README.md": "# one"})
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert httpx.request(method, address, headers=BROWSER, trust_env=False).status_code == 405
    # Under a name that another site points to this address.
    assert httpx.get(address, headers=BROWSER | {"Host": "evil.example"}, trust_env=False).status_code == 400
    for path in ("..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/lock", "../../lock"):
        assert browse(f"{address}/raw/main/{path}").status_code == 404
    assert browse(f"{server.url}/..%2f..%2fobjects/x").status_code in {400, 404}


def test_a_card_that_is_too_long_to_be_rendered_is_left_to_the_list_of_files(server: HubServer) -> None:
    page = browse(publish(server, "long", {"README.md": "# one\n" + "x" * _MAX_CARD_BYTES}))
    assert page.status_code == 200
    assert "No README.md that can be shown" in page.text
    assert len(page.text) < 10_000


def test_the_pages_files_are_part_of_the_package() -> None:
    import titlegen

    folder = Path(titlegen.__file__).parent
    assert (folder / "hub_page.html.j2").is_file()
    assert (folder / "hub_page.css").is_file()
