"""Deployment: create a candidate, load it, test it, and only then let it take the name that users call."""

import contextlib
import dataclasses
import json
import re
import shlex
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from titlegen.errors import ConfigError, ServeError, TitlegenError
from titlegen.export import gguf_name
from titlegen.manifest import read_manifest, write_atomically
from titlegen.metrics.contract import title_violations
from titlegen.prompt import BOS, SYSTEM, TEMPLATE, parameters, render_prompt
from titlegen.serve.answer import Answer
from titlegen.serve.client import Client
from titlegen.serve.connection import Connection, Say, connect
from titlegen.serve.memory import recall, remember, request_digest
from titlegen.serve.modelfile import Source, resolve_source
from titlegen.serve.server import Server, ensure_server, http_options, server_url
from titlegen.settings import ServeSettings
from titlegen.text import split_sentences

RECORD = "deployment.json"
_NAME = re.compile(r"((?:[\w.-]+(?::\d+)?/)?(?:[\w-]+/)?[A-Za-z0-9_][\w.-]*?)(?::([A-Za-z0-9_][\w.-]*))?", re.ASCII)
_LATEST = "latest"
_SMOKE_ARTICLES, _SMOKE_PASSES = 5, 4
_TITLE_CHARS = range(4, 61)
_OPENING_CHARS = 160


@dataclasses.dataclass(frozen=True)
class _Names:
    """The names of one model: what users call, what is being tested, and what was there before."""

    final: str
    candidate: str
    previous: str
    newer: str
    """What answered before a rollback, while that is under way."""

    @classmethod
    def of(cls, model_name: str) -> "_Names":
        match = _NAME.fullmatch(model_name)
        if match is None:
            raise ConfigError(f"serve.model_name = {model_name!r} is no model name; use one such as zh-titlegen")
        base, tag = match[1], match[2] or _LATEST
        head = f"{base}:" if tag == _LATEST else f"{base}:{tag}-"
        return cls(f"{base}:{tag}", f"{head}candidate", f"{head}previous", f"{head}newer")


def deploy(
    export_directory: Path,
    gguf_directory: Path,
    settings: ServeSettings,
    state_directory: Path,
    say: Say = lambda _: None,
    accept: Callable[[Client], Any] | None = None,
) -> dict[str, Any]:
    """Put the model on the server and let it take over once it has passed a smoke test, and ``accept``.

    The model that it replaces stays as ``NAME:previous``. A model that is there already is only loaded.

    Args:
        export_directory: ``final-hf``, for its tokenizer.
        gguf_directory: the exported GGUF files.
        settings: the stage's settings.
        state_directory: where the server's record and log are, should one be started.
        say: takes lines of progress.
        accept: takes a client of the new model before it takes over; what it raises keeps the old one in its place.

    Returns:
        Host, model, digest, whether anything changed, the smoke test's titles, what ``accept`` returned (None when
        nothing changed), and a ``curl`` line.

    Raises:
        ConfigError: a name or the source cannot be used.
        ServeError: the server cannot be used, or the model failed the smoke test; what was served before still is.
    """
    names = _Names.of(settings.model_name)
    source = resolve_source(settings, gguf_directory)
    for notice in source.notices:
        say(f"deploy: {notice}")
    request = request_digest(source, settings)
    server = ensure_server(settings, state_directory)
    say(f"deploy: {'started' if server.started else 'using'} {server.kind} {server.version} at {server.host}")
    with connect(settings) as connection:
        _finish_rollback(connection, names)
        before = connection.digests().get(names.final)
        answers: list[Answer] = []
        accepted = None
        try:
            if before is not None and before == recall(state_directory, server.host, names.final, request):
                digest = before
            else:
                create_model(connection.ollama, names.candidate, source, settings, say, upload=connection.upload)
                digest = connection.digests()[names.candidate]
            if digest != before:
                connection.load(names.candidate)
                with _candidate_client(names, source, export_directory, settings) as client:
                    answers = _smoke_test(client, source, connection)
                    accepted = accept(client) if accept else None
                _switch_over(connection, names, before)
        except BaseException:
            _give_up(connection, names)
            raise
        connection.remove(names.candidate)
        _load_as(connection, names.final)
        previous = names.previous if names.previous in connection.digests() else None
    say(f"deploy: {names.final} {'unchanged' if digest == before else 'now answers'}")
    remember(state_directory, server.host, names.final, request, digest)
    if source.is_exported:
        _write_record(settings, gguf_directory, digest)
    return {
        **_result(server, names, digest),
        "previous": previous,
        "changed": digest != before,
        "source": source.text,
        "titles": [answer.title for answer in answers],
        "accepted": accepted,
    }


