"""Names of a model on the server, and the record of the exported model that was deployed."""

import dataclasses
import json
import re
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from titlegen.errors import ConfigError, ServeError, TitlegenError
from titlegen.export import gguf_name
from titlegen.files import write_atomically
from titlegen.manifest import read_manifest
from titlegen.results import ConvertedFiles, read_result
from titlegen.serve.bounded import read_json
from titlegen.serve.connection import connect
from titlegen.serve.server import http_options, server_url
from titlegen.settings import ServeSettings

RECORD = "deployment.json"
_NAME = re.compile(r"((?:[\w.-]+(?::\d+)?/)?(?:[\w-]+/)?[A-Za-z0-9_][\w.-]*?)(?::([A-Za-z0-9_][\w.-]*))?", re.ASCII)
LATEST = "latest"
# A list of models is there at once, on a busy machine as well.
_PROBE_S = 10.0


@dataclasses.dataclass(frozen=True)
class Names:
    """The names of one model: what users call, what is being tested, and what was there before."""

    final: str
    candidate: str
    previous: str
    newer: str
    """What answered before a rollback, while that is under way."""

    @classmethod
    def of(cls, model_name: str) -> "Names":
        """Return the names that belong to ``serve.model_name``."""
        match = _NAME.fullmatch(model_name)
        if match is None:
            raise ConfigError(f"serve.model_name = {model_name!r} is no model name; use one such as zh-titlegen")
        base, tag = match[1], match[2] or LATEST
        head = f"{base}:" if tag == LATEST else f"{base}:{tag}-"
        return cls(f"{base}:{tag}", f"{head}candidate", f"{head}previous", f"{head}newer")


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A deployed model, as it is recorded beside the GGUF file that it was made of."""

    host: str
    model: str
    gguf: str
    """Digest of the exported file."""
    digest: str
    """Of the model on the server."""


def read_deployment(directory: Path) -> Deployment | None:
    """Return the record of a profile's last deployment; None where there is none that can be read."""
    try:
        return TypeAdapter(Deployment).validate_json((directory / RECORD).read_bytes(), strict=True)
    except (OSError, ValidationError):
        return None


def served_digest(settings: ServeSettings) -> str:
    """Return the digest of the model that the server has under our name.

    Raises:
        ServeError: no server answers, or it has none.
    """
    name, url = Names.of(settings.model_name).final, server_url(settings.host)
    try:
        with connect(settings) as connection, connection.http.stream("GET", "/api/tags", timeout=_PROBE_S) as response:
            listed = read_json(response, _PROBE_S)["models"]
            found = {str(entry.get("model") or entry["name"]): str(entry["digest"]) for entry in listed}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServeError(
            f"{url} lists no models as Ollama does ({type(error).__name__}); another program may answer there: correct "
            "serve.host"
        ) from error
    if name not in found:
        raise ServeError(f"{url} has no model {name!r}; run `titlegen deploy` first")
    return found[name]


def is_deployed(settings: ServeSettings, gguf_directory: Path) -> bool:
    """Return whether the server answers with the model made of the exported GGUF file; asks, and starts nothing."""
    import httpx

    try:
        exported = _exported_digest(gguf_directory)
        url = server_url(settings.host)
        response = httpx.get(f"{url}/api/tags", timeout=10.0, **http_options(url))
        found = {entry["name"]: entry["digest"] for entry in response.json()["models"]}
        name = Names.of(settings.model_name).final
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError, TitlegenError):
        return False
    return read_deployment(gguf_directory.parent) == Deployment(url, name, exported, found.get(name, ""))


def write_record(settings: ServeSettings, gguf_directory: Path, digest: str) -> None:
    """Record the file that the answering model was made of."""
    name = Names.of(settings.model_name).final
    record = Deployment(server_url(settings.host), name, _exported_digest(gguf_directory), digest)
    write_atomically(gguf_directory.parent / RECORD, json.dumps(dataclasses.asdict(record), indent=2) + "\n")


def _exported_digest(gguf_directory: Path) -> str:
    manifest = read_manifest(gguf_directory)
    return manifest.files[gguf_name(read_result(ConvertedFiles, manifest).types[0])].sha256
