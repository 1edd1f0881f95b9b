"""How long an editor waits at the desk, and how much of that is the desk's own.

    python benchmarks/desk_speed.py OUTPUTS/PROFILE [--articles N] [--parallel N]

OUTPUTS/PROFILE holds an exported model (``final-hf`` and ``gguf``); it is served by the bundled server, and each
article of the embedded corpus is given once to ``POST /api/titles``, as the page does. ``added_ms`` is the median
of the time of a request less the time in which the model server was waited for in it: what the desk adds.
"""

import argparse
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from machine import write_result

from titlegen.data.sources import embedded_files
from titlegen.desk.app import create_app
from titlegen.desk.store import Store
from titlegen.desk.writing import Writer
from titlegen.families.gemma3 import PROMPT
from titlegen.metrics.house_style import load_style
from titlegen.metrics.tokens import load_jieba
from titlegen.prompt import SYSTEM
from titlegen.serve import Answer, Client
from titlegen.serve.article import Article
from titlegen.settings import Settings, load_settings

# The bundled server in a process of its own, as the tests start it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ollama_server import offline_server


class Timed(Client):
    """A client that adds up how long the model server was waited for."""

    waited_s = 0.0

    def write_candidate(
        self, read: Article, seed: int, on_text: Callable[[str], None] | None = None, *, again: bool = False
    ) -> Answer:
        started = time.perf_counter()
        try:
            return super().write_candidate(read, seed, on_text, again=again)
        finally:
            self.waited_s += time.perf_counter() - started


def ask(http: httpx.Client, article: str) -> dict[str, float]:
    """Return when what was there, seconds."""
    started = time.perf_counter()
    found: dict[str, float] = {}
    headers = {"Accept": "application/x-ndjson"}
    with http.stream("POST", "/api/titles", json={"article": article}, headers=headers) as response:
        for line in response.iter_lines():
            event = json.loads(line)
            now = time.perf_counter() - started
            if event["event"] == "text" and event["text"]:
                found.setdefault("first_letter_s", now)
            elif event["event"] == "candidate":
                found.setdefault("first_title_s", now)
            elif event["event"] == "result":
                found |= {"all_s": now, "titles": len(event["result"]["candidates"])}
    return found


def measure(settings: Settings, articles: list[str], store: Path) -> dict[str, float]:
    client = Timed(settings.serve, settings.directory / "final-hf")
    writer = Writer(settings, client, Store(store), load_style())
    load_jieba().initialize()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(writer), log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    found: list[dict[str, float]] = []
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=600, trust_env=False) as http:
        # The first request loads the model.
        ask(http, articles[0])
        for article in articles[1:]:
            client.waited_s = 0.0
            one = ask(http, article)
            added_s = one["all_s"] - client.waited_s
            found.append(one | {"added_ms": 1000 * added_s, "added_share": added_s / one["all_s"]})
    server.should_exit = True
    thread.join()
    listener.close()
    client.close()
    return {name: statistics.median(one[name] for one in found if name in one) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--articles", type=int, default=30)
    parser.add_argument("--parallel", type=int, default=4, help="titles written at a time, beside one at a time")
    arguments = parser.parse_args()
    lines = [json.loads(line) for file in embedded_files() for line in file.read_text(encoding="utf-8").splitlines()]
    articles = [line["content"] for line in random.Random(3).sample(lines, 2 * arguments.articles + 2)]
    gguf = next((arguments.profile / "gguf").glob("*.gguf"))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, offline_server(Path(folder)) as server:
        server.create("speed", gguf, template=PROMPT.template, system=SYSTEM)
        half = len(articles) // 2
        for name, parallel, part in (("", 1, articles[:half]), ("_parallel", arguments.parallel, articles[half:])):
            settings = load_settings(
                profile=arguments.profile.name,
                output=arguments.profile.parent,
                serve={"host": server.host, "model_name": "speed"},
                desk={"parallel": parallel},
            )
            found = measure(settings, part, Path(folder) / f"{parallel}.sqlite3")
            if parallel > 1:
                # What is waited for at the same time does not add up.
                del found["added_ms"], found["added_share"]
            figures |= {f"{key}{name}": value for key, value in found.items()}
    print(json.dumps(figures, indent=1))
    write_result("desk_speed", figures, "medians; the bundled server with one thread an engine; see the script's head")


if __name__ == "__main__":
    main()
