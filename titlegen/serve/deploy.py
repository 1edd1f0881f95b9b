"""Deployment: create a candidate, load it, test it, and only then let it take the name that users call."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titlegen.errors import ServeError
from titlegen.models import family_at
from titlegen.prompt import SYSTEM
from titlegen.results import Check, Deployed
from titlegen.serve.answer import Answer
from titlegen.serve.client import Client
from titlegen.serve.connection import Connection, Say, connect
from titlegen.serve.deployment import LATEST, Names, write_record
from titlegen.serve.memory import record_digest, recorded_digest, request_digest
from titlegen.serve.server import Server, ensure_server
from titlegen.serve.smoke import opening_of, smoke_articles, title_problems
from titlegen.serve.source import ModelSource, resolve_source
from titlegen.settings import ServeSettings

if TYPE_CHECKING:
    import ollama

_SMOKE_PASSES = 4


def deploy(
    export_directory: Path,
    gguf_directory: Path,
    settings: ServeSettings,
    state_directory: Path,
    say: Say = lambda _: None,
    accept: Callable[[Client], Check] | None = None,
) -> Deployed:
    """Put the model on the server and let it take over once it has passed a smoke test, and ``accept``.

    The model that it replaces stays as ``NAME:previous``. A model that is there already is only loaded.

    Args:
        export_directory: ``final-hf``, for its tokenizer, and the family of a source that does not say its own.
        gguf_directory: the exported GGUF files.
        settings: the stage's settings.
        state_directory: where the server's record and log are, should one be started.
        say: takes lines of progress.
        accept: takes a client of the new model before it takes over; what it raises keeps the old one in its place.

    Raises:
        ConfigError: a name or the source cannot be used.
        ServeError: the server cannot be used, or the model failed the smoke test; what was served before still is.
    """
    names = Names.of(settings.model_name)
    source = resolve_source(settings, gguf_directory, family_at(export_directory))
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
            if before is not None and before == recorded_digest(state_directory, server.host, names.final, request):
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
    record_digest(state_directory, server.host, names.final, request, digest)
    if source.is_exported:
        write_record(settings, gguf_directory, digest)
    return _deployed(server, names, digest).model_copy(
        update={
            "previous": previous,
            "changed": digest != before,
            "source": source.text,
            "titles": [answer.title for answer in answers],
            "parity": accepted,
        }
    )


def create_model(
    client: ollama.Client,
    name: str,
    source: ModelSource,
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

    prompt = source.family.prompt
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
            template=prompt.template,
            system=SYSTEM,
            parameters=prompt.parameters(settings.temperature, settings.num_ctx, settings.num_predict),
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


def rollback(settings: ServeSettings, state_directory: Path) -> Deployed:
    """Switch back to the previous model; the current one becomes the previous one, so a second call undoes the first.

    Raises:
        ServeError: there is no previous model, or the server cannot be used.
    """
    names = Names.of(settings.model_name)
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
            # It must answer before anything changes; a loaded model keeps the name that it has now.
            connection.load(names.previous)
            connection.unload(names.previous)
            if names.final in digests:
                connection.ollama.copy(names.final, names.newer)
            connection.ollama.copy(names.previous, names.final)
            _finish_rollback(connection, names)
        _load_as(connection, names.final)
        digests = connection.digests()
        digest = digests[names.final]
        # They are equal where no model answered before.
        previous = names.previous if digests[names.previous] != digest else None
    return _deployed(server, names, digest).model_copy(update={"previous": previous, "changed": True, "titles": []})


def _finish_rollback(connection: Connection, names: Names) -> bool:
    """Finish a rollback, interrupted or not; returns whether another model answers now."""
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


def _candidate_client(
    names: Names, source: ModelSource, export_directory: Path, settings: ServeSettings
) -> contextlib.closing[Client]:
    directory = export_directory if (export_directory / "tokenizer.json").is_file() and source.is_tuned else None
    return contextlib.closing(Client(settings, directory, source.family.prompt, model_name=names.candidate))


def _smoke_test(client: Client, source: ModelSource, connection: Connection) -> list[Answer]:
    """Ask the candidate for a few titles and return its answers.

    Raises:
        ServeError: the prompt is not the one of training, or what came back are no titles.
    """
    answers, problems = [], []
    for article in smoke_articles():
        content, _ = client.prepare(article)
        _check_rendering(connection, client, content)
        answer = client.ask(article)
        expected = client.expected_tokens(content)
        # A server that aborted the answer reports no counts.
        if expected is not None and answer.prompt_tokens not in {0, expected}:
            raise ServeError(
                f"the server reads {answer.prompt_tokens} tokens where the model was trained on {expected}: its "
                "vocabulary is another one; deploy the exported GGUF file"
            )
        answers.append(answer)
        problems += [f"{answer.raw[:60]!r}: {', '.join(found)}"] if (found := title_problems(answer)) else []
    if source.is_tuned and len(problems) > len(answers) - _SMOKE_PASSES:
        raise ServeError(
            f"the model failed the smoke test, {len(problems)} of {len(answers)} answers are no titles "
            f"({'; '.join(problems[:2])}); train longer, or look at the data"
        )
    return answers


def _check_rendering(connection: Connection, client: Client, content: str) -> None:
    """Compare the rendered prompt with the one of training, on a server that returns it."""
    body = {"model": client.model_name, "prompt": content, "stream": False, "_debug_render_only": True}
    response = connection.http.post("/api/generate", json=body)
    rendered = response.json().get("_debug_info", {}).get("rendered_template") if response.is_success else None
    if rendered is not None and rendered != client.prompt.render(content).removeprefix(client.prompt.bos):
        raise ServeError(
            f"the server renders another prompt than the model was trained on: {rendered[:80]!r}...; deploy again"
        )


def _switch_over(connection: Connection, names: Names, before: str | None) -> None:
    # What is loaded keeps its name until it is unloaded: the server would list a candidate that nobody can call.
    connection.unload(names.candidate)
    if before is not None:
        connection.ollama.copy(names.final, names.previous)
    connection.ollama.copy(names.candidate, names.final)
    if before is not None:
        # It was loaded without an end; two models may need more memory than the machine has.
        connection.unload(names.previous)


def _load_as(connection: Connection, name: str) -> None:
    """Load a model under this name, also where an earlier command left it loaded under another."""
    digest = connection.digests()[name]
    if any(entry.digest == digest and entry.model != name for entry in connection.ollama.ps().models):
        connection.unload(name)
    connection.load(name)


def _give_up(connection: Connection, names: Names) -> None:
    """Remove the candidate; when the server is gone, the next deployment does."""
    import httpx
    import ollama

    with contextlib.suppress(ConnectionError, httpx.TransportError, ollama.ResponseError):
        if names.candidate in connection.digests():
            connection.unload(names.candidate)
            connection.remove(names.candidate)


def _deployed(server: Server, names: Names, digest: str) -> Deployed:
    model = names.final.removesuffix(f":{LATEST}")
    body = json.dumps({"model": model, "prompt": opening_of(smoke_articles()[0]), "stream": False}, ensure_ascii=False)
    curl = f"curl -s {server.host}/api/generate -d {shlex.quote(body)}"
    return Deployed(host=server.host, server=server.kind, model=model, digest=digest, curl=curl)
