"""The desk in a real browser: from paste to a kept choice, by mouse and by keyboard, in every shape that it has."""

import contextlib
import functools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from desk_server import ARTICLE, BACKED, NAMED, TITLES, UNSTYLED, WRONG, Desk, running_desk, slow_server, title_server
from exported_models import Export
from ollama_server import wait_until
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, Route, expect, sync_playwright

from titlegen.daemon import free_port
from titlegen.desk.store import Made, Shown, Store

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
TOKEN = "a-token-that-nobody-can-guess"  # noqa: S105 - of this test
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# A suite of many shares the machine.
_WAIT_MS = 60_000
GROUNDS = {"light": "rgb(246, 247, 249)", "dark": "rgb(16, 22, 28)"}
ALL_BUT_BACKED = "黃偉哲 站牌 候乘亭 視頻"
"""Words of all of the model's titles but one."""


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
    [
        (WIDE, "light", "zh-TW"),
        pytest.param(WIDE, "dark", "en-US", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", "en-US", marks=pytest.mark.slow),
        (PHONE, "dark", "zh-TW"),
    ],
    ids=["wide-light-zh", "wide-dark-en", "phone-light-en", "phone-dark-zh"],
)
def test_from_paste_to_kept_choice_by_mouse(
    open_page: Open, desk: Desk, viewport: Any, scheme: str, locale: str
) -> None:
    watched = open_page(viewport=viewport, scheme=scheme, locale=locale)
    page = watched.page
    other = "dark" if scheme == "light" else "light"
    # As the system prefers it, then as the button says.
    for theme in (scheme, other, scheme, other):
        expect(page.locator("body")).to_have_css("background-color", GROUNDS[theme])
        page.get_by_role("button", name="深淺色" if locale == "zh-TW" else "Light or dark").click()
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
    title = f"影片說明「新制」今起上路 {viewport['width']}{scheme}!!!"
    card.locator("textarea.title").fill(title)
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
    page.locator("#candidate-0 textarea.title").fill("改到一半")
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
    page.locator("#candidate-0 textarea.title").fill(hostile)
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
    # What stood there before is set aside: its titles are not the new article's.
    write_titles(watched.page)
    watched.page.goto(f"{desk.url}/#article=%E6%8D%B7%E9%81%8B")
    watched.page.reload()
    expect(watched.page.locator("#article")).to_have_value("捷運")
    assert watched.page.locator(".card").count() == 0
    watched.page.get_by_role("button", name="回到前一份").click()
    expect(watched.page.locator(".card")).to_have_count(5)
    # Nobody who looks at the address bar or at the history reads it.
    assert "#" not in watched.page.url


def test_words_slots_and_more_like_this(open_page: Open) -> None:
    page = open_page().page
    page.locator("details summary").click()
    page.locator("#mustNot").fill(ALL_BUT_BACKED)
    page.locator("#article").fill(ARTICLE)
    page.locator("form button[type=submit]").click()
    wait_for_titles(page, 1)
    expect(page.locator(".shortfall")).to_contain_text("只有 1 則")
    page.locator("#mustNot").fill("")
    page.locator("#candidate-0").get_by_role("button", name="多一些像這則的").click()
    expect(page.locator("#candidate-1")).to_be_visible()
    expect(page.locator(".candidates")).to_have_attribute("aria-busy", "false")
    titles = page.locator(".marked").all_inner_texts()
    assert len(titles) == len(set(titles)) > 1
    assert page.locator("#candidate-0 .marked").inner_text() == BACKED
    rows = page.locator(".slots li")
    assert rows.count() == 5
    expect(rows.nth(0)).to_contain_text(BACKED)
    own = rows.nth(4).locator("input")
    own.fill("3")
    own.press("Tab")
    expect(rows.nth(4)).to_contain_text("沒有夠短的候選")


def test_a_slot_that_nothing_fits_is_asked_for(open_page: Open) -> None:
    page = open_page().page
    page.locator("details summary").click()
    # Two titles are left, and an editor makes them longer.
    page.locator("#mustNot").fill("公車 候乘亭 站牌")
    page.locator("#article").fill(ARTICLE)
    page.locator("form button[type=submit]").click()
    wait_for_titles(page, 2)
    push = page.locator(".slots li").nth(0)
    for title in page.locator(".card textarea").all():
        title.fill("這一個標題比推播的上限還要長")
    expect(push).to_contain_text("沒有夠短的候選")
    page.locator("#mustNot").fill("")
    push.get_by_role("button", name="請模型寫").click()
    expect(page.locator(".candidates")).to_have_attribute("aria-busy", "false", timeout=_WAIT_MS)
    expect(push).to_contain_text(BACKED)


