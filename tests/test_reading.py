"""A sheet for blind reading tells no model, and its marks are counted under the right one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parent.parent / "benchmarks" / "reading.py"
_IDS = ("a", "b", "c")
_TITLES = {"small": {"a": "甲", "b": "乙", "c": "同"}, "large": {"a": "丙", "b": "丁", "c": "同"}}


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own script
        [sys.executable, _SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    """Three articles with the titles of two models, which agree on one."""
    rows = [{"id": name, "content": f"內文{name}", "title": "題", "source": "s", "date": None} for name in _IDS]
    articles = _write(tmp_path / "test.jsonl", [dict(row) for row in rows])
    given = [
        f"{model}={_write(tmp_path / f'{model}.jsonl', [{'id': n, 'prediction': t} for n, t in titles.items()])}"
        for model, titles in _TITLES.items()
    ]
    path = tmp_path / "sheet.jsonl"
    done = _run("sheet", path, articles, "--titles", *given)
    assert done.returncode == 0, done.stderr
    return path


def test_a_sheet_shows_each_title_once_and_no_model(sheet: Path) -> None:
    """The reader sees the article and its titles alone."""
    rows = {row["id"]: row for row in map(json.loads, sheet.read_text(encoding="utf-8").splitlines())}
    assert {name: sorted(row["titles"]) for name, row in rows.items()} == {
        "a": ["丙", "甲"],
        "b": ["丁", "乙"],
        "c": ["同"],
    }
    assert not {"small", "large"} & set(sheet.read_text(encoding="utf-8").split('"'))


def test_marks_are_counted_under_the_model_that_wrote_the_title(sheet: Path, tmp_path: Path) -> None:
    """Every title of the small model is taken and every other wrong; the shared one counts for both."""
    verdict = {"甲": "taken", "乙": "taken", "丙": "wrong", "丁": "wrong", "同": "edits"}
    rows = [json.loads(line) for line in sheet.read_text(encoding="utf-8").splitlines()]
    first = [{"id": row["id"], "marks": [verdict[title] for title in row["titles"]]} for row in rows]
    second = [row | {"marks": ["nonsense"] if row["id"] == "c" else row["marks"]} for row in first]
    out = tmp_path / "reading.json"
    done = _run("count", out, sheet, _write(tmp_path / "1", [*first]), _write(tmp_path / "2", [*second]))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    zero = dict.fromkeys(("taken", "edits", "wrong", "nonsense"), 0)
    assert found["counts"]["test"]["small"] == [zero | {"taken": 2, "edits": 1}, zero | {"taken": 2, "nonsense": 1}]
    assert found["counts"]["test"]["large"] == [zero | {"wrong": 2, "edits": 1}, zero | {"wrong": 2, "nonsense": 1}]
    assert found["agreement"] == pytest.approx(4 / 6, abs=1e-4)
    assert "內文" not in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("marks", [["taken"], ["taken", "good"]])
def test_marks_that_do_not_fit_are_refused_by_name(sheet: Path, tmp_path: Path, marks: list[str]) -> None:
    """One mark for two titles, and a word that is no mark."""
    rows = [json.loads(line) for line in sheet.read_text(encoding="utf-8").splitlines()]
    given = _write(tmp_path / "1", [{"id": row["id"], "marks": marks} for row in rows])
    done = _run("count", tmp_path / "out.json", sheet, given, given)
    assert done.returncode == 1
    assert "marks of taken" in done.stderr
