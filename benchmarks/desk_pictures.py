"""Pictures of the editor's desk for the documents: the real page, in front of a model that writes five titles.

    python benchmarks/desk_pictures.py [FOLDER]

Needs Chromium (``apt-get install chromium``, or name one in CHROMIUM) and a font with Traditional Chinese
(``fonts-noto-cjk``). Writes ``desk-light.png`` and ``desk-phone-dark.png`` into ``docs``, or another folder.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
# The server, the model and the article are those of the tests.
sys.path.insert(0, str(_ROOT / "tests"))

from desk_server import ARTICLE, running_desk, title_server, write_desk_model  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

_SHAPES: dict[str, dict[str, Any]] = {
    "desk-light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light", "locale": "zh-TW"},
    "desk-phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "locale": "en-US"},
}
_WAIT_MS = 120_000


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else _ROOT / "docs"
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("no Chromium here: apt-get install chromium, or name one in CHROMIUM")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        outputs = Path(name)
        export = write_desk_model(outputs / "quickstart")
        with title_server(outputs / "server", export) as server, running_desk(outputs, server.host) as desk:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for picture, shape in _SHAPES.items():
                page = browser.new_context(device_scale_factor=1, **shape).new_page()
                page.set_default_timeout(_WAIT_MS)
                page.goto(desk.url)
                page.locator("#article").fill(ARTICLE)
                page.keyboard.press("Control+Enter")
                page.locator('.candidates[aria-busy="false"] table').wait_for()
                page.locator(".claim.good").first.click()
                if shape["viewport"]["width"] < 400:
                    page.locator("#candidates-label").scroll_into_view_if_needed()
                    page.evaluate("document.getElementById('candidates-label').scrollIntoView()")
                page.screenshot(path=folder / f"{picture}.png")
            browser.close()


if __name__ == "__main__":
    main()
