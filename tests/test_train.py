import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_runs import TRAIN
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, TrainingArguments

from titlegen.data import Example
from titlegen.environment import prepare_training_environment
from titlegen.errors import MissingDependencyError, TrainError
from titlegen.families.gemma3 import PROMPT
from titlegen.settings import TrainSettings
from titlegen.train import backends, fit, memory, shared
from titlegen.train.encode import IGNORED, encode_examples
from titlegen.train.loss import completion_loss
from titlegen.train.memory import (
    Activations,
    Plan,
    candidates,
    first_that_fits,
    gpu_memory,
    measure_activations,
    with_activations,
)
from titlegen.train.planning import PLAN
from titlegen.train.plot import smooth_loss, write_loss_curve
from titlegen.train.shared import as_record
from titlegen.train.trainer import collator
from titlegen.train.trim import CompletionTrim

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = TRAIN.model_copy(update={"num_train_epochs": 4, "lora_dropout": 0.1, "save_steps": 3})


@pytest.fixture
def examples(articles: list[dict[str, str]]) -> list[Example]:
    return [Example(f"a{i}", row["content"][:80], row["title"], "test", None) for i, row in enumerate(articles)]


def run(examples: list[Example], base: Path, folder: Path, settings: TrainSettings, val: int = 2) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    adapter = folder / "adapter"
    adapter.mkdir()
    results = fit(examples[val:], examples[:val], base, settings, folder / "work", adapter)
    log = [json.loads(line) for line in (adapter / "train.jsonl").read_text().splitlines()]
    return results.as_json() | {
        "weights": load_file(adapter / "adapter_model.safetensors"),
        "losses": {record["step"]: record["loss"] for record in log if "loss" in record},
        "validation": {record["step"]: record["eval_loss"] for record in log if "eval_loss" in record},
    }


def changed(**fields: Any) -> TrainSettings:
    return SETTINGS.model_copy(update=fields)


