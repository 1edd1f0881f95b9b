"""What drawing again for doubtful titles gains.

    python benchmarks/redraw.py OUT --model outputs/quickstart/final-hf --articles corpus=FILE releases=FILE

Each FILE is a split (JSONL) as ``titlegen prepare`` writes it; ``--rows`` of its articles are drawn with ``--seed``.
For every article the greedy title is written, and for a doubtful one the most of ``--numbers`` others; what fewer would
have given is read off the first of these. OUT/redraw.json becomes the scores for each number, OUT/NAME-N.jsonl the
titles (id and prediction), for ``benchmarks/reading.py``. An interrupted run goes on from OUT/NAME.partial.json.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from machine import write_report

from titlegen import environment
from titlegen.data import Example, load_split
from titlegen.files import write_atomically
from titlegen.metrics.ranking import choose_title, is_doubtful
from titlegen.metrics.records import Text
from titlegen.metrics.scores import measure_titles, score_titles
from titlegen.metrics.title_warnings import Facts
from titlegen.settings import EvaluateSettings

_SCORES = ("rougeL", "bleu1", "length_rate", "title_only_rate", "number_support")
_AT_A_TIME = 16


def main() -> None:
    """Write titles for each split, and score them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="directory of the merged model")
    parser.add_argument("--articles", nargs="+", required=True, help="NAME=SPLIT.jsonl")
    parser.add_argument("--numbers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    # Before torch is loaded.
    environment.prepare()
    environment.prepare_threads()
    metrics: dict[str, float] = {}
    for item in arguments.articles:
        name, _, path = item.partition("=")
        examples = sorted(load_split(Path(path).parent, Path(path).stem), key=lambda example: example.id)
        examples = random.Random(arguments.seed).sample(examples, min(arguments.rows, len(examples)))
        written = _write(arguments, name, examples)
        metrics |= {f"{name}_{key}": value for key, value in _score(arguments, name, examples, written).items()}
    found = {
        "metrics": {key: round(value, 4) for key, value in metrics.items()},
        "notes": "The scores behind _N are those with N titles drawn where the first is doubtful.",
    }
    write_report(arguments.out / "redraw.json", found, "titlegen", "torch", "transformers")


def _write(arguments: argparse.Namespace, name: str, examples: list[Example]) -> dict[str, dict[str, Any]]:
    """Return the titles of each article by its id."""
    from titlegen.generation import TransformersGenerator

    partial = arguments.out / f"{name}.partial.json"
    done: dict[str, dict[str, Any]] = json.loads(partial.read_bytes()) if partial.is_file() else {}
    most = max(arguments.numbers)
    generator = TransformersGenerator(arguments.model, None, EvaluateSettings(batch_size=_AT_A_TIME), redraws=most)
    # Long ones beside long ones: little is read for nothing.
    pending = sorted((example for example in examples if example.id not in done), key=lambda e: (-len(e.content), e.id))
    for start in range(0, len(pending), _AT_A_TIME):
        batch = pending[start : start + _AT_A_TIME]
        firsts = [first.text for first, *_ in generator.draft([example.content for example in batch])]
        again = [
            example for example, first in zip(batch, firsts, strict=True) if is_doubtful(first, Facts(example.content))
        ]
        drawn = dict(
            zip(
                (example.id for example in again),
                generator.redraw([example.content for example in again]),
                strict=True,
            )
        )
        for example, first in zip(batch, firsts, strict=True):
            others = [draft.text for draft in drawn.get(example.id, ()) if draft.ended]
            done[example.id] = {"titles": [first, *others], "doubtful": example.id in drawn}
        write_atomically(partial, json.dumps(done, ensure_ascii=False))
        sys.stderr.write(f"{name}: {len(done)} of {len(examples)}\n")
    return done


def _score(
    arguments: argparse.Namespace, name: str, examples: list[Example], written: dict[str, dict[str, Any]]
) -> dict[str, float]:
    texts = [Text(example.title, example.content, example.date) for example in examples]
    rows = [written[example.id] for example in examples]
    doubtful = [row for row in rows if row["doubtful"]]
    found: dict[str, float] = {
        "rows": len(rows),
        "doubtful": len(doubtful),
    }
    for number in arguments.numbers:
        chosen = []
        for example, row in zip(examples, rows, strict=True):
            titles = row["titles"][: number + 1]
            chosen.append(titles[choose_title(titles[0], titles[1:], Facts(example.content))])
        lines = [
            json.dumps({"id": example.id, "prediction": title}, ensure_ascii=False) + "\n"
            for example, title in zip(examples, chosen, strict=True)
        ]
        write_atomically(arguments.out / f"{name}-{number}.jsonl", "".join(lines))
        scores = score_titles(measure_titles(chosen, texts))
        found |= {f"{score}_{number}": scores[score] for score in _SCORES}
        found[f"replaced_{number}"] = sum(title != row["titles"][0] for title, row in zip(chosen, rows, strict=True))
    return found


if __name__ == "__main__":
    main()
