"""Preference training of Gemma 3 270M on open press releases, on one NVIDIA card; the scores of every way to do it.

Run the roles one after another: ``python benchmarks/gpu_prefer.py ROLE OUT --data DIR --base DIR [options]``.

    sft     train an adapter on DIR/train.jsonl, into OUT/NAME/adapter
    draw    candidates for the train articles from OUT/NAME/adapter, into OUT/NAME/candidates.json
    trial   train on pairs of these as each line of --variants says, and score on DIR/val.jsonl and DIR/more.jsonl
    final   two adapters on DIR/test.jsonl, paired: --name's SFT adapter and the one in --adapter
    report  the figures out of what the roles before left in OUT, as they are kept

Every role writes a JSON file below OUT. A variant is ``NAME KEY=VALUE ...``, settings of ``prefer``.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import describe_run

from titlegen.control import Control, draw_control
from titlegen.data import Example, load_split
from titlegen.generation import TransformersGenerator
from titlegen.metrics.bootstrap import bootstrap_interval, resample_sums
from titlegen.metrics.records import Text
from titlegen.metrics.scores import compare_scores, estimate_scores, measure_titles
from titlegen.prefer import Task, decide, draw_candidates, learn, make_pairs
from titlegen.settings import EvaluateSettings, PreferSettings, TrainSettings
from titlegen.slots import LENGTHS
from titlegen.train import fit

_SCORES = ("rougeL", "rouge1", "bleu1", "title_only_rate", "length_rate", "clean_rate", "number_support")
_SHOWN = 20
# Articles that titles are searched for at a time: their logits are kept.
_SEARCHED = 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of splits as titlegen prepare writes them")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--name", default="sft", help="folder of the SFT adapter below OUT; of a report, its own name")
    parser.add_argument("--adapter", type=Path, nargs="*", default=[], help="adapters to score beside the SFT one")
    parser.add_argument("--variants", type=Path, help="file of the variants to try, one a line")
    parser.add_argument("--part", default="0/1", help="only every n-th variant, from this one on")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--best-of", type=int, default=0, help="also score the best of so many titles")
    parser.add_argument(
        "--control", type=float, default=0.0, help="share of the articles drawn for with a control, too"
    )
    parser.add_argument(
        "--controlled", type=int, default=0, help="articles asked for titles with a length, and with words"
    )
    parser.add_argument("--start", type=Path, help="go on from this adapter in place of the SFT one: a further round")
    parser.add_argument("--draw-from", type=Path, help="draw from this adapter in place of the SFT one")
    parser.add_argument("--limit", type=int, default=0, help="at most so many articles of each split")
    parser.add_argument("--notes", default="", help="what is to be known about a report")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--set", nargs="*", default=[], help="settings of training, KEY=VALUE")
    arguments = parser.parse_args()
    started = time.monotonic()
    (arguments.out / arguments.name).mkdir(parents=True, exist_ok=True)
    found = ROLES[arguments.role](arguments)
    result = describe_run(f"prefer_{arguments.role}", "torch", "transformers", "peft", "trl") | found
    result["seconds"] = round(time.monotonic() - started, 1)
    label = "" if arguments.part == "0/1" else f"-{arguments.part.partition('/')[0]}"
    path = arguments.out / f"{arguments.role}-{arguments.name}{label}.json"
    if arguments.role == "report":
        path = arguments.out / f"{arguments.name}.json"
    path.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{arguments.role} {arguments.name}{label}: {result['seconds']} s\n")


def train_settings(arguments: argparse.Namespace) -> TrainSettings:
    changes = dict(item.split("=", 1) for item in arguments.set)
    given = {"backend": "peft", "load_in_4bit": False, "max_length": 1024, "auto_batch": True, **changes}
    return TrainSettings.model_validate(given)


def read(arguments: argparse.Namespace, *splits: str) -> list[Example]:
    found = []
    for split in splits:
        if (arguments.data / f"{split}.jsonl").is_file():
            found += load_split(arguments.data, split)[: arguments.limit or None]
    return found


def sft(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = arguments.out / arguments.name
    settings = train_settings(arguments)
    adapter = folder / "adapter"
    adapter.mkdir()
    results = fit(
        read(arguments, "train"), read(arguments, "val"), arguments.base, settings, folder / "checkpoints", adapter
    )
    scorer = Scorer(arguments)
    return {
        "settings": settings.model_dump(mode="json"),
        "training": {key: value for key, value in results.as_json().items() if key != "plan"},
        "validation": scorer.score(adapter),
    }


def draw(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = arguments.out / arguments.name
    examples = read(arguments, "train")
    source = random.Random(1)
    tasks = [Task(example) for example in examples]
    asked = source.sample(examples, round(arguments.control * len(examples)))
    tasks += [Task(example, draw_control(example, source)) for example in asked]
    settings = EvaluateSettings(
        candidates=arguments.candidates, temperature=0.8, seed=11, batch_size=min(64, arguments.batch_size)
    )
    adapter = arguments.draw_from or folder / "adapter"
    partial = folder / "candidates.partial.jsonl"
    # Two draws for one article have one id.
    prompts = [Example(f"{number}", *astuple(task.prompt)[1:]) for number, task in enumerate(tasks)]
    drawn = draw_candidates(arguments.base, adapter, prompts, settings, partial)
    records = [
        {"example": asdict(task.example), "control": [task.control.chars, task.control.include], "candidates": titles}
        for task, titles in zip(tasks, drawn, strict=True)
    ]
    (folder / "candidates.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    return {"tasks": len(tasks), "candidates": arguments.candidates}


def astuple(example: Example) -> tuple[Any, ...]:
    return tuple(asdict(example).values())


def trial(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = arguments.out / arguments.name
    records = json.loads((folder / "candidates.json").read_bytes())
    tasks = [
        Task(Example(**record["example"]), Control(record["control"][0], tuple(record["control"][1])))
        for record in records
    ]
    drawn = [record["candidates"] for record in records]
    lines = [line.split() for line in arguments.variants.read_text(encoding="utf-8").splitlines() if line.strip()]
    first, _, step = arguments.part.partition("/")
    scorer = Scorer(arguments)
    adapter = arguments.start or folder / "adapter"
    found: dict[str, Any] = {}
    label = arguments.part.partition("/")[0]
    path = arguments.out / f"trial-{arguments.name}-{label}.partial.json"
    if first == "0":
        found["sft"] = {"validation": scorer.score(adapter)}
    for name, *changes in lines[int(first) :: int(step)]:
        given = dict(change.split("=", 1) for change in changes)
        number = int(given.pop("candidates", "64"))
        settings = PreferSettings.model_validate({"batch_size": 64, **given})
        started = time.monotonic()
        pairs = make_pairs(tasks, [titles[:number] for titles in drawn], settings)
        paired = time.monotonic()
        directory = folder / f"preferred-{name}"
        directory.mkdir()
        results = learn(
            pairs,
            arguments.base,
            adapter,
            settings,
            train=train_settings(arguments),
            work=folder / f"work-{name}",
            directory=directory,
        )
        learned = time.monotonic()
        found[name] = {
            "given": given,
            "training": {key: value for key, value in results.as_json().items() if key != "plan"},
            "seconds": {"pairs": round(paired - started, 1), "learning": round(learned - paired, 1)},
            "validation": scorer.score(directory),
        }
        found[name]["seconds"]["scoring"] = round(time.monotonic() - learned, 1)
        path.write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
        score = found[name]["validation"]["greedy"]["rougeL"]
        sys.stdout.write(f"{name}: {score} {found[name]['seconds']}\n")
        sys.stdout.flush()
    return {"variants": found}


def final(arguments: argparse.Namespace) -> dict[str, Any]:
    examples = read(arguments, "test")
    texts = [Text(example.title, example.content, example.date) for example in examples]
    adapters = {"sft": arguments.out / arguments.name / "adapter", **{path.name: path for path in arguments.adapter}}
    titles = {}
    for name, adapter in adapters.items():
        for number in (1, 8):
            settings = EvaluateSettings(candidates=number, batch_size=arguments.batch_size)
            generator = TransformersGenerator(arguments.base, adapter, settings)
            titles[name, number] = generator.generate([example.content for example in examples])
    measured = {key: measure_titles(given, texts) for key, given in titles.items()}
    found: dict[str, Any] = {}
    for (name, number), statistics in measured.items():
        scores = estimate_scores(statistics, 1000, 7)
        entry = {key: [round(v, 4) for v in (scores[key].value, scores[key].low, scores[key].high)] for key in _SCORES}
        if name != "sft":
            difference = compare_scores(statistics, measured["sft", number], 1000, 7)["rougeL"]
            entry["difference"] = [round(v, 4) for v in (difference.value, difference.low, difference.high)]
            apart = statistics.column("rougeL") - measured["sft", number].column("rougeL")
            entry["differences"] = [round(value, 4) for value in apart.tolist()]
        found[f"{name}, {'greedy' if number == 1 else f'best of {number}'}"] = entry
    shown = [
        {"reference": example.title, **{name: titles[name, 1][row] for name in adapters}}
        for row, example in list(enumerate(examples))[:_SHOWN]
    ]
    scorer = Scorer(arguments, examples)
    controlled = {name: scorer.control(adapter) for name, adapter in adapters.items()} if arguments.controlled else {}
    return {
        "rows": len(examples),
        "scores": found,
        "controlled": controlled,
        "gate": {path.name: gate(arguments, adapters["sft"], path) for path in arguments.adapter},
        "titles": shown,
    }


def gate(arguments: argparse.Namespace, sft_adapter: Path, preferred: Path) -> dict[str, Any]:
    """Return what the stage's own gate says, on the validation split alone."""
    examples = read(arguments, "val")
    settings = EvaluateSettings(batch_size=arguments.batch_size)
    contents = [example.content for example in examples]
    theirs, ours = (
        TransformersGenerator(arguments.base, adapter, settings).generate(contents)
        for adapter in (sft_adapter, preferred)
    )
    return decide(examples, theirs, ours, resamples=1000, seed=7).model_dump(mode="json")


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what is kept: flat figures, every variant on validation, and what was measured on the test split.

    Titles are not: they are, or may be copied from, other people's text.
    """

    def load(path: Path) -> dict[str, Any]:
        return dict(json.loads(path.read_bytes(), object_hook=_without_titles))

    metrics: dict[str, float] = {}
    found: dict[str, Any] = {"validation": {}, "test": {}, "gate": {}, "controlled": {}, "test_run": {}}
    origin: dict[str, Any] = {}
    for path in sorted({*arguments.out.glob("trial-*.json")} - {*arguments.out.glob("*.partial.json")}):
        content = load(path)
        origin = {key: content[key] for key in ("device", "date", "versions")}
        for name, entry in content["variants"].items():
            found["validation"][name] = entry["validation"] | {"given": entry.get("given", {})}
            metrics[f"validation_rougeL_{_flat(name)}"] = entry["validation"]["greedy"]["rougeL"]
            metrics[f"validation_chars_{_flat(name)}"] = entry["validation"]["greedy"]["chars"]
            if training := entry.get("training"):
                metrics[f"tok_s_{_flat(name)}"] = training["tokens_per_s"]
    for path in sorted(arguments.out.glob("sft-*.json")):
        validation = load(path)["validation"]
        found["validation"][path.stem] = validation
        metrics[f"validation_rougeL_{_flat(path.stem)}"] = validation["greedy"]["rougeL"]
    apart: list[list[float]] = []
    for path in sorted(arguments.out.glob("final-*.json")):
        content, name = load(path), path.stem.removeprefix("final-")
        (chosen,) = {key.partition(",")[0] for key in content["scores"]} - {"sft"}
        for key, label in (("sft", "_sft"), (chosen, "")):
            metrics[f"rougeL{label}_{name}"] = content["scores"][f"{key}, greedy"]["rougeL"][0]
            metrics[f"rougeL_of_8{label}_{name}"] = content["scores"][f"{key}, best of 8"]["rougeL"][0]
        _, low, high = content["scores"][f"{chosen}, greedy"]["difference"]
        metrics |= {f"difference_low_{name}": low, f"difference_high_{name}": high}
        apart.append(content["scores"][f"{chosen}, greedy"].get("differences", []))
        found["test"][name], found["gate"][name] = content["scores"], content["gate"]
        found["controlled"][name] = content["controlled"]
        for adapter, asked in content["controlled"].items():
            metrics |= {f"{key}{'_sft' if adapter == 'sft' else ''}_{name}": value for key, value in asked.items()}
        found["test_run"] = {key: content[key] for key in ("device", "date", "versions")}
    if len(apart) > 1 and all(apart):
        metrics |= pool(apart)
    return {
        "name": arguments.name,
        "metrics": metrics,
        **{key: value for key, value in found.items() if value},
        **origin,
        "notes": arguments.notes,
    }


def pool(apart: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the mean paired difference over seeds, with its interval: articles are drawn, each with all of its seeds.

    Args:
        apart: for each seed the difference of each article's scores; the same articles, in the same order.
    """
    import numpy as np

    of_article = np.asarray(apart).mean(0)
    sums = resample_sums(of_article[:, None], 1000, 7)
    low, high = bootstrap_interval(sums[:, 0] / len(of_article), len(of_article))
    return {
        "difference": float(of_article.mean().round(4)),
        "difference_low": round(low, 4),
        "difference_high": round(high, 4),
    }


