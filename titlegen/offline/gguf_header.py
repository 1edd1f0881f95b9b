"""What a GGUF file says about itself, read without loading the model.

The ``gguf`` package's reader makes an object of every vocabulary entry (700 MB for Gemma's 262,144); this one skips
long arrays, and trusts no length in the file.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Source: the GGUF specification; value type to struct format.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Longer arrays are the vocabulary and its merges: shown as null, as Ollama does.
_MAX_SHOWN_ITEMS = 128
_MAX_ENTRIES = 100_000
_MAX_STRING_BYTES = 16 * 2**20
_MAX_DIMENSIONS = 8


class GgufError(Exception):
    """The file is no GGUF file, or ends too early; the text is what Ollama says in that case."""


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and tensor list of a GGUF file."""

    fields: dict[str, Any]
    tensors: list[dict[str, Any]]
    """Name, type and shape of each tensor, in stored order."""
    bos: str
    """Text of the token that the runtime puts in front of a prompt, empty when it puts none."""

    @property
    def architecture(self) -> str:
        """Name of the model family, such as gemma3n."""
        return str(self.fields.get("general.architecture", "unknown"))

    @property
    def parameter_count(self) -> int:
        """Number of weights."""
        return sum(math.prod(tensor["shape"]) for tensor in self.tensors)

    @property
    def quantization(self) -> str:
        """Name of the file type, such as Q4_K_M."""
        from gguf import LlamaFileType

        try:
            return (
                str(LlamaFileType(self.fields["general.file_type"]).name).removeprefix("MOSTLY_").removeprefix("ALL_")
            )
        except (KeyError, ValueError):
            return "unknown"

    def number(self, name: str) -> int:
        """Return a number of this architecture, such as context_length; 0 when the file has none."""
        value = self.fields.get(f"{self.architecture}.{name}", 0)
        return value if isinstance(value, int) else 0


def read_header(path: Path) -> GgufHeader:
    """Read metadata and tensor list of a GGUF file, and check that its tensors are all there.

    Raises:
        GgufError: it is not a GGUF file, is cut off, or has an impossible length in it.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size)
        if file.read(4) != _MAGIC or reader.scalar("I") not in _VERSIONS:
            raise GgufError("supplied file was not in GGUF format")
        tensor_count, field_count = reader.count(), reader.count()
        fields: dict[str, Any] = {}
        for _ in range(field_count):
            name = reader.string()
            fields[name] = reader.value(reader.scalar("I"), name)
        tensors = [_read_tensor(reader) for _ in range(tensor_count)]
        alignment = max(int(fields.get("general.alignment", 32)), 1)
        start = -(-file.tell() // alignment) * alignment
    end = max((start + tensor["offset"] + tensor["bytes"] for tensor in tensors), default=0)
    if end > reader.size:
        raise GgufError("unexpected EOF")
    shown = [{key: tensor[key] for key in ("name", "type", "shape")} for tensor in tensors]
    return GgufHeader(fields, shown, reader.bos if fields.get("tokenizer.ggml.add_bos_token", True) else "")


def _read_tensor(reader: "_Reader") -> dict[str, Any]:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    name = reader.string()
    dimensions = reader.scalar("I")
    if dimensions > _MAX_DIMENSIONS:
        raise GgufError(f"tensor {name!r} has {dimensions} dimensions")
    shape = [reader.scalar("Q") for _ in range(dimensions)]
    try:
        kind = GGMLQuantizationType(reader.scalar("I"))
    except ValueError as error:
        raise GgufError(f"tensor {name!r} has an unknown type") from error
    block, block_bytes = GGML_QUANT_SIZES[kind]
    size = math.prod(shape) // block * block_bytes
    return {"name": name, "type": kind.name, "shape": shape, "offset": reader.scalar("Q"), "bytes": size}


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self.bos = ""
        self._file = file
        self._bos_id = 2
        self._tokens_at: int | None = None

    def scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._read(struct.calcsize(f"<{code}")))[0]

    def count(self) -> int:
        number = int(self.scalar("Q"))
        if number > _MAX_ENTRIES:
            raise GgufError(f"{number} entries are more than a model has")
        return number

    def string(self) -> str:
        length = int(self.scalar("Q"))
        if length > _MAX_STRING_BYTES:
            raise GgufError(f"a text of {length} bytes is more than a model has")
        return self._read(length).decode("utf-8", errors="replace")

    def value(self, kind: int, name: str) -> Any:
        if kind in _SCALARS:
            value = _finite(self.scalar(_SCALARS[kind]))
            if name == "tokenizer.ggml.bos_token_id":
                self._keep_bos(value)
            return value
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(name)
        raise GgufError(f"field {name!r} has an unknown type {kind}")

    def _array(self, name: str) -> list[Any] | None:
        kind, length = self.scalar("I"), int(self.scalar("Q"))
        if kind in _SCALARS:
            width = struct.calcsize(f"<{_SCALARS[kind]}")
            if length > _MAX_SHOWN_ITEMS:
                self._skip(length * width)
                return None
            return [_finite(item) for item in struct.unpack(f"<{length}{_SCALARS[kind]}", self._read(length * width))]
        if kind != _STRING:
            raise GgufError(f"field {name!r} is an array of unknown type {kind}")
        if name == "tokenizer.ggml.tokens":
            self._tokens_at = self._file.tell()
            self._keep_bos(self._bos_id)
        if length <= _MAX_SHOWN_ITEMS:
            return [self.string() for _ in range(length)]
        for _ in range(length):
            self._skip(int(self.scalar("Q")))
        return None

    def _keep_bos(self, token: int) -> None:
        """Look the token up; its id may stand before or after the vocabulary in the file."""
        self._bos_id = token
        if self._tokens_at is None or token >= _MAX_ENTRIES:
            return
        here = self._file.tell()
        self._file.seek(self._tokens_at)
        for _ in range(token):
            self._skip(int(self.scalar("Q")))
        self.bos = self.string()
        self._file.seek(here)

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise GgufError("unexpected EOF")
        return data

    def _skip(self, length: int) -> None:
        if self._file.tell() + length > self.size:
            raise GgufError("unexpected EOF")
        self._file.seek(length, 1)


def _finite(value: Any) -> Any:
    """Return a number that JSON can hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
