"""Titles a second of the back end ``local`` on one card and on two, and of the decoder called directly.

``python benchmarks/gpu_bulk.py OUT MODEL --articles FILE [--cards N]`` writes OUT/bulk_gpu.json and prints it. MODEL is
a merged model's directory, with its tokenizer; random weights will do. Without Ray, each card has a process of its own
that does its share of the blocks, and the result says so.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bulk_rate import steady_rate
from gpu_train import make_examples
from machine import write_report

from titlegen.cluster.job import Job, Receipt, read_blocks
from titlegen.cluster.parts import Place
from titlegen.cluster.worker import BlockWriter
from titlegen.environment import prepare_threads
from titlegen.settings import DataSettings, RaySettings, ServeSettings, load_settings

_TITLE_TOKENS = 24
_OBJECT_STORE_MIB = 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--articles", type=Path, required=True, help="JSONL with content and title")
    parser.add_argument("--cards", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=6, help="for each card, beside the first")
    parser.add_argument("--block-rows", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--role", default="all", choices=["all", "direct", "ray", "process"])
    parser.add_argument("--share", default="0/1", help="of the blocks, for a process without Ray")
    arguments = parser.parse_args()
    prepare_threads()
    arguments.out = arguments.out.absolute()
    arguments.out.mkdir(parents=True, exist_ok=True)
    roles = {"direct": direct, "ray": on_ray, "process": process}
    if arguments.role != "all":
        print("FOUND " + json.dumps(roles[arguments.role](arguments)))
        return
    metrics = measure(arguments)
    found = {"metrics": metrics, "notes": notes(arguments, metrics)}
    write_report(arguments.out / "bulk_gpu.json", found, "torch", "transformers")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return titles a second of each way, one after another."""
    metrics: dict[str, float] = {}
    arguments.with_ray = has_ray()
    write_articles(arguments)
    metrics["direct_titles_s"] = run(arguments, "direct", 1)["titles_s"]
    metrics["one_card_titles_s"] = engine(arguments, 1)
    if arguments.cards > 1:
        metrics["cards"] = arguments.cards
        metrics["cards_titles_s"] = engine(arguments, arguments.cards)
        metrics["cards_ratio"] = metrics["cards_titles_s"] / metrics["one_card_titles_s"]
    metrics["with_ray"] = float(arguments.with_ray)
    metrics["one_card_share"] = metrics["one_card_titles_s"] / metrics["direct_titles_s"]
    return {name: round(value, 4) for name, value in metrics.items()}


def notes(arguments: argparse.Namespace, metrics: dict[str, float]) -> str:
    return (
        f"Random weights, articles of 600 characters on average, {_TITLE_TOKENS} tokens a title at most, "
        f"{arguments.batch} at a time, blocks of {arguments.block_rows}. direct: the decoder alone on the same blocks, "
        "without cleaning, checks and files. Each figure: titles a second of every process, from the end of its first "
        "block to that of its last, added. "
        + ("" if metrics["with_ray"] else "Without Ray: one process a card, which does its share of the blocks. ")
        + "The card stands in `device`."
    )


def has_ray() -> bool:
    """Return whether Ray is there, and the little shared memory that it needs."""
    if shutil.disk_usage("/dev/shm").free < 2 * _OBJECT_STORE_MIB * 2**20:
        return False
    try:
        import ray.data  # noqa: F401 - only whether it is there, with all that it needs
    except ImportError:
        return False
    return True


def engine(arguments: argparse.Namespace, cards: int) -> float:
    """Return titles a second with so many cards."""
    if arguments.with_ray:
        try:
            return float(run(arguments, "ray", cards)["titles_s"])
        except subprocess.CalledProcessError:
            print("Ray does not run here; one process a card", flush=True)
            arguments.with_ray = False
    command = [*command_of(arguments, "process", cards)]
    running = []
    for card in range(cards):
        own = os.environ | {"CUDA_VISIBLE_DEVICES": str(card)}
        running.append(
            subprocess.Popen([*command, "--share", f"{card}/{cards}"], stdout=subprocess.PIPE, text=True, env=own)  # noqa: S603
        )
    return sum(found(process_.communicate()[0])["titles_s"] for process_ in running)


