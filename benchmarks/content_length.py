"""Titles for articles that are longer than those the model was trained on: cut to that length, and whole.

``python benchmarks/content_length.py outputs/quickstart``; the merged model of a run and its test articles, of
which the corpus has the whole text. Greedy titles in this process, scored against the references; the differences have
95% intervals over the same articles.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path

from machine import write_result

from titlegen.data import load_split
from titlegen.data.shorten import load_counter, shorten
from titlegen.data.sources import open_source
from titlegen.evaluate import evaluate
from titlegen.generation import TransformersGenerator
from titlegen.manifest import read_manifest
from titlegen.metrics.scores import compare_scores
from titlegen.settings import EMBEDDED, DataSettings, load_settings
from titlegen.text import clean_content

_SHOWN = ("rougeL", "bleu1", "title_only_rate", "length_rate")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("outputs", type=Path)
    arguments = parser.parse_args()
    folder = arguments.outputs
    budget = read_manifest(folder / "data").settings["max_content_tokens"]
    count = load_counter(folder / "final-hf" / "tokenizer.json")
    whole = {row.title: clean_content(row.content) for row in open_source(DataSettings(source=EMBEDDED)).rows}
    examples = [example for example in load_split(folder / "data", "test") if example.title in whole]
    settings = load_settings(profile="quickstart").evaluate
    generator = TransformersGenerator(folder / "final-hf", None, settings)
    articles = {
        "trained": [shorten(whole[example.title], budget, "truncate", count) for example in examples],
        "whole": [whole[example.title] for example in examples],
    }
    titles = {name: generator.generate(texts) for name, texts in articles.items()}
    full = [dataclasses.replace(example, content=whole[example.title]) for example in examples]
    found = {name: evaluate(full, written, settings).statistics for name, written in titles.items()}
    metrics = {f"{name}_tokens": statistics.mean(map(count, texts)) for name, texts in articles.items()}
    for name, difference in compare_scores(found["trained"], found["whole"], settings.resamples, settings.seed).items():
        if name in _SHOWN:
            metrics[f"{name}_gain"] = difference.value
            metrics |= {f"{name}_gain_low": difference.low, f"{name}_gain_high": difference.high}
    metrics["equal_titles"] = sum(a == b for a, b in zip(titles["whole"], titles["trained"], strict=True)) / len(full)
    path = write_result(
        "content_length",
        metrics,
        f"{len(full)} test articles of the embedded corpus, the merged quickstart model, greedy: scores of titles for "
        f"articles cut to the {budget} tokens that the model was trained with, minus those for whole articles, with "
        "95% intervals over the same articles; equal_titles: share of articles with the same title either way.",
        "torch",
        "transformers",
    )
    print(path)


if __name__ == "__main__":
    main()
