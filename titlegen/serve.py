"""Put the exported model on an Ollama server, switch over to it safely, and ask it for titles."""

import contextlib
import json
import shlex
import shutil
import socket
import sys
import time
import urllib.parse
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from titlegen import prompt
from titlegen.daemon import find_daemon, start_daemon, stop_daemon
from titlegen.errors import ServeError
from titlegen.manifest import read_manifest
from titlegen.settings import ServeSettings
from titlegen.text import clean_content, trim_to_tokens

T = TypeVar("T")

_CANDIDATE, _PREVIOUS = "candidate", "previous"
_SMOKE_SEPARATORS = ("\n", "：")
_LONGEST_TITLE_CHARS = 60
_BACK_OFF_S = 0.5
_PROBE_TIMEOUT_S = 5.0
_START_TIMEOUT_S = 60.0
# A model of 13 GiB comes from a slow disk in a few minutes.
_LOAD_TIMEOUT_S = 900.0
_MAX_ARTICLE_CHARS = 1_000_000
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}

SMOKE_ARTICLES = (
    "台南市衛生局今日公布，本週新增三例本土登革熱病例，均集中在東區。局長林育安表示，已完成周邊五百戶噴藥，呼籲市民清除積水容器。",
    "中央氣象署下午兩點半發布海上颱風警報，強度持續增強，預估週四最接近東部海面，花蓮與台東山區累積雨量上看六百毫米。",
    "教育部宣布一一五學年度起，全國公立高中冷氣電費補助提高兩成，預計一千二百所學校受惠，經費由中央全額負擔。",
    "高雄港第七貨櫃中心今天啟用自動化橋式起重機，港務公司說，單日裝卸量可望增加百分之十五，並減少三成碳排放。",
    "農業部表示，受連日豪雨影響，雲林與彰化葉菜類損失約四千八百萬元，即日起受理農民現金救助申請至本月底。",
)


@dataclass(frozen=True)
class Server:
    """A model server that answers."""

    kind: str
    """What it is, for a person: a running Ollama, one that we started, or the bundled server."""
    host: str
    started: bool


@dataclass(frozen=True)
class Answer:
    """A title and how it came to be; times in seconds."""

    title: str
    raw: str
    done_reason: str
    prompt_tokens: int
    eval_tokens: int
    total_s: float
    load_s: float
    trimmed: bool
    """Whether the article was longer than the context window and was shortened at a sentence end."""


def ensure_server(settings: ServeSettings, state: Path) -> Server:
    """Return a server that answers: the one at ``serve.host``, else one that is started on this machine.

    Raises:
        ServeError: none answers and none can be started here.
    """
    host = normalise_host(settings.host)
    if _answers(host):
        running = find_daemon("server", state)
        kind = "the bundled server" if running is not None and running.url == host else "a running Ollama"
        return Server(kind, host, started=False)
    address = urllib.parse.urlsplit(host)
    if address.hostname not in _LOOPBACK or not settings.start_offline:
        raise ServeError(f"no Ollama answers at {host}; start it there, or correct serve.host (OLLAMA_HOST)")
    port = address.port or 11434
    if not _is_free(port):
        raise ServeError(
            f"port {port} is taken by a program that is not Ollama; end it, or set --serve.host to another port"
        )
    program = shutil.which("ollama")
    if program is not None:
        start_daemon("server", [program, "serve"], host, state, lambda: _answers(host), _START_TIMEOUT_S)
        return Server("Ollama, started here", host, started=True)
    command = [
        *(sys.executable, "-m", "titlegen.offline.ollama", "--port", str(port)),
        *("--directory", str(state / "ollama")),
    ]
    start_daemon("server", command, host, state, lambda: _answers(host), _START_TIMEOUT_S)
    return Server("the bundled server (Ollama is not installed)", host, started=True)


def stop_server(state: Path) -> bool:
    """End the server that ``ensure_server`` started; False when there is none."""
    return stop_daemon("server", state)


def normalise_host(host: str) -> str:
    """Return a host as an address: Ollama's own forms are ``HOST``, ``HOST:PORT`` and ``http://HOST:PORT``."""
    address = host if "://" in host else f"http://{host}"
    parts = urllib.parse.urlsplit(address)
    name = "127.0.0.1" if parts.hostname in {None, "0.0.0.0"} else parts.hostname  # noqa: S104 - listened on, not connected to
    default = 443 if parts.scheme == "https" else 11434
    return f"{parts.scheme}://{f'[{name}]' if ':' in str(name) else name}:{parts.port or default}"


