"""Titles with a length and with words from a deployed model: how many are as asked for, their scores, and the time.

    titlegen deploy && python benchmarks/controlled_cpu.py OUT [--output outputs] [--rows 40]

The articles are those of the test split. The words are pieces of the reference that its article has, too. OUT becomes
controlled_cpu.json, and OUT/controlled.jsonl the titles, for reading; what was written already is kept.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

from machine import write_report

from titlegen.control import NO_CONTROL, Control, common_runs
from titlegen.data import Example, load_split
from titlegen.metrics.records import Text
from titlegen.metrics.scores import measure_titles, score_titles
from titlegen.runs import Folder
from titlegen.serve import Client
from titlegen.settings import load_settings
from titlegen.slots import LENGTHS

_SCORES = ("rougeL", "length_rate", "clean_rate", "number_support")
_NOTES = (
    "greedy: nothing asked for, nothing drawn again. chars_N: up to N characters, at most four fewer; word: a piece of "
    "the reference that the article has; word_18: both. met: share of the titles that have it, the bundled server's "
    "answers, greedy. seconds: median. The other figures are scores against references of any length."
)


def main() -> None:
    """Ask for every article, and score."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    parser.add_argument("--rows", type=int, default=40)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = load_settings(output=arguments.output)
    examples = load_split(settings.directory / Folder.DATA, "test")[: arguments.rows]
    client = Client(settings.serve, settings.directory / Folder.EXPORT)
    path = arguments.out / "controlled.jsonl"
    written = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    records = {(record["id"], record["name"]): record for record in map(json.loads, written)}
    with path.open("a", encoding="utf-8") as file:
        for number, example in enumerate(examples, 1):
            for name, control in controls_for(example).items():
                if (example.id, name) not in records:
                    records[example.id, name] = {"id": example.id, "name": name} | ask_for(client, example, control)
                    file.write(json.dumps(records[example.id, name], ensure_ascii=False) + "\n")
                    file.flush()
            sys.stderr.write(f"{number} of {len(examples)} articles\n")
    metrics: dict[str, float] = {"articles": len(examples)}
    for name in ["greedy", *(f"chars_{length.max_chars}" for length in LENGTHS), "word", "word_18"]:
        rows = [(example, record) for example in examples if (record := records.get((example.id, name))) is not None]
        texts = [Text(example.title, example.content, example.date) for example, _ in rows]
        scores = score_titles(measure_titles([record["title"] for _, record in rows], texts))
        metrics |= {f"{name}_{key}": round(scores[key], 4) for key in _SCORES}
        metrics[f"{name}_met"] = round(statistics.mean(record["met"] for _, record in rows), 4)
        metrics[f"{name}_seconds"] = round(statistics.median(record["seconds"] for _, record in rows), 2)
    write_report(arguments.out / "controlled_cpu.json", {"metrics": metrics, "notes": _NOTES}, "titlegen", "xllamacpp")


def controls_for(example: Example) -> dict[str, Control]:
    """Return what is asked for, by name."""
    found = {"greedy": NO_CONTROL} | {f"chars_{length.max_chars}": Control(length.max_chars) for length in LENGTHS}
    runs = [run for run in common_runs(example.title, example.content) if run.isalnum() and not run.isascii()]
    if runs:
        word = random.Random(example.id).choice(runs)[:6]
        found |= {"word": Control(None, (word,)), "word_18": Control(18, (word,))}
    return found


def ask_for(client: Client, example: Example, control: Control) -> dict[str, object]:
    """Return one title, whether it is as asked for, and the seconds that it took."""
    read = client.read(example.content, control)
    started = time.perf_counter()
    answers = client.search(read, control) if control else [client.write_candidate(read, 0)]
    seconds = time.perf_counter() - started
    title = answers[0].title if answers else ""
    met = bool(title) and not control.unmet(title)
    return {"asked": [control.chars, *control.include], "title": title, "met": met, "seconds": round(seconds, 3)}


if __name__ == "__main__":
    main()
