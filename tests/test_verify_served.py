"""The file that a server runs against the exported one."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf_copy import copy

from titlegen.files import digest_file
from titlegen.verify import check_served_file

Tensors = dict[str, "np.typing.NDArray[np.float32]"]
TOKENS = [f"t{number}" for number in range(300)]


def write(path: Path, *, tokens: list[str] = TOKENS, bos: int = 2, epsilon: float = 1e-6, tensors: Tensors) -> Path:
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_file_type(0)
    writer.add_quantization_version(2)
    writer.add_layer_norm_rms_eps(epsilon)
    writer.add_bos_token_id(bos)
    writer.add_token_list(tokens)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def some_tensors() -> Tensors:
    names = ("token_embd.weight", "blk.10.attn_q.weight", "blk.9.attn_q.weight", "output_norm.weight")
    return {name: np.arange(12, dtype=np.float32).reshape(3, 4) + number for number, name in enumerate(names)}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return write(tmp_path / "titlegen-F32.gguf", tensors=some_tensors())


def blob(path: Path) -> str:
    """Let a file be what a server runs; returns the Modelfile in which the server says so."""
    target = path.rename(path.with_name(f"sha256-{digest_file(path)}"))
    return f'# FROM news:latest\n\nFROM {target}\nTEMPLATE "{{{{ .Prompt }}}}"\n'


def test_the_same_bytes_pass_wherever_they_are(exported: Path) -> None:
    check = check_served_file(exported, f"FROM C:\\models\\blobs\\sha256-{digest_file(exported)}\nSYSTEM x\n")
    assert (check.passed, check.figure) == (True, "the same bytes")


def test_another_order_of_the_same_keys_and_tensors_passes(exported: Path, tmp_path: Path) -> None:
    copy(exported, tmp_path / "copy.gguf")
    assert digest_file(tmp_path / "copy.gguf") != digest_file(exported)
    check = check_served_file(exported, blob(tmp_path / "copy.gguf"))
    assert (check.passed, check.figure) == (True, "the same keys and tensors in another order")


def one_bit(tensors: Tensors) -> None:
    tensors["blk.9.attn_q.weight"].view(np.uint32)[2, 3] ^= 1


def another_shape(tensors: Tensors) -> None:
    tensors["blk.9.attn_q.weight"] = tensors["blk.9.attn_q.weight"].reshape(4, 3)


def exchanged(tensors: Tensors) -> None:
    first, second = "blk.9.attn_q.weight", "blk.10.attn_q.weight"
    tensors[first], tensors[second] = tensors[second], tensors[first]


def lost(tensors: Tensors) -> None:
    del tensors["output_norm.weight"]


@pytest.mark.fault
@pytest.mark.parametrize("change", [one_bit, another_shape, exchanged, lost])
def test_another_tensor_fails(exported: Path, tmp_path: Path, change: Callable[[Tensors], None]) -> None:
    tensors = some_tensors()
    change(tensors)
    check = check_served_file(exported, blob(write(tmp_path / "other.gguf", tensors=tensors)))
    assert not check.passed
    assert check.detail.startswith("tensor ")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"bos": 3}, "tokenizer.ggml.bos_token_id"),
        ({"epsilon": 2e-6}, "gemma3.attention.layer_norm_rms_epsilon"),
        ({"tokens": [*TOKENS[:-1], "x"]}, "tokenizer.ggml.tokens"),
        ({"tokens": TOKENS[:100]}, "tokenizer.ggml.tokens"),
    ],
)
def test_another_key_fails(exported: Path, tmp_path: Path, fields: dict[str, object], name: str) -> None:
    other = write(tmp_path / "other.gguf", tensors=some_tensors(), **fields)  # type: ignore[arg-type]
    check = check_served_file(exported, blob(other))
    assert (check.passed, check.detail) == (False, f"key {name}")


@pytest.mark.fault
def test_a_file_that_cannot_be_seen_proves_nothing(exported: Path, tmp_path: Path) -> None:
    check = check_served_file(exported, f"FROM /elsewhere/sha256-{'0' * 64}\n")
    assert not check.passed
    assert "cannot be read here" in check.detail
    (tmp_path / "cut.gguf").write_bytes(exported.read_bytes()[:200])
    assert not check_served_file(exported, blob(tmp_path / "cut.gguf")).passed
    assert check_served_file(exported, "FROM gemma3n:e4b\n").detail == "the server names no file"
