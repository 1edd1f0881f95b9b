"""What a GGUF file says about itself, and its tensors, read without loading the model.

The ``gguf`` package's reader makes an object of every vocabulary entry: 700 MB and half a minute for Gemma's 262,144.
This one notes where long arrays stand, reads them when asked, and trusts no length in the file.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from gguf import GGMLQuantizationType

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Source: the GGUF specification; value type to struct format.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Longer arrays are the vocabulary and its merges: shown as null, as Ollama does.
_MAX_SHOWN_ITEMS = 128
_MAX_ENTRIES = 100_000
_MAX_STRING_BYTES = 16 * 2**20
_MAX_DIMENSIONS = 8
_DEFAULT_ALIGNMENT = 32
_DEFAULT_BOS_ID = 2
_LENGTH = struct.Struct("<Q")


class GgufError(Exception):
    """The file is no GGUF file, or ends too early; the text is what Ollama says in that case."""


class _Array(NamedTuple):
    """A long array: its item type, its length, and the byte at which its first item stands."""

    kind: int
    length: int
    start: int


class _Tensor(NamedTuple):
    kind: GGMLQuantizationType
    shape: list[int]
    start: int
    size: int


class TensorEntry(TypedDict):
    """A tensor, as Ollama lists it."""

    name: str
    type: str
    shape: list[int]
    """Innermost first."""


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and tensors of a GGUF file."""

    path: Path
    fields: dict[str, Any]
    """Every value; None for an array of more than 128 items, which ``strings`` and ``numbers`` read."""
    tensors: list[TensorEntry]
    """In stored order."""
    bos: str
    """Text of the token that the runtime puts in front of a prompt, empty when it puts none."""
    _arrays: dict[str, _Array]
    _stored: dict[str, _Tensor]

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

    def strings(self, name: str) -> list[str]:
        """Return an array of texts, such as the vocabulary; empty when the file has none of this name."""
        array = self._arrays.get(name)
        if array is None or array.kind != _STRING:
            return list(self.fields.get(name) or [])
        with _open(self.path) as data:
            texts, at = [], array.start
            for _ in range(array.length):
                end = at + 8 + _LENGTH.unpack_from(data, at)[0]
                texts.append(data[at + 8 : end].decode("utf-8", errors="replace"))
                at = end
        return texts

    def numbers(self, name: str) -> list[Any]:
        """Return an array of numbers, such as the token types; empty when the file has none of this name."""
        array = self._arrays.get(name)
        if array is None or array.kind == _STRING:
            return list(self.fields.get(name) or [])
        with _open(self.path) as data:
            return list(struct.unpack_from(f"<{array.length}{_SCALARS[array.kind]}", data, array.start))

    def stored(self, name: str) -> tuple[npt.NDArray[np.uint8], GGMLQuantizationType]:
        """Return a tensor as it is stored and its type, for ``gguf.dequantize``: (rows, bytes of a row), mapped."""
        import numpy as np

        tensor = self._stored[name]
        rows = math.prod(tensor.shape[1:])
        shape = (rows, tensor.size // max(rows, 1))
        return np.memmap(self.path, np.uint8, "r", offset=tensor.start, shape=shape), tensor.kind


def read_header(path: Path) -> GgufHeader:
    """Read metadata and tensor list of a GGUF file, and check that its tensors are all there.

    Raises:
        GgufError: it is not a GGUF file, is cut off, or has an impossible length in it.
    """
    with _open(path) as data:
        reader = _HeaderReader(data)
        if reader.bytes(4) != MAGIC or reader.scalar("I") not in _VERSIONS:
            raise GgufError("supplied file was not in GGUF format")
        tensor_count, field_count = reader.count(), reader.count()
        fields: dict[str, object] = {}
        for _ in range(field_count):
            name = reader.string()
            fields[name] = reader.value(reader.scalar("I"), name)
        entries = [_read_tensor(reader) for _ in range(tensor_count)]
        alignment = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
        alignment = max(alignment if isinstance(alignment, int) else 0, 1)
        first = -(-reader.at // alignment) * alignment
        stored = {name: tensor._replace(start=first + tensor.start) for name, tensor in entries}
        if any(tensor.start + tensor.size > len(data) for tensor in stored.values()):
            raise GgufError("unexpected EOF")
        bos = reader.token(fields.get("tokenizer.ggml.bos_token_id", _DEFAULT_BOS_ID), fields)
    shown: list[TensorEntry] = [
        {"name": name, "type": tensor.kind.name, "shape": tensor.shape} for name, tensor in entries
    ]
    bos = bos if fields.get("tokenizer.ggml.add_bos_token", True) else ""
    return GgufHeader(path, fields, shown, bos, reader.arrays, stored)


def _open(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise GgufError("supplied file was not in GGUF format") from error


def _read_tensor(reader: _HeaderReader) -> tuple[str, _Tensor]:
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
    return name, _Tensor(kind, shape, reader.scalar("Q"), size)


class _HeaderReader:
    """Reads one value after another, and never past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.at = 0
        self.arrays: dict[str, _Array] = {}
        self._data = data
        self._size = len(data)

    def bytes(self, length: int) -> bytes:
        start = self.at
        self._skip(length)
        return self._data[start : self.at]

    def scalar(self, code: str) -> Any:
        start = self.at
        self._skip(struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{code}", self._data, start)[0]

    def count(self) -> int:
        number = int(self.scalar("Q"))
        if number > _MAX_ENTRIES:
            raise GgufError(f"{number} entries are more than a model has")
        return number

    def string(self) -> str:
        length = int(self.scalar("Q"))
        if length > _MAX_STRING_BYTES:
            raise GgufError(f"a text of {length} bytes is more than a model has")
        return self.bytes(length).decode("utf-8", errors="replace")

    def value(self, kind: int, name: str) -> object:
        if kind in _SCALARS:
            return _finite(self.scalar(_SCALARS[kind]))
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(name)
        raise GgufError(f"field {name!r} has an unknown type {kind}")

    def token(self, number: object, fields: dict[str, object]) -> str:
        """Return the text of a token; empty when the vocabulary does not have it."""
        shown = fields.get("tokenizer.ggml.tokens")
        array = self.arrays.get("tokenizer.ggml.tokens")
        length = array.length if array else len(shown) if isinstance(shown, list) else 0
        if not isinstance(number, int) or not 0 <= number < length:
            return ""
        if array is None:
            return str(shown[number]) if isinstance(shown, list) else ""
        self.at = array.start
        self._skip_strings(number)
        return self.string()

    def _array(self, name: str) -> list[object] | None:
        kind, length = self.scalar("I"), int(self.scalar("Q"))
        if kind not in _SCALARS and kind != _STRING:
            raise GgufError(f"field {name!r} is an array of unknown type {kind}")
        if length <= _MAX_SHOWN_ITEMS:
            return [self.value(kind, name) for _ in range(length)]
        self.arrays[name] = _Array(kind, length, self.at)
        if kind == _STRING:
            self._skip_strings(length)
        else:
            self._skip(length * struct.calcsize(f"<{_SCALARS[kind]}"))
        return None

    def _skip_strings(self, number: int) -> None:
        # A call for each would take most of the time that a vocabulary costs.
        data, at, last, unpack = self._data, self.at, self._size - 8, _LENGTH.unpack_from
        for _ in range(number):
            if at > last:
                raise GgufError("unexpected EOF")
            at += 8 + unpack(data, at)[0]
        self.at = at
        self._skip(0)

    def _skip(self, length: int) -> None:
        self.at += length
        if self.at > self._size:
            raise GgufError("unexpected EOF")


def _finite(value: object) -> object:
    """Return a number that JSON can hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
