"""The desk in a real browser: from paste to a kept choice, by mouse and by keyboard, in every shape that it has."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from desk_server import ARTICLE, BACKED, NAMED, TITLES, UNSTYLED, WRONG, Desk, running_desk, title_server
from exported_models import Export
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, expect, sync_playwright

from titlegen.daemon import free_port
from titlegen.desk.store import Store

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
TOKEN = "a-token-that-nobody-can-guess"  # noqa: S105 - of this test
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# A suite of many shares the machine.
_WAIT_MS = 60_000


def find_chromium() -> str | None:
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _PROGRAMS)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's own Chromium."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or name one in CHROMIUM")
    with sync_playwright() as playwright, launched(playwright, program) as running:
        yield running


@contextlib.contextmanager
def launched(playwright: Playwright, program: str) -> Iterator[Browser]:
    # A container's root has no sandbox of its own.
    running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
    yield running
    running.close()


@dataclass
class Watched:
    """A page, and what it must not do."""

    page: Page
    context: BrowserContext
    said: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    allowed: tuple[str, ...] = ()
    """Beginnings of console errors that the test causes."""

    def check(self, host: str) -> None:
        assert [line for line in self.said if not any(part in line for part in self.allowed)] == []
        assert self.hosts <= {host}


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser, desk: Desk) -> Iterator[Open]:
    """Open the desk; afterwards nothing may have been complained about, nor asked of another host."""
    opened: list[tuple[Watched, str]] = []

    def open_one(url: str = desk.url, viewport: Any = None, scheme: Any = "light", locale: str = "zh-TW") -> Watched:
        size: Any = viewport or WIDE
        context = browser.new_context(viewport=size, color_scheme=scheme, locale=locale)
        context.set_default_timeout(_WAIT_MS)
        page = context.new_page()
        watched = Watched(page, context)
        page.on("console", lambda line: watched.said.append(line.text) if line.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: watched.said.append(str(error)))
        page.on("request", lambda asked: watched.hosts.add(asked.url.split("/")[2]))
        page.goto(url)
        opened.append((watched, url.split("/")[2]))
        return watched

    yield open_one
    for watched, host in opened:
        watched.context.close()
        watched.check(host)


def write_titles(page: Page, article: str = ARTICLE) -> None:
    page.locator("#article").fill(article)
    page.locator("form button[type=submit]").click()
    wait_for_titles(page)


def wait_for_titles(page: Page, number: int = 5) -> None:
    expect(page.locator(".candidates")).to_have_attribute("aria-busy", "false", timeout=_WAIT_MS)
    expect(page.locator(".card")).to_have_count(number, timeout=_WAIT_MS)


def card_of(page: Page, title: str) -> Locator:
    return page.locator(f'.card[aria-label$=": {title}"]')


def kept_titles(desk: Desk) -> set[str]:
    return {choice.title for choice in Store(desk.store).choices()}


# Each pair of the three comes once.
@pytest.mark.parametrize(
    ("viewport", "scheme", "locale"),
    [(WIDE, "light", "zh-TW"), (WIDE, "dark", "en-US"), (PHONE, "light", "en-US"), (PHONE, "dark", "zh-TW")],
    ids=["wide-light-zh", "wide-dark-en", "phone-light-en", "phone-dark-zh"],
)
def test_from_paste_to_kept_choice_by_mouse(
    open_page: Open, desk: Desk, viewport: Any, scheme: str, locale: str
) -> None:
    watched = open_page(viewport=viewport, scheme=scheme, locale=locale)
    page = watched.page
    write_titles(page)
    assert {page.locator(".marked").nth(place).inner_text() for place in range(5)} == set(TITLES)
    # Evidence: what is wrong is marked, what is right shows its sentence.
    bad = card_of(page, WRONG).locator(".claim.bad")
    assert bad.inner_text() == "8"
    bad.click()
    expect(card_of(page, WRONG).locator(".evidence.bad")).to_contain_text(
        "內文沒有" if locale == "zh-TW" else "does not"
    )
    card_of(page, BACKED).locator(".claim.good").click()
    expect(card_of(page, BACKED).locator("blockquote mark")).to_have_text("3")
    expect(page.locator(".text .sentence mark")).to_have_text("3")
    # Edited, checked while it is typed, corrected and kept.
    name = card_of(page, UNSTYLED).get_attribute("id")
    card = page.locator(f"#{name}")
    assert card.locator(".finding button").count() == 3
    card.get_by_role("button", name="全部套用" if locale == "zh-TW" else "Correct all").click()
    expect(card.locator(".marked")).to_have_text("影片說明「新制」今起上路")
    expect(card.locator(".finding")).to_have_count(0)
    title = f"影片說明「新制」今起上路 {viewport['width']}{scheme}{locale}"
    card.locator("input.title").fill(title)
    expect(card.locator("output.count")).to_contain_text(str(len(title)))
    expect(card.locator(".chips .bad").first).to_be_visible()
    card.locator("button.main").click()
    expect(card.locator("strong.good")).to_be_visible()
    assert title in kept_titles(desk)
    # Nothing is wider than the screen, and nothing is serious to axe-core.
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert serious(page) == []
    page.locator("nav button").nth(1).click()
    expect(page.locator(".records dl")).to_be_visible()
    expect(page.locator(".records")).to_contain_text(title)
    assert serious(page) == []


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in {"serious", "critical"}]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_everything_by_keyboard(open_page: Open, desk: Desk, viewport: Any) -> None:
    watched = open_page(viewport=viewport)
    page, keyboard = watched.page, watched.page.keyboard
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
    focus_by_tab(page, "#article")
    keyboard.insert_text(ARTICLE)
    keyboard.press("Control+Enter")
    wait_for_titles(page)
    keyboard.press("Alt+2")
    assert page.evaluate("document.activeElement.id") == "candidate-1"
    second = page.locator("#candidate-1 .marked").inner_text()
    keyboard.press("c")
    expect(page.locator("#said")).to_contain_text(second)
    assert page.evaluate("navigator.clipboard.readText()") == second
    # Marks are buttons.
    place = next(i for i in range(5) if page.locator(f"#candidate-{i} .marked").inner_text() == BACKED)
    keyboard.press(f"Alt+{place + 1}")
    focus_by_tab(page, ".claim")
    keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("增開3班公車")
    keyboard.press("e")
    keyboard.press("End")
    keyboard.type("！", delay=10)
    expect(page.locator(f"#candidate-{place} .marked")).to_have_text(f"{BACKED}！")
    keyboard.press("Control+z")
    expect(page.locator(f"#candidate-{place} .marked")).to_have_text(BACKED)
    keyboard.press("Control+Shift+Z")
    expect(page.locator(f"#candidate-{place} .marked")).to_have_text(f"{BACKED}！")
    # Letters in the field are letters.
    keyboard.type("k")
    expect(page.locator(f"#candidate-{place} strong.good")).to_have_count(0)
    keyboard.press("Backspace")
    keyboard.press(f"Alt+{place + 1}")
    keyboard.press("k")
    expect(page.locator(f"#candidate-{place} strong.good")).to_be_visible()
    expect(page.locator("#said")).to_contain_text(BACKED)
    assert f"{BACKED}！" in kept_titles(desk)


def focus_by_tab(page: Page, selector: str) -> None:
    """Press Tab until the focus is there; what cannot be reached so is out of reach."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"Tab does not lead to {selector}")


