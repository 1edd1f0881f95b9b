"""Throughput of a push to the offline Hub on loopback, beside dd to the same disk, in the same run."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from machine import write_result

from titlegen.hub.target import HubTarget, connect
from titlegen.manifest import package_versions
from titlegen.standins import HUB_TOKEN

ROOT = Path(__file__).resolve().parents[1]
SIZE = 2 * 2**30
BLOCK = 2**20
PORT = 18_471
ROUNDS = 3
LIMIT = 0.60
NOTES = (
    "One safetensors file of 2 GiB through huggingface_hub's upload_folder into the bundled offline Hub, against "
    "dd bs=1M conv=fdatasync of 2 GiB into the same folder; median of the ratios of three rounds, dd before each push. "
    "A push hashes the file on both sides and ends with its commit. load_before: the machine's load average over one "
    "minute before the run; with as many busy processes as cores the push, which needs two cores, is what suffers."
)


def dd_seconds(folder: Path) -> float:
    target = folder / "dd.bin"
    command = ["dd", "if=/dev/zero", f"of={target}", "bs=1M", f"count={SIZE // BLOCK}", "conv=fdatasync"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - dd on our own folder
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def write_model(folder: Path, number: int) -> None:
    """Write a file of which no two blocks are equal, and that no earlier round has sent."""
    block = bytearray(os.urandom(BLOCK))
    with (folder / "model.safetensors").open("wb") as file:
        for index in range(SIZE // BLOCK):
            block[:16] = number.to_bytes(8, "little") + index.to_bytes(8, "little")
            file.write(block)
        os.fsync(file.fileno())


def push_seconds(target: HubTarget, folder: Path) -> float:
    with connect(target) as api:
        started = time.perf_counter()
        api.upload_folder(repo_id=target.repo_id, folder_path=folder)
        return time.perf_counter() - started


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's way to send a file
def test_a_push_reaches_most_of_the_speed_of_the_disk(tmp_path: Path) -> None:
    from huggingface_hub.utils import disable_progress_bars

    if shutil.disk_usage(tmp_path).free < 6 * SIZE:
        pytest.skip("less than 12 GiB are free")
    disable_progress_bars()
    load = os.getloadavg()[0]
    url = f"http://127.0.0.1:{PORT}"
    target = HubTarget(url, HUB_TOKEN, "local/speed", offline=True)
    command = [sys.executable, "-m", "titlegen.standins.hub", "--port", str(PORT), "--directory", str(tmp_path / "hub")]
    folder = tmp_path / "model"
    folder.mkdir()
    with subprocess.Popen(command) as server:  # noqa: S603 - our own server
        try:
            while True:
                assert server.poll() is None
                try:
                    httpx.get(url, trust_env=False)
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            with connect(target) as api:
                api.create_repo(target.repo_id, private=True)
            rounds = []
            for number in range(ROUNDS):
                write_model(folder, number)
                rounds.append((dd_seconds(tmp_path), push_seconds(target, folder)))
                # Old content is of no use, and the disk of a small machine is.
                shutil.rmtree(tmp_path / "hub" / "objects")
        finally:
            server.terminate()
    ratio = statistics.median(dd / push for dd, push in rounds)
    write_result(
        "push_speed",
        {
            "ratio_vs_dd": ratio,
            "push_s": statistics.median(push for _, push in rounds),
            "dd_s": statistics.median(dd for dd, _ in rounds),
            "push_mib_s": SIZE / BLOCK / statistics.median(push for _, push in rounds),
            "load_before": load,
        },
        NOTES,
        *package_versions(),
    )
    print(f"\nratio_vs_dd {ratio:.2f}: {rounds}, load {load:.1f}")
    assert ratio >= LIMIT