def test_only_the_title_and_its_end_of_turn_are_learned(examples: list[Example], tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    for example, row in zip(examples, encode_examples(examples, tokenizer, PROMPT, 192), strict=True):
        title = tokenizer(PROMPT.render_completion(example.title), add_special_tokens=False)["input_ids"]
        start = len(row["input_ids"]) - len(title)
        assert row["labels"][:start] == [IGNORED] * start
        assert row["labels"][start:] == row["input_ids"][start:] == title
        assert title[-1] == tokenizer.convert_tokens_to_ids("<end_of_turn>")
        assert tokenizer.decode(title[:-1]) == example.title
        assert row["input_ids"].count(tokenizer.bos_token_id) == 1
        assert row["input_ids"][0] == tokenizer.bos_token_id


def test_an_overlong_article_loses_content_and_never_its_title(articles: list[dict[str, str]], tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    example = Example("long", articles[0]["content"] * 5, articles[0]["title"], "test", None)
    (row,) = encode_examples([example], tokenizer, PROMPT, 160)
    title = tokenizer(PROMPT.render_completion(example.title), add_special_tokens=False)["input_ids"]
    assert row["shortened"]
    kept = example.content[: len(example.content) - row["left_out_chars"]]
    prompt = tokenizer.decode(row["input_ids"])
    assert kept in prompt
    assert example.content[: len(kept) + 1] not in prompt
    assert len(row["input_ids"]) <= 160
    assert row["input_ids"][-len(title) :] == title
    with pytest.raises(TrainError, match=r"article 'long': a title of \d+ tokens leaves no room"):
        encode_examples([example], tokenizer, PROMPT, 70)


def test_training_learns_and_keeps_stdout_clean(
    examples: list[Example], tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run(examples, tiny_base, tmp_path, SETTINGS)
    assert capsys.readouterr().out == ""
    assert results["steps"] == 20
    parts = results["parts_s"]
    assert list(parts) == ["before", "load", "encode", "check", "plan", "prepare", "train", "save"]
    age = time.time() - psutil.Process().create_time()
    # The second that the system's time of booting may be wrong by.
    assert results["train_s"] - 0.1 < parts["train"] < sum(parts.values()) < age + 1
    assert results["last_loss"] < results["first_loss"]
    assert results["loss_at_start"] == pytest.approx(results["full_loss_at_start"], rel=1e-4)
    assert results["val_loss"] == min(results["validation"].values())
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "loss.svg",
        "train.jsonl",
    ]
    assert not (tmp_path / "work").exists()


def test_a_validation_shows_that_it_moves(
    examples: list[Example], tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(examples, tiny_base, tmp_path, changed(num_train_epochs=1), val=6)
    shown = capsys.readouterr().err
    assert "validating, 1 of 3 batches" in shown
    assert "validating, 3 of 3 batches" in shown


@pytest.mark.parametrize("every", [1, 5, 20])
def test_the_losses_that_are_quoted_are_means_and_no_single_batches(every: int) -> None:
    # Falls by 1 from 3 to 2, and each batch is off by 0.5 to one side or the other.
    losses = [3 - step / 80 + (0.5 if step % 2 else -0.5) for step in range(80)]
    records: list[dict[str, Any]] = [
        {"step": end, "loss": sum(losses[end - every : end]) / every} for end in range(every, 81, every)
    ]
    records.insert(2, {"step": every, "eval_loss": 9.0})
    points = smooth_loss(records)
    assert points[0] == pytest.approx((10, 3 - 9.5 / 80))
    assert points[-1] == pytest.approx((70, 3 - 69.5 / 80))


def test_few_log_lines_are_smoothed_as_far_as_they_go() -> None:
    assert smooth_loss([]) == []
    assert smooth_loss([{"step": 1, "loss": 2.0}]) == [(0.5, 2.0)]
    # The first step's is a log line of its own, and counts for one step.
    assert smooth_loss([{"step": 1, "loss": 9.0}, {"step": 5, "loss": 2.0}])[-1] == (3.0, 2.0)


def test_the_loss_curve_has_no_step_between_two_steps(tmp_path: Path) -> None:
    write_loss_curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "eval_loss": 1.5}], tmp_path / "loss.svg")
    labels = re.findall(r"<!-- (.+?) -->", (tmp_path / "loss.svg").read_text())
    steps = labels[: labels.index("optimizer step")]
    assert {"1", "2"} <= set(steps)
    assert not [step for step in steps if "." in step]
    assert {"training, each log line", "training, mean of a quarter of the steps", "validation"} <= set(labels)


