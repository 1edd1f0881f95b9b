from pathlib import Path

import psutil
import pytest

from titlegen import tensors

SIZE = 2**26


@pytest.fixture
def model(tmp_path: Path) -> Path:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(SIZE)
    return tmp_path


def bytes_read(directory: Path) -> int:
    process = psutil.Process()
    before = process.io_counters().read_chars
    tensors.read_ahead(directory).join(60)
    return int(process.io_counters().read_chars - before)


def test_a_model_is_read_ahead(model: Path) -> None:
    assert bytes_read(model) >= SIZE


def test_a_model_that_would_push_itself_out_of_the_cache_is_not(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "_CACHED_SHARE", SIZE / 2 / psutil.virtual_memory().total)
    assert bytes_read(model) < SIZE


def test_what_cannot_be_read_ahead_is_left_to_whoever_needs_it(tmp_path: Path) -> None:
    assert bytes_read(tmp_path) < SIZE
