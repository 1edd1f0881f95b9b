import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_runs import TRAIN

from titlegen import summary
from titlegen.adapter import CONFIG, WEIGHTS, digest_base, sign_adapter
from titlegen.data import Example
from titlegen.errors import ConfigError, TrainError
from titlegen.export import merge_adapter
from titlegen.manifest import write_manifest
from titlegen.settings import ExportSettings
from titlegen.train import digest_init_adapter, fit, resolve_init_adapter
from titlegen.verify.integrity import check_export

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = TRAIN.model_copy(update={"lr_scheduler_type": "constant", "warmup_ratio": 0.0})


@dataclass(frozen=True)
class Trained:
    directory: Path
    results: dict[str, Any]


def train(rows: list[Example], base: Path, directory: Path, **changes: Any) -> Trained:
    directory.mkdir(parents=True)
    settings = SETTINGS.model_copy(update=changes)
    return Trained(directory, fit(rows, rows[:4], base, settings, directory / "work", directory).as_json())


@pytest.fixture(scope="module")
def rows(articles: list[dict[str, str]]) -> list[Example]:
    # Few articles, often: a random model learns nothing from each once.
    return [Example(f"a{i}", row["content"][:80], row["title"], "test", None) for i, row in enumerate(articles[:4] * 8)]