def create_model(
    client: Any,
    name: str,
    source: Source,
    settings: ServeSettings,
    say: Say = lambda _: None,
    *,
    upload: Callable[[Path, str, Say], str],
) -> None:
    """Create a model with our prompt on the server, through ``client``, Ollama's own.

    Raises:
        ServeError: the server reported an error, also after its first lines, or did not report success.
    """
    import ollama

    fields: dict[str, Any] = {"from_": source.text}
    if source.files:
        fields = {
            "files": {
                path.name: upload(path, digest, say) for path, digest in zip(source.files, source.digests, strict=True)
            }
        }
    last = ""
    try:
        for step in client.create(
            model=name,
            **fields,
            template=TEMPLATE,
            system=SYSTEM,
            parameters=parameters(settings.temperature, settings.num_ctx, settings.num_predict),
            quantize=settings.quantize,
            stream=True,
        ):
            last = step.status or last
    except ollama.ResponseError as error:
        raise ServeError(
            f"the server could not create the model from {source.text}: {error.error}; see its log, then deploy again"
        ) from error
    # HTTP 200 comes before the work, so it says nothing about its end.
    if last != "success":
        raise ServeError(f"the server stopped creating the model after {last!r}; see its log, then deploy again")


def rollback(settings: ServeSettings, state_directory: Path) -> dict[str, Any]:
    """Let the previous model answer again; the present one becomes the previous one, so a second call undoes the first.

    Raises:
        ServeError: there is no previous model, or the server cannot be used.
    """
    names = _Names.of(settings.model_name)
    server = ensure_server(settings, state_directory)
    with connect(settings) as connection:
        if not _finish_rollback(connection, names):
            digests = connection.digests()
            if names.previous not in digests:
                raise ServeError(
                    f"{server.host} has no {names.previous}: nothing has been replaced yet; "
                    "deploy twice before a rollback"
                )
            if digests[names.previous] == digests.get(names.final):
                raise ServeError(
                    f"{names.previous} is the model that answers now: there is nothing to go back to; "
                    "deploy another one first"
                )
            # It has to be able to answer before anything changes; what is loaded keeps the name that it has now.
            connection.load(names.previous)
            connection.unload(names.previous)
            if names.final in digests:
                connection.ollama.copy(names.final, names.newer)
            connection.ollama.copy(names.previous, names.final)
            _finish_rollback(connection, names)
        _load_as(connection, names.final)
        digests = connection.digests()
        digest = digests[names.final]
        # Equal where nothing answered before.
        previous = names.previous if digests[names.previous] != digest else None
    return {**_result(server, names, digest), "previous": previous, "changed": True, "titles": []}


def _finish_rollback(connection: Connection, names: _Names) -> bool:
    """Bring a rollback, interrupted or not, to its end; returns whether it has changed what answers."""
    digests = connection.digests()
    newer = digests.get(names.newer)
    if newer is None:
        return False
    changed = newer != digests.get(names.final)
    if changed:
        connection.ollama.copy(names.newer, names.previous)
    connection.unload(names.newer)
    connection.remove(names.newer)
    return changed


def served_digest(settings: ServeSettings) -> str:
    """Return the digest of the model that the server has under our name.

    Raises:
        ServeError: no server answers, or it has none.
    """
    name = _Names.of(settings.model_name).final
    with connect(settings) as connection:
        found = connection.digests().get(name)
    if found is None:
        raise ServeError(f"{server_url(settings.host)} has no model {name!r}; run `titlegen deploy` first")
    return found


def is_deployed(settings: ServeSettings, gguf_directory: Path) -> bool:
    """Return whether the server answers with the model made of the exported GGUF file; asks, and starts nothing."""
    import httpx

    try:
        record = json.loads((gguf_directory.parent / RECORD).read_bytes())
        exported = _exported_digest(gguf_directory)
        url = server_url(settings.host)
        response = httpx.get(f"{url}/api/tags", timeout=10.0, **http_options(url))
        found = {entry["name"]: entry["digest"] for entry in response.json()["models"]}
        name = _Names.of(settings.model_name).final
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError, TitlegenError):
        return False
    return bool(record == {"host": url, "model": name, "gguf": exported, "digest": found.get(name)})


def _write_record(settings: ServeSettings, gguf_directory: Path, digest: str) -> None:
    record = {
        "host": server_url(settings.host),
        "model": _Names.of(settings.model_name).final,
        "gguf": _exported_digest(gguf_directory),
        "digest": digest,
    }
    write_atomically(gguf_directory.parent / RECORD, json.dumps(record, indent=2) + "\n")


