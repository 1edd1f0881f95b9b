"""The request that each name on a server was made of, so that deploying the same again sends and creates nothing.

A server may store an upload in another form and drop the original, so that it cannot say whether it has a file.
"""

import json
from pathlib import Path

from titlegen.files import digest_json, write_atomically
from titlegen.prompt import SYSTEM
from titlegen.serve.source import ModelSource
from titlegen.settings import ServeSettings

_FILE = "served.json"


def request_digest(source: ModelSource, settings: ServeSettings) -> str | None:
    """Return the digest of everything that a model is made of; None where the server fetches it, which may change."""
    if not source.files:
        return None
    prompt = source.family.prompt
    values = prompt.parameters(settings.temperature, settings.num_ctx, settings.num_predict)
    return digest_json([source.digests, prompt.template, SYSTEM, values, settings.quantize])


def recorded_digest(state_directory: Path, url: str, name: str, request: str | None) -> str | None:
    """Return the digest of the model that a server made of this request the last time; None when it never did."""
    made = _read(state_directory).get(f"{url} {name}", {})
    return made.get("digest") if request is not None and made.get("request") == request else None


def record_digest(state_directory: Path, url: str, name: str, request: str | None, digest: str) -> None:
    """Note what a server made of a request."""
    made = _read(state_directory) | {f"{url} {name}": {"request": request or "", "digest": digest}}
    state_directory.mkdir(parents=True, exist_ok=True)
    write_atomically(state_directory / _FILE, json.dumps(made, indent=2) + "\n")


def _read(state_directory: Path) -> dict[str, dict[str, str]]:
    try:
        made = json.loads((state_directory / _FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    known = made if isinstance(made, dict) else {}
    return {key: value for key, value in known.items() if isinstance(value, dict)}
