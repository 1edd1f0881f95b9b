"""The GGUF reader against the ``gguf`` package's own, which is a hundred times slower on a real vocabulary."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from titlegen.gguf_reader import GgufError, read_header


@pytest.fixture(scope="module", params=["f32", "bf16", "q8_0"])
def path(tiny_gguf: Callable[[str], Path], request: pytest.FixtureRequest) -> Path:
    return tiny_gguf(request.param)


def test_fields_vocabulary_and_tensors_are_those_of_the_package(path: Path) -> None:
    header, reader = read_header(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert header.fields.keys() == fields.keys()
    for name, value in header.fields.items():
        if value is not None:
            assert value == fields[name], name
        elif isinstance(fields[name][0], str):
            assert header.strings(name) == fields[name], name
        else:
            assert header.numbers(name) == fields[name], name
    assert {"tokenizer.ggml.tokens", "tokenizer.ggml.scores"} <= {n for n, v in header.fields.items() if v is None}
    assert [tensor["name"] for tensor in header.tensors] == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        data, kind = header.stored(tensor.name)
        assert kind == tensor.tensor_type
        expected = gguf.dequantize(tensor.data, kind)
        np.testing.assert_array_equal(gguf.dequantize(data, kind).ravel(), expected.ravel())


def test_a_missing_array_is_empty(path: Path) -> None:
    header = read_header(path)
    assert header.strings("tokenizer.ggml.merges") == []
    assert header.numbers("tokenizer.ggml.merges") == []
    assert header.bos == "<bos>"


@pytest.mark.fault
@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(GgufError, match=r"not in GGUF format|unexpected EOF"):
        read_header(tmp_path / "x.gguf")


@pytest.mark.fault
def test_a_vocabulary_that_is_none_has_no_tokens(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "gemma3")
    writer.add_uint32("tokenizer.ggml.tokens", 5)
    writer.add_uint32("tokenizer.ggml.bos_token_id", 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_header(tmp_path / "x.gguf").bos == ""
