"""Bulk titling on several machines: three nodes of one cluster, one across network namespaces, and what kills them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
from exported_models import question
from ollama_server import OfflineServer, wait_until

from titlegen.cli import main
from titlegen.cluster import generate_directory
from titlegen.cluster.job import Job, Receipt
from titlegen.cluster.parts import as_line, find_parts, read_part
from titlegen.console import EXIT_DONE
from titlegen.errors import ConfigError, TitlegenError
from titlegen.serve.answer import Answer
from titlegen.settings import RaySettings, load_settings

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Ray Data sets its own deprecated fields.
    pytest.mark.filterwarnings("ignore:`.*` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ARTICLES = 2000
# As clusters are made that others can reach.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 articles in three files."""
    folder = tmp_path_factory.mktemp("in")
    for number, rows in enumerate((range(1200), range(1200, 1700), range(1700, ARTICLES))):
        articles = [{"id": f"a{n}", "content": f"{n}、{question(n % 200)}"} for n in rows]
        (folder / f"{number}.jsonl").write_text("".join(map(as_line, articles)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def single(source: Path, outputs: Path, server: OfflineServer, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a single machine writes for them."""
    target = tmp_path_factory.mktemp("single") / "titles.jsonl"
    assert main(["generate", str(source), "--out", str(target), *fixed(outputs, server)]) == EXIT_DONE
    return target.read_bytes()


@pytest.fixture
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    # Workers do not have this module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    running = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(2):
        running.add_node(**node)
    running.wait_for_nodes()
    yield running
    ray.shutdown()
    running.shutdown()


def fixed(outputs: Path, server: OfflineServer) -> list[str]:
    model = ["--serve.host", server.host, "--serve.model-name", "quiz", "--serve.redraws", "0"]
    return ["--output", str(outputs), *model]


class Slow:
    """Answers after a while, so that a node can be killed in the middle."""

    def __init__(self, _: Job) -> None:
        pass

    def __call__(self, articles: Sequence[str]) -> list[list[Answer] | TitlegenError]:
        time.sleep(0.3)
        return [[Answer(text[:9], text[:9], "stop", 0, 0, 0.0, 0.0, trimmed=False)] for text in articles]


def test_three_nodes_write_what_one_machine_writes(
    cluster: Any, source: Path, single: bytes, outputs: Path, server: OfflineServer, tmp_path: Path
) -> None:
    settings = load_settings(
        output=outputs,
        ray=RaySettings(address=cluster.address, block_rows=50, workers=3, format="jsonl"),
        serve={"host": server.host, "model_name": "quiz", "redraws": 0},
    )
    seen: list[Receipt] = []
    result = generate_directory(settings, str(source), tmp_path / "out", ordered=True, observe=seen.append)
    assert Path(result.joined or "").read_bytes() == single
    assert result.cluster is not None
    assert result.cluster.nodes == 3
    assert len({receipt.worker for receipt in seen}) == 3


def test_without_an_address_ray_starts_here(
    cluster: Any, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself would join the cluster that the environment names."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    source = tmp_path / "in.jsonl"
    source.write_text(as_line({"content": question(1)}), encoding="utf-8")
    result = generate_directory(load_settings(output=outputs), str(source), tmp_path / "out", make_titler=Slow)
    assert result.cluster is not None
    assert result.cluster.nodes == 1


@pytest.mark.fault
def test_a_cluster_with_another_python_is_named(
    cluster: Any, source: Path, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process says that it is another Python; Ray refuses it."""
    monkeypatch.setattr("ray._private.utils.compute_version_info", lambda: (metadata.version("ray"), "3.12.99"))
    settings = load_settings(output=outputs, ray=RaySettings(address=cluster.address))
    with pytest.raises(ConfigError, match=r"runs other versions than this .*3\.12\.99.*; install the same Python"):
        generate_directory(settings, str(source), tmp_path / "out", make_titler=Slow)


@pytest.mark.fault
def test_a_killed_node_costs_its_blocks_and_nothing_else(
    cluster: Any, source: Path, outputs: Path, tmp_path: Path
) -> None:
    settings = load_settings(
        output=outputs, ray=RaySettings(address=cluster.address, block_rows=25, workers=3, format="jsonl")
    )
    seen: list[Receipt] = []
    killed: list[int] = []

    def observe(receipt: Receipt) -> None:
        seen.append(receipt)
        if len(seen) == 20:
            victim = cluster.worker_nodes.pop()
            for process in victim.live_processes():
                killed.append(process[1].pid)
                os.kill(process[1].pid, signal.SIGKILL)

    result = generate_directory(settings, str(source), tmp_path / "out", make_titler=Slow, observe=observe)
    assert killed
    assert len(seen) > 20
    assert result.lines == ARTICLES
    assert ids_in(tmp_path / "out") == [f"a{number}" for number in range(ARTICLES)]


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_costs_its_blocks_and_nothing_else(
    number: signal.Signals, outputs: Path, server: OfflineServer, tmp_path: Path
) -> None:
    articles = [{"id": f"a{n}", "content": f"{n}、{question(n % 200)}"} for n in range(400)]
    source, single, out = tmp_path / "in.jsonl", tmp_path / "single.jsonl", tmp_path / "out"
    source.write_text("".join(map(as_line, articles)), encoding="utf-8")
    assert main(["generate", str(source), "--out", str(single), *fixed(outputs, server)]) == EXIT_DONE
    ray = ["--engine", "ray", "--ray.block-rows", "20", "--ray.format", "jsonl", "--ordered", "--concurrency", "2"]
    arguments = ["generate", str(source), "--out", str(out), *fixed(outputs, server), *ray]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "titlegen", *arguments], stdout=log, stderr=log)  # noqa: S603
    family: list[psutil.Process] = []
    try:
        wait_until(lambda: process.poll() is not None or len(find_parts(out, "jsonl")) >= 3, 120)
        assert process.poll() is None, (tmp_path / "log").read_text()
        family = [child for child in psutil.Process(process.pid).children(recursive=True) if is_writer(child)]
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    if number is signal.SIGTERM:
        assert process.returncode == 128 + number
        assert (tmp_path / "log").read_text().endswith("go on from the last checkpoint\n")
    # They end with their driver.
    assert family
    wait_until(lambda: not any(alive(child) for child in family), 60)
    kept = {path: path.stat().st_mtime_ns for path in find_parts(out, "jsonl").values()}
    assert 3 <= len(kept) < len(articles) / 20
    assert not (out / "titles.jsonl").exists()
    assert main(arguments) == EXIT_DONE
    assert (out / "titles.jsonl").read_bytes() == single.read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_nodes_in_other_network_namespaces_work_together(
    tiny_merged: Path, tmp_path: Path, articles: list[dict[str, str]]
) -> None:
    """Two machines, as far as the network can tell, each with an address of its own."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root can make network namespaces, with the program ip")
    export = tmp_path / "outputs" / "quickstart" / "final-hf"
    shutil.copytree(tiny_merged, export)
    texts = [article["content"][: 60 + 5 * number] for number, article in enumerate(articles)]
    articles_file = tmp_path / "in.jsonl"
    articles_file.write_text("".join(as_line({"content": text}) for text in texts), encoding="utf-8")
    settings = ["--ray.backend", "local", "--ray.block-rows", "2", "--ray.workers", "2", "--serve.num-predict", "6"]
    with namespaces() as (first, second), contextlib.ExitStack() as stack:
        start = [str(RAY), "start", "--block", "--num-cpus", "2", "--object-store-memory", str(100 * 2**20)]
        head = ["--head", "--port", "6379", "--node-ip-address", first.address, "--include-dashboard", "false"]
        stack.enter_context(first.running([*start, *head], tmp_path / "head.log"))
        joined = ["--address", f"{first.address}:6379", "--node-ip-address", second.address]
        stack.enter_context(second.running([*start, *joined], tmp_path / "worker.log"))
        wait_until(lambda: "Ray runtime started" in (tmp_path / "worker.log").read_text(), 90)
        done = subprocess.run(  # noqa: S603 - our own command
            [
                *first.prefix,
                sys.executable,
                "-m",
                "titlegen",
                "generate",
                str(articles_file),
                "--engine",
                "ray",
                "--out",
                str(tmp_path / "out"),
                "--output",
                str(tmp_path / "outputs"),
                "--json",
                *settings,
                "--ray.address",
                f"{first.address}:6379",
            ],
            capture_output=True,
            text=True,
            env=os.environ | TOKEN,
            check=False,
            timeout=240,
        )
    assert done.returncode == EXIT_DONE, done.stderr
    result = json.loads(done.stdout)
    assert (result["lines"], result["failed"], result["cluster"]["nodes"]) == (len(texts), 0, 2)


class Namespace:
    """A network of its own, joined to the others by a cable."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.prefix = ["ip", "netns", "exec", name]

    @contextlib.contextmanager
    def running(self, command: Sequence[str], log: Path) -> Iterator[None]:
        with log.open("w") as output:
            own = os.environ | {"PYTHONUNBUFFERED": "1", **TOKEN}
            process = subprocess.Popen([*self.prefix, *command], stdout=output, stderr=output, env=own)  # noqa: S603
        family = []
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            for child in [*family, psutil.Process(process.pid)] if process.poll() is None else family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    both = (Namespace(f"tg{os.getpid()}a", "10.213.7.1"), Namespace(f"tg{os.getpid()}b", "10.213.7.2"))
    ends = [f"v{os.getpid()}a", f"v{os.getpid()}b"]
    try:
        for one in both:
            ip("netns", "add", one.name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for one, end in zip(both, ends, strict=True):
            ip("link", "set", end, "netns", one.name)
            ip("-n", one.name, "addr", "add", f"{one.address}/24", "dev", end)
            ip("-n", one.name, "link", "set", end, "up")
            ip("-n", one.name, "link", "set", "lo", "up")
        yield both
    finally:
        for one in both:
            ip("netns", "del", one.name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S603, S607 - the system's program


def ids_in(directory: Path) -> list[str]:
    return [str(record["id"]) for path in find_parts(directory, "jsonl").values() for record in read_part(path)]


def is_writer(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "MapWorker" in " ".join(process.cmdline())
    return False


def alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
