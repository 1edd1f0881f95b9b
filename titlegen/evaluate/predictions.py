"""Raw outputs that were made elsewhere, from a JSONL file, checked against the split they are said to be for."""

from collections.abc import Sequence
from pathlib import Path

from titlegen.data import Example
from titlegen.data.example import read_jsonl
from titlegen.errors import DataError
from titlegen.plural import listed, shortened

_NAMED = 5
_ID_CHARS = 40


def read_predictions(path: Path, examples: Sequence[Example], preferred: str = "prediction") -> list[str]:
    """Return the raw outputs of a predictions file in the order of the examples.

    Each line is an object with the keys ``id`` and ``prediction``; others are left alone, so that the
    predictions.jsonl of a report can be read again.

    Args:
        path: the file.
        examples: of the split.
        preferred: a key to read in place of ``prediction`` where a line has it.

    Raises:
        DataError: the file is missing or not UTF-8, a line is not such an object, or ids are missing, unknown or
            there twice; the message names up to five of them.
    """
    if not path.is_file():
        raise DataError(
            f"predictions file {path} does not exist; give evaluate.target a JSONL file with the keys id and "
            "prediction, or one of server, merged, adapter"
        )
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    twice: list[str] = []
    for number, record in read_jsonl(path):
        for key in ("id", "prediction"):
            if not isinstance(record.get(key), str):
                what = f"is {type(record[key]).__name__} instead of text" if key in record else "is missing"
                raise DataError(f"{path}, line {number}: key {key!r} {what}; each line needs id and prediction as text")
            if not _is_unicode(record[key]):
                raise DataError(f"{path}, line {number}: {key!r} holds half of a surrogate pair; write it as UTF-8")
        if record["id"] in found:
            twice.append(f"{_shown(record['id'])} (lines {lines[record['id']]} and {number})")
        found.setdefault(record["id"], str(record.get(preferred, record["prediction"])))
        lines.setdefault(record["id"], number)
    known = {example.id for example in examples}
    missing = [_shown(example.id) for example in examples if example.id not in found]
    extra = [f"{_shown(name)} (line {lines[name]})" for name in found if name not in known]
    problems = [
        f"{len(ids)} {what}: {listed(ids, _NAMED)}"
        for ids, what in ((missing, "ids missing"), (extra, "ids that the split does not have"), (twice, "ids twice"))
        if ids
    ]
    if problems:
        raise DataError(
            f"{path} does not fit the {len(examples)} examples of the split: {'; '.join(problems)}; it needs one line "
            "for each example"
        )
    return [found[example.id] for example in examples]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return repr(shortened(name, _ID_CHARS))