def test_the_trim_changes_no_loss(examples: list[Example], tiny_base: Path, tmp_path: Path) -> None:
    settings = changed(lora_dropout=0.0)
    trimmed = run(examples, tiny_base, tmp_path / "a", settings)
    plain = run(examples, tiny_base, tmp_path / "b", settings.model_copy(update={"completion_trim": False}))
    assert (trimmed["completion_trim"], plain["completion_trim"]) == (True, False)
    assert list(trimmed["losses"].values()) == pytest.approx(list(plain["losses"].values()), rel=1e-3)
    assert trimmed["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-3)


@pytest.mark.slow
def test_an_adapter_learns_on_weights_in_4_bits(examples: list[Example], tiny_base: Path, tmp_path: Path) -> None:
    found = {}
    for name, fields in {
        "whole": {},
        "unpacked": {"load_in_4bit": True},
        "packed": {"load_in_4bit": True, "low_memory": True},
        "full model": {"load_in_4bit": True, "completion_trim": False},
    }.items():
        found[name] = run(examples, tiny_base, tmp_path / name, changed(lora_dropout=0.0, **fields))
        assert found[name]["last_loss"] < found[name]["first_loss"]
    held = {name: results.get("frozen_weights") for name, results in found.items()}
    assert held == {"whole": "float32", "unpacked": "float32", "packed": "4-bit", "full model": None}
    curves = {name: list(results["losses"].values()) for name, results in found.items()}
    assert curves["packed"] == pytest.approx(curves["unpacked"], rel=1e-3)
    assert curves["full model"] == pytest.approx(curves["unpacked"], rel=1e-3)
    # Quantised weights are others, and the adapter makes up for most of it.
    assert curves["unpacked"] != pytest.approx(curves["whole"], rel=1e-5)
    assert found["unpacked"]["val_loss"] == pytest.approx(found["whole"]["val_loss"], rel=0.02)
    # The adapter is not rounded to the 16 bits that TRL gives it.
    weights = found["packed"]["weights"].values()
    assert all(weight.dtype == torch.float32 for weight in weights)
    assert not all(torch.equal(weight, weight.bfloat16().float()) for weight in weights)


@pytest.mark.slow
def test_an_adapter_learns_on_weights_in_fp8_what_it_learns_on_whole_ones(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titlegen.train.backends.check_fp8", lambda: None)
    monkeypatch.setattr("titlegen.train.fp8.LARGE", 2**12)
    whole, found = (run(examples, tiny_base, tmp_path / str(fp8), changed(fp8=fp8)) for fp8 in (False, True))
    assert (whole["frozen_weights"], found["frozen_weights"]) == ("float32", "float8_e4m3fn and float32")
    assert 0.005 < found["fp8_error"] < 0.3
    assert found["loss_at_start"] != found["full_loss_at_start"] == whole["full_loss_at_start"]
    curves = [list(results["losses"].values()) for results in (found, whole)]
    assert curves[0] == pytest.approx(curves[1], rel=0.01)
    assert found["val_loss"] == pytest.approx(whole["val_loss"], rel=0.005)


# Gemma 3n's multimodal class, that of the published weights, says it takes no count of labels.
@pytest.mark.parametrize("takes_a_count", [True, False])
def test_accumulated_passes_equal_one_large_batch(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_a_count: bool
) -> None:
    monkeypatch.setattr(Gemma3ForCausalLM, "accepts_loss_kwargs", takes_a_count, raising=False)
    found = []
    for batch, accumulation in ((8, 1), (2, 4)):
        settings = changed(
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=1,
            lora_dropout=0.0,
            # The rows differ in length; all eight make one step, in whatever order.
            warmup_ratio=0.0,
        )
        found.append(run(examples[:8], tiny_base, tmp_path / str(batch), settings, val=0))
    assert found[0]["steps"] == found[1]["steps"] == 1
    assert found[0]["losses"][1] == pytest.approx(found[1]["losses"][1], rel=1e-5)
    for name, weight in found[0]["weights"].items():
        # Adam's first step is the sign of the gradient: only one within rounding of zero may differ.
        close = torch.isclose(weight, found[1]["weights"][name], atol=1e-5)
        assert close.float().mean() > 0.999, name


def test_a_last_step_of_one_pass_is_no_explosion(examples: list[Example], tiny_base: Path, tmp_path: Path) -> None:
    settings = changed(per_device_train_batch_size=1, gradient_accumulation_steps=8, learning_rate=1e-5)
    results = run(examples[:9], tiny_base, tmp_path, settings.model_copy(update={"num_train_epochs": 1}), val=0)
    assert results["steps"] == 2
    assert results["losses"][2] < 2 * results["losses"][1]


def test_one_card_of_several_trains(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What torch counts comes up when it is first asked for; here, until it is set to one.
    cards = property(lambda self: 1 if vars(self).get("_n_gpu") == 1 else 2)
    monkeypatch.setattr(TrainingArguments, "n_gpu", cards)
    assert run(examples[:4], tiny_base, tmp_path, changed(num_train_epochs=1), val=0)["steps"] == 2


def test_a_plan_without_checkpoint_does_not_bind_the_next_run(
    examples: list[Example], tiny_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / PLAN).write_text(
        json.dumps(dataclasses.asdict(Plan(1, 2, checkpointing=True))), encoding="utf-8"
    )
    results = run(examples[:4], tiny_base, tmp_path, changed(num_train_epochs=1), val=0)
    assert results["plan"]["batch"] == SETTINGS.per_device_train_batch_size
    assert 0 < results["load_peak_gib"] <= results["peak_gib"] + 0.5


def test_the_adapter_names_its_base_as_the_hub_does(tiny_base: Path, examples: list[Example], tmp_path: Path) -> None:
    # As huggingface_hub's cache has it.
    base = shutil.copytree(tiny_base, tmp_path / "models--some--tiny-gemma" / "snapshots" / ("0123" * 10))
    run(examples[:4], base, tmp_path / "run", changed(num_train_epochs=1), val=0)
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "some/tiny-gemma"


def start(examples: list[Example], base: Path, folder: Path) -> "subprocess.Popen[bytes]":
    """Train in another process until the first checkpoint is complete."""
    (folder / "adapter").mkdir(parents=True)
    code = textwrap.dedent(
        f"""
        import json, sys, torch
        from pathlib import Path
        from titlegen.data import Example
        from titlegen.settings import TrainSettings
        from titlegen.train import fit
        torch.set_num_threads(1)
        examples = [Example(**row) for row in json.loads(sys.stdin.read())]
        settings = TrainSettings.model_validate_json({SETTINGS.model_dump_json()!r})
        folder = Path({str(folder)!r})
        fit(examples[2:], examples[:2], Path({str(base)!r}), settings, folder / "work", folder / "adapter")
        """
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603
    assert process.stdin is not None
    process.stdin.write(json.dumps([dataclasses.asdict(example) for example in examples]).encode())
    process.stdin.close()
    for _ in range(1200):
        if list((folder / "work").glob("checkpoint-*/trainer_state.json")):
            return process
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError("no checkpoint")


@pytest.mark.fault
@pytest.mark.heavy
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_stopped_run_resumes_to_the_same_result(
    examples: list[Example], tiny_base: Path, tmp_path: Path, name: str
) -> None:
    whole = run(examples, tiny_base, tmp_path / "whole", SETTINGS)
    folder = tmp_path / "stopped"
    process = start(examples, tiny_base, folder)
    process.send_signal(getattr(signal, name))
    assert process.wait(60) not in {0, None}
    assert not (folder / "adapter" / "adapter_model.safetensors").exists()
    checkpoints = list((folder / "work").glob("checkpoint-*"))
    # The limit, the best one beside it, and one that was being written.
    assert 1 <= len(checkpoints) <= SETTINGS.save_total_limit + 2
    (folder / "adapter").rmdir()
    resumed = run(examples, tiny_base, folder, SETTINGS)
    assert 0 < resumed["resumed_from_step"] < whole["steps"]
    assert resumed["losses"] == whole["losses"]
    assert resumed["validation"] == whole["validation"]
    assert all(torch.equal(weight, resumed["weights"][key]) for key, weight in whole["weights"].items())


def test_a_step_does_not_walk_through_the_model_and_a_checkpoint_has_no_tokenizer(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers does both by itself: thousands of modules four times a step, and 40 MB for each checkpoint."""
    walks, seen, kept = 0, list[int](), list[str]()
    named_modules = PeftModel.named_modules

    def counted(model: PeftModel, *arguments: Any, **named: Any) -> Any:
        nonlocal walks
        walks += 1
        return named_modules(model, *arguments, **named)

    monkeypatch.setattr(PeftModel, "named_modules", counted)
    save = shared.SharedSteps._save_rng_state

    def saved(trainer: Any, directory: str) -> None:
        kept.extend(path.name for path in Path(directory).iterdir())
        save(trainer, directory)

    monkeypatch.setattr(shared.SharedSteps, "_save_rng_state", saved)
    monkeypatch.setattr(shared.SharedSteps, "scale_of", lambda *_: seen.append(walks))
    run(examples, tiny_base, tmp_path, changed(logging_steps=100, save_steps=100))
    assert len(seen) > 8
    # Between the first pass and the checkpoint on half the way.
    assert seen[1] == seen[len(seen) // 2 - 1]
    assert any(name.startswith("adapter_model") for name in kept)
    assert not any("token" in name for name in kept)


def test_the_best_adapter_is_kept_and_a_rising_loss_stops_early(
    examples: list[Example], tiny_base: Path, tmp_path: Path
) -> None:
    settings = changed(learning_rate=0.03, num_train_epochs=12, early_stopping_patience=2, lr_scheduler_type="constant")
    results = run(examples, tiny_base, tmp_path, settings)
    assert results["steps"] < 60
    assert results["validation"][results["steps"]] > results["val_loss"]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), tmp_path / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    rows = encode_examples(examples[:2], tokenizer, PROMPT, SETTINGS.max_length)
    batch = collator(tokenizer)([as_record(row, i) for i, row in enumerate(rows)])
    with torch.no_grad():
        assert completion_loss(model, batch).item() == pytest.approx(results["val_loss"], rel=1e-5)


def run_interrupted(
    examples: list[Example], base: Path, folder: Path, settings: TrainSettings, training_pass: int
) -> dict[str, Any]:
    """Interrupt a training in a pass, counted from 0, and resume it."""
    compute, passes = CompletionTrim.__call__, itertools.count()

    def stop(self: CompletionTrim, inputs: dict[str, Any], num_items: Any = None) -> Any:
        if num_items is not None and next(passes) == training_pass:
            raise KeyboardInterrupt
        return compute(self, inputs, num_items)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CompletionTrim, "__call__", stop)
        run(examples, base, folder, settings)
    (folder / "adapter").rmdir()
    return run(examples, base, folder, settings)


def test_a_resumed_run_remembers_how_often_the_loss_has_risen(
    examples: list[Example], tiny_base: Path, tmp_path: Path
) -> None:
    settings = changed(learning_rate=0.03, num_train_epochs=14, early_stopping_patience=2, lr_scheduler_type="constant")
    whole = run(examples, tiny_base, tmp_path / "whole", settings)
    last = whole["steps"] - 1
    resumed = run_interrupted(examples, tiny_base, tmp_path / "cut", settings, last)
    assert 0 < resumed["resumed_from_step"] < last
    assert resumed["steps"] == whole["steps"]
    assert resumed["val_loss"] == whole["val_loss"]


@pytest.mark.fault
def test_a_run_that_is_resumed_in_a_later_epoch_sees_the_rows_of_a_whole_one(
    examples: list[Example], tiny_base: Path, tmp_path: Path
) -> None:
    # Five steps an epoch; the only checkpoint is in the second.
    settings = changed(save_steps=7)
    whole = run(examples, tiny_base, tmp_path / "whole", settings)
    resumed = run_interrupted(examples, tiny_base, tmp_path / "cut", settings, 9)
    assert resumed["resumed_from_step"] == 7
    assert resumed["losses"] == whole["losses"]
    assert all(torch.equal(weight, resumed["weights"][key]) for key, weight in whole["weights"].items())


def test_the_validation_loss_depends_on_no_batch(examples: list[Example], tiny_base: Path, tmp_path: Path) -> None:
    # Titles of unequal lengths.
    found = [
        run(
            examples,
            tiny_base,
            tmp_path / str(batch),
            changed(per_device_train_batch_size=batch, gradient_accumulation_steps=4 // batch, lora_dropout=0.0),
            val=5,
        )
        for batch in (1, 4)
    ]
    assert found[0]["validation"] == pytest.approx(found[1]["validation"], rel=1e-5)


@pytest.mark.fault
@pytest.mark.parametrize(("factor", "shown"), [(100.0, r"\d+"), (math.nan, "nan")])
def test_a_broken_loss_names_step_and_articles(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, shown: str
) -> None:
    compute, seen = CompletionTrim.__call__, []

    def breaking(
        trim: CompletionTrim, inputs: dict[str, torch.Tensor], num_items: torch.Tensor | None = None
    ) -> torch.Tensor:
        loss = compute(trim, inputs, num_items)
        seen.append(num_items)
        # The first call is the self-check.
        return loss * factor if len(seen) == 4 else loss

    monkeypatch.setattr(CompletionTrim, "__call__", breaking)
    with pytest.raises(TrainError, match=rf"loss {shown}.* at step 2 \(first loss 7.*\), batch of articles a\d+, a\d+"):
        run(examples, tiny_base, tmp_path, SETTINGS)
    # What was learned before can go on with other settings.
    assert (tmp_path / "work" / "train.jsonl").exists()


@pytest.mark.fault
def test_a_broken_loss_that_arrives_late_is_in_no_checkpoint(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU that is behind the CPU by more than a step.
    monkeypatch.setattr("titlegen.train.trainer._Arriving.has_arrived", lambda _: False)
    compute, seen = CompletionTrim.__call__, []

    def breaking(trim: CompletionTrim, inputs: dict[str, Any], num_items: Any = None) -> Any:
        # Without a number of labels it is the self-check or an evaluation.
        seen.extend([] if num_items is None else [num_items])
        return compute(trim, inputs, num_items) * (math.nan if len(seen) == 3 else 1.0)

    monkeypatch.setattr(CompletionTrim, "__call__", breaking)
    settings = changed(logging_steps=100, save_steps=2)
    with pytest.raises(TrainError, match=r"loss nan.* at step 2 \(first loss 7.*\), batch of articles a\d+, a\d+"):
        run(examples, tiny_base, tmp_path, settings)
    assert [path.name for path in (tmp_path / "work").glob("checkpoint-*")] == ["checkpoint-2"]
    assert "NaN" not in (tmp_path / "work" / "train.jsonl").read_text(encoding="utf-8")


@pytest.mark.fault
def test_a_base_model_with_a_broken_weight_is_named(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = backends._load_peft

    def broken(*arguments: Any) -> tuple[Any, Any]:
        model, tokenizer = load(*arguments)
        model.get_base_model().model.norm.weight.data.fill_(math.nan)
        return model, tokenizer

    monkeypatch.setattr(backends, "_load_peft", broken)
    with pytest.raises(TrainError, match="the untrained model's loss is nan"):
        run(examples, tiny_base, tmp_path, SETTINGS)


def exhaust_the_gpu(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def exhaust_the_host(*_: Any) -> None:
    torch.empty(2**60)


@pytest.mark.fault
@pytest.mark.parametrize("full", [exhaust_the_gpu, exhaust_the_host])
def test_out_of_memory_names_peak_batch_length_and_three_settings(
    examples: list[Example],
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: Callable[..., None],
) -> None:
    monkeypatch.setattr(backends, "_load_peft", full)
    pattern = (
        r"peak of [\d.]+ GiB with batch 2 and length 192.*--train.per-device-train-batch-size.*--train.max-length"
        r".*--train.gradient-checkpointing"
    )
    with pytest.raises(TrainError, match=pattern):
        run(examples, tiny_base, tmp_path, SETTINGS)


@pytest.mark.fault
def test_a_disk_that_is_full_at_a_checkpoint_is_named(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda value, _, **options: save(value, "/dev/full", **options))
    with pytest.raises(TrainError, match=r"cannot write a checkpoint to .* GiB free.*--output"):
        run(examples, tiny_base, tmp_path, SETTINGS)


def test_every_plan_keeps_the_effective_batch() -> None:
    plans = candidates(TrainSettings(auto_batch=True))
    assert [(plan.batch, plan.accumulation) for plan in plans] == [(32, 1), (16, 2), (8, 4), (4, 8), (2, 16), (1, 32)]
    assert candidates(TrainSettings(gradient_checkpointing=False)) == [Plan(4, 8, checkpointing=False)]
    assert candidates(TrainSettings(low_memory=True, gradient_checkpointing=False)) == [Plan(4, 8, checkpointing=True)]
    # Little memory is asked for: a large card is not filled.
    assert [plan.batch for plan in candidates(TrainSettings(low_memory=True, auto_batch=True))] == [4, 2, 1]


def test_the_largest_batch_that_fits_is_found() -> None:
    tried = []

    def attempt(plan: Plan) -> None:
        tried.append(plan)
        if plan.batch > 8:
            raise torch.OutOfMemoryError

    plan = first_that_fits(candidates(TrainSettings(auto_batch=True)), attempt)
    assert (plan.batch, plan.accumulation) == (8, 4)
    assert [p.batch for p in tried] == [32, 16, 8]


def test_only_what_does_not_fit_is_recomputed() -> None:
    activations = Activations(budget=60e9, kept=5e6, recomputed=0.5e6)
    assert activations.kept_share(10_000) == 1.0
    for tokens in (13_000, 20_000, 60_000):
        share = activations.kept_share(tokens)
        assert 0 < share < 1
        needed = tokens * (activations.recomputed + share * (activations.kept - activations.recomputed))
        assert needed == pytest.approx(activations.budget)
    assert activations.kept_share(200_000) == 0.0
    assert Plan(4, 8, checkpointing=False).kept_share(10**6) == 1.0
    assert Plan(4, 8, checkpointing=True).kept_share(1) == 0.0


@pytest.mark.parametrize(
    ("budget", "length", "order"),
    [
        # A large card: enough tokens to be worth a launch, nothing recomputed.
        (60e9, 500, [16, 32, 8, 4, 2, 1]),
        (60e9, 2048, [4, 8, 16, 32, 2, 1]),
        # A small one: rather recompute nearly all of a large batch than launch many small ones.
        (12e9, 500, [32, 16, 8, 4, 2, 1]),
        # A smaller one: 32 rows, and 16, do not fit even when everything is recomputed.
        (4e9, 500, [8, 4, 2, 1, 16, 32]),
    ],
)
def test_the_batch_is_the_fastest_to_launch_and_run(budget: float, length: int, order: list[int]) -> None:
    activations = Activations(budget, kept=5e6, recomputed=0.5e6)
    plans = with_activations(candidates(TrainSettings(auto_batch=True)), activations, [length - 200, length + 200])
    assert [plan.batch for plan in plans] == order
    assert all(plan.batch * plan.accumulation == 32 and plan.activations == activations for plan in plans)


def test_what_the_first_pass_frees_does_not_make_it_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 1,000 bytes 300 are left over from loading; a token needs 1 byte, or 4 with everything kept.
    held, peak = [1000], [0]
    for name in ("memory_reserved", "current_device"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda: 0)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda: held[0])
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: peak[0])
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr("torch.random.fork_rng", lambda **_: nullcontext())
    monkeypatch.setattr(memory, "gpu_memory", lambda: (10 * 2**30, 10 * 2**30))

    def step(tokens: int, share: float) -> int:
        held[0] = 700
        peak[0] = max(held[0] + tokens * (4 if share else 1), 1000)
        return tokens

    activations = measure_activations(step)
    assert activations is not None
    assert (activations.recomputed, activations.kept) == (1.0, 4.0)


@pytest.mark.fault
@pytest.mark.parametrize("fails_with", [0.0, 1.0])
def test_activations_that_cannot_be_kept_are_recomputed(fails_with: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("memory_reserved", "memory_allocated", "max_memory_allocated", "current_device"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda: 0)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr("torch.random.fork_rng", lambda **_: nullcontext())
    monkeypatch.setattr(memory, "gpu_memory", lambda: (2**30, 2**30))

    def step(tokens: int, share: float) -> int:
        if share == fails_with:
            raise torch.OutOfMemoryError
        return tokens

    if fails_with:
        assert measure_activations(step) is None
    else:
        with pytest.raises(torch.OutOfMemoryError):
            measure_activations(step)


@pytest.mark.parametrize(
    ("fraction", "free", "left"),
    # A card of 80 GiB of which torch holds 10: what others have taken counts, and so does torch's own limit.
    [(1.0, 65, 65), (1.0, 75, 70), (0.3, 65, 14), (0.3, 9, 9)],
)
def test_a_limit_of_torch_counts_as_the_cards_size(
    fraction: float, free: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {
        "current_device": 0,
        "get_device_properties": SimpleNamespace(total_memory=80),
        "get_per_process_memory_fraction": fraction,
        "mem_get_info": (free, 80),
        "memory_reserved": 10,
    }
    for name, value in card.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, value=value: value)
    assert gpu_memory() == pytest.approx((left, 80 * fraction))


@pytest.mark.fault
def test_nothing_fits() -> None:
    def attempt(_: Plan) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(TrainError, match="even with 1 row at a time"):
        first_that_fits(candidates(TrainSettings(auto_batch=True)), attempt)


def test_versions_that_are_allowed_but_not_locked_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    version = backends.metadata.version
    monkeypatch.setattr(backends, "_locked", lambda: {"torch": version("torch").partition("+")[0], "trl": "1.0.0"})
    assert backends.check_backend(SETTINGS) == [f"trl {version('trl')} (locked 1.0.0)"]


@pytest.mark.fault
def test_a_version_outside_the_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    version = backends.metadata.version
    monkeypatch.setattr(backends.metadata, "version", lambda name: "4.0.0" if name == "transformers" else version(name))
    with pytest.raises(TrainError, match=r"transformers 4.0.0 is outside .*pip install -c constraints.txt"):
        backends.check_environment(SETTINGS)


@pytest.mark.fault
def test_4_bits_without_bitsandbytes_name_the_way_without(monkeypatch: pytest.MonkeyPatch) -> None:
    version = backends._version
    monkeypatch.setattr(backends, "_version", lambda name: None if name == "bitsandbytes" else version(name))
    backends.check_environment(SETTINGS)
    with pytest.raises(TrainError, match=r"bitsandbytes is not installed; .*--train.no-load-in-4bit"):
        backends.check_environment(changed(load_in_4bit=True))


def test_the_memorys_configuration_is_set_before_the_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    seen = []
    monkeypatch.setattr(backends, "_check_gpu", lambda: seen.append(os.environ.get("PYTORCH_ALLOC_CONF")))
    with pytest.raises(TrainError, match="unsloth is not installed"):
        backends.check_backend(TrainSettings())
    assert seen == ["expandable_segments:True"]


def test_unsloth_without_a_gpu_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainError, match=r"needs an NVIDIA GPU.*--profile quickstart"):
        backends.check_backend(TrainSettings())


def test_telemetry_is_off_and_the_users_own_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNSLOTH_DISABLE_STATISTICS", "UNSLOTH_COMPILE_DISABLE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    monkeypatch.setenv("UNSLOTH_COMPILE_LOCATION", "/mine too")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "mine")
    prepare_training_environment(compile_model=False)
    assert os.environ["UNSLOTH_DISABLE_STATISTICS"] == os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"
    assert os.environ["PYTORCH_ALLOC_CONF"] == "mine"


@pytest.mark.fault
def test_tensorboard_that_is_not_installed_is_named(
    examples: list[Example], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match="pip install tensorboard"):
        run(examples, tiny_base, tmp_path, changed(tensorboard=True))
