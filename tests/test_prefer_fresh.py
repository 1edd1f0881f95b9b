"""A process of its own, where a library is loaded that replaces others' classes."""

import os
from pathlib import Path

import pytest

from titlegen.errors import DataError
from titlegen.prefer import read_choices, without


def test_only_where_the_library_is_loaded_there_is_another_process() -> None:
    assert without("no_such_library", os.getpid)() == os.getpid()
    assert without("pytest", os.getpid)() != os.getpid()


def test_an_error_comes_through_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; export the preferences"):
        without("pytest", read_choices)(tmp_path / "none.jsonl")
