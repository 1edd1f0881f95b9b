"""Data sets on the Hub: configurations, splits, rows, and the errors on the way to them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from titlegen.data.arrow import short, to_records
from titlegen.data.columns import Columns, find_columns
from titlegen.data.records import Findings, Numbered, Part
from titlegen.environment import check_remote
from titlegen.errors import DataError
from titlegen.proxies import proxy_hint
from titlegen.settings import DataSettings

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

_BATCH_ROWS = 512


def open_hub(settings: DataSettings, *, titled: bool, findings: Findings) -> list[Part]:
    """Open the splits of a Hub data set for streaming.

    Raises:
        DataError: it cannot be reached or read, has several configurations, lacks the split or a column, or is a
            program; the message says what to do.
    """
    import datasets
    import huggingface_hub

    name = settings.source
    check_remote(huggingface_hub.constants.ENDPOINT)
    try:
        options: dict[str, str | None] = {"revision": settings.revision, "name": settings.config_name}
        builder = datasets.load_dataset_builder(name, **options)
        available = _list_columns(builder)
        columns = find_columns(name, available, settings, titled=titled) if available else None
        # Streaming with named columns fetches only their parts of a Parquet file.
        narrow = {"columns": list(columns.names)} if columns and _is_parquet(builder) else {}
        loaded = datasets.load_dataset(name, **options, streaming=True, **narrow)
        splits = _choose_splits(name, list(loaded), settings.source_split)
        if columns is None:
            columns = find_columns(name, list(next(iter(loaded[splits[0]]), {})), settings, titled=titled)
    except _unusable() as error:
        raise _explain(name, error) from error
    parts = [_part(name, split, builder.config.name, loaded[split], columns) for split in splits]
    findings.files = {part.name: part.form for part in parts}
    return parts


def _part(name: str, split: str, form: str, stream: IterableDataset, columns: Columns) -> Part:
    def records() -> Iterator[Numbered]:
        numbers = itertools.count(1)
        try:
            # Arrow's own values: what Python cannot hold is found row by row.
            chosen = stream.select_columns(list(columns.names)).with_format("arrow")
            for table in chosen.iter(batch_size=_BATCH_ROWS):
                for batch in table.to_batches():
                    for record in to_records(batch):
                        yield next(numbers), record
        except _unusable() as error:
            raise _explain(name, error) from error

    return Part(f"{name}, split {split}", f"Hub, {form}", "row", name, columns, records)


def _choose_splits(name: str, available: Sequence[str], wanted: str | None) -> list[str]:
    if not wanted:
        return list(available)
    splits = [split.strip() for split in wanted.split("+")]
    for split in splits:
        if split not in available:
            raise DataError(
                f"Hub data set {name!r} has no split {split!r}; it has {', '.join(available)}: name one, or several "
                "joined by +, with --data.source-split"
            )
    return list(dict.fromkeys(splits))


def _unusable() -> tuple[type[Exception], ...]:
    import datasets
    import httpx
    import huggingface_hub
    import pyarrow as pa

    return (
        OSError,
        ValueError,
        # datasets raises it for data sets with a script, which it no longer runs.
        RuntimeError,
        datasets.exceptions.DatasetsError,
        huggingface_hub.errors.HfHubHTTPError,
        httpx.HTTPError,
        pa.ArrowException,
    )


def _explain(name: str, error: Exception) -> DataError:
    """Return what a failure of the Hub's libraries means to a user."""
    text = str(error)
    if "scripts are no longer supported" in text or "trust_remote_code" in text:
        return DataError(
            f"Hub data set {name!r} is a loading script, a program that titlegen does not run; read its Parquet branch "
            "with --data.revision refs/convert/parquet, or download its files and give their folder"
        )
    if "Config name is missing" in text or ("BuilderConfig" in text and "not found" in text):
        names = ", ".join(re.findall(r"'([^']+)'", text.partition("[")[2].partition("]")[0]))
        return DataError(
            f"Hub data set {name!r} has several configurations: {names}; choose one with --data.config-name"
        )
    if "gated" in text or type(error).__name__ == "GatedRepoError":
        return DataError(
            f"Hub data set {name!r} is gated: ask for access at https://huggingface.co/datasets/{name} and run "
            "`hf auth login`"
        )
    if type(error).__name__ in {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return DataError(
            f"Hub data set {name!r} does not exist, or is private and needs a token that may read it (run "
            "`hf auth login`); there is no such file or folder here either: check --data.source"
        )
    import huggingface_hub

    return DataError(
        f"Hub data set {name!r} cannot be loaded{proxy_hint(huggingface_hub.constants.ENDPOINT)}: "
        f"{type(error).__name__}: {short(error)}; check the name and the network, or choose a local file or `embedded` "
        "with --data.source"
    )


def _is_parquet(builder: DatasetBuilder) -> bool:
    return "columns" in vars(builder.config)


def _list_columns(builder: DatasetBuilder) -> list[str]:
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