def _without_titles(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if not key.startswith("shown")}


def _flat(name: str) -> str:
    return name.replace("-", "_").replace(".", "")


class Scorer:
    """Scores of an adapter's titles on the validation articles."""

    def __init__(self, arguments: argparse.Namespace, examples: Sequence[Example] | None = None) -> None:
        self.arguments = arguments
        self.examples = list(examples or read(arguments, "val", "more"))
        self.texts = [Text(example.title, example.content, example.date) for example in self.examples]
        self.reference: Any = None
        words = arguments.data / "words.json"
        self.words: dict[str, str] = json.loads(words.read_bytes()) if words.is_file() else {}

    def score(self, adapter: Path) -> dict[str, Any]:
        """Return the scores of greedy titles, and of the best of several; the first adapter is the others' measure."""
        found: dict[str, Any] = {}
        for label, number in (("greedy", 1), ("best", self.arguments.best_of)):
            if number:
                titles = self._write(adapter, [example.content for example in self.examples], number)
                statistics = measure_titles(titles, self.texts)
                scores = estimate_scores(statistics, 200, 7)
                found[label] = {name: round(scores[name].value, 4) for name in _SCORES}
                chars = [len(title) for title in titles]
                found[label]["chars"] = round(sum(chars) / len(chars), 1)
                if label == "greedy":
                    values = statistics.column("rougeL")
                    found[label]["rougeL_val"] = round(float(values[: self._val].mean()), 4)
                    found[label]["shown"] = titles[:5]
        return found

    @property
    def _val(self) -> int:
        return len(read(self.arguments, "val"))

    def control(self, adapter: Path) -> dict[str, Any]:
        """Return how many titles are as asked for by constrained decoding, and their scores beside the greedy ones."""
        examples = self.examples[: self.arguments.controlled or None]
        texts = self.texts[: len(examples)]
        settings = EvaluateSettings(batch_size=min(_SEARCHED, self.arguments.batch_size))
        generator = TransformersGenerator(self.arguments.base, adapter, settings)
        found: dict[str, Any] = {}

        def measure(name: str, rows: Sequence[int], controls: Sequence[Control]) -> None:
            started = time.monotonic()
            titles = generator.search([examples[row].content for row in rows], controls)
            first = [given[0] if given else "" for given in titles]
            met = [bool(title) and not control.unmet(title) for title, control in zip(first, controls, strict=True)]
            found[name] = round(sum(met) / len(met), 4)
            scores = estimate_scores(measure_titles(first, [texts[row] for row in rows]), 200, 7)
            found[f"rougeL_{name}"] = round(scores["rougeL"].value, 4)
            found[f"{name}_s"] = round(time.monotonic() - started, 1)
            found[f"shown_{name}"] = [[texts[row].reference, title] for row, title in zip(rows, first, strict=True)]

        everyone = range(len(examples))
        for slot in (length.max_chars for length in LENGTHS):
            measure(f"in_slot_{slot}", everyone, [Control(slot)] * len(examples))
        asked = [row for row in everyone if self.words.get(examples[row].id)]
        if asked:
            words = [(self.words[examples[row].id],) for row in asked]
            measure("with_word", asked, [Control(None, word) for word in words])
            measure("with_word_in_slot_18", asked, [Control(18, word) for word in words])
        return found

    def _write(self, adapter: Path, contents: Sequence[str], number: int) -> list[str]:
        settings = EvaluateSettings(candidates=number, batch_size=self.arguments.batch_size)
        return TransformersGenerator(self.arguments.base, adapter, settings).generate(contents)


ROLES = {"sft": sft, "draw": draw, "trial": trial, "final": final, "report": report}

if __name__ == "__main__":
    main()
