"""A run over many articles, from the settings: its files, its model, and the report to a person."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from titlegen.cluster.engine import Finished, generate
from titlegen.cluster.job import Job, Receipt, Titler
from titlegen.cluster.start import INSTALL, Cluster
from titlegen.cluster.vllm import check_vllm
from titlegen.data.files import find_files
from titlegen.data.sources import open_source, source_digest
from titlegen.errors import DataError, MissingDependencyError, ServeError
from titlegen.families.gemma3n import FAMILY as DEFAULT_FAMILY
from titlegen.files import digest_json
from titlegen.models import family_at, fingerprint
from titlegen.plural import count
from titlegen.runs import Folder, say
from titlegen.serve.deployment import served_digest
from titlegen.serve.server import server_url
from titlegen.settings import RaySettings, ServeSettings, Settings


@dataclass(frozen=True)
class DirectoryTitles:
    """A directory of titles, for a program, and as a message for a person."""

    lines: int
    failed: int
    warned: int
    repeated_ids: int
    repeated_id: str | None
    resumed: int
    seconds: float
    titles_per_s: float
    """Of this run."""
    out: str
    joined: str | None
    cluster: Cluster | None
    message: str


# The settings of reading that a title depends on.
_READING = ("content_column", "encoding", "script")


def generate_directory(
    settings: Settings,
    source: str,
    target: Path,
    *,
    number: int = 1,
    concurrency: int = 4,
    ordered: bool = False,
    make_titler: Callable[[Job], Titler] | None = None,
    observe: Callable[[Receipt], None] = lambda _: None,
) -> DirectoryTitles:
    """Write titles for the articles of files into a directory, on Ray; an interrupted run is resumed.

    Args:
        settings: all settings; ``ray`` says where and with what.
        source: file, folder or pattern.
        target: directory, one file for each block of articles.
        number: titles for each article, at most.
        concurrency: requests to each model server at a time.
        ordered: also write one file of all titles, in the order of the articles.
        make_titler: what writes titles, instead of the settings' back end.
        observe: is told of each block that is done.

    Raises:
        MissingDependencyError: Ray or vLLM is not installed.
        DataError: the source cannot be read, or the directory is something else's result.
        ConfigError: Ray cannot be started or joined.
        ServeError: no server answers, or two have different models.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingDependencyError(f"--engine ray needs Ray; install it with {INSTALL}")
    target = target.expanduser().absolute()
    data = settings.data.model_copy(update={"source": source, "limit": 0})
    files = _files(source, target)
    # Every file is opened, so that one that cannot be read is named before the first title is written.
    names = tuple(open_source(data, titled=False, strict=False).findings.files)
    export = (settings.directory / Folder.EXPORT).absolute()
    serve, ray = settings.serve, settings.ray
    if make_titler is not None:
        model = "none"
    elif ray.backend == "served":
        serve, ray, model = _servers(serve, ray)
    else:
        check_vllm(ray, export)
        model = fingerprint(export) if export.is_dir() else "none"
    job = Job(
        directory=target,
        key="",
        data=data,
        serve=serve,
        ray=ray,
        export=export,
        files=tuple(str(Path(name).absolute()) for name in names),
        names=names,
        number=number,
        concurrency=concurrency,
        make_titler=make_titler,
    )
    say(f"generate: {count(len(files), 'file')} of articles")
    family = family_at(export) if export.is_dir() else DEFAULT_FAMILY
    inputs = {"articles": source_digest(data), "model": model, "prompt": family.prompt.digest}
    finished = generate(job, _output_settings(job), inputs, ordered=ordered, say=say, observe=observe)
    return _summary(job, finished)


def _files(source: str, target: Path) -> tuple[Path, ...]:
    """Return the files of a source.

    Raises:
        DataError: there are none, or titles would be written among them.
    """
    files = find_files(source).paths
    folder = Path(source).expanduser()
    if (folder.is_dir() and target.is_relative_to(folder.absolute())) or any(
        path.absolute().is_relative_to(target) for path in files
    ):
        raise DataError(f"{target} lies among the articles of {source}; choose another folder for the titles")
    return files


def _servers(serve: ServeSettings, ray: RaySettings) -> tuple[ServeSettings, RaySettings, str]:
    """Return the settings with the servers that answer, and the digest of the model that all of them have.

    Raises:
        ServeError: none answers, or they have different models.
    """
    digests: dict[str, str] = {}
    failures = []
    for host in dict.fromkeys(map(server_url, (serve.host, *ray.hosts))):
        try:
            digests[host] = served_digest(serve.model_copy(update={"host": host}))
        except ServeError as error:
            failures.append(error)
    if not digests:
        raise failures[0]
    for failure in failures:
        say(f"generate: left out: {failure}")
    first, *others = digests
    other = next((host for host in others if digests[host] != digests[first]), None)
    if other is not None:
        raise ServeError(
            f"{first} and {other} have different models as {serve.model_name!r} ({digests[first][:12]} and "
            f"{digests[other][:12]}); deploy the same one to both"
        )
    return serve.model_copy(update={"host": first}), ray.model_copy(update={"hosts": tuple(others)}), digests[first]


def _output_settings(job: Job) -> dict[str, object]:
    """Return the settings that the titles, and the files that they stand in, depend on."""
    values: dict[str, object] = {name: getattr(job.data, name) for name in _READING}
    values |= {"num_ctx": job.serve.num_ctx, "num_predict": job.serve.num_predict, "n": job.number}
    # Where nothing is drawn again, as of older titles.
    values |= {"redraws": job.serve.redraws} if job.serve.redraws and job.number == 1 else {}
    values |= {"block_rows": job.ray.block_rows, "format": job.ray.format, "backend": job.ray.backend}
    if job.ray.backend == "local":
        # The articles of a batch change each other's rounding.
        values["batch_size"] = job.ray.batch_size
    # Moved files are the same articles, and stand in the records where there are several.
    return values | ({"files": digest_json(job.names)} if len(job.files) > 1 else {})


def _summary(job: Job, finished: Finished) -> DirectoryTitles:
    counts = finished.counts
    new = counts.lines - finished.resumed
    rate = new / finished.seconds if finished.seconds else 0.0
    rows = [
        ("titles", f"{counts.lines - counts.failed:,} in {job.directory}"),
        ("without a title", f"{counts.failed:,}; the field `error` says why"),
        ("with a warning", f"{counts.warned:,}"),
        ("done before", f"{finished.resumed:,}"),
        ("this run", f"{new:,} in {finished.seconds:.1f} s, {rate:.1f} titles/s"),
    ]
    if counts.repeated_ids:
        more = f"{counts.repeated_ids:,}, such as {counts.repeated_id!r}; each of their articles has its title"
        rows.append(("ids that repeat", more))
    if finished.joined is not None:
        rows.append(("in order", str(finished.joined)))
    width = max(len(name) for name, _ in rows)
    return DirectoryTitles(
        **counts.as_json(),
        resumed=finished.resumed,
        seconds=round(finished.seconds, 3),
        titles_per_s=round(rate, 2),
        out=str(job.directory),
        joined=None if finished.joined is None else str(finished.joined),
        cluster=finished.cluster,
        message="\n".join(f"{name:<{width}}  {value}" for name, value in rows),
    )
