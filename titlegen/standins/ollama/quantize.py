"""GGUF in 16 or 32 bits to another type: with llama.cpp's own program where it is installed, else to Q8_0 here.

Run as ``python -m titlegen.standins.ollama.quantize SOURCE TARGET``: in a process of its own, to give its memory back.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.environment import describe_exit, python_command
from titlegen.export import quantize_command
from titlegen.gguf_writer import arrange

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.gguf_reader import ReaderTensor

# Source: Ollama's server/quantization.go, in the order of its message.
SUPPORTED = ("F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0")
UNQUANTIZED = ("F16", "BF16", "F32")
_LOG_TAIL_CHARS = 300
_Q8_0_FILE_TYPE, _QUANTIZATION_VERSION, _Q8_0_BLOCK = 7, 2, 32


class ConversionError(Exception):
    """The file cannot be quantised to that type."""


async def quantize(source: Path, target: Path, level: str) -> None:
    """Write ``source``, a GGUF file in 16 or 32 bits, to ``target`` as ``level``.

    Raises:
        ConversionError: the type needs a program that is not installed, or the quantiser failed.
    """
    command = quantize_command(source, target, level)
    if command is None and level == "Q8_0":
        command = [*python_command("titlegen.standins.ollama.quantize"), str(source), str(target)]
    if command is None:
        raise ConversionError(
            f"quantizing to {level} needs llama.cpp's program llama-quantize on PATH; install it, use Ollama, or "
            "quantize to q8_0"
        )
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, output = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # Its open files are removed next, and must not be written again.
        await process.wait()
        raise
    if process.returncode != 0:
        text = output.decode(errors="replace").strip()[-_LOG_TAIL_CHARS:]
        raise ConversionError(f"quantizing to {level} failed, and {describe_exit(process.returncode or 0)}: {text}")


def write_q8_0(source: Path, target: Path) -> None:
    """Write a GGUF file again with every matrix as Q8_0; vectors stay as they are."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize, quantize

    reader = GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = GGUFWriter(target, architecture)
    skipped = {"general.architecture", "general.file_type", "general.quantization_version"}
    for field in reader.fields.values():
        if field.name in skipped or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub_type)
    writer.add_file_type(_Q8_0_FILE_TYPE)
    writer.add_quantization_version(_QUANTIZATION_VERSION)

    def convert(tensor: ReaderTensor) -> tuple[np.ndarray, GGMLQuantizationType]:
        if len(tensor.shape) < 2 or int(tensor.shape[0]) % _Q8_0_BLOCK:  # noqa: PLR2004 - a matrix has two
            return tensor.data, tensor.tensor_type
        plain = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        return quantize(plain, GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0

    for tensor in reader.tensors:
        data, kind = convert(tensor)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    arrange(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write_q8_0(Path(sys.argv[1]), Path(sys.argv[2]))