def _answers(host: str) -> bool:
    import httpx

    try:
        # An environment's proxy must not stand between us and a server on this machine.
        answer = httpx.get(f"{host}/api/version", timeout=_PROBE_TIMEOUT_S, trust_env=False)
        return answer.is_success and "version" in answer.json()
    except (httpx.HTTPError, ValueError):
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def source_of(settings: ServeSettings, ggufs: Path) -> tuple[str, dict[str, Path]]:
    """Return what a Modelfile's FROM names: a model on the server or a registry, or files to upload.

    Raises:
        ServeError: the source is neither.
    """
    source = settings.source
    if source == "gguf":
        names = read_manifest(ggufs).results["types"]
        path = next(iter(sorted(ggufs.glob(f"*{names[0].upper()}.gguf"))), None)
        if path is None:
            raise ServeError(f"{ggufs} holds no GGUF file; run `titlegen export`")
        return "", {path.name: path}
    if source.startswith("hf://"):
        # The specification's form; Ollama's is hf.co/ORG/REPO.
        source = f"hf.co/{source.removeprefix('hf://')}"
    path = Path(source)
    if path.is_file():
        return "", {path.name: path}
    if path.is_dir():
        files = [item for item in path.iterdir() if item.suffix in {".safetensors", ".json", ".model", ".jinja"}]
        return "", {item.name: item for item in files}
    if source.startswith((".", "/", "~")):
        raise ServeError(f"serve.source {source!r} does not exist; give a GGUF file, a directory or a model name")
    return source, {}


def render_modelfile(source: str, settings: ServeSettings) -> str:
    """Return the Modelfile of the served model; its only free text is quoted so that it cannot end early."""
    values = prompt.parameters(settings.temperature, settings.num_ctx, settings.num_predict)
    lines = [f"FROM {source}", f"TEMPLATE {_quoted(prompt.TEMPLATE)}", f"SYSTEM {_quoted(prompt.SYSTEM)}"]
    for name, value in values.items():
        lines += [f"PARAMETER {name} {item}" for item in (value if isinstance(value, list) else [value])]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if '"""' in text:
        raise ServeError('a Modelfile cannot hold """ inside a text; remove it from the prompt')
    return f'"""{text}"""'


def is_deployed(settings: ServeSettings, ggufs: Path) -> bool:
    """Return whether the server answers and its model was made from the exported file, with our prompt."""
    try:
        client = Deployment(settings)
        return client.is_current(settings.model_name, source_of(settings, ggufs))
    except ServeError:
        return False