def test_a_length_is_asked_for(open_page: Open) -> None:
    page = open_page().page
    page.locator("details summary").click()
    expect(page.locator("#chars option")).to_have_count(5)
    page.locator("#chars").select_option(label="9–13 字 · 推播")
    write_titles(page)
    expect(page.locator(".shortfall")).to_contain_text("9 到 13 字")
    last = page.locator(".card").last
    expect(last.locator(".chips .bad").first).to_contain_text("（9 到 13）")
    last.locator("textarea").fill("公車增班延長夜間服務")
    expect(last.locator(".chips .bad")).to_have_count(0)
    # It is asked for again after a reload.
    page.reload()
    assert page.locator("#chars").input_value() == "13"


def test_words_that_an_edit_takes_away_are_said(open_page: Open) -> None:
    page = open_page().page
    page.locator("details summary").click()
    page.locator("#must").fill("公車")
    page.locator("#mustNot").fill("視頻")
    page.locator("#article").fill(ARTICLE)
    page.locator("form button[type=submit]").click()
    wait_for_titles(page, 4)
    expect(page.locator('#candidate-0 [aria-label="規則"]')).to_have_count(0)
    expect(page.locator("#candidate-3 .chips").first).to_contain_text("缺少「公車」")
    page.locator("#candidate-0 textarea").fill("視頻說明夜間服務延長")
    expect(page.locator("#candidate-0 .chips").first).to_contain_text("缺少「公車」")
    expect(page.locator("#candidate-0 .chips").first).to_contain_text("不可有「視頻」")


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_all_of_a_long_title_is_seen_while_it_is_edited(open_page: Open, viewport: Any) -> None:
    page = open_page(viewport=viewport).page
    write_titles(page)
    field = page.locator("#candidate-0 textarea")
    for title in ("公車增班" * 30, "短標題", "A" * 150, "公車增班" * 15):
        field.fill(title)
        page.wait_for_timeout(50)
        shown = field.evaluate(
            "field => [field.scrollWidth <= field.clientWidth, field.scrollHeight <= field.clientHeight]"
        )
        assert shown == [True, True], title
    # A title has one line, whatever is pasted into it.
    field.fill("上一行\n下一行")
    expect(field).to_have_value("上一行 下一行")
    field.press("Enter")
    expect(field).to_have_value("上一行 下一行")
    field.press("Escape")
    assert page.evaluate("document.activeElement.id") == "candidate-0"
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_enough_keeps_what_is_written(open_page: Open, desk_outputs: Path, tmp_path: Path) -> None:
    with slow_server() as host, running_desk(desk_outputs, host, store=tmp_path / "desk.sqlite3") as mine:
        watched = open_page(url=mine.url)
        watched.allowed = ("ERR_CONNECTION",)
        page = watched.page
        page.locator("#article").fill(ARTICLE)
        page.locator("form button[type=submit]").click()
        # Letter by letter, as it is written.
        expect(page.locator(".writing")).to_contain_text("慢慢慢")
        page.locator("#candidate-0 textarea").fill(f"{BACKED}早")
        # It is kept once its place is known.
        page.locator("#candidate-0 button.main").click()
        expect(page.locator(".notice")).to_contain_text("全部寫好後")
        page.get_by_role("button", name="這些就夠了").click()
        wait_for_titles(page, 1)
        expect(page.locator(".writing")).to_have_count(0)
        expect(page.locator("#candidate-0 strong.good")).to_be_visible()
        assert kept_titles(mine) == {f"{BACKED}早"}


@pytest.mark.slow
@pytest.mark.fault
def test_what_was_edited_while_others_were_written_outlives_the_desk(
    open_page: Open, desk_outputs: Path, tmp_path: Path
) -> None:
    with slow_server() as host, running_desk(desk_outputs, host, store=tmp_path / "desk.sqlite3") as mine:
        watched = open_page(url=mine.url)
        watched.allowed = ("Failed to load resource", "ERR_")
        page = watched.page
        page.locator("#article").fill(ARTICLE)
        page.locator("form button[type=submit]").click()
        page.locator("#candidate-0 textarea").fill(f"{BACKED}早")
        mine.process.kill()
        mine.process.wait()
        expect(page.locator(".banner")).to_contain_text("標題桌沒有回應")
        page.get_by_role("button", name="回到前一份").click()
        expect(page.locator("#candidate-0 .marked")).to_have_text(f"{BACKED}早")
        # There is no record of it to choose.
        page.locator("#candidate-0 button.main").click()
        expect(page.locator(".notice")).to_contain_text("請複製")


