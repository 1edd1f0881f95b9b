"""``llama-quantize SOURCE TARGET COPY`` in Python, with the functions of ggml inside xllamacpp.

PyPI has the library and not the program. Where a key goes that is set anew, how offsets are counted and what the bytes
are is ggml's own; that the tensors come sorted is read in llama-quant.cpp, and checked where the program is installed.
"""

import ctypes
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_QUANTIZATION_VERSION, _ALIGNMENT = 2, 32


class _InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.POINTER(ctypes.c_void_p)))


def _ggml() -> Any:
    library = find_spec("xllamacpp.xllamacpp")
    assert library is not None
    assert library.origin is not None
    ggml = ctypes.CDLL(library.origin)
    for name in ("gguf_init_empty", "gguf_init_from_file", "ggml_get_tensor"):
        getattr(ggml, name).restype = ctypes.c_void_p
    ggml.gguf_get_tensor_name.restype = ctypes.c_char_p
    for name in ("gguf_get_n_tensors", "gguf_find_tensor", "gguf_find_key"):
        getattr(ggml, name).restype = ctypes.c_int64
    for name in ("gguf_get_data_offset", "gguf_get_tensor_offset", "gguf_get_tensor_size", "gguf_get_meta_size"):
        getattr(ggml, name).restype = ctypes.c_size_t
    ggml.gguf_get_val_u32.restype = ctypes.c_uint32
    return ggml


def _layer(name: bytes) -> int:
    found = re.match(rb"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def copy(source: Path, target: Path) -> None:
    """Write a GGUF file again as llama.cpp does."""
    ggml, context = _ggml(), ctypes.c_void_p()
    read = ctypes.c_void_p(
        ggml.gguf_init_from_file(os.fsencode(source), _InitParams(no_alloc=True, context=ctypes.pointer(context)))
    )
    assert read.value
    written = ctypes.c_void_p(ggml.gguf_init_empty())
    kind = ggml.gguf_get_val_u32(read, ctypes.c_int64(ggml.gguf_find_key(read, b"general.file_type")))
    ggml.gguf_set_kv(written, read)
    ggml.gguf_set_val_u32(written, b"general.quantization_version", ctypes.c_uint32(_QUANTIZATION_VERSION))
    ggml.gguf_set_val_u32(written, b"general.file_type", ctypes.c_uint32(kind))
    names = [ggml.gguf_get_tensor_name(read, ctypes.c_int64(i)) for i in range(ggml.gguf_get_n_tensors(read))]
    start = ggml.gguf_get_data_offset(read)
    parts = []
    with source.open("rb") as file:
        for name in sorted(names, key=lambda name: (_layer(name), name)):
            ggml.gguf_add_tensor(written, ctypes.c_void_p(ggml.ggml_get_tensor(context, name)))
            number = ctypes.c_int64(ggml.gguf_find_tensor(read, name))
            file.seek(start + ggml.gguf_get_tensor_offset(read, number))
            data = file.read(ggml.gguf_get_tensor_size(read, number))
            parts.append(data + bytes(-len(data) % _ALIGNMENT))
    header = ctypes.create_string_buffer(ggml.gguf_get_meta_size(written))
    ggml.gguf_get_meta_data(written, header)
    target.write_bytes(header.raw + b"".join(parts))
