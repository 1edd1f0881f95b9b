"""``llama-quantize SOURCE TARGET TYPE`` in Python: ggml's own quantisers, out of the library inside xllamacpp.

PyPI has llama.cpp's quantisers and not its program. Which tensor gets which type is simpler here.
"""

import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

# Source: llama.h, enum llama_ftype.
_FILE_TYPES = {"Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
# Source: llama-quant.cpp: rows that are no multiple of 256 get another type.
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_SUPER_BLOCK = 256


def quantise(values: Any, kind: GGMLQuantizationType) -> Any:
    """Return a matrix of float32 as ggml stores it: (rows, bytes of a row)."""
    library = find_spec("xllamacpp.xllamacpp")
    assert library is not None
    assert library.origin is not None
    ggml = ctypes.CDLL(library.origin)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    rows, columns = values.shape
    block, size = GGML_QUANT_SIZES[kind]
    values = np.ascontiguousarray(values, dtype=np.float32)
    result = np.empty((rows, columns // block * size), dtype=np.uint8)
    pointers = values.ctypes.data_as(ctypes.c_void_p), result.ctypes.data_as(ctypes.c_void_p)
    start, *sizes = (ctypes.c_int64(number) for number in (0, rows, columns))
    assert ggml.ggml_quantize_chunk(int(kind), *pointers, start, *sizes, None) == result.nbytes
    return result


def _kind(name: str, columns: int, level: str) -> GGMLQuantizationType:
    precise = level.endswith("_M") and any(part in name for part in ("attn_v", "ffn_down", "token_embd"))
    kind = "Q6_K" if precise else level.removesuffix("_M").removesuffix("_S")
    return GGMLQuantizationType[kind if columns % _SUPER_BLOCK == 0 else _FALLBACKS[kind]]


def main(source: str, target: str, level: str) -> None:
    """Write a GGUF file in 32 bits again, with every matrix quantised."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if field.name in {"general.architecture", "general.file_type"} or field.name.startswith("GGUF."):
            continue
        sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    writer.add_file_type(_FILE_TYPES[level])
    for tensor in reader.tensors:
        data, kind = tensor.data, GGMLQuantizationType.F32
        if data.ndim > 1:
            kind = _kind(tensor.name, data.shape[1], level)
            data = quantise(data, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file(Path(target))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
