"""An adapter for Gemma 3 270M from open press releases and the corpus's train split, on one NVIDIA card.

    python benchmarks/gpu_starter.py OUT --name NAME --base DIR --train FILE --val FILE --articles FILE --set K=V

The files are splits as ``titlegen prepare`` writes them. OUT/NAME/ becomes the adapter in bfloat16, as it is shipped in
``titlegen/starter``; OUT/NAME.json tells how it was made and holds its titles for each file of ``--articles``, greedy
and the best of ``--candidates``. Which settings are best is decided on validation articles alone.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from machine import describe_run

from titlegen.adapter import CONFIG, WEIGHTS, round_adapter
from titlegen.data import Example, load_split
from titlegen.generation import TransformersGenerator
from titlegen.settings import EvaluateSettings, TrainSettings
from titlegen.train import fit


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="learned from together")
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--articles", type=Path, nargs="*", default=[])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=100, help="articles whose titles are written at a time")
    parser.add_argument("--set", nargs="*", default=[], help="settings of training, KEY=VALUE")
    arguments = parser.parse_args()
    changes = dict(item.split("=", 1) for item in arguments.set)
    settings = TrainSettings.model_validate({"backend": "peft", "load_in_4bit": False, **changes})
    work = arguments.out / f".{arguments.name}"
    shutil.rmtree(work, ignore_errors=True)
    adapter, shipped = work / "adapter", arguments.out / arguments.name
    adapter.mkdir(parents=True)
    started = time.monotonic()
    train = [example for path in arguments.train for example in _read(path)]
    val = _read(arguments.val)
    results = fit(train, val, arguments.base, settings, work / "checkpoints", adapter)
    round_adapter(adapter)
    shipped.mkdir(exist_ok=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(adapter / name, shipped / name)
    found = describe_run(arguments.name, "torch", "transformers", "peft", "trl") | {
        "settings": settings.model_dump(mode="json"),
        "training": {key: value for key, value in results.as_json().items() if key != "plan"},
        "seconds": round(time.monotonic() - started, 1),
        "titles": {path.stem: _titles(arguments, shipped, _read(path)) for path in arguments.articles},
    }
    text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    (arguments.out / f"{arguments.name}.json").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{arguments.name}: {found['seconds']} s, val_loss {results.val_loss}\n")
    shutil.rmtree(work)


def _read(path: Path) -> list[Example]:
    return load_split(path.parent, path.stem)


def _titles(arguments: argparse.Namespace, adapter: Path, examples: list[Example]) -> dict[str, dict[str, str]]:
    """Return the greedy titles, and the best of several, by the article's id."""
    found = {}
    for label, number in (("greedy", 1), ("candidates", arguments.candidates)):
        settings = EvaluateSettings(candidates=number, batch_size=arguments.batch_size)
        generator = TransformersGenerator(arguments.base, adapter, settings)
        titles = generator.generate([example.content for example in examples])
        found[label] = {example.id: title for example, title in zip(examples, titles, strict=True)}
    return found


if __name__ == "__main__":
    main()
