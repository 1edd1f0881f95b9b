"""The tensors of a model directory: which shard holds each, and their values, with little of a shard in memory."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titlegen.errors import ExportError
from titlegen.models import read_json

if TYPE_CHECKING:
    from safetensors import safe_open
    from torch import Tensor

INDEX = "model.safetensors.index.json"
# A mapped page counts as memory in use until the mapping goes, so a shard is mapped anew after this many bytes.
_MAPPED_BYTES = 2**28
# In float32 16 MiB, of which an allocator keeps a few for the next part; larger ones are mapped, and filled with zeros
# by the system, each time anew.
_BLOCK_ELEMENTS = 2**22
_READ_BYTES = 2**24
# Share of the available memory that a model may take in the system's cache.
_CACHED_SHARE = 0.5


def shard_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a model: those its index names, or the single one.

    Raises:
        ExportError: a shard is missing, or a name leaves the directory.
    """
    index = directory / INDEX
    names = sorted(set(weight_map(directory).values())) if index.is_file() else ["model.safetensors"]
    for name in names:
        if Path(name).name != name:
            raise ExportError(
                f"{index} names a shard outside of its directory: {name!r}; "
                "fetch the model from a source that you trust"
            )
        if not (directory / name).is_file():
            raise ExportError(f"{directory / name} is missing; fetch or export the model again")
    return [directory / name for name in names]


def read_ahead(directory: Path) -> threading.Thread:
    """Begin to read a model's files into the system's cache, while libraries are imported.

    They are read through a mapping later, tensor by tensor, and the disk would stand still meanwhile.

    Returns:
        The thread that reads; nothing has to wait for it.
    """
    import psutil

    def read() -> None:
        block = bytearray(_READ_BYTES)
        # What cannot be read is told by whoever needs it.
        with contextlib.suppress(OSError, ExportError):
            files = shard_files(directory)
            if sum(path.stat().st_size for path in files) > _CACHED_SHARE * psutil.virtual_memory().available:
                # The last would push the first out again.
                return
            for path in files:
                with path.open("rb", buffering=0) as file:
                    while file.readinto(block):
                        pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def weight_map(directory: Path) -> dict[str, str]:
    """Return the shard's name for each tensor, as a model's index has it.

    Raises:
        ExportError: the index is not one.
    """
    named = read_json(directory / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ExportError(
            f"{directory / INDEX} has no weight_map of tensor names to file names; export the model again"
        )
    return named


def opened(path: Path) -> safe_open:
    """Open a safetensors file.

    Raises:
        ExportError: it is cut off or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ExportError(f"{path} is cut off or damaged ({error}); fetch or export it again") from error


class Tensors:
    """The tensors of a model directory, read from its shards as they are asked for."""

    def __init__(self, directory: Path) -> None:
        """Note which shard holds which tensor.

        Raises:
            ExportError: a shard is missing or damaged.
        """
        self._where: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: dict[str, str] = {}
        for shard in shard_files(directory):
            with opened(shard) as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    self._where[key] = shard
                    entry = file.get_slice(key)
                    self._shapes[key], self._dtypes[key] = tuple(entry.get_shape()), str(entry.get_dtype())
        self._shard: Path | None = None
        self._file: safe_open | None = None
        self._read_bytes = 0

    def __iter__(self) -> Iterator[str]:
        """Yield the keys, shard by shard."""
        return iter(self._where)

    def __contains__(self, key: object) -> bool:
        """Return whether the model has a tensor of this name."""
        return key in self._where

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._shapes[key]

    def dtype(self, key: str) -> str:
        """Return a tensor's element type as safetensors names it, such as BF16."""
        return self._dtypes[key]

    def get(self, key: str) -> Tensor:
        """Return a tensor; its pages are read when they are used."""
        return self._count(self._opened(key).get_tensor(key))

    def parts(self, key: str) -> Iterator[slice]:
        """Yield ranges of rows, of about four million elements each, that together are the tensor."""
        shape = self._shapes[key]
        if not shape or math.prod(shape) <= _BLOCK_ELEMENTS:
            yield slice(None)
            return
        rows = max(1, _BLOCK_ELEMENTS // math.prod(shape[1:]))
        for start in range(0, shape[0], rows):
            yield slice(start, min(start + rows, shape[0]))

    def rows(self, key: str, part: slice) -> Tensor:
        """Return one range of a tensor's rows, all of it for ``slice(None)``."""
        if part.start is None:
            return self.get(key)
        return self._count(self._opened(key).get_slice(key)[part])

    def _opened(self, key: str) -> Any:
        if self._where[key] != self._shard or self._read_bytes > _MAPPED_BYTES:
            self._shard, self._read_bytes = self._where[key], 0
            self._file = opened(self._shard)
        return self._file

    def _count(self, tensor: Tensor) -> Tensor:
        self._read_bytes += tensor.numel() * tensor.element_size()
        return tensor
