"""The stage as a whole, on a tiny model: what runs, what is kept, and how it resumes after a kill."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus import corpus_rows

from titlegen import stages
from titlegen.adapter import WEIGHTS
from titlegen.data import Example, load_untitled
from titlegen.errors import ConfigError, DataError
from titlegen.prefer import Articles, prefer, read_choices
from titlegen.prefer.choices import SCHEMA
from titlegen.runs import Folder, Run
from titlegen.settings import DataSettings, EvaluateSettings, PreferSettings, Settings, TrainSettings, load_settings

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = corpus_rows()[:24]
EXAMPLES = [Example(str(n), row["content"][:300], row["title"], "corpus", None) for n, row in enumerate(ROWS)]
TRAIN = TrainSettings(
    backend="peft", load_in_4bit=False, lora_r=4, lora_alpha=8, lora_dropout=0.0, max_length=400, save_steps=1
)
SETTINGS = PreferSettings(rounds=2, candidates=3, batch_size=4, learning_rate=1e-3)
EVALUATION = EvaluateSettings(batch_size=4, max_new_tokens=6, resamples=100)


def write_choices(path: Path, examples: list[Example]) -> Path:
    rows = [
        {
            "schema": SCHEMA,
            "article_digest": str(number),
            "content": example.content,
            "chosen": example.title,
            "rejected": example.content[:20],
            "kind": "edited",
            "model": "sha256:1",
            "time": "2026-11-27T10:00:00Z",
        }
        for number, example in enumerate(examples)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run(
    base: Path, adapter: Path, folder: Path, settings: PreferSettings = SETTINGS, **articles: Any
) -> dict[str, Any]:
    directory = folder / "adapter"
    directory.mkdir(parents=True, exist_ok=True)
    # What a random model writes is seldom a title, so that most of what is learned from is an editor's.
    choices = read_choices(write_choices(folder / "choices.jsonl", EXAMPLES[:10]))
    given: dict[str, Any] = {
        "train": EXAMPLES[:8],
        "val": EXAMPLES[8:12],
        "test": EXAMPLES[12:14],
        "choices": choices,
    } | articles
    return prefer(
        Articles(**given),
        base,
        adapter,
        settings,
        train=TRAIN,
        evaluation=EVALUATION,
        work=folder / "work",
        directory=directory,
    ).as_json()


@pytest.fixture(scope="module")
def whole(tiny_base: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("whole")
    return run(tiny_base, tiny_adapter, folder), folder


def test_what_validation_does_not_prefer_is_not_taken(whole: tuple[dict[str, Any], Path], tiny_adapter: Path) -> None:
    results, folder = whole
    assert results["articles"] == 8
    # Two of the ten are about validation articles.
    assert results["choices"] == 8 * SETTINGS.choices_weight
    first, second = results["rounds"]
    assert second["steps"] == math.ceil(results["pairs"] / SETTINGS.batch_size)
    assert first["completion_trim"]
    assert second["completion_trim"]
    decision = results["decision"]
    assert decision["rows"] == 4
    assert not decision["accepted"]
    assert decision["reasons"]
    assert (folder / "adapter" / WEIGHTS).read_bytes() == (tiny_adapter / WEIGHTS).read_bytes()
    assert not (folder / "work").exists()


# One process that loads everything, and dies as a copy of itself in each part.
_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
import test_prefer_stage as case
from titlegen.evaluate import generate
from titlegen.prefer import stage

def die(): os.kill(os.getpid(), signal.SIGKILL)

def candidates(original=generate._generate_batch, calls=[]):
    def batch(generator, examples, advance):
        calls.append(1)
        return die() if len(calls) == 2 else original(generator, examples, advance)
    generate._generate_batch = batch

def training():
    from transformers import Trainer
    original = Trainer._save_checkpoint
    def save(self, *arguments):
        original(self, *arguments)
        if self.state.global_step == 3: die()
    Trainer._save_checkpoint = save

def gate(original=stage.decide):
    stage.decide = lambda *a, **k: die()

torch.set_num_threads(1)
for name, part in dict(candidates=candidates, training=training, gate=gate).items():
    child = os.fork()
    if child == 0:
        part()
        case.run(Path({base!r}), Path({adapter!r}), Path({folder!r}) / name)
        os._exit(0)
    print(name, os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def killed(tiny_base: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    code = _KILLED.format(
        tests=str(Path(__file__).parent), base=str(tiny_base), adapter=str(tiny_adapter), folder=str(folder)
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.stdout.splitlines() == ["candidates 9", "training 9", "gate 9"], done.stderr[-2000:]
    return folder


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("part", ["candidates", "training", "gate"])
def test_a_kill_in_each_part_loses_nothing(
    part: str, killed: Path, whole: tuple[dict[str, Any], Path], tiny_base: Path, tiny_adapter: Path
) -> None:
    work = killed / part / "work" / ("round-2" if part == "gate" else "round-1")
    found = {
        "candidates": len((work / "candidates.jsonl").read_text(encoding="utf-8").splitlines()),
        "pairs": (work / "pairs.jsonl").is_file(),
        "learned": (work / "preferred").is_dir(),
    }
    assert (
        found
        == {
            "candidates": {"candidates": 5, "pairs": False, "learned": False},
            "training": {"candidates": 9, "pairs": True, "learned": False},
            "gate": {"candidates": 9, "pairs": True, "learned": True},
        }[part]
    )
    results = run(tiny_base, tiny_adapter, killed / part)
    assert [found["resumed_from_step"] for found in results["rounds"]] == [3 * (part == "training"), 0]
    steps = [[found["steps"] for found in one["rounds"]] for one in (results, whole[0])]
    assert steps[0] == steps[1]
    assert results["decision"]["preferred"] == whole[0]["decision"]["preferred"]


def test_without_pairs_it_says_what_to_change(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 8 articles gives a pair: .*--prefer\.candidates"):
        # All candidates of an article are its likeliest title.
        cold = SETTINGS.model_copy(update={"temperature": 1e-4})
        run(tiny_base, tiny_adapter, tmp_path, cold, choices=())


def test_without_validation_nothing_can_decide(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data\.val-share"):
        run(tiny_base, tiny_adapter, tmp_path, val=[])


def test_one_candidate_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prefer\.candidates.*greater than or equal to 2"):
        load_settings(prefer={"candidates": 1})


def test_further_articles_need_no_titles(tiny_base: Path, tmp_path: Path) -> None:
    path = tmp_path / "further.jsonl"
    contents = [ROWS[0]["content"], ROWS[0]["content"], "太短", ROWS[1]["content"]]
    path.write_text("".join(json.dumps({"content": text}, ensure_ascii=False) + "\n" for text in contents))
    found = load_untitled(DataSettings(source=str(path), max_content_tokens=64), tiny_base / "tokenizer.json")
    assert [example.title for example in found] == ["", ""]
    assert found[1].content.startswith(ROWS[1]["content"][:10])


def ran(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition(":")[0] for line in capsys.readouterr().err.splitlines() if line.endswith(": running")]


def test_the_stage_stands_between_training_and_export_when_asked_for(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = write_choices(tmp_path / "choices.jsonl", EXAMPLES[:4])

    def settings(**prefer_: Any) -> Settings:
        return load_settings(
            output=tmp_path,
            model={"base": str(tiny_base)},
            data={"limit": 40, "max_content_tokens": 64, "test_share": 0.1, "val_share": 0.1},
            train={"num_train_epochs": 0.2, "max_length": 256, "init_adapter": None},
            prefer={"candidates": 2, "choices": str(choices), **prefer_},
            export={"gguf_types": ("f16",), "verify_articles": 1},
            evaluate={"max_new_tokens": 4},
        )

    first = Run(settings(enabled=True))
    stages.bring_up_to_date(first, *stages.stages_up_to(stages.MERGE))
    assert ran(capsys) == ["prepare", "train", "prefer", "merge"]
    assert first.done["merge"].manifest.inputs["adapter"] == first.digest("prefer")
    assert (first.folder(Folder.PREFERRED) / WEIGHTS).is_file()
    stages.bring_up_to_date(Run(settings(enabled=True)), *stages.stages_up_to(stages.MERGE))
    assert ran(capsys) == []
    off = Run(settings())
    stages.bring_up_to_date(off, *stages.stages_up_to(stages.MERGE))
    assert ran(capsys) == ["merge"]
    assert off.done["merge"].manifest.inputs["adapter"] == off.digest("train")
    with pytest.raises(DataError, match="does not exist"):
        stages.bring_up_to_date(Run(settings(enabled=True, choices=str(tmp_path / "no.jsonl"))), *stages.PIPELINE)
