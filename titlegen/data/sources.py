"""Raw articles out of the embedded corpus, local files or a Hub data set, as one stream of rows."""

import csv
import difflib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from titlegen.data.example import read_jsonl
from titlegen.environment import check_remote
from titlegen.errors import DataError
from titlegen.prompt import INSTRUCTION
from titlegen.proxies import way
from titlegen.settings import EMBEDDED, DataSettings

_SUFFIXES = (".jsonl", ".csv", ".parquet")
_HEAD_RECORDS = 500
# Other names that published title and headline sets use; taken only where the settings still have their defaults.
_CONTENT_NAMES = ("content", "article")
_TITLE_NAMES = ("title", "headline")
_DATE_NAMES = ("date", "timestamp")
_MESSAGES = "messages"
_BATCH_ROWS = 512

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One raw article; anything may be missing or of a wrong type, which the filters count."""

    content: Any
    title: Any
    source: str
    date: Any
    id: str | None


@dataclass(frozen=True, slots=True)
class Source:
    """An opened source: where it is, which of its columns are read, and its rows."""

    name: str
    columns: dict[str, str]
    rows: Iterator[Row]


def open_source(settings: DataSettings) -> Source:
    """Open the source that the settings name, and find its columns.

    Only the needed columns are read: the image column of a Hub data set is never loaded.

    Raises:
        DataError: the source cannot be reached or read, is empty, or lacks a column (its columns are listed).
    """
    name = settings.source
    path = Path(name)
    if name == EMBEDDED:
        columns, records = _open_records(name, settings, _embedded_records())
    elif path.suffix in _SUFFIXES or path.exists():
        columns, records = _open_file(path, settings)
    else:
        columns, records = _open_hub(settings)
    origin = path.stem if path.suffix in _SUFFIXES else name
    rows = (_row(record, columns, origin) for record in records)
    return Source(name, columns, itertools.islice(rows, settings.limit) if settings.limit else rows)


def embedded_files() -> list[str]:
    """Return the names of the corpus files shipped with titlegen."""
    folder = resources.files("titlegen") / "corpus"
    return sorted(file.name for file in folder.iterdir() if file.name.endswith(".jsonl"))


def _embedded_records() -> Iterator[Record]:
    for name in embedded_files():
        with resources.as_file(resources.files("titlegen") / "corpus" / name) as path:
            yield from (record for _, record in read_jsonl(path))


def _open_file(path: Path, settings: DataSettings) -> tuple[dict[str, str], Iterator[Record]]:
    if not path.is_file():
        raise DataError(f"data source {str(path)!r} does not exist; check --data.source")
    if path.suffix == ".jsonl":
        return _open_records(str(path), settings, (record for _, record in read_jsonl(path)))
    if path.suffix == ".csv":
        return _open_records(str(path), settings, _csv_records(path))
    if path.suffix == ".parquet":
        return _open_parquet(path, settings)
    raise DataError(f"data source {str(path)!r} is none of {', '.join(_SUFFIXES)}; convert it to one of them")


def _open_records(
    name: str, settings: DataSettings, records: Iterator[Record]
) -> tuple[dict[str, str], Iterator[Record]]:
    """Find the columns by the first records of a stream: a record may lack what it has no value for."""
    head = list(itertools.islice(records, _HEAD_RECORDS))
    if not head:
        raise DataError(f"data source {name!r} is empty")
    names = list(dict.fromkeys(key for record in head for key in record))
    return find_columns(name, names, settings), itertools.chain(head, records)


def _csv_records(path: Path) -> Iterator[Record]:
    # An article may be longer than the csv module's default of 128 KiB a field.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    # Bytes that are not UTF-8 come through as lone surrogates, so that the row that holds them can be named.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for record in reader:
                yield _csv_record(record, len(reader.fieldnames or ()))
        except (csv.Error, ValueError) as error:
            raise DataError(f"{path}, line {reader.reader.line_num}: {error}; correct or remove the row") from error


def _csv_record(record: dict[str, str], fields: int) -> Record:
    if None in record or None in record.values():
        raise ValueError(f"the row has not {fields} fields as the header has")
    try:
        "".join(record.values()).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not UTF-8 (byte 0x{ord(error.object[error.start]) - 0xDC00:02x})") from error
    return record


def _open_parquet(path: Path, settings: DataSettings) -> tuple[dict[str, str], Iterator[Record]]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    def records(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[Record]:
        try:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read: {_short(error)}") from error
        finally:
            file.close()

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {_short(error)}") from error
    columns = find_columns(str(path), file.schema_arrow.names, settings)
    return columns, records(file, list(dict.fromkeys(columns.values())))


def _open_hub(settings: DataSettings) -> tuple[dict[str, str], Iterator[Record]]:
    import datasets
    import httpx
    import huggingface_hub

    name = settings.source
    endpoint = huggingface_hub.constants.ENDPOINT
    check_remote(endpoint)
    unusable = (
        OSError,
        ValueError,
        datasets.exceptions.DatasetsError,
        huggingface_hub.errors.HfHubHTTPError,
        httpx.HTTPError,
    )

    def fail(error: Exception) -> DataError:
        return DataError(
            f"Hub data set {name!r} cannot be loaded{way(endpoint)}: {type(error).__name__}: {_short(error)}; check "
            "the name and the network, or choose a local file or `embedded` with --data.source"
        )

    def records(streams: Sequence[Any]) -> Iterator[Record]:
        try:
            for stream in streams:
                yield from stream
        except unusable as error:
            raise fail(error) from error

    try:
        builder = datasets.load_dataset_builder(name, revision=settings.revision)
        available = _hub_columns(builder)
        columns = find_columns(name, available, settings) if available else None
        # Streaming with named columns fetches only their parts of a Parquet file.
        narrow = {"columns": list(dict.fromkeys(columns.values()))} if columns and _is_parquet(builder) else {}
        loaded = datasets.load_dataset(name, revision=settings.revision, streaming=True, **narrow)
        streams = [loaded[split] for split in loaded]
        if columns is None:
            columns, _ = _open_records(name, settings, iter(streams[0].take(1)))
        wanted = list(dict.fromkeys(columns.values()))
        return columns, records([stream.select_columns(wanted) for stream in streams])
    except unusable as error:
        raise fail(error) from error


def _is_parquet(builder: Any) -> bool:
    return "columns" in vars(builder.config)


def _hub_columns(builder: Any) -> list[str]:
    """Return the column names, out of the data set's card or the footer of its first Parquet file."""
    import pyarrow.parquet as pq
    from huggingface_hub import HfFileSystem

    if builder.info.features:
        return list(builder.info.features)
    if not _is_parquet(builder):
        return []
    first = next(iter(builder.config.data_files.values()))[0]
    with HfFileSystem().open(first, "rb") as file:
        return list(pq.read_schema(file).names)


