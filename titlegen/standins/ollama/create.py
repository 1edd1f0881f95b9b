"""``/api/create``: a model from an uploaded file or another model, step by step as Ollama reports it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from titlegen.errors import TitlegenError
from titlegen.gguf_reader import MAGIC, GgufError, read_header
from titlegen.standins.ollama.quantize import SUPPORTED, UNQUANTIZED, ConversionError, quantize
from titlegen.standins.ollama.requests import ApiError, Body, plain
from titlegen.standins.ollama.store import BadNameError, Layer, ModelName, ModelStore, blob_path, describe, parse_digest
from titlegen.template import Template, TemplateError

_NO_GGUF = (
    "the bundled server takes GGUF files alone: from safetensors Ollama builds a vocabulary that reads other tokens "
    "than the model was trained on; write one with `titlegen export`"
)


class CreateError(Exception):
    """The model cannot be created; the text goes to the client."""


class Creation:
    """One request to create a model: checked when it is made, carried out by ``run``."""

    def __init__(self, store: ModelStore, body: Body) -> None:
        """Check what can be checked before the first line of the answer.

        Raises:
            ApiError: 400, a name or a path cannot be used.
        """
        self._store = store
        self._body = body
        self.name = _parse_name(body.get("model") or body.get("name") or "")
        self._files: dict[str, str] = body.get("files") or {}
        for name in self._files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ApiError(400, "file path must be relative")
            if "\0" in name:
                raise ApiError(400, "invalid file path")
        self._from = body.get("from") or ""
        if not self._from and not self._files:
            raise ApiError(400, "neither 'from' or 'files' was specified")
        if self._from:
            _parse_name(self._from)

    async def run(self) -> AsyncGenerator[dict[str, object]]:
        """Yield Ollama's status lines; the last one is ``success``.

        Raises:
            ApiError: 400, the template is none.
            CreateError: the files are no model, or the disk is full.
        """
        try:
            Template(self._body.get("template", ""))
        except TemplateError as error:
            raise ApiError(400, f"template error: {error}") from error
        try:
            async for status in self._steps():
                yield {"status": status}
        except (GgufError, ConversionError, BadNameError, TitlegenError) as error:
            raise CreateError(str(error)) from error
        except OSError as error:
            raise CreateError(f"write {self._store.directory}: {error.strerror}") from error

    async def _steps(self) -> AsyncGenerator[str]:
        layers: list[Layer] = []
        config: Mapping[str, Any] = {}
        if self._from:
            parent = self._store.find(self._from)
            if parent is None:
                yield "pulling manifest"
                raise CreateError(
                    f"pull model manifest: {self._from!r} is not on this server, which has no network; upload its "
                    "file, or use Ollama"
                )
            layers, config = list(parent.layers), {**parent.config, "parent_model": parent.name}
            source = parent.weights
        else:
            if not self._is_gguf():
                raise CreateError(_NO_GGUF)
            yield "parsing GGUF"
            source = self._blob()
            config = describe(await asyncio.to_thread(read_header, source))
        with self._store.new_file() as quantized:
            if level := str(self._body.get("quantize") or "").upper():
                _check_level(level, str(config["quantization_level"]))
                await quantize(source, quantized, level)
                source, config = quantized, config | describe(await asyncio.to_thread(read_header, quantized))
            if not self._from:
                yield "verifying conversion"
            weights, fresh = await asyncio.to_thread(self._adopt, source)
            yield _layer_status(weights, fresh=fresh)
        texts = self._text_layers([layer for layer in layers if layer.kind != "model"])
        for layer, fresh in texts:
            yield _layer_status(layer, fresh=fresh)
        yield "writing manifest"
        self._store.save(self.name, [weights, *(layer for layer, _ in texts)], config)
        yield "success"

    def _is_gguf(self) -> bool:
        """Return whether the files are GGUF files, by their names or by how they begin."""
        if any(name.lower().endswith((".gguf", ".safetensors")) for name in self._files):
            return any(name.lower().endswith(".gguf") for name in self._files)
        try:
            with blob_path(self._store.directory, str(next(iter(self._files.values())))).open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except (BadNameError, OSError):
            return False

    def _blob(self) -> Path:
        if len(self._files) > 1:
            raise CreateError(f"{len(self._files)} GGUF files; the bundled server takes one")
        path = blob_path(self._store.directory, str(next(iter(self._files.values()))))
        if not path.is_file():
            raise CreateError(f"open {path}: no such file or directory")
        return path

    def _adopt(self, source: Path) -> tuple[Layer, bool]:
        """Return the weights' layer, and whether its blob is new; a file that is no blob yet becomes one."""
        size = source.stat().st_size
        try:
            return Layer("model", parse_digest(source.name), size), False
        except BadNameError:
            digest, fresh = self._store.adopt(source)
            return Layer("model", digest, size), fresh

    def _text_layers(self, inherited: list[Layer]) -> list[tuple[Layer, bool]]:
        """Store template, system text and parameters, each after the inherited ones; an empty text replaces nothing.

        Parameters of the other model stay where none replaces them.
        """
        found = [(layer, False) for layer in inherited]
        for kind in ("template", "system"):
            if text := self._body.get(kind):
                kept = [item for item in found if item[0].kind != kind]
                found = [*kept, self._store.put_layer(kind, text.encode())]
        old = next((layer for layer in inherited if layer.kind == "params"), None)
        values = json.loads(blob_path(self._store.directory, old.digest).read_bytes()) if old else {}
        values |= {name: value for name, value in (self._body.get("parameters") or {}).items() if value is not None}
        if not values:
            return found
        kept = [item for item in found if item[0].kind != "params"]
        return [
            *kept,
            self._store.put_layer("params", plain(json.dumps(values, ensure_ascii=False, sort_keys=True)).encode()),
        ]


def _parse_name(text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except BadNameError as error:
        raise ApiError(400, str(error)) from error


def _check_level(level: str, current: str) -> None:
    if level not in SUPPORTED:
        raise ConversionError(f"unsupported quantization type {level} - supported types are {', '.join(SUPPORTED)}")
    if current not in UNQUANTIZED:
        raise ConversionError("quantization is only supported for F16, BF16 and F32 models")


def _layer_status(layer: Layer, *, fresh: bool) -> str:
    return f"{'creating new' if fresh else 'using existing'} layer {layer.digest}"