@pytest.mark.fault
def test_nothing_is_lost_by_a_reload(open_page: Open) -> None:
    page = open_page().page
    page.locator("#article").fill("寫到一半")
    page.reload()
    assert page.locator("#article").input_value() == "寫到一半"
    write_titles(page)
    page.locator("#candidate-0 input.title").fill("改到一半")
    page.reload()
    expect(page.locator("#candidate-0 .marked")).to_have_text("改到一半")
    page.locator("#candidate-0").get_by_role("button", name="復原").click()
    assert page.locator("#candidate-0 .marked").inner_text() in TITLES
    page.get_by_role("button", name="清除這一頁").click()
    page.reload()
    assert page.locator("#article").input_value() == ""
    assert page.locator(".card").count() == 0


@pytest.mark.fault
def test_text_is_never_html(open_page: Open, tmp_path: Path) -> None:
    watched = open_page()
    # A file that cannot be read.
    watched.allowed = ("422",)
    page = watched.page
    hostile = '<img src=x onerror="document.title=1"><script>document.title=2</script>「<b>甲</b>」'
    page.locator("#article").fill(f"{ARTICLE}\n他說：{hostile}")
    page.locator("form button[type=submit]").click()
    wait_for_titles(page)
    page.locator("#candidate-0 input.title").fill(hostile)
    expect(page.locator("#candidate-0 .marked")).to_contain_text("<script>")
    page.locator("#candidate-0 button.main").click()
    page.locator("nav button").nth(1).click()
    expect(page.locator(".records")).to_contain_text("<script>")
    file = tmp_path / "<img src=x onerror=alert(1)>.txt"
    file.write_bytes(b"\xff\xfe\xfd\x00\x01")
    page.locator("nav button").nth(0).click()
    page.locator("input[type=file]").set_input_files(file)
    expect(page.locator(".error")).to_be_visible()
    assert page.locator("#desk img, #desk b, #desk script").count() == 0
    assert "標題桌" in page.title()