@pytest.mark.fault
def test_choices_on_end_are_all_kept(open_page: Open, desk: Desk) -> None:
    before = len(Store(desk.store).choices())
    page = open_page().page
    write_titles(page)
    # The desk is slow: the second choice is made before the first one is answered.
    page.evaluate(
        """() => {
            const ask = fetch;
            window.fetch = async (path, options) => {
                if (path === "/api/choices") await new Promise((done) => setTimeout(done, 300));
                return ask(path, options);
            };
            for (const place of [0, 1, 2]) document.querySelector(`#candidate-${place} button.main`).click();
        }"""
    )
    for place in range(3):
        expect(page.locator(f"#candidate-{place} strong.good")).to_be_visible()
    wait_until(lambda: is_sent(page))
    assert len(Store(desk.store).choices()) == before + 3
    assert page.locator(".error, .banner").count() == 0


def is_sent(page: Page) -> bool:
    """Return whether no choice waits to be saved; wait_for_function would need what the page's policy forbids."""
    return bool(page.evaluate("JSON.parse(localStorage.getItem('titlegen-desk-1')).outbox.length === 0"))


def states(desk: Desk, title: str) -> list[bool]:
    """Return for each choice of a title whether it counts."""
    return [choice.withdrawn is None for choice in Store(desk.store).choices() if choice.title == title]


def test_a_wrong_key_is_taken_back(open_page: Open, desk: Desk) -> None:
    page = open_page().page
    write_titles(page)
    mark = page.locator("#candidate-1 strong.good")
    title = "按錯鍵而選用的標題"
    page.locator("#candidate-1 textarea").fill(title)
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    expect(mark).to_be_visible()
    page.keyboard.press("Control+z")
    expect(mark).to_have_count(0)
    expect(page.locator("#said")).to_have_text(f"已取消選用：{title}")
    # The title is still as it was edited; it can be kept again, and taken back by mouse, also after a reload.
    expect(page.locator("#candidate-1 .marked")).to_have_text(title)
    assert states(desk, title) == [False]
    page.keyboard.press("k")
    expect(mark).to_be_visible()
    assert states(desk, title) == [False, True]
    page.reload()
    page.locator("#candidate-1").get_by_role("button", name="取消選用").click()
    expect(mark).to_have_count(0)
    assert page.evaluate("document.activeElement.id") == "candidate-1"
    assert states(desk, title) == [False, False]


def test_a_kept_title_is_taken_back_in_the_records(open_page: Open, desk: Desk) -> None:
    page = open_page().page
    write_titles(page)
    title = "從紀錄裡取消的標題"
    page.locator("#candidate-0 textarea").fill(title)
    page.locator("#candidate-0 button.main").click()
    expect(page.locator("#candidate-0 strong.good")).to_be_visible()
    page.get_by_role("button", name="紀錄").click()
    line = page.locator("tr", has_text=title)
    kept = page.locator("dl div", has_text="選用的標題").locator("dd")
    before = int(kept.inner_text())
    line.get_by_role("button", name="取消選用").click()
    # One press of a wrong button is not enough.
    assert states(desk, title) == [True]
    line.get_by_role("button", name="確定取消選用").click()
    expect(line.get_by_role("button")).to_have_count(0)
    expect(line).to_contain_text("已取消")
    expect(kept).to_have_text(str(before - 1))
    assert states(desk, title) == [False]
    assert serious(page) == []
    page.get_by_role("button", name="選標題").click()
    expect(page.locator("#candidate-0 strong.good")).to_have_count(0)


def test_the_records_show_a_slot_that_another_program_names(open_page: Open, desk: Desk) -> None:
    store = Store(desk.store)
    made = Made("d" * 64, (Shown("由系統選用的標題"),), "model", "abc")
    store.add_choice(store.add_candidates(made), 0, "由系統選用的標題", "toString")
    page = open_page().page
    page.get_by_role("button", name="紀錄").click()
    expect(page.locator("tr", has_text="由系統選用的標題")).to_contain_text("toString")


@pytest.mark.fault
def test_what_is_taken_back_while_it_is_saved_is_taken_back(open_page: Open, desk: Desk) -> None:
    watched = open_page()
    watched.allowed = ("Failed to load resource", "ERR_FAILED")
    page = watched.page
    write_titles(page)
    # The desk never hears of the first; it saves the second, and its answer is lost.
    losses: list[tuple[str, Callable[[Route], object]]] = [
        ("存檔以前就取消", lambda route: route.abort()),
        ("存檔以後才斷線", lambda route: (route.fetch(), route.abort())),
    ]
    for place, (title, lose) in enumerate(losses):
        page.route("**/api/choices", lose)
        page.locator(f"#candidate-{place} textarea").fill(title)
        page.locator(f"#candidate-{place} button.main").click()
        expect(page.locator(f"#candidate-{place} em")).to_contain_text("恢復連線後會存檔")
        page.locator(f"#candidate-{place}").get_by_role("button", name="取消選用").click()
        page.unroute("**/api/choices")
        wait_until(lambda: is_sent(page))
        assert states(desk, title) == [False]
    expect(page.locator(".card strong.good")).to_have_count(0)


