"""Models on disk, as Ollama keeps them: blobs named by their SHA-256, and one manifest a model name."""

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from titlegen.files import digest_json, write_atomically
from titlegen.gguf_reader import GgufHeader

# Source: Ollama's types/model/name.go, the characters and lengths of a name's parts.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_DEFAULT_HOST, _DEFAULT_NAMESPACE, _DEFAULT_TAG = "registry.ollama.ai", "library", "latest"
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_UPLOAD = ".upload-"
DEFAULT_TEMPLATE = "{{ .Prompt }}"


class BadNameError(ValueError):
    """A model name or digest is not one."""


@dataclass(frozen=True)
class ModelName:
    """A model's full name."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """Read ``[HOST/][NAMESPACE/]MODEL[:TAG]``.

        Raises:
            BadNameError: a part is empty, too long or holds a character that names may not have.
        """
        head, colon, tag = text.rpartition(":")
        if not colon or "/" in tag:
            head, tag = text, _DEFAULT_TAG
        *outer, model = head.split("/")
        # More than a host and a namespace in front of the model leave both empty, which no name may have.
        defaults = [_DEFAULT_HOST, _DEFAULT_NAMESPACE]
        host, namespace = [*defaults[: 2 - len(outer)], *outer] if len(outer) <= len(defaults) else ("", "")
        parts = ((_HOST, host), (_NAMESPACE, namespace), (_PART, model), (_PART, tag))
        if not all(pattern.fullmatch(part) for pattern, part in parts):
            raise BadNameError("invalid model name")
        return cls(host, namespace, model, tag)

    @property
    def full(self) -> str:
        """The name with every part."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        """The name as Ollama lists it, without the default host and namespace."""
        namespace = "" if (self.host, self.namespace) == (_DEFAULT_HOST, _DEFAULT_NAMESPACE) else f"{self.namespace}/"
        host = "" if self.host == _DEFAULT_HOST else f"{self.host}/"
        return f"{host}{namespace}{self.model}:{self.tag}"


@dataclass(frozen=True)
class Layer:
    """One blob of a model: weights, template, system text, licence or parameters."""

    kind: str
    digest: str
    size: int


@dataclass(frozen=True)
class StoredModel:
    """A model as its manifest describes it."""

    name: str
    """Name as it was first given, with its tag."""
    full_name: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    """The header's facts about the weights: family, parameter_size, quantization_level, bos, ..."""
    modified: datetime
    directory: Path

    @property
    def digest(self) -> str:
        """Digest of the content: equal for models of equal layers, whatever their names."""
        return digest_json({"layers": [[layer.kind, layer.digest] for layer in self.layers], "config": self.config})

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def weights(self) -> Path:
        """Path of the GGUF blob."""
        return blob_path(self.directory, next(layer.digest for layer in self.layers if layer.kind == "model"))

    def text(self, kind: str) -> str:
        """Return a text layer, empty when the model has none."""
        for layer in self.layers:
            if layer.kind == kind:
                return blob_path(self.directory, layer.digest).read_text(encoding="utf-8")
        return ""

    @property
    def parameters(self) -> dict[str, object]:
        """The Modelfile's PARAMETER values."""
        return dict(json.loads(self.text("params") or "{}"))

    def details(self) -> dict[str, object]:
        """Return the model's details in Ollama's words."""
        family = self.config["family"]
        return {
            "parent_model": self.config.get("parent_model", ""),
            "format": "gguf",
            "family": family,
            "families": [family],
            "parameter_size": self.config["parameter_size"],
            "quantization_level": self.config["quantization_level"],
        }


def describe(header: GgufHeader) -> dict[str, object]:
    """Return the part of a GGUF file's header that a manifest keeps."""
    return {
        "family": header.architecture,
        "parameter_size": _short_count(header.parameter_count),
        "quantization_level": header.quantization,
        "context_length": header.number("context_length"),
        "embedding_length": header.number("embedding_length"),
        "bos": header.bos,
    }


def _short_count(count: int) -> str:
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            # Ollama rounds billions to one decimal and millions to two.
            return f"{count / unit:.1f}B" if letter == "B" else f"{count / unit:.2f}{letter}"
    return str(count)


def parse_digest(text: str) -> str:
    """Return a digest as ``sha256:HEX``.

    Raises:
        BadNameError: it is not one.
    """
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise BadNameError("invalid digest format")
    return f"sha256:{match[1]}"


