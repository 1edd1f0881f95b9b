"""資料與環境準備."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from findings import Finding, Gate

from titlegen import specification
from titlegen.data import Example, load_split
from titlegen.data.dedup import jaccard, shingle_set
from titlegen.evaluate.gates import stand
from titlegen.manifest import check_files, read_manifest
from titlegen.models import fingerprint, resolve_base
from titlegen.results import Prepared, read_result
from titlegen.runs import Folder
from titlegen.settings import EMBEDDED, Settings

pytestmark = pytest.mark.acceptance
_CONTAINER_TIMEOUT_S = 600


def is_on_the_hub(base: str) -> bool:
    """Return whether a base model is the name of a Hub repository."""
    return base != EMBEDDED and not Path(base).is_dir() and not base.startswith((".", "/", "~"))


@pytest.mark.spec("DATA-1")
def test_hub_variables(settings: Settings, project: Path, finding: Finding) -> None:
    from huggingface_hub.utils import validate_repo_id

    names = ("HF_TOKEN", "HF_ORG", "HF_REPO")
    given = {name: os.environ.get(name, "") for name in names}
    if not is_on_the_hub(settings.model.base) and not any(given.values()):
        pytest.skip("沒有設定 HF_TOKEN，推送到離線 Hub；設定 HF_TOKEN、HF_ORG、HF_REPO 後重跑")
    assert not [name for name in names if not given[name]], "有變數沒有設定"
    example = (project / "docker" / ".env.example").read_text(encoding="utf-8")
    placeholders = [name for name in names if f"{name}={given[name]}\n" in example]
    assert not placeholders, "有變數還是 .env.example 裡的範例值"
    repository = f"{given['HF_ORG']}/{given['HF_REPO']}"
    validate_repo_id(repository)
    assert settings.hub.repo_id == repository
    finding.measured(f"權杖已設定，儲存庫 {repository}")


@pytest.mark.spec("DATA-2")
def test_base_model(settings: Settings, outputs: Path, finding: Finding) -> None:
    import httpx
    from huggingface_hub import HfApi
    from safetensors import safe_open

    base = settings.model.base
    if is_on_the_hub(base):
        try:
            HfApi().auth_check(base)
        except httpx.TransportError as error:
            pytest.skip(f"連不上 Hugging Face Hub（{type(error).__name__}）；有網路時重跑")
    directory = resolve_base(settings.model)
    number = 0
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as tensors:
            assert tensors.keys()
            number += len(tensors.keys())
    assert read_manifest(outputs / Folder.ADAPTER).inputs["base"] == fingerprint(directory), "訓練用的是另一個基底模型"
    finding.measured(f"{base}，{number} 個張量，與訓練時相同")


@pytest.mark.spec("DATA-3")
def test_splits(outputs: Path, settings: Settings, finding: Finding) -> None:
    directory = outputs / Folder.DATA
    splits = {name: load_split(directory, name) for name in ("train", "val", "test")}
    assert all(splits.values()), "有一份資料集是空的"
    manifest = read_manifest(directory)
    assert {name: len(examples) for name, examples in splits.items()} == read_result(Prepared, manifest).splits
    ids = [example.id for examples in splits.values() for example in examples]
    assert len(set(ids)) == len(ids), "同一篇文章出現兩次"
    own, specified = settings.data.near_duplicate, specification.NEAR_DUPLICATE
    leaks = [
        similarity
        for one, other in itertools.combinations(splits, 2)
        for similarity in similarities(splits[one], splits[other], min(own, specified))
    ]
    check_files(directory, manifest)
    counts = "、".join(f"{name} {len(examples)} 篇" for name, examples in splits.items())
    finding.judge(
        Gate(
            measured=f"{counts}；{len(leaks)} 對近似重複",
            specification=f"Jaccard 相似度低於 {specified}",
            profile=f"低於 {own}" if own != specified else "",
            standing=stand(*("fail" if max(leaks, default=0.0) >= limit else "pass" for limit in (own, specified))),
        )
    )


def similarities(first: list[Example], second: list[Example], threshold: float) -> list[float]:
    """Return the Jaccard similarity of every pair whose character 5-grams have at least this one."""
    sets = [shingle_set(example.content) for example in second]
    found = []
    for example in first:
        own = shingle_set(example.content)
        # Sets of sizes further apart cannot be that similar.
        near = (other for other in sets if threshold * max(len(own), len(other)) <= min(len(own), len(other)))
        found += [similarity for other in near if (similarity := jaccard(own, other)) >= threshold]
    return found


@pytest.mark.spec("DATA-4")
def test_gpu_in_a_container(project: Path, finding: Finding) -> None:
    for program, what in (("nvidia-smi", "NVIDIA GPU 驅動"), ("docker", "Docker")):
        if shutil.which(program) is None:
            pytest.skip(f"這台機器沒有{what}（找不到 {program}）；在 GPU 主機上重跑")
    dockerfile = (project / "docker" / "Dockerfile.train.unsloth").read_text(encoding="utf-8")
    image = next(line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM nvidia/cuda:"))
    for command in (["nvidia-smi", "-L"], ["docker", "run", "--rm", "--gpus", "all", image, "nvidia-smi", "-L"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CONTAINER_TIMEOUT_S, check=False)  # noqa: S603
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-200:]}"
        assert "GPU 0" in done.stdout, f"{' '.join(command)} 看不到 GPU"
        finding.measured(f"容器 {image} 看到 {done.stdout.splitlines()[0]}")