def find_columns(name: str, available: Sequence[str], settings: DataSettings) -> dict[str, str]:
    """Return which column holds content, title and, where there are such, date, source and id.

    Raises:
        DataError: a column that the settings name is not there; the message suggests a like one.
    """
    defaults = DataSettings()
    untouched = (settings.content_column, settings.title_column) == (defaults.content_column, defaults.title_column)
    contents, titles = [settings.content_column], [settings.title_column]
    if untouched:
        contents, titles = [*_CONTENT_NAMES, _MESSAGES], [*_TITLE_NAMES, _MESSAGES]
    elif settings.content_column == _MESSAGES:
        titles = [_MESSAGES]
    columns = {
        "content": _first(name, contents, available, "content"),
        "title": _first(name, titles, available, "title"),
    }
    if settings.date_column != defaults.date_column and settings.date_column not in available:
        raise _missing(name, settings.date_column, available, "date")
    for column in (settings.date_column, *_DATE_NAMES):
        if column in available:
            columns["date"] = column
            break
    columns |= {column: column for column in ("source", "id") if column in available}
    return columns


def _first(name: str, wanted: Sequence[str], available: Sequence[str], role: str) -> str:
    for column in wanted:
        if column in available:
            return column
    raise _missing(name, wanted[0], available, role)


def _missing(name: str, column: str, available: Sequence[str], role: str) -> DataError:
    like = difflib.get_close_matches(column, available, n=1)
    guess = like[0] if like else "NAME"
    return DataError(
        f"data source {name!r} has no column {column!r} for the {role}; it has {', '.join(sorted(available)[:20])}; "
        f"name the right one with --data.{role}-column {guess}"
    )


def _row(record: Record, columns: Mapping[str, str], source: str) -> Row:
    content, title = record.get(columns["content"]), record.get(columns["title"])
    if columns["content"] == _MESSAGES:
        content, title = _turn(content, "user"), _turn(title, "assistant")
        if isinstance(content, str):
            content = content.removeprefix(INSTRUCTION)
    identity = record.get(columns["id"]) if "id" in columns else None
    origin = record.get(columns["source"]) if "source" in columns else None
    return Row(
        content=content,
        title=title,
        source=origin if isinstance(origin, str) and origin.strip() else source,
        date=record.get(columns["date"]) if "date" in columns else None,
        id=str(identity) if isinstance(identity, str | int) and str(identity).strip() else None,
    )


def _turn(messages: Any, role: str) -> Any:
    if isinstance(messages, str):  # CSV holds the list as JSON text
        try:
            messages = json.loads(messages)
        except ValueError:
            return None
    if not isinstance(messages, list):
        return None
    turns = [turn for turn in messages if isinstance(turn, dict) and turn.get("role") in {role, _ROLE_NAMES[role]}]
    return turns[-1].get("content") if turns else None


_ROLE_NAMES = {"user": "human", "assistant": "model"}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
