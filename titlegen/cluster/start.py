"""Ray: started on this machine or joined, with every machine of the cluster checked before any work."""

import contextlib
import logging
import os
import platform
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from titlegen import __version__
from titlegen.cluster.job import Job
from titlegen.errors import ConfigError, MissingDependencyError
from titlegen.manifest import find_manifest
from titlegen.settings import RaySettings

INSTALL = "pip install 'titlegen[cluster]'"
_CONNECT_TIMEOUT_S = 10.0
_PROBE_TIMEOUT_S = 120.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Ray puts its object store
# Read by Ray while it is imported. Nothing is sent home, and CUDA_VISIBLE_DEVICES stays as it is on a machine without a
# GPU.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Without it, Ray prints for every run that a worker's arguments are lost with this process, which is meant.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@dataclass(frozen=True)
class Cluster:
    """The machines that work."""

    nodes: int
    cpus: float
    gpus: float
    dashboard: str | None


@contextlib.contextmanager
def ray_cluster(job: Job) -> Iterator[Cluster]:
    """Start or join Ray until the block ends.

    Args:
        job: where it is, and what every machine must see.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: the cluster cannot be reached or used; the message names the machine and the versions.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(f"--engine ray needs Ray; install it with {INSTALL}") from error
    joined = ray.is_initialized()
    if not joined:
        _connect(job.ray)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        _check_nodes(nodes, job)
        resources = ray.cluster_resources()
        dashboard = ray.get_dashboard_url() if hasattr(ray, "get_dashboard_url") else None
        yield Cluster(len(nodes), resources.get("CPU", 0.0), resources.get("GPU", 0.0), dashboard or None)
    finally:
        if not joined:
            ray.shutdown()


def _connect(settings: RaySettings) -> None:
    import ray

    for name in ("ray", "ray.data"):
        # titlegen reports what a person should know; the rest is in Ray's own logs.
        logging.getLogger(name).setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if settings.address is None:
        _check_shared_memory(settings.object_store_mib)
        options |= {"object_store_memory": settings.object_store_mib * 2**20, "include_dashboard": None}
    else:
        _check_address(settings.address)
    try:
        with _silent_stderr(), _own_sigterm():
            # Else Ray would join whatever cluster runs on this machine, or is named in RAY_ADDRESS.
            ray.init(address=settings.address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        # Half of it may be connected.
        ray.shutdown()
        raise ConfigError(_explain(settings, error)) from error


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does here: Ray would have it exit with 15, without a word of what to do next."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Only the main thread may ask for signals, and in another one Ray does not.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hide the output of Ray's processes and library while they start; failures are raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check_shared_memory(needed_mib: int) -> None:
    """Refuse what would make Ray work on a disk: in a container, shared memory is 64 MiB unless asked for."""
    free = shutil.disk_usage(_SHARED_MEMORY).free // 2**20
    if free < needed_mib:
        raise ConfigError(
            f"{_SHARED_MEMORY} has {free} MiB of shared memory left and Ray would take {needed_mib}; give more (docker "
            "run --shm-size=1g), or lower --ray.object-store-mib"
        )


def _check_address(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ConfigError(
            f"ray.address = {address!r} is no address of a cluster; give HOST:PORT as `ray start --head` prints it, "
            "or auto on a machine that is part of it"
        )
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start one with `ray start --head "
            "--port=6379`, or correct --ray.address"
        ) from error


def _explain(settings: RaySettings, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return (
            f"the cluster at {settings.address} runs other versions than this machine (Python "
            f"{platform.python_version()}): {text[:400]}; install the same Python and Ray on every machine"
        )
    if "authenticat" in text.lower():
        return (
            f"the cluster at {settings.address} asks for a token ({text[:200]}); copy ~/.ray/auth_token from its first "
            "machine, and set RAY_AUTH_MODE=token"
        )
    if settings.address == "auto" or isinstance(error, ConnectionError):
        return (
            f"this machine is part of no Ray cluster that answers (--ray.address {settings.address}); start one with "
            "`ray start --head`, or leave --ray.address out to start Ray here"
        )
    return f"Ray did not start: {text[:400]}; see the newest folder in /tmp/ray for its logs"


class _Seen(NamedTuple):
    """The state of a machine of the cluster."""

    titlegen: str
    python: str
    key: str | None
    """Of the manifest in the run's directory, None where the machine does not see it."""
    missing: tuple[str, ...]
    """Of the files that it has to read."""


def _look(directory: Path, needed: tuple[str, ...]) -> _Seen:
    manifest = find_manifest(directory)
    missing = tuple(name for name in needed if not Path(name).is_file())
    return _Seen(__version__, platform.python_version(), manifest.key if manifest else None, missing)


def _check_nodes(nodes: list[dict[str, Any]], job: Job) -> None:
    """Refuse a cluster whose machines would write other titles, or to another place.

    Raises:
        ConfigError: naming the machine and what it has.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # The first file stands for all of a folder.
    needed = tuple(filter(os.path.isfile, (*job.files[:1], str(job.export / "tokenizer.json"))))
    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    seen = {
        node["NodeManagerAddress"]: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(job.directory, needed)
        for node in nodes
    }
    for address, answer in seen.items():
        try:
            found = ray.get(answer, timeout=_PROBE_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            cause = " ".join(str(error).split())[-300:]
            raise ConfigError(
                f"the machine {address} of the cluster cannot run titlegen {__version__} ({cause}); install it there "
                f"with {INSTALL}"
            ) from error
        if found.titlegen != __version__:
            raise ConfigError(
                f"the machine {address} of the cluster has titlegen {found.titlegen}, this one {__version__}; install "
                "the same version on both"
            )
        unseen = found.missing or ((str(job.directory),) if found.key != job.key else ())
        if unseen:
            raise ConfigError(
                f"the machine {address} of the cluster does not see {unseen[0]}; put articles, model and --out where "
                "all machines see them under the same path"
            )