@pytest.mark.fault
def test_what_is_typed_while_the_desk_is_away_is_checked_then(open_page: Open) -> None:
    watched = open_page()
    watched.allowed = ("Failed to load resource", "ERR_FAILED")
    page = watched.page
    write_titles(page)
    page.route("**/api/*", lambda route: route.abort())
    page.locator("#candidate-0 textarea").fill("公車增開9班")
    expect(page.locator(".banner")).to_contain_text("標題桌沒有回應")
    expect(page.locator("#candidate-0")).to_contain_text("檢查中")
    # Typed just before a reload, too.
    page.reload()
    page.unroute("**/api/*")
    expect(page.locator("#candidate-0 .claim.bad")).to_have_text("9")
    expect(page.locator("#candidate-0")).not_to_contain_text("檢查中")


@pytest.mark.fault
def test_what_was_cleared_or_written_over_comes_back(open_page: Open) -> None:
    page = open_page().page
    write_titles(page)
    page.locator("#candidate-0 textarea").fill("改好的標題")
    page.get_by_role("button", name="清除這一頁").click()
    assert page.locator(".card").count() == 0
    page.reload()
    page.get_by_role("button", name="回到前一份").click()
    expect(page.locator("#candidate-0 .marked")).to_have_text("改好的標題")
    # Other titles for the same article, by a slip of the finger.
    page.locator("#article").press("Control+Enter")
    expect(page.locator("#candidate-0 .marked")).not_to_have_text("改好的標題")
    wait_for_titles(page)
    page.get_by_role("button", name="回到前一份").click()
    expect(page.locator("#candidate-0 .marked")).to_have_text("改好的標題")
    page.get_by_role("button", name="清除這一頁").click()
    page.get_by_role("button", name="清除這一頁").click()
    expect(page.get_by_role("button", name="回到前一份")).to_have_count(0)
    assert "改好的標題" not in page.evaluate("JSON.stringify([localStorage, sessionStorage])")


@pytest.mark.fault
def test_tabs_of_one_browser_do_not_mix(open_page: Open, desk: Desk) -> None:
    watched = open_page()
    first, second = watched.page, watched.context.new_page()
    second.goto(desk.url)
    first.locator("#article").fill("甲的文章")
    second.locator("#article").fill("乙的文章")
    first.reload()
    assert first.locator("#article").input_value() == "甲的文章"
    # After a crash a new tab has what was written last.
    second.locator("#article").fill("乙的另一篇文章")
    third = watched.context.new_page()
    third.goto(desk.url)
    assert third.locator("#article").input_value() == "乙的另一篇文章"


@pytest.mark.parametrize("denied", ["writeText", "all"])
def test_what_is_copied_is_seen(open_page: Open, denied: str) -> None:
    watched = open_page()
    page = watched.page
    write_titles(page)
    # As at an address without TLS, where pages have no clipboard.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    if denied == "all":
        page.evaluate("document.execCommand = () => false")
    page.keyboard.press("Alt+1")
    title = page.locator("#candidate-0 .marked").inner_text()
    page.keyboard.press("c")
    said = "瀏覽器不允許複製；標題已選取，請按 Ctrl+C" if denied == "all" else f"已複製：{title}"
    expect(page.locator(".notice")).to_have_text(said)
    assert serious(page) == []
    if denied == "all":
        assert page.evaluate("document.getSelection().toString()") == title
        return
    # The focus is where it was: the next key is no letter of the title.
    assert page.evaluate("document.activeElement.id") == "candidate-0"
    page.locator("#article").fill("")
    page.locator("#article").press("Control+v")
    expect(page.locator("#article")).to_have_value(title)