@pytest.mark.fault
def test_a_style_file_is_never_html(open_page: Open, desk_outputs: Path, desk_model_host: str, tmp_path: Path) -> None:
    style = tmp_path / "style.toml"
    hostile = "<img src=x onerror='document.title=1'>"
    style.write_text(f'banned = ["夜間"]\n[usage]\n"公車" = "{hostile}"\n', encoding="utf-8")
    with running_desk(desk_outputs, desk_model_host, "--desk.style", str(style)) as mine:
        watched = open_page(url=mine.url)
        watched.allowed = ("ERR_CONNECTION",)
        page = watched.page
        write_titles(page)
        card = page.locator(f"#{card_of(page, BACKED).get_attribute('id')}")
        expect(card.locator(".finding")).to_have_count(2)
        card.locator(".finding button").click()
        expect(card.locator(".marked")).to_have_text(BACKED.replace("公車", hostile))
        assert page.locator("#desk img").count() == 0
        assert "標題桌" in page.title()


@pytest.mark.fault
def test_a_page_cannot_turn_text_into_html(open_page: Open) -> None:
    watched = open_page()
    watched.allowed = ("TrustedHTML", "Content Security Policy", "Content-Security-Policy")
    blocked = watched.page.evaluate(
        """() => {
            try { document.getElementById("desk").innerHTML = "<b>x</b>"; return "done"; }
            catch (error) { return error.name; }
        }"""
    )
    assert blocked == "TypeError"


