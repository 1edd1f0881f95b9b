"""Titles for any number of articles on Ray Data: read, titled and written block by block, on all machines at once."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from titlegen.cluster.job import Job, Receipt
from titlegen.cluster.output import (
    Opened,
    RunCounts,
    check_complete,
    close_directory,
    join,
    lock_directory,
    open_directory,
)
from titlegen.cluster.progress import Progress
from titlegen.cluster.start import Cluster, ray_cluster
from titlegen.cluster.worker import BlockWriter, read_file
from titlegen.errors import TitlegenError
from titlegen.plural import count

# Reading mostly waits for the titles to be written.
_READER_CPUS = 0.25
_WRITER_CPUS, _LEAST_CPUS = 0.5, 0.02
# Blocks in a process at a time: one is cleaned, one gets its titles, one is checked and written.
_CALLS = 3
# Ray Data cuts what a process returns to this size: each block travels alone, however small it is.
_ONE_BLOCK_BYTES = 1


@dataclass(frozen=True)
class Finished:
    """The result of a run."""

    counts: RunCounts
    resumed: int
    """Lines that were done before."""
    seconds: float
    cluster: Cluster | None
    """None where nothing was left to do."""
    joined: Path | None
    """The one file of all titles, where it was asked for."""


def generate(
    job: Job,
    settings: Mapping[str, object],
    inputs: Mapping[str, str],
    *,
    ordered: bool,
    say: Callable[[str], None],
    observe: Callable[[Receipt], None] = lambda _: None,
) -> Finished:
    """Write the titles of a job; blocks of an earlier run are kept.

    Args:
        job: the run; its ``key`` is set here.
        settings: what the output depends on.
        inputs: digests of what it is made of.
        ordered: also write all titles into one file, in the order of the articles.
        say: is told of what a person should know.
        observe: is told of each block that is done.

    Raises:
        DataError: the output directory is another run's, or the source cannot be read.
        ConfigError: Ray cannot be started or joined.
        TitlegenError: the last model server went away, or the disk is full; what is written stays.
        VerifyError: the output is not complete.
    """
    form = job.ray.format
    with lock_directory(job.directory):
        opened = open_directory(job.directory, settings, inputs, form)
        job = replace(job, key=opened.key)
        if opened.counts is not None:
            joined = join(job.directory, form) if ordered else None
            return Finished(opened.counts, opened.counts.lines, 0.0, None, joined)
        with ray_cluster(job) as cluster:
            say(f"generate: {_describe(job, cluster)}")
            with Progress(job.files, say) as progress:
                rows = _run(job, opened, cluster, progress, observe)
                seconds = progress.seconds
        counts = check_complete(job.directory, form, rows, job.ray.block_rows)
        joined = join(job.directory, form) if ordered else None
        close_directory(job.directory, settings, inputs, counts)
    return Finished(counts, progress.kept, seconds, cluster, joined)


def _describe(job: Job, cluster: Cluster) -> str:
    machines = f"{count(cluster.nodes, 'machine')} with {cluster.cpus:g} cores and {cluster.gpus:g} GPUs"
    text = f"Ray has {machines}, {job.ray.backend} titles from {count(workers(job, cluster), 'worker')}"
    return f"{text}, dashboard at {cluster.dashboard}" if cluster.dashboard else text


def _run(
    job: Job, opened: Opened, cluster: Cluster, progress: Progress, observe: Callable[[Receipt], None]
) -> dict[int, int]:
    """Write every block that is not there; returns the rows of each file."""
    rows: dict[int, int] = {}
    progress.keep(opened.done)
    receipts = _receipts(job, opened, cluster)
    try:
        for receipt in receipts:
            if receipt.error:
                raise TitlegenError(
                    f"{receipt.error}; {progress.done} articles are done and stay: the same command goes on from there"
                )
            if receipt.block < 0:
                rows[receipt.file] = receipt.rows
            else:
                progress.add(receipt)
                observe(receipt)
    finally:
        receipts.close()
    return rows


def _receipts(job: Job, opened: Opened, cluster: Cluster) -> Generator[Receipt]:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = _ONE_BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    done: dict[int, set[int]] = {}
    for place in opened.done:
        done.setdefault(place.file, set()).add(place.block)
    files = [{"file": number} for number in range(len(job.files))]
    dataset = ray.data.from_items(files, override_num_blocks=len(files)).map_batches(
        partial(read_file, job=job, done={file: frozenset(blocks) for file, blocks in done.items()}),
        batch_size=1,
        batch_format="numpy",
        num_cpus=_READER_CPUS,
    )
    dataset = dataset.map_batches(
        BlockWriter,
        fn_constructor_kwargs={"job": job},
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(
            size=workers(job, cluster),
            max_concurrent_calls_per_actor=_CALLS,
            max_tasks_in_flight_per_actor=_CALLS + 1,
            enable_true_multi_threading=True,
        ),
        **_resources(job, cluster),
    )
    for row in dataset.iter_rows():
        yield Receipt(**row)


def workers(job: Job, cluster: Cluster) -> int:
    """Return how many processes write titles."""
    if job.ray.workers:
        return job.ray.workers
    if job.ray.backend == "served":
        return len(job.hosts)
    return max(1, int(cluster.gpus) or cluster.nodes)


def _resources(job: Job, cluster: Cluster) -> dict[str, float]:
    """Return the resources of a process that writes titles: never all of its machine's, or no reader could begin."""
    share = (cluster.cpus - _READER_CPUS * cluster.nodes) / workers(job, cluster)
    # Ray takes parts of one core, or whole cores.
    share = math.floor(share) if share >= 1 else math.floor(100 * share) / 100
    if job.ray.backend == "local" and not cluster.gpus:
        # The processor writes, with all of its cores.
        return {"num_cpus": _unlike_reading(max(share, _LEAST_CPUS))}
    few = {"num_cpus": _unlike_reading(max(min(share, _WRITER_CPUS), _LEAST_CPUS))}
    return few | ({"num_gpus": 1} if job.ray.backend == "local" else {})


def _unlike_reading(cpus: float) -> float:
    """Return another number of cores than reading has.

    Ray Data fuses operators with equal resources, and one process would write a whole file.
    """
    return cpus - _LEAST_CPUS / 2 if cpus == _READER_CPUS else cpus
