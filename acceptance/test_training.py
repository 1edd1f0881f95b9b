"""訓練與模型匯出."""

import json
import math
from pathlib import Path

import pytest
from findings import Finding

from titlegen.data import Example
from titlegen.manifest import check_files, read_manifest
from titlegen.metrics.contract import title_violations
from titlegen.models import family_at
from titlegen.results import Trained, read_result
from titlegen.runs import Folder
from titlegen.settings import Settings
from titlegen.verify import check_foreign, failures

pytestmark = pytest.mark.acceptance


@pytest.mark.spec("TRAIN-1")
def test_training_finished(outputs: Path, settings: Settings, finding: Finding) -> None:
    manifest = read_manifest(outputs / Folder.ADAPTER)
    # On how many cards changes nothing of the adapter.
    trained = settings.train.model_dump(mode="json", exclude={"devices"})
    assert manifest.settings == trained, "這個 LoRA 是用別的設定訓練的"
    records = [
        json.loads(line) for line in (outputs / Folder.ADAPTER / "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    losses = [record["loss"] for record in records if "loss" in record]
    assert all(map(math.isfinite, losses)), "訓練過程出現 NaN 或無限大的損失"
    results = read_result(Trained, manifest)
    assert max(record["step"] for record in records) == results.steps, "訓練紀錄不完整"
    first, last, before = results.first_loss, results.last_loss, results.val_loss_at_start
    assert first is not None, "沒有訓練損失的紀錄"
    assert last is not None, "沒有訓練損失的紀錄"
    # A model that has learned already stays at its level, where batches differ more than a training changes.
    has_learned = results.init_adapter is not None
    assert has_learned or last < first, "損失沒有下降"
    assert not list((outputs / Folder.CHECKPOINTS).glob("*")), "還有檢查點：訓練中斷過而沒有跑完"
    learned = f"訓練損失由 {first:.2f} 降到 {last:.2f}（前後各四分之一的步數平均）"
    if has_learned:
        known = {"出發時": before, "訓練後": results.val_loss}
        said = "、".join(f"{when} {value:.2f}" for when, value in known.items() if value is not None)
        learned = f"由學過的 LoRA 出發，驗證損失{said}" if said else "由學過的 LoRA 出發"
    finding.measured(f"{results.steps} 步，{learned}")


@pytest.mark.spec("TRAIN-2")
def test_adapter(outputs: Path, settings: Settings, finding: Finding) -> None:
    from safetensors.numpy import load_file

    directory = outputs / Folder.ADAPTER
    config = json.loads((directory / "adapter_config.json").read_bytes())
    assert (config["r"], config["lora_alpha"]) == (settings.train.lora_r, settings.train.lora_alpha)
    assert set(config["target_modules"]) == set(settings.train.target_modules)
    tensors = load_file(directory / "adapter_model.safetensors")
    found = {name.split(".lora_", 1)[0].rsplit(".", 1)[-1] for name in tensors}
    assert found == set(settings.train.target_modules)
    # B starts at zero, so that a matrix that is still zero was never trained.
    untrained = [name for name, tensor in tensors.items() if ".lora_B." in name and not tensor.any()]
    assert not untrained, f"{len(untrained)} 個矩陣沒有訓練過，例如 {untrained[:1]}"
    check_files(directory, read_manifest(directory))
    finding.measured(f"{len(tensors)} 個矩陣都訓練過，秩 {config['r']}，alpha {config['lora_alpha']}")


@pytest.mark.spec("TRAIN-3")
def test_merged_directory(outputs: Path, finding: Finding) -> None:
    directory = outputs / Folder.EXPORT
    needed = ["config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"]
    # Gemma 4's vocabulary has no tokenizer.model.
    needed += family_at(directory).tokenizer_files
    missing = [name for name in needed if not (directory / name).is_file()]
    assert not missing, f"缺少 {missing}"
    wrong = failures(check_foreign(directory))
    assert not wrong, wrong[0].detail
    manifest = read_manifest(directory)
    check_files(directory, manifest)
    finding.measured(f"{len(manifest.files)} 個檔案，SHA-256 都與紀錄相同")


@pytest.mark.spec("TRAIN-4")
def test_transformers_infers(outputs: Path, test_examples: list[Example], finding: Finding) -> None:
    from titlegen.generation import greedy_title

    title = greedy_title(outputs / Folder.EXPORT, test_examples[0].content)
    assert title, "沒有輸出"
    assert not title_violations(title), f"{title!r} 不只是標題"
    finding.measured(f"一篇文章得到「{title}」")
