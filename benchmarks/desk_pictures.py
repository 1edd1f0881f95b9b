"""Pictures of the editor's desk for the documents: the real page, the bundled server, and an exported model.

    python benchmarks/desk_pictures.py outputs/quickstart [FOLDER]

Needs Chromium (``apt-get install chromium``, or name one in CHROMIUM) and a font with Traditional Chinese
(``fonts-noto-cjk``). The article is one of the embedded corpus, which nobody has to be asked for. Writes
``desk-light.png`` and ``desk-phone-dark.png`` into ``docs``, or another folder.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from titlegen.data.sources import embedded_files
from titlegen.families.gemma3 import PROMPT
from titlegen.prompt import SYSTEM

# Server and desk as the tests start them.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from desk_server import MODEL, running_desk
from ollama_server import offline_server

_PART, _LINE = "part7.jsonl", 3
_SHAPES: dict[str, dict[str, Any]] = {
    "desk-light": {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "light", "locale": "zh-TW"},
    "desk-phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "locale": "en-US"},
}
_WAIT_MS = 120_000


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    profile = Path(sys.argv[1]).resolve()
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).resolve().parents[1] / "docs"
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("no Chromium here: apt-get install chromium, or name one in CHROMIUM")
    (part,) = [file for file in embedded_files() if file.name == _PART]
    article = json.loads(part.read_text(encoding="utf-8").splitlines()[_LINE])["content"]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright, offline_server(Path(name)) as server:
        server.create(MODEL, next((profile / "gguf").glob("*.gguf")), template=PROMPT.template, system=SYSTEM)
        (Path(name) / "quickstart").symlink_to(profile)
        with running_desk(Path(name), server.host, store=Path(name) / "desk.sqlite3") as desk:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for picture, shape in _SHAPES.items():
                page = browser.new_context(device_scale_factor=1, **shape).new_page()
                page.set_default_timeout(_WAIT_MS)
                page.goto(desk.url)
                page.locator("#article").fill(article)
                page.keyboard.press("Control+Enter")
                page.locator('.candidates[aria-busy="false"] .slots').wait_for()
                page.locator(".claim.good").first.click()
                if shape["viewport"]["width"] < 400:
                    page.evaluate("document.getElementById('candidates-label').scrollIntoView()")
                # How long it took belongs to the machine.
                page.evaluate("document.querySelector('.candidates > .hint').hidden = true")
                page.screenshot(path=folder / f"{picture}.png")
            browser.close()


if __name__ == "__main__":
    main()