@pytest.mark.slow
@pytest.mark.fault
def test_a_server_that_fails_again_and_again_is_not_asked_for_ever(
    open_page: Open, desk: Desk, desk_outputs: Path
) -> None:
    del desk_outputs
    watched = open_page()
    watched.allowed = ("503", "Failed to load resource")
    page = watched.page
    asked = []

    def fail(route: Any) -> None:
        asked.append(1)
        notice = {"message": "the model crashed", "message_zh": "模型壞了"}
        event = {"event": "error", "passing": True, "notice": notice}
        route.fulfill(body=json.dumps(event) + "\n", content_type="application/x-ndjson")

    page.route("**/api/titles", fail)
    page.locator("#article").fill(ARTICLE)
    page.locator("#article").press("Control+Enter")
    expect(page.locator(".error")).to_contain_text("模型壞了", timeout=_WAIT_MS)
    # Once, and a few times more; a server that was late in between is waited for anew.
    assert len(asked) >= 4
    page.unroute("**/api/titles")
    assert desk.url
    page.locator("#article").press("Control+Enter")
    wait_for_titles(page)


@pytest.mark.slow
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


@pytest.mark.slow
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
        wait_until(lambda: is_sent(page))
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


@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "token"])
def test_a_page_of_the_cms_has_the_desk_in_a_frame(
    open_page: Open, desk_outputs: Path, desk_model_host: str, tmp_path: Path, token: str
) -> None:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    cms = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=cms.serve_forever).start()
    # To a browser another site than 127.0.0.1, where the desk is.
    origin = f"http://localhost:{cms.server_port}"
    options, environment = ("--desk.frame-ancestors", origin), {"TITLEGEN_DESK_TOKEN": token}
    try:
        with running_desk(desk_outputs, desk_model_host, *options, environment=environment) as mine:
            frame = f'<iframe src="{mine.url}" title="titlegen" allow="clipboard-write" width=400 height=800></iframe>'
            (tmp_path / "story.html").write_text(
                f"<meta charset=utf-8><p>公車增班，下月上路。</p>{frame}", encoding="utf-8"
            )
            watched = open_page(url=mine.url)
            watched.allowed = ("ERR_CONNECTION", "favicon", "404", "401", "CORS policy", "ERR_FAILED")
            page = watched.page
            page.goto(f"{origin}/story.html")
            inside = page.frames[1]
            if token:
                inside.locator("#token").fill(token)
                inside.locator("button").click()
            inside.locator("#article").fill(ARTICLE)
            inside.locator("form button[type=submit]").click()
            expect(inside.locator(".card")).to_have_count(5, timeout=_WAIT_MS)
            expect(inside.locator(".candidates")).to_have_attribute("aria-busy", "false")
            inside.locator("#candidate-0 button.main").click()
            expect(inside.locator("#candidate-0 strong.good")).to_be_visible()
            # The page around it has the browser's cookie on its side, and can neither read nor change anything.
            kept = kept_titles(mine)
            for path, method in (("statistics", "GET"), ("withdrawals", "POST"), ("choices.csv", "GET")):
                ask = {
                    "method": method,
                    "credentials": "include",
                    **({"body": '{"choice": 1}'} if method == "POST" else {}),
                }
                assert (
                    page.evaluate(
                        "([url, ask]) => fetch(url, ask).then((answer) => answer.text(), () => 'refused')",
                        [f"{mine.url}/api/{path}", ask],
                    )
                    == "refused"
                )
            assert [choice.withdrawn for choice in Store(mine.store).choices()] == [None] * len(kept)
            watched.hosts.clear()
    finally:
        cms.shutdown()
        cms.server_close()


@pytest.mark.fault
def test_a_frame_that_keeps_no_login_says_so(open_page: Open, desk_outputs: Path, desk_model_host: str) -> None:
    with running_desk(desk_outputs, desk_model_host, environment={"TITLEGEN_DESK_TOKEN": TOKEN}) as mine:
        watched = open_page(url=mine.url)
        watched.allowed = ("401", "ERR_CONNECTION")
        page = watched.page
        # As where a browser keeps no cookies of other sites.
        page.route("**/api/login", lambda route: route.fulfill(json={"done": True}))
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("在自己的分頁開啟標題桌")


@pytest.mark.fault
def test_a_browser_that_remembers_nothing_has_a_desk(open_page: Open, browser: Browser, desk: Desk) -> None:
    del open_page
    context = browser.new_context(locale="zh-TW")
    # As where a person keeps sites from storing anything.
    context.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"]) {
            Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });
        }"""
    )
    page = context.new_page()
    page.goto(desk.url)
    write_titles(page)
    expect(page.locator(".banner")).to_contain_text("沒有空間暫存")
    context.close()


def test_two_editors_see_their_own(open_page: Open) -> None:
    first, second = open_page().page, open_page().page
    first.locator("#article").fill("第一位的文章")
    write_titles(second)
    assert first.locator("#article").input_value() == "第一位的文章"
    assert first.locator(".card").count() == 0
    first.reload()
    assert NAMED not in first.content()
