"""What ``generate --engine ray`` refuses before anything is written: bad input, and a Ray that is not there."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported_models import question

from titlegen.cli import main
from titlegen.cluster.parts import as_line
from titlegen.cluster.start import _check_shared_memory
from titlegen.cluster.vllm import PAIR
from titlegen.console import EXIT_ERROR
from titlegen.daemon import free_port

# Ray Data sets its own deprecated fields.
pytestmark = pytest.mark.filterwarnings("ignore:`.*` is deprecated:DeprecationWarning")


def write_articles(path: Path, numbers: Sequence[int]) -> Path:
    path.write_text("".join(as_line({"content": question(number)}) for number in numbers), encoding="utf-8")
    return path


def _no_such_pattern(folder: Path) -> list[str]:
    return [str(folder / "*.jsonl")]


def _object_store(_: Path) -> list[str]:
    return ["s3://bucket/*.parquet"]


def _into_an_object_store(folder: Path) -> list[str]:
    write_articles(folder / "a.jsonl", range(3))
    return [str(folder / "a.jsonl"), "--out", "gs://bucket/titles"]


def _other_columns(folder: Path) -> list[str]:
    write_articles(folder / "a.jsonl", range(3))
    pq.write_table(pa.table({"views": [1, 2]}), folder / "b.parquet")
    return [str(folder)]


def _cut_off(folder: Path) -> list[str]:
    pq.write_table(pa.table({"content": [question(number) for number in range(100)]}), folder / "a.parquet")
    whole = (folder / "a.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[: len(whole) // 2])
    return [str(folder)]


def _among_the_articles(folder: Path) -> list[str]:
    write_articles(folder / "a.jsonl", range(3))
    return [str(folder), "--out", str(folder / "out")]


def _not_empty(folder: Path) -> list[str]:
    write_articles(folder / "a.jsonl", range(3))
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").touch()
    return [str(folder / "a.jsonl"), "--out", str(folder / "out")]


def _unreachable(folder: Path) -> list[str]:
    write_articles(folder / "a.jsonl", range(3))
    return [str(folder / "a.jsonl"), "--ray.address", f"127.0.0.1:{free_port()}"]


def _no_address(folder: Path) -> list[str]:
    write_articles(folder / "a.jsonl", range(3))
    return [str(folder / "a.jsonl"), "--ray.address", "ray://head:10001"]


def _no_memory(folder: Path) -> list[str]:
    write_articles(folder / "a.jsonl", range(3))
    return [str(folder / "a.jsonl"), "--ray.object-store-mib", str(2**30)]


def _vllm(folder: Path) -> list[str]:
    write_articles(folder / "a.jsonl", range(3))
    return [str(folder / "a.jsonl"), "--ray.backend", "vllm"]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (_no_such_pattern, "does not exist; check the path"),
        (_object_store, "mount the bucket"),
        (_into_an_object_store, "--out gs:/bucket/titles is an address of an object store"),
        (_other_columns, "b.parquet"),
        (_cut_off, "b.parquet"),
        (_among_the_articles, "lies among the articles"),
        (_not_empty, "is not empty (thesis.txt), and holds no run"),
        (_unreachable, "no Ray cluster answers at 127.0.0.1:"),
        (_no_address, "ray.address = 'ray://head:10001' is no address of a cluster; give HOST:PORT"),
        (_no_memory, "MiB of shared memory left and Ray would take 1073741824; give more"),
        (_vllm, f"'ray[llm]=={PAIR['ray']}' 'vllm=={PAIR['vllm']}'"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    prepare: Callable[[Path], list[str]],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    arguments = prepare(folder)
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    # No server is needed to refuse it.
    fixed = ["--engine", "ray", "--output", str(tmp_path / "outputs")]
    fixed += [] if "--ray.backend" in arguments else ["--ray.backend", "local"]
    assert main(["generate", *arguments[:1], *fixed, *arguments[1:], *out]) == EXIT_ERROR
    lines = capsys.readouterr().err.splitlines()
    assert error in lines[-1]
    assert not list(tmp_path.rglob("part-*"))


def test_options_of_ray_belong_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(write_articles(tmp_path / "in.jsonl", range(3)))
    assert main(["generate", source, "--engine", "ray"]) == EXIT_ERROR
    assert "--engine ray and --ordered need --out" in capsys.readouterr().err
    assert main(["generate", source, "--out", str(tmp_path / "t.jsonl"), "--ordered"]) == EXIT_ERROR
    assert "--ordered belongs to --engine ray" in capsys.readouterr().err


def test_shared_memory_that_is_there_is_enough() -> None:
    _check_shared_memory(1)