def blob_path(directory: Path, digest: str) -> Path:
    """Return where a blob is or would be."""
    return directory / "blobs" / parse_digest(digest).replace(":", "-")


class ModelStore:
    """The models of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._manifests = directory / "manifests"
        (directory / "blobs").mkdir(parents=True, exist_ok=True)
        self._manifests.mkdir(exist_ok=True)
        self._prune()

    def find(self, name: str) -> StoredModel | None:
        """Return the model of a name, whatever its case; None when there is none or the name cannot be one."""
        try:
            return self._read(self._manifest(ModelName.parse(name)))
        except BadNameError:
            return None

    def models(self) -> list[StoredModel]:
        """Return every model, the newest first."""
        found = [model for path in self._manifests.rglob("*.json") if (model := self._read(path))]
        return sorted(found, key=lambda model: model.modified, reverse=True)

    async def put_blob(self, digest: str, chunks: AsyncIterator[bytes]) -> str:
        """Write a blob and return the digest of the received bytes; the blob is kept only when that is ``digest``.

        Raises:
            OSError: the disk is full or cannot be written to; nothing of the blob stays.
        """
        temporary = self._temporary()
        sha256 = hashlib.sha256()
        try:
            with temporary.open("wb") as file:
                async for chunk in chunks:
                    sha256.update(chunk)
                    file.write(chunk)
            found = f"sha256:{sha256.hexdigest()}"
            if found == digest:
                temporary.replace(blob_path(self.directory, digest))
            return found
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def new_file(self) -> Iterator[Path]:
        """Yield the path of a temporary file beside the blobs; ``adopt`` makes it one."""
        temporary = self._temporary()
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def adopt(self, path: Path) -> tuple[str, bool]:
        """Make a temporary file a blob and return its digest, and whether it is new."""
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        blob = blob_path(self.directory, digest)
        fresh = not blob.is_file()
        path.replace(blob)
        return digest, fresh

    def put_layer(self, kind: str, content: bytes) -> tuple[Layer, bool]:
        """Store a small layer and return it, and whether it is new."""
        layer = Layer(kind, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
        path = blob_path(self.directory, layer.digest)
        if path.is_file():
            return layer, False
        temporary = self._temporary()
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return layer, True

    def save(self, name: ModelName, layers: list[Layer], config: Mapping[str, object]) -> None:
        """Give layers a name; a model that had it loses it in the same moment, and the blobs that only it had go.

        The name keeps the case in which it was given first.
        """
        replaced = self._read(self._manifest(name))
        name = ModelName.parse(replaced.full_name) if replaced else name
        manifest = {
            "name": name.short,
            "full_name": name.full,
            "layers": [[layer.kind, layer.digest, layer.size] for layer in layers],
            "config": dict(config),
            "modified": datetime.now(UTC).isoformat(),
        }
        write_atomically(self._manifest(name), json.dumps(manifest, ensure_ascii=False) + "\n")
        if replaced is not None:
            self._drop(replaced.layers)

    def delete(self, model: StoredModel) -> None:
        """Remove a name, and the blobs that no other model has."""
        self._manifest(ModelName.parse(model.full_name)).unlink(missing_ok=True)
        self._drop(model.layers)

    def _drop(self, layers: Iterable[Layer]) -> None:
        """Remove those blobs that no model has."""
        kept = {layer.digest for other in self.models() for layer in other.layers}
        for layer in layers:
            if layer.digest not in kept:
                blob_path(self.directory, layer.digest).unlink(missing_ok=True)

    def _manifest(self, name: ModelName) -> Path:
        return self._manifests / f"{name.full.lower().replace(':', '%')}.json"

    def _read(self, path: Path) -> StoredModel | None:
        try:
            fields = json.loads(path.read_bytes())
            layers = tuple(Layer(*layer) for layer in fields["layers"])
            modified = datetime.fromisoformat(fields["modified"])
            model = StoredModel(fields["name"], fields["full_name"], layers, fields["config"], modified, self.directory)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
        # A blob that someone removed by hand makes its models unknown, rather than every later answer an error.
        return model if all(blob_path(self.directory, layer.digest).is_file() for layer in layers) else None

    def _temporary(self) -> Path:
        return self.directory / "blobs" / f"{_UPLOAD}{uuid.uuid4().hex}"

    def _prune(self) -> None:
        """Remove what an earlier run left: unfinished uploads, and blobs that belong to no model."""
        kept = {blob_path(self.directory, layer.digest).name for model in self.models() for layer in model.layers}
        for path in (self.directory / "blobs").iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)