def _exported_digest(gguf_directory: Path) -> str:
    manifest = read_manifest(gguf_directory)
    return manifest.files[gguf_name(manifest.results["types"][0])].sha256


def _candidate_client(
    names: _Names, source: Source, export_directory: Path, settings: ServeSettings
) -> contextlib.closing[Client]:
    directory = export_directory if (export_directory / "tokenizer.json").is_file() and source.is_tuned else None
    return contextlib.closing(Client(settings, directory, model_name=names.candidate))


def _smoke_test(client: Client, source: Source, connection: Connection) -> list[Answer]:
    """Ask the candidate for a few titles and return its answers.

    Raises:
        ServeError: the prompt is not the one of training, or what came back are no titles.
    """
    answers, problems = [], []
    for article in smoke_articles():
        content, _ = client.prepare(article)
        _check_rendering(connection, client.model_name, content)
        answer = client.ask(article)
        expected = client.expected_tokens(content)
        # A server that broke the answer off tells no counts.
        if expected is not None and answer.prompt_tokens not in {0, expected}:
            raise ServeError(
                f"the server reads {answer.prompt_tokens} tokens where the model was trained on {expected}: its "
                "vocabulary is another one; deploy the exported GGUF file"
            )
        answers.append(answer)
        problems += [f"{answer.raw[:60]!r}: {', '.join(found)}"] if (found := _problems(answer)) else []
    if source.is_tuned and len(problems) > len(answers) - _SMOKE_PASSES:
        raise ServeError(
            f"the model failed the smoke test, {len(problems)} of {len(answers)} answers are no titles "
            f"({'; '.join(problems[:2])}); train longer, or look at the data"
        )
    return answers


def _check_rendering(connection: Connection, name: str, content: str) -> None:
    """Compare the rendered prompt with the one of training, on a server that tells it."""
    body = {"model": name, "prompt": content, "stream": False, "_debug_render_only": True}
    response = connection.http.post("/api/generate", json=body)
    rendered = response.json().get("_debug_info", {}).get("rendered_template") if response.is_success else None
    if rendered is not None and rendered != render_prompt(content).removeprefix(BOS):
        raise ServeError(
            f"the server renders another prompt than the model was trained on: {rendered[:80]!r}...; deploy again"
        )


def smoke_articles() -> list[str]:
    """Return the articles of the smoke test, from the corpus that comes with titlegen."""
    folder = resources.files("titlegen") / "corpus"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".jsonl")), key=lambda item: item.name)
    rows = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [json.loads(row)["content"] for row in rows[:: len(rows) // _SMOKE_ARTICLES][:_SMOKE_ARTICLES]]


def _problems(answer: Answer) -> list[str]:
    found = list(title_violations(answer.raw))
    if answer.done_reason != "stop":
        found.append(f"ended by {answer.done_reason}")
    if len(answer.title) not in _TITLE_CHARS:
        found.append(f"{len(answer.title)} characters")
    return found


def _switch_over(connection: Connection, names: _Names, before: str | None) -> None:
    # What is loaded keeps its name until it is unloaded: the server would list a candidate that nobody can call.
    connection.unload(names.candidate)
    if before is not None:
        connection.ollama.copy(names.final, names.previous)
    connection.ollama.copy(names.candidate, names.final)
    if before is not None:
        # It was loaded for ever; two models may be more than the machine has memory for.
        connection.unload(names.previous)


def _load_as(connection: Connection, name: str) -> None:
    """Load a model under this name, also where an earlier command left it loaded under another."""
    digest = connection.digests()[name]
    if any(entry.digest == digest and entry.model != name for entry in connection.ollama.ps().models):
        connection.unload(name)
    connection.load(name)


def _give_up(connection: Connection, names: _Names) -> None:
    """Take the candidate away; when the server is gone, the next deployment does it."""
    import httpx
    import ollama

    with contextlib.suppress(ConnectionError, httpx.TransportError, ollama.ResponseError):
        if names.candidate in connection.digests():
            connection.unload(names.candidate)
            connection.remove(names.candidate)


def _opening(article: str) -> str:
    """Return the first sentences of an article, as many as a line of a terminal's history can bear."""
    opening = ""
    for sentence in split_sentences(article):
        if opening and len(opening) + len(sentence) > _OPENING_CHARS:
            break
        opening += sentence
    return opening


def _result(server: Server, names: _Names, digest: str) -> dict[str, Any]:
    body = {"model": names.final.removesuffix(f":{_LATEST}"), "prompt": _opening(smoke_articles()[0]), "stream": False}
    return {
        "host": server.host,
        "server": server.kind,
        "model": body["model"],
        "digest": digest,
        "curl": f"curl -s {server.host}/api/generate -d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
    }