def run(arguments: argparse.Namespace, role: str, cards: int) -> dict[str, float]:
    """Return what a role finds in a process of its own, so that the cards are free afterwards."""
    done = subprocess.run(command_of(arguments, role, cards), stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return found(done.stdout)


def found(output: str) -> dict[str, float]:
    (line,) = [line for line in output.splitlines() if line.startswith("FOUND ")]
    values: dict[str, float] = json.loads(line.removeprefix("FOUND "))
    print(values, flush=True)
    return values


def command_of(arguments: argparse.Namespace, role: str, cards: int) -> list[str]:
    numbers = {"--blocks": arguments.blocks, "--block-rows": arguments.block_rows, "--batch": arguments.batch}
    options = [
        part for name, value in {**numbers, "--cards": cards, "--role": role}.items() for part in (name, str(value))
    ]
    return [
        sys.executable,
        __file__,
        str(arguments.out),
        str(arguments.model),
        "--articles",
        str(arguments.articles),
        *options,
    ]


def write_articles(arguments: argparse.Namespace) -> None:
    """Write articles for all cards; a run with fewer takes the first of them."""
    arguments.shape = "pts"
    arguments.rows = arguments.block_rows * (arguments.blocks + 1) * arguments.cards
    lines = [json.dumps({"id": example.id, "content": example.content}) for example in make_examples(arguments)]
    for cards in {1, arguments.cards}:
        number = arguments.block_rows * (arguments.blocks + 1) * cards
        source_of(arguments, cards).write_text("".join(f"{line}\n" for line in lines[:number]), encoding="utf-8")


def source_of(arguments: argparse.Namespace, cards: int) -> Path:
    path: Path = arguments.out / f"articles-{cards}.jsonl"
    return path


def job_of(arguments: argparse.Namespace, name: str) -> Job:
    """Return a run with this model and these articles."""
    directory = arguments.out / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    source = str(source_of(arguments, arguments.cards))
    ray = RaySettings(backend="local", block_rows=arguments.block_rows, batch_size=arguments.batch, format="jsonl")
    ray = ray.model_copy(update={"object_store_mib": _OBJECT_STORE_MIB})
    serve = ServeSettings(num_predict=_TITLE_TOKENS)
    return Job(directory, "", DataSettings(source=source), serve, ray, arguments.model.absolute(), (source,))


def direct(arguments: argparse.Namespace) -> dict[str, float]:
    """Return titles a second of the decoder on cleaned articles."""
    from titlegen.generation import TransformersGenerator
    from titlegen.serve.article import read_article, token_counter
    from titlegen.serve.lines import read_lines
    from titlegen.settings import EvaluateSettings

    job = job_of(arguments, "direct")
    count = token_counter(job.export)
    sent = [read_article(line.article, 2000, count).sent for line in read_lines(job.data)]
    generator = TransformersGenerator(
        job.export, None, EvaluateSettings(batch_size=arguments.batch, max_new_tokens=_TITLE_TOKENS)
    )
    blocks = [sent[start : start + arguments.block_rows] for start in range(0, len(sent), arguments.block_rows)]
    generator.draft(blocks[0])
    started = time.perf_counter()
    for block in blocks[1:]:
        generator.draft(block)
    return {"titles_s": (len(sent) - len(blocks[0])) / (time.perf_counter() - started)}


def on_ray(arguments: argparse.Namespace) -> dict[str, float]:
    """Return titles a second of the engine."""
    from titlegen.cluster import generate_directory
    from titlegen.runs import Folder

    job = job_of(arguments, f"ray-{arguments.cards}")
    receipts: list[Receipt] = []
    settings = load_settings(output=arguments.out / "outputs")
    ray = job.ray.model_copy(update={"workers": arguments.cards})
    settings = settings.model_copy(update={"serve": job.serve, "ray": ray})
    export = settings.directory / Folder.EXPORT
    export.parent.mkdir(parents=True, exist_ok=True)
    if not export.exists():
        export.symlink_to(job.export)
    generate_directory(settings, job.files[0], job.directory, observe=receipts.append)
    return {"titles_s": steady_rate(receipts), "processes": len({receipt.worker for receipt in receipts})}


def process(arguments: argparse.Namespace) -> dict[str, float]:
    """Return titles a second of this process' share of the blocks, as a process of the cluster does them."""
    from concurrent.futures import ThreadPoolExecutor

    own, all_ = map(int, arguments.share.split("/"))
    job = job_of(arguments, f"process-{own}-of-{all_}")
    writer = BlockWriter(job)
    blocks = [
        (place, content) for place, content in read_blocks(job, 0, ()) if place.block % all_ == own and place.block >= 0
    ]

    def write(block: tuple[Place, bytes]) -> Receipt:
        place, content = block
        batch = {"file": [place.file], "block": [place.block], "content": [content], "error": [""]}
        return Receipt(**{name: values[0] for name, values in writer(batch).items()})

    with ThreadPoolExecutor(3) as threads:
        receipts = list(threads.map(write, blocks))
    errors = [receipt.error for receipt in receipts if receipt.error]
    if errors:
        raise SystemExit(errors[0])
    return {"titles_s": steady_rate(receipts)}


if __name__ == "__main__":
    main()
