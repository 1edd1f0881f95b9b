"""The files that we write go through llama.cpp's copy unchanged."""

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from gguf_copy import copy

from titlegen.gguf_reader import read_header
from titlegen.gguf_writer import arrange, tensor_order
from titlegen.standins.ollama.quantize import write_q8_0


@pytest.fixture(scope="module", params=["f32", "f16", "bf16", "q8_0"])
def exported(tiny_gguf: Callable[[str], Path], request: pytest.FixtureRequest) -> Path:
    return tiny_gguf(request.param)


def test_an_exported_file_is_copied_byte_by_byte(exported: Path, tmp_path: Path) -> None:
    copy(exported, tmp_path / "copy.gguf")
    assert (tmp_path / "copy.gguf").read_bytes() == exported.read_bytes()


def test_a_file_that_the_server_quantised_is_copied_byte_by_byte(f16_gguf: Path, tmp_path: Path) -> None:
    write_q8_0(f16_gguf, tmp_path / "q8.gguf")
    copy(tmp_path / "q8.gguf", tmp_path / "copy.gguf")
    assert (tmp_path / "copy.gguf").read_bytes() == (tmp_path / "q8.gguf").read_bytes()


@pytest.mark.skipif(shutil.which("llama-quantize") is None, reason="needs llama.cpp's program llama-quantize")
def test_the_program_copies_byte_by_byte(exported: Path, tmp_path: Path) -> None:
    subprocess.run(  # noqa: S603 - our own command line
        [str(shutil.which("llama-quantize")), str(exported), str(tmp_path / "copy.gguf"), "COPY"],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "copy.gguf").read_bytes() == exported.read_bytes()


def write(path: Path, names: list[str], *, arranged: bool) -> None:
    writer = GGUFWriter(path, "gemma3")
    writer.add_file_type(0)
    writer.add_quantization_version(2)
    writer.add_block_count(12)
    writer.add_array("gemma3.some", [True, False])
    for name in names:
        writer.add_tensor(name, np.full(7, len(name), np.float32))
    if arranged:
        arrange(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_layers_are_sorted_by_number_and_the_rest_stands_before_them(tmp_path: Path) -> None:
    names = [f"blk.{layer}.{part}.weight" for layer in range(12) for part in ("attn_q", "attn_norm", "attn_k_norm")]
    names += ["token_embd.weight", "output_norm.weight", "altup_proj.weight", "blkx.weight"]
    random.Random(0).shuffle(names)
    write(tmp_path / "plain.gguf", names, arranged=False)
    write(tmp_path / "arranged.gguf", names, arranged=True)
    stored = [tensor["name"] for tensor in read_header(tmp_path / "arranged.gguf").tensors]
    assert stored[:5] == [
        "altup_proj.weight",
        "blkx.weight",
        "output_norm.weight",
        "token_embd.weight",
        "blk.0.attn_k_norm.weight",
    ]
    assert stored.index("blk.10.attn_q.weight") > stored.index("blk.9.attn_q.weight")
    assert sorted(stored, key=tensor_order) == stored
    # What llama.cpp makes of any order is this one.
    copy(tmp_path / "plain.gguf", tmp_path / "copy.gguf")
    assert (tmp_path / "copy.gguf").read_bytes() == (tmp_path / "arranged.gguf").read_bytes()
    assert (tmp_path / "copy.gguf").read_bytes() != (tmp_path / "plain.gguf").read_bytes()
