"""The editor's desk in a process of its own, in front of a scripted model that writes five titles."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from corpus import tiny_vocabulary
from exported_models import Export
from ollama_server import OfflineServer, offline_server, wait_until
from scripted_model import chain, with_characters, write_scripted_gguf

from titlegen.daemon import free_port
from titlegen.families.gemma3 import PROMPT
from titlegen.manifest import write_manifest
from titlegen.models import write_tokenizer
from titlegen.prompt import SYSTEM
from titlegen.serve.server import http_options

MODEL = "desk"
ARTICLE = (
    "臺南市政府今天宣布，5月20日起增開3班公車，延長夜間服務到23時。\n市長黃偉哲表示：「票價不會調漲，請市民放心搭乘。」"
    "\n交通局說，安南區與永康區的站牌將在6月3日前更新，新制今起上路，市府已製作影片說明。"
)
BACKED, NAMED, PLAIN, WRONG, UNSTYLED = (
    "公車增開3趟夜間服務延長",
    "黃偉哲：票價不會調漲",
    "安南永康站牌將換",
    "交通局添8處候乘亭",
    "視頻說明“新制”今起上路",
)
TITLES = (BACKED, NAMED, PLAIN, WRONG, UNSTYLED)
VOCABULARY = with_characters(tiny_vocabulary(), "".join(TITLES))
_FOLLOWS: dict[str, str | Sequence[str]] = {
    **{key: value for title in TITLES for key, value in chain(title).items()},
    "\n": [title[0] for title in TITLES],
}


def write_desk_model(directory: Path) -> Export:
    """Write what the quickstart profile would leave, with a model that writes each of the titles as often."""
    export = Export(directory / "final-hf", directory / "gguf")
    export.merged.mkdir(parents=True)
    write_tokenizer(export.merged, *VOCABULARY)
    (export.merged / "config.json").write_text('{"model_type": "gemma3_text"}', encoding="utf-8")
    export.gguf.mkdir()
    write_scripted_gguf(export.file, VOCABULARY, _FOLLOWS)
    write_manifest(export.gguf, "gguf", {}, {}, {"types": ["q8_0"]})
    return export


@contextlib.contextmanager
def title_server(directory: Path, export: Export, *options: str, port: int = 0) -> Iterator[OfflineServer]:
    """Run a model server that has the model."""
    with offline_server(directory, *options, port=port) as server:
        server.create(MODEL, export.file, template=PROMPT.template, system=SYSTEM)
        yield server


@dataclass
class Desk:
    """A running desk."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    store: Path

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **http_options(self.url))


@contextlib.contextmanager
def running_desk(
    outputs: Path,
    host: str,
    *options: str,
    port: int = 0,
    store: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Desk]:
    """Run the command until the block ends."""
    port = port or free_port()
    store = store or outputs / f"desk-{port}.sqlite3"
    log = outputs / f"desk-{port}.log"
    command = [sys.executable, "-m", "titlegen", "desk", "--output", str(outputs), "--serve.host", host]
    command += ["--serve.model-name", MODEL, "--desk.port", str(port), "--desk.no-open-browser"]
    command += ["--serve.retries", "0", "--desk.store", str(store), *options]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            command, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    desk = Desk(f"http://127.0.0.1:{port}", process, log, store)
    try:
        with desk.http as client:
            wait_until(lambda: process.poll() is not None or _answers(client))
        assert process.poll() is None, log.read_text()
        yield desk
    finally:
        process.terminate()
        process.wait(30)


class _SlowModel(BaseHTTPRequestHandler):
    """Writes the first title at once, and the next one for as long as somebody waits."""

    def do_GET(self) -> None:
        entry = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "digest": "ab" * 32}
        self._answer([json.dumps({"models": [entry], "version": "1"})])

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        end = {"model": MODEL, "response": "", "done": True, "done_reason": "stop"}
        if request["options"]["seed"] == 0:
            self._answer([json.dumps({**end, "response": BACKED, "done": False}), json.dumps(end)])
        else:
            self._answer(self._letters())

    def _letters(self) -> Iterator[str]:
        for _ in range(600):
            time.sleep(0.1)
            yield json.dumps({"model": MODEL, "response": "慢", "done": False})

    def _answer(self, lines: Iterable[str]) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            for line in lines:
                self.wfile.write(f"{line}\n".encode())
                self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def slow_server() -> Iterator[str]:
    """Run a model server that never finishes its second title; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _SlowModel)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/login").status_code == 200
    except httpx.TransportError:
        return False