def deploy(
    export: Path, ggufs: Path, settings: ServeSettings, state: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Create the model beside the one that serves, load it, try it, and only then take its place.

    The version before stays as ``NAME:previous``. Whatever fails on the way leaves the old model serving.

    Raises:
        ServeError: the server refused, or the new model's answers are not titles.
    """
    server = ensure_server(settings, state)
    say(f"deploy: {server.kind} at {server.host}")
    deployment = Deployment(settings)
    source = source_of(settings, ggufs)
    changed = not deployment.is_current(settings.model_name, source)
    if changed:
        candidate = f"{settings.model_name}:{_CANDIDATE}"
        deployment.create(candidate, source, say)
        try:
            answers = deployment.smoke_test(candidate, export)
            deployment.switch(candidate, settings.model_name)
        finally:
            deployment.delete(candidate)
    else:
        say(f"deploy: {settings.model_name} already serves this file with this prompt")
    # The first title must not wait for the weights.
    deployment.preload(settings.model_name)
    answers = deployment.smoke_test(settings.model_name, export)
    body = json.dumps({"model": settings.model_name, "prompt": SMOKE_ARTICLES[0], "stream": False}, ensure_ascii=False)
    return {
        "host": server.host,
        "server": server.kind,
        "model": settings.model_name,
        "changed": changed,
        "titles": [answer.title for answer in answers],
        "curl": f"curl {server.host}/api/generate -d {shlex.quote(body)}",
    }


def rollback(settings: ServeSettings, state: Path) -> dict[str, Any]:
    """Serve the previous version again; what served until now becomes the previous one.

    Raises:
        ServeError: there is no previous version.
    """
    server = ensure_server(settings, state)
    deployment = Deployment(settings)
    name, previous = settings.model_name, f"{settings.model_name}:{_PREVIOUS}"
    if not deployment.exists(previous):
        raise ServeError(f"{server.host} has no {previous}; nothing to go back to")
    keep = f"{name}:{_CANDIDATE}"
    deployment.copy(name, keep)
    deployment.copy(previous, name)
    deployment.copy(keep, previous)
    deployment.delete(keep)
    deployment.preload(name)
    return {"host": server.host, "model": name, "message": f"{name} is the previous version again"}


class Deployment:
    """The steps of a deployment, through the real ``ollama`` client."""

    def __init__(self, settings: ServeSettings) -> None:
        import ollama

        self.settings = settings
        self.host = normalise_host(settings.host)
        self.client = ollama.Client(host=self.host, timeout=_LOAD_TIMEOUT_S, trust_env=False)
        weakref.finalize(self, self.client.close)

    def exists(self, name: str) -> bool:
        """Return whether the server has a model of that name."""
        import ollama

        with _explained(self.host):
            try:
                self.client.show(name)
            except ollama.ResponseError as error:
                if error.status_code == 404:  # noqa: PLR2004
                    return False
                raise
        return True

    def is_current(self, name: str, source: tuple[str, Mapping[str, Path]]) -> bool:
        """Return whether a model was made from this very file, with our prompt and parameters."""
        _, files = source
        if len(files) != 1 or not self.exists(name):
            return False
        from titlegen.manifest import digest_file

        with _explained(self.host):
            shown = self.client.show(name)
        digest = digest_file(next(iter(files.values())))
        wanted = prompt.parameters(self.settings.temperature, self.settings.num_ctx, self.settings.num_predict)
        found = dict(line.split(maxsplit=1) for line in (shown.parameters or "").splitlines() if line.strip())
        same = all(
            found.get(key, "").strip('"') == str(value[0] if isinstance(value, list) else value)
            for key, value in wanted.items()
        )
        return same and digest in (shown.modelfile or "") and shown.template == prompt.TEMPLATE

    def create(self, name: str, source: tuple[str, Mapping[str, Path]], say: Callable[[str], None]) -> None:
        """Upload the files that the server lacks and create the model; only a final ``success`` counts."""
        model, files = source
        settings = self.settings
        with _explained(self.host):
            digests = {}
            for file, path in files.items():
                say(f"deploy: sending {file} ({path.stat().st_size / 2**30:.2f} GiB) unless the server has it")
                digests[file] = self._upload(path)
            last = ""
            for step in self.client.create(
                model=name,
                from_=model or None,
                files=digests or None,
                template=prompt.TEMPLATE,
                system=prompt.SYSTEM,
                parameters=prompt.parameters(settings.temperature, settings.num_ctx, settings.num_predict),
                quantize=settings.quantize,
                stream=True,
            ):
                last = step.status or last
        if last != "success":
            raise ServeError(f"{self.host} did not finish creating {name} (last answer {last!r}); deploy again")

    def _upload(self, path: Path) -> str:
        import httpx

        from titlegen.manifest import digest_file

        digest = f"sha256:{digest_file(path)}"
        # Sending a blob that a real Ollama already has breaks the connection, so it is asked first.
        answer = httpx.head(f"{self.host}/api/blobs/{digest}", timeout=_PROBE_TIMEOUT_S, trust_env=False)
        return digest if answer.is_success else str(self.client.create_blob(path))

    def smoke_test(self, name: str, export: Path) -> list[Answer]:
        """Ask for a few titles and refuse a model whose answers are not titles."""
        client = Client(self.settings, export, model=name)
        answers = [client.generate(article) for article in SMOKE_ARTICLES]
        for article, answer in zip(SMOKE_ARTICLES, answers, strict=True):
            lines = answer.raw.strip().splitlines()
            problem = None
            if not answer.title:
                problem = "an empty answer"
            elif len(lines) > 1 or len(answer.title) > _LONGEST_TITLE_CHARS or "<" in answer.title:
                problem = f"an answer that is not a title: {answer.raw[:80]!r}"
            elif answer.done_reason != "stop":
                problem = f"an answer that does not end ({answer.done_reason}): {answer.raw[:80]!r}"
            if problem is not None:
                raise ServeError(
                    f"{name} gives {problem}, for the article {article[:20]!r}; the old model still serves"
                )
        return answers

    def switch(self, candidate: str, name: str) -> None:
        """Keep the version that serves as ``:previous`` and put the candidate in its place."""
        if self.exists(name):
            self.copy(name, f"{name}:{_PREVIOUS}")
        self.copy(candidate, name)

    def copy(self, source: str, target: str) -> None:
        """Copy a model under another name."""
        with _explained(self.host):
            self.client.copy(source, target)

    def delete(self, name: str) -> None:
        """Delete a model; a missing one is fine."""
        import ollama

        with _explained(self.host), contextlib.suppress(ollama.ResponseError):
            self.client.delete(name)

    def preload(self, name: str) -> None:
        """Load a model and keep it in memory."""
        with _explained(self.host):
            self.client.generate(model=name, prompt="", keep_alive=-1)


class Client:
    """Asks a deployed model for titles: cleans and shortens articles, waits, tries again."""

    def __init__(self, settings: ServeSettings, export: Path, model: str | None = None) -> None:
        """Connect to the server; ``export`` holds the tokenizer by which articles are measured.

        Raises:
            ServeError: the tokenizer is missing.
        """
        import ollama
        from tokenizers import Tokenizer

        self.settings = settings
        self.model = model or settings.model_name
        self.host = normalise_host(settings.host)
        self._client = ollama.Client(host=self.host, timeout=settings.timeout_s, trust_env=False)
        # Its connections are kept open between calls.
        weakref.finalize(self, self._client.close)
        if not (export / "tokenizer.json").is_file():
            raise ServeError(f"{export} has no tokenizer.json; run `titlegen export` first")
        self._tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))

    def generate(self, article: str) -> Answer:
        """Return a title for an article of any length.

        Raises:
            ServeError: the article is empty or not text, the server does not answer, or the model is not deployed.
        """
        content, trimmed = self._fit(article)
        answer = self._try(lambda: self._client.generate(model=self.model, prompt=content, stream=False))
        raw = answer.response or ""
        if not answer.done or answer.done_reason not in {"stop", "length"}:
            raise ServeError(f"{self.model} broke off its answer ({answer.done_reason}): {raw[:80]!r}; try again")
        return Answer(
            title=" ".join(raw.split()),
            raw=raw,
            done_reason=answer.done_reason,
            prompt_tokens=answer.prompt_eval_count or 0,
            eval_tokens=answer.eval_count or 0,
            total_s=(answer.total_duration or 0) / 1e9,
            load_s=(answer.load_duration or 0) / 1e9,
            trimmed=trimmed,
        )

    def generate_many(self, articles: Sequence[str], concurrency: int = 2) -> Iterator[Answer | ServeError]:
        """Yield an answer for each article, in order; an article that fails yields its error and stops nothing."""

        def one(article: str) -> Answer | ServeError:
            try:
                return self.generate(article)
            except ServeError as error:
                return error

        with ThreadPoolExecutor(max_workers=concurrency) as pool:
            yield from pool.map(one, articles)

    def _fit(self, article: str) -> tuple[str, bool]:
        """Clean an article and shorten it to what the context window holds, at a sentence end."""
        if len(article) > _MAX_ARTICLE_CHARS:
            raise ServeError(f"the article has {len(article)} characters; at most {_MAX_ARTICLE_CHARS} are read")
        if "\0" in article:
            raise ServeError("the article holds null bytes; it is not a text file")
        content = clean_content(article.encode("utf-8", errors="replace").decode("utf-8"))
        content = prompt.neutralise_control_tokens(content).strip()
        if not content:
            raise ServeError("the article is empty (after cleaning); nothing to write a title for")
        room = self.settings.num_ctx - self.settings.num_predict - self._count(prompt.render_prompt(""))
        if self._count(content) <= room:
            return content, False
        return trim_to_tokens(content, room, self._count), True

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _try(self, call: Callable[[], T]) -> T:
        """Call, and call again after a 503 or a lost connection, waiting twice as long each time."""
        import httpx
        import ollama

        wait = _BACK_OFF_S
        for left in range(self.settings.retries, -1, -1):
            try:
                with _explained(self.host):
                    return call()
            except ServeError as error:
                cause = error.__cause__
                busy = isinstance(cause, ollama.ResponseError) and cause.status_code == 503  # noqa: PLR2004
                lost = isinstance(cause, ConnectionError | httpx.TransportError) and not isinstance(
                    cause, httpx.TimeoutException
                )
                if left == 0 or not (busy or lost):
                    raise
            time.sleep(wait)
            wait *= 2
        raise AssertionError  # the loop returns or raises


class ServedGenerator:
    """Titles from the served model, for an evaluation."""

    def __init__(self, settings: ServeSettings, export: Path) -> None:
        self.client = Client(settings, export)

    def describe(self) -> dict[str, Any]:
        """Return what decides the outputs."""
        settings = self.client.settings
        return {
            "generator": "server",
            "host": self.client.host,
            "model": self.client.model,
            "decoding": {"temperature": settings.temperature, "num_predict": settings.num_predict},
        }

    def generate(self, contents: Sequence[str]) -> list[str]:
        """Return the raw output for each article."""
        outputs = []
        for answer in self.client.generate_many(contents):
            if isinstance(answer, ServeError):
                raise answer
            outputs.append(answer.raw)
        return outputs


@contextlib.contextmanager
def _explained(host: str) -> Iterator[None]:
    """Turn the client's errors into one clear line that says what to do."""
    import httpx
    import ollama

    try:
        yield
    except ollama.ResponseError as error:
        remedies = {
            404: "run `titlegen deploy` first",
            503: "the server is busy; try again later or lower the concurrency",
        }
        remedy = remedies.get(error.status_code, "look at the server's log")
        raise ServeError(f"{host} answered: {error.error} (status {error.status_code}); {remedy}") from error
    except httpx.TimeoutException as error:
        raise ServeError(
            f"{host} did not answer in time; raise --serve.timeout-s, or look at the server's load"
        ) from error
    except (ConnectionError, httpx.TransportError) as error:
        raise ServeError(
            f"{host} does not answer ({type(error).__name__}); run `titlegen deploy` or start Ollama"
        ) from error
