"""``/api/create``: a model out of uploaded files or out of another model, step by step as Ollama reports it."""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from titlegen.errors import TitlegenError
from titlegen.export import convert_command
from titlegen.gguf_reader import GgufError, read_header
from titlegen.models import IMPORTABLE, check_safe, read_json, text_config
from titlegen.offline.quantize import SUPPORTED, UNQUANTIZED, ConversionError, quantize, run
from titlegen.offline.requests import ApiError, plain
from titlegen.offline.store import BadNameError, Layer, ModelName, Store, blob_path, describe, parse_digest
from titlegen.offline.template import Template, TemplateError
from titlegen.serve.modelfile import IMPORTED_FILES

_TOKENIZERS = ("tokenizer.json", "tokenizer.model")


class CreateError(Exception):
    """The model cannot be created; the text goes to the client."""


class Creation:
    """One request to create a model: checked when it is made, carried out by ``run``."""

    def __init__(self, store: Store, body: Mapping[str, Any]) -> None:
        """Check what can be checked before the first line of the answer.

        Raises:
            ApiError: 400, a name, a path or the template cannot be used.
        """
        self._store = store
        self._body = body
        self.name = _parse_name(body.get("model") or body.get("name") or "")
        self._files: dict[str, Any] = body.get("files") or {}
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
        if body.get("template"):
            try:
                Template(body["template"])
            except TemplateError as error:
                raise ApiError(400, str(error)) from error

    async def run(self) -> AsyncGenerator[dict[str, str]]:
        """Yield Ollama's status lines; the last one is ``success``.

        Raises:
            CreateError: the files are no model, or the disk is full.
        """
        try:
            async for status in self._steps():
                yield {"status": status}
        except (GgufError, ConversionError, BadNameError, TitlegenError) as error:
            raise CreateError(str(error)) from error
        except OSError as error:
            raise CreateError(f"write {self._store.directory}: {error.strerror}") from error

    async def _steps(self) -> AsyncGenerator[str]:
        layers: list[Layer] = []
        config: dict[str, Any] = {}
        source: Path | None = None
        if self._from:
            parent = self._store.find(self._from)
            if parent is None:
                yield "pulling manifest"
                raise CreateError(
                    f"pull model manifest: {self._from!r} is not on this server, which has no network; upload its "
                    "file, or use Ollama"
                )
            layers, config = list(parent.layers), dict(parent.config)
            source = parent.weights
        with self._store.new_file() as converted:
            if self._files:
                yield "parsing GGUF" if _is_gguf(self._files) else "converting model"
                source = await self._weights(converted)
                layers, config = [], describe(await asyncio.to_thread(read_header, source))
            if source is None:
                raise CreateError("no weights")
            with self._store.new_file() as quantized:
                if level := str(self._body.get("quantize") or "").upper():
                    _check_level(level, config["quantization_level"])
                    await quantize(source, quantized, level)
                    source, config = quantized, describe(await asyncio.to_thread(read_header, quantized))
                if self._files:
                    yield "verifying conversion"
                weights, fresh = await asyncio.to_thread(self._adopt, source)
                yield _layer_status(weights, fresh=fresh)
        kept = [layer for layer in layers if layer.kind != "model"]
        for layer, fresh in self._text_layers(kept):
            kept = [other for other in kept if other.kind != layer.kind] + [layer]
            yield _layer_status(layer, fresh=fresh)
        yield "writing manifest"
        self._store.save(self.name, [weights, *sorted(kept, key=lambda layer: _ORDER.index(layer.kind))], config)
        yield "success"

    async def _weights(self, converted: Path) -> Path:
        """Return the GGUF file that the request's files are or become."""
        if not _is_gguf(self._files):
            return await self._convert(converted)
        if len(self._files) > 1:
            raise CreateError(f"{len(self._files)} GGUF files; the offline server takes one")
        (digest,) = self._files.values()
        return self._blob(digest)

    def _blob(self, digest: Any) -> Path:
        path = blob_path(self._store.directory, str(digest))
        if not path.is_file():
            raise CreateError(f"open {path}: no such file or directory")
        return path

    async def _convert(self, target: Path) -> Path:
        """Write a safetensors directory as GGUF in 16 bits, with llama.cpp's converter."""
        if not any(name.endswith(".safetensors") for name in self._files):
            raise CreateError("unknown type")
        if "config.json" not in self._files:
            raise CreateError("open config.json: no such file or directory")
        if not any(name in self._files for name in _TOKENIZERS):
            raise CreateError("unknown tokenizer format")
        with tempfile.TemporaryDirectory(dir=self._store.directory) as name:
            folder = Path(name)
            for file, digest in self._files.items():
                # The converter reads one flat directory, and would load code that lies in it.
                if "/" not in file and any(PurePosixPath(file).match(pattern) for pattern in IMPORTED_FILES):
                    (folder / file).symlink_to(self._blob(digest).resolve())
            _check_importable(folder)
            await run(convert_command(folder, "f16", target), "converting the model")
        return target

    def _adopt(self, source: Path) -> tuple[Layer, bool]:
        """Return the weights' layer, and whether its blob is new; a file that is no blob yet becomes one."""
        size = source.stat().st_size
        try:
            return Layer("model", parse_digest(source.name), size), False
        except BadNameError:
            digest, fresh = self._store.adopt(source)
            return Layer("model", digest, size), fresh

    def _text_layers(self, inherited: list[Layer]) -> list[tuple[Layer, bool]]:
        """Store template, system text and parameters; parameters of the other model stay where none replaces them."""
        replaced = {kind for kind in ("template", "system") if kind in self._body}
        found = [self._store.put_layer(kind, self._body[kind].encode()) for kind in sorted(replaced)]
        replaced |= {"params"} if self._body.get("parameters") else set()
        found += [(layer, False) for layer in inherited if layer.kind not in replaced]
        if parameters := self._body.get("parameters"):
            old = next((layer for layer in inherited if layer.kind == "params"), None)
            merged = json.loads(blob_path(self._store.directory, old.digest).read_bytes()) if old else {}
            text = json.dumps(merged | parameters, ensure_ascii=False, sort_keys=True)
            found.append(self._store.put_layer("params", plain(text).encode()))
        return sorted(found, key=lambda item: _ORDER.index(item[0].kind))


_ORDER = ("model", "template", "system", "params")


def _parse_name(text: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except BadNameError as error:
        raise ApiError(400, str(error)) from error


def _is_gguf(files: Mapping[str, Any]) -> bool:
    return any(name.lower().endswith(".gguf") for name in files)


def _check_importable(folder: Path) -> None:
    """Refuse a model whose conversion could run code that came with it.

    Raises:
        CreateError: another architecture than those that are known to run none.
        ConfigError: a configuration asks for code.
    """
    check_safe(folder)
    config = read_json(folder / "config.json")
    # The converter goes by the part for text, where that names one.
    named = [*(config.get("architectures") or [""]), *(text_config(config).get("architectures") or [])]
    for architecture in named:
        if architecture not in IMPORTABLE:
            raise CreateError(f"unsupported architecture {json.dumps(architecture)}")


def _check_level(level: str, current: str) -> None:
    if level not in SUPPORTED:
        raise ConversionError(f"unsupported quantization type {level} - supported types are {', '.join(SUPPORTED)}")
    if current not in UNQUANTIZED:
        raise ConversionError("quantization is only supported for F16, BF16 and F32 models")


def _layer_status(layer: Layer, *, fresh: bool) -> str:
    return f"{'creating new' if fresh else 'using existing'} layer {layer.digest}"
