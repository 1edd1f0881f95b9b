"""Bulk titling on Ray: what Ray costs over calling the same server directly, and the driver's memory and speed.

``python benchmarks/bulk.py [--rounds N] [--rows N] [--part PART]`` writes ``outputs/benchmarks/bulk_cpu.json``. Both
sides ask one bundled server with a model that writes at once (``tests/scripted_model.py``), in turn, so that what is
left is what the engines cost. The memory is that of a run whose engine answers without a server.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bulk_rate import steady_rate
from machine import write_result

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from exported_models import ARTICLE, new_export, question  # noqa: E402 - of the tests
from ollama_server import offline_server  # noqa: E402
from scripted_model import chain  # noqa: E402

from titlegen.cluster import generate_directory  # noqa: E402
from titlegen.cluster.job import Job, Receipt  # noqa: E402
from titlegen.errors import TitlegenError  # noqa: E402
from titlegen.families.gemma3 import PROMPT  # noqa: E402
from titlegen.prompt import SYSTEM  # noqa: E402
from titlegen.serve import Client, generate_file  # noqa: E402
from titlegen.serve.answer import Answer  # noqa: E402
from titlegen.settings import DataSettings, RaySettings, ServeSettings, load_settings  # noqa: E402

_CHARS, _BLOCK, _CONCURRENCY = 300, 100, 4
_TITLE = "市府擴大公車路網"
_FEW_ROWS = 10_000


class Echo:
    """Answers at once."""

    def __init__(self, _: Job) -> None:
        pass

    def __call__(self, articles: Sequence[str]) -> list[list[Answer] | TitlegenError]:
        return [[Answer(text[:9], text[:9], "stop", 0, 0, 0.0, 0.0, trimmed=False)] for text in articles]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--articles", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part", default="all", choices=["all", "overhead", "rows"])
    parser.add_argument("--only", type=int, help="in a process of its own: so many short rows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="titlegen-bulk-") as work:
        if arguments.only:
            print(json.dumps(measure_rows(Path(work), arguments.only)))
            return
        metrics: dict[str, float] = {}
        if arguments.part != "rows":
            metrics = measure_overhead(Path(work), arguments.articles, arguments.rounds)
    if arguments.part != "overhead":
        few, many = (run_rows(rows) for rows in (_FEW_ROWS, arguments.rows))
        metrics |= {
            "rows_s": many["rows_s"],
            "driver_mib_few": few["driver_mib"],
            "driver_mib_many": many["driver_mib"],
            "driver_mib_more": many["driver_mib"] - few["driver_mib"],
            "rows": arguments.rows,
        }
    notes = (
        f"overhead: median over {arguments.rounds} rounds of titles a second of `generate --out FILE` over those of "
        f"`--engine ray` after its first block, minus 1; {arguments.articles} articles of {_CHARS} characters, one "
        f"bundled server with a model that writes at once, {_CONCURRENCY} requests at a time, blocks of {_BLOCK}, in "
        "turn. "
        f"driver_mib: peak resident memory of the command's process at {_FEW_ROWS:,} and {arguments.rows:,} rows of 20 "
        "characters, with an engine that answers at once; rows_s: rows a second then, from start to the last block."
    )
    write_result("bulk_cpu", metrics, notes, "ray", "pyarrow")
    print(json.dumps(metrics))


def measure_overhead(work: Path, articles: int, rounds: int) -> dict[str, float]:
    """Return titles a second of both ways, and what Ray costs."""
    import ray

    export = new_export(work / "outputs" / "quickstart").write(chain(_TITLE))
    ray.init(address="local", object_store_memory=256 * 2**20, log_to_driver=False)
    direct, bulk = [], []
    with offline_server(work / "server") as server:
        server.create("titles", export.file, template=PROMPT.template, system=SYSTEM)
        serve = ServeSettings(host=server.host, model_name="titles")
        for number in range(rounds + 1):
            source = write_articles(work / f"in-{number}.jsonl", articles, number)
            one = direct_rate(serve, export.merged, source, work / f"direct-{number}.jsonl", articles)
            other = ray_rate(work, serve, source, work / f"ray-{number}")
            if number:
                # The first round warms both up.
                direct.append(one)
                bulk.append(other)
    ray.shutdown()
    ratios = [one / other for one, other in zip(direct, bulk, strict=True)]
    return {
        "overhead": statistics.median(ratios) - 1,
        "direct_titles_s": statistics.median(direct),
        "ray_titles_s": statistics.median(bulk),
    }


def write_articles(path: Path, number: int, turn: int) -> Path:
    """Write articles that no other round has."""
    texts = [f"{turn}、{question(n % 200)[:-2]}{ARTICLE * 9}"[:_CHARS] for n in range(number)]
    rows = [{"id": f"{n}", "content": f"第{n}號，{text}"[:_CHARS]} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def direct_rate(serve: ServeSettings, merged: Path, source: Path, target: Path, articles: int) -> float:
    """Return titles a second of the single-machine command."""
    client = Client(serve, merged)
    try:
        started = time.perf_counter()
        generate_file(client, DataSettings(source=str(source)), target, concurrency=_CONCURRENCY)
        return articles / (time.perf_counter() - started)
    finally:
        client.close()


def ray_rate(work: Path, serve: ServeSettings, source: Path, target: Path) -> float:
    """Return titles a second of the same on Ray, once its process has begun."""
    receipts: list[Receipt] = []
    settings = load_settings(output=work / "outputs", ray=RaySettings(block_rows=_BLOCK)).model_copy(
        update={"serve": serve}
    )
    generate_directory(settings, str(source), target, concurrency=_CONCURRENCY, observe=receipts.append)
    return steady_rate(receipts)


def run_rows(rows: int) -> dict[str, float]:
    """Return what :func:`measure_rows` finds in a process of its own."""
    command = [sys.executable, __file__, "--only", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)  # noqa: S603 - ourselves
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_rows(work: Path, rows: int) -> dict[str, float]:
    """Return the driver's peak memory and the rows a second."""
    source = work / "rows.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(
                json.dumps({"id": number, "content": f"第{number:09}則，市府今天宣布。"}, ensure_ascii=False) + "\n"
            )
    settings: Any = load_settings(output=work / "outputs")
    result = generate_directory(settings, str(source), work / "out", make_titler=Echo)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"driver_mib": peak, "rows_s": result.titles_per_s}


if __name__ == "__main__":
    main()