def test_files_are_opened_and_dropped(open_page: Open, tmp_path: Path) -> None:
    import docx

    page = open_page().page
    document = docx.Document()
    document.add_paragraph("公車增班，下月上路。")
    document.save(str(tmp_path / "a.docx"))
    page.locator("input[type=file]").set_input_files(tmp_path / "a.docx")
    expect(page.locator("#article")).to_have_value("公車增班，下月上路。")
    data = page.evaluate_handle(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["<p>捷運延長</p>"], "b.html", { type: "text/html" }));
            return data;
        }"""
    )
    page.dispatch_event("form", "drop", {"dataTransfer": data})
    expect(page.locator("#article")).to_have_value("捷運延長")


def test_a_bookmarklet_hands_an_article_over(open_page: Open, desk: Desk) -> None:
    watched = open_page(url=f"{desk.url}/#article=%E5%85%AC%E8%BB%8A")
    expect(watched.page.locator("#article")).to_have_value("公車")
    # Nobody who looks at the address bar or at the history reads it.
    assert "#" not in watched.page.url


def test_words_slots_and_more_like_this(open_page: Open) -> None:
    page = open_page().page
    page.locator("details summary").click()
    page.locator("#must").fill("公車")
    page.locator("#article").fill(ARTICLE)
    page.locator("form button[type=submit]").click()
    wait_for_titles(page, 1)
    expect(page.locator(".shortfall")).to_contain_text("只有 1 則")
    page.locator("#must").fill("")
    page.locator("#candidate-0").get_by_role("button", name="多一些像這則的").click()
    expect(page.locator("#candidate-1")).to_be_visible()
    expect(page.locator(".candidates")).to_have_attribute("aria-busy", "false")
    titles = page.locator(".marked").all_inner_texts()
    assert len(titles) == len(set(titles)) > 1
    assert page.locator("#candidate-0 .marked").inner_text() == BACKED
    rows = page.locator("table tr")
    assert rows.count() == 5
    expect(rows.nth(0)).to_contain_text(BACKED)
    own = rows.nth(4).locator("input")
    own.fill("3")
    own.press("Tab")
    expect(rows.nth(4)).to_contain_text("沒有夠短的候選")


@pytest.mark.fault
def test_a_server_that_goes_and_comes_back(
    open_page: Open, desk_outputs: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    export = Export(desk_outputs / "quickstart" / "final-hf", desk_outputs / "quickstart" / "gguf")
    port = free_port()
    with running_desk(desk_outputs, f"http://127.0.0.1:{port}", store=tmp_path / "desk.sqlite3") as mine:
        watched = open_page(url=mine.url)
        watched.allowed = ("503", "Failed to load resource")
        page = watched.page
        expect(page.locator(".banner")).to_contain_text("沒有回應")
        page.locator("#article").fill(ARTICLE)
        page.locator("form button[type=submit]").click()
        expect(page.locator(".candidates")).to_have_attribute("aria-busy", "false")
        assert page.locator("#article").input_value() == ARTICLE
        # What was asked for is done as soon as it can be.
        with title_server(tmp_path_factory.mktemp("back"), export, port=port):
            wait_for_titles(page)
            expect(page.locator(".banner")).to_have_count(0)


@pytest.mark.fault
def test_a_choice_waits_for_a_desk_that_ended(
    open_page: Open, desk_outputs: Path, desk_model_host: str, tmp_path: Path
) -> None:
    port, store = free_port(), tmp_path / "desk.sqlite3"
    with running_desk(desk_outputs, desk_model_host, port=port, store=store) as mine:
        watched = open_page(url=mine.url)
        watched.allowed = ("Failed to load resource", "ERR_CONNECTION")
        page = watched.page
        write_titles(page)
        mine.process.kill()
        mine.process.wait()
        page.locator("#candidate-0 button.main").click()
        expect(page.locator(".banner")).to_contain_text("標題桌沒有回應")
    title = page.locator("#candidate-0 .marked").inner_text()
    with running_desk(desk_outputs, desk_model_host, port=port, store=store) as again:
        expect(page.locator(".banner")).to_have_count(0)
        page.wait_for_function("JSON.parse(localStorage.getItem('titlegen-desk-1')).outbox.length === 0")
        assert [json.loads(line)["title"] for line in again.http.get("/api/choices.jsonl").text.splitlines()] == [title]


@pytest.mark.fault
def test_the_token_opens_the_page(open_page: Open, desk_outputs: Path, desk_model_host: str) -> None:
    environment = {"TITLEGEN_DESK_TOKEN": TOKEN}
    with running_desk(desk_outputs, desk_model_host, environment=environment) as mine:
        watched = open_page(url=mine.url)
        # The desk ends before the page does.
        watched.allowed = ("401", "ERR_CONNECTION")
        page = watched.page
        assert page.url.endswith("/login")
        assert serious(page) == []
        page.locator("#token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("權杖不正確")
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#article")).to_be_visible()
        assert TOKEN not in str(watched.context.cookies())
        assert "titlegen-desk=" not in page.evaluate("document.cookie")


@pytest.mark.fault
def test_no_other_page_shows_the_desk_in_a_frame(open_page: Open, desk: Desk, browser: Browser) -> None:
    del open_page
    context = browser.new_context()
    page = context.new_page()
    page.route("http://cms.example/", lambda route: route.fulfill(body=f'<iframe src="{desk.url}"></iframe>'))
    page.goto("http://cms.example/")
    frame = page.frames[1]
    assert frame.locator("#article").count() == 0
    context.close()


def test_two_editors_see_their_own(open_page: Open) -> None:
    first, second = open_page().page, open_page().page
    first.locator("#article").fill("第一位的文章")
    write_titles(second)
    assert first.locator("#article").input_value() == "第一位的文章"
    assert first.locator(".card").count() == 0
    first.reload()
    assert NAMED not in first.content()