@pytest.fixture(scope="module")
def first(rows: list[Example], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(rows, tiny_base, tmp_path_factory.mktemp("first") / "lora")


def test_two_runs_of_one_epoch_come_near_one_run_of_two(
    rows: list[Example], tiny_base: Path, first: Trained, tmp_path: Path
) -> None:
    second = train(rows, tiny_base, tmp_path / "second", init_adapter=str(first.directory))
    whole = train(rows, tiny_base, tmp_path / "whole", num_train_epochs=2)
    learned = first.results["val_loss"] - whole.results["val_loss"]
    assert learned > 0
    # What AdamW had gathered is not carried over, so near is all that it can be.
    assert second.results["val_loss"] - whole.results["val_loss"] < learned / 2
    assert second.results["init_adapter"] == str(first.directory)
    assert first.results["init_adapter"] is None
    # What the adapter was worth before it went on, and nothing of the kind where there was none.
    assert second.results["val_loss_at_start"] == pytest.approx(first.results["val_loss"], rel=1e-3)
    assert first.results["val_loss_at_start"] is None
    manifests = (write_manifest(tmp_path, "train", {}, {}, run.results) for run in (first, second))
    learned_text, shown = map(summary._FACTS["train"], manifests)
    assert re.search(r"training loss \d\.\d\d to \d\.\d\d, validation loss \d\.\d\d$", learned_text)
    assert re.search(r"steps, validation loss \d\.\d\d to \d\.\d\d$", shown)


def test_the_sum_is_proven_as_any_adapter_is(
    rows: list[Example], tiny_base: Path, first: Trained, tmp_path: Path
) -> None:
    second = train(rows, tiny_base, tmp_path / "second", init_adapter=str(first.directory))
    merged = tmp_path / "merged"
    merged.mkdir()
    merge_adapter(tiny_base, second.directory, ExportSettings(), merged)
    wrong = [check.name for check in check_export(merged, tiny_base, second.directory) if not check.passed]
    assert not wrong
    against_the_first = check_export(merged, tiny_base, first.directory)
    assert [check for check in against_the_first if not check.passed]


def test_an_adapter_says_which_weights_it_was_trained_on(first: Trained, tiny_base: Path, tmp_path: Path) -> None:
    with safe_open(first.directory / WEIGHTS, "pt") as file:
        assert file.metadata()["base_digest"] == digest_base(tiny_base)
    other = copy_base(tiny_base, tmp_path / "other", lambda weights: weights["model.layers.0.mlp.up_proj.weight"][0])
    assert digest_base(other) != digest_base(tiny_base)


def test_a_signed_adapter_has_the_same_bytes_every_time(tiny_adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    found = set()
    for _ in range(16):
        sign_adapter(copy, tiny_base)
        found.add((copy / WEIGHTS).read_bytes())
    assert len(found) == 1


def test_another_adapter_makes_training_stale(first: Trained, tmp_path: Path) -> None:
    directory = copy_adapter(first.directory, tmp_path / "copy")
    before = digest_init_adapter(directory)
    assert before == digest_init_adapter(first.directory)
    change_weights(directory, lambda weights: next(iter(weights.values())).add_(1))
    assert digest_init_adapter(directory) != before


def test_what_another_tool_wrote_is_taken_when_it_names_the_base(
    rows: list[Example], tiny_base: Path, first: Trained, tmp_path: Path
) -> None:
    directory = copy_adapter(first.directory, tmp_path / "foreign")
    save_file(load_file(directory / WEIGHTS), directory / WEIGHTS, metadata={"format": "pt"})
    change_config(directory, base_model_name_or_path=f"unsloth/{tiny_base.name}-unsloth-bnb-4bit")
    second = train(rows, tiny_base, tmp_path / "second", init_adapter=str(directory))
    assert second.results["steps"] == first.results["steps"]


def copy_adapter(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in (CONFIG, WEIGHTS):
        (target / name).write_bytes((source / name).read_bytes())
    return target


def copy_base(source: Path, target: Path, part: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(target / "model.safetensors")
    part(weights).add_(1)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def change_config(directory: Path, **fields: Any) -> None:
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps(config | fields))


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    with safe_open(directory / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    weights = load_file(directory / WEIGHTS)
    change(weights)
    save_file(weights, directory / WEIGHTS, metadata=metadata)


def leave_out_a_layer(weights: dict[str, torch.Tensor]) -> None:
    for key in [key for key in weights if "layers.0.mlp.up_proj" in key]:
        del weights[key]


def widen(weights: dict[str, torch.Tensor]) -> None:
    key = next(key for key in weights if key.endswith("lora_A.weight"))
    weights[key] = torch.zeros(weights[key].shape[0], weights[key].shape[1] + 1)


def cut_off(directory: Path) -> None:
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(data[: len(data) // 2])


def become_a_pickle(directory: Path) -> None:
    torch.save(load_file(directory / WEIGHTS), directory / "adapter_model.bin")
    (directory / WEIGHTS).unlink()


def forget_the_base(directory: Path) -> None:
    save_file(load_file(directory / WEIGHTS), directory / WEIGHTS, metadata={"format": "pt"})
    change_config(directory, base_model_name_or_path="google/gemma-3-1b-it")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "cut off or damaged"),
        (become_a_pickle, "adapter_model.bin, which can run code"),
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no adapter"),
        (lambda folder: (folder / CONFIG).write_text("{"), "not valid JSON"),
        (lambda folder: change_config(folder, r=0), "r 0; a number above 0"),
        (lambda folder: change_config(folder, r="many"), "r 'many'"),
        (lambda folder: change_config(folder, use_dora=True), "not a plain LoRA adapter"),
        (lambda folder: change_config(folder, lora_alpha=8), "--train.lora-alpha 8"),
        (lambda folder: change_weights(folder, leave_out_a_layer), "layers.0.mlp.up_proj.*in the settings alone"),
        (lambda folder: change_weights(folder, widen), "has shape"),
        (lambda folder: change_weights(folder, lambda w: next(iter(w.values())).fill_(torch.nan)), "NaN or Inf"),
        (forget_the_base, "'google/gemma-3-1b-it'"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    damage: Callable[[Path], object],
    message: str,
    rows: list[Example],
    tiny_base: Path,
    first: Trained,
    tmp_path: Path,
) -> None:
    directory = copy_adapter(first.directory, tmp_path / "damaged")
    damage(directory)
    with pytest.raises((TrainError, ConfigError), match=message):
        train(rows, tiny_base, tmp_path / "second", init_adapter=str(directory))


@pytest.mark.fault
def test_an_adapter_of_another_rank_names_the_option(
    rows: list[Example], tiny_base: Path, first: Trained, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=r"--train\.lora-r 4"):
        train(rows, tiny_base, tmp_path / "second", init_adapter=str(first.directory), lora_r=8)


@pytest.mark.fault
def test_an_adapter_of_other_weights_of_the_same_shape_is_refused(
    rows: list[Example], tiny_base: Path, first: Trained, tmp_path: Path
) -> None:
    other = copy_base(tiny_base, tmp_path / "other", lambda weights: weights["model.layers.5.mlp.down_proj.weight"])
    with pytest.raises(TrainError, match=r"trained on other weights than those of .*--model\.base"):
        train(rows, other, tmp_path / "second", init_adapter=str(first.directory))


def test_a_directory_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'./nowhere' is not a directory"):
        resolve_init_adapter("./nowhere")
