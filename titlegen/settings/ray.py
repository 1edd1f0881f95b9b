"""Settings of titles for millions of articles, with `generate --engine ray`."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from titlegen.settings.stage import StageSettings


class RaySettings(StageSettings):
    """Titles for millions of articles on Ray, with `generate --engine ray`."""

    address: str | None = None
    """Ray cluster to join: HOST:PORT, or `auto` for the one that this machine is part of; without, Ray starts here."""
    backend: Literal["served", "local", "vllm"] = "served"
    """What writes: model servers (`served`), titlegen's decoder, a process a GPU (`local`), or vLLM (`vllm`)."""
    hosts: tuple[str, ...] = ()
    """Further servers of the same model, beside `serve.host`; a repeated `--serve.host` gives them, too."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that write titles, 0 for one a server, a GPU, or (`local` without a GPU) a machine."""
    block_rows: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Articles of a block: one file of the output, and what is done again when a process is lost."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Articles that `local` writes titles for at a time."""
    format: Literal["parquet", "jsonl"] = "parquet"
    """What the output is written as."""
    object_store_mib: Annotated[int, Field(ge=80)] = 512
    """Shared memory of a Ray that starts here, MiB."""


def further_hosts(arguments: Sequence[str]) -> list[str]:
    """Return a command line on which every `--serve.host` but the first is one of the further servers."""
    pattern = re.compile(r"^--serve\.host(?==|$)")
    first = next((place for place, argument in enumerate(arguments) if pattern.match(argument)), 0)
    return [
        argument if place == first else pattern.sub("--ray.hosts", argument) for place, argument in enumerate(arguments)
    ]
