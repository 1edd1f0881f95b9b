"""How good titles are on articles that a model never saw, beside Lead-1 and the untuned base model.

    python benchmarks/generalise.py OUT ARTICLES --model outputs/quickstart/final-hf

ARTICLES is any data set that ``titlegen prepare`` reads; of its articles ``--rows`` are drawn with ``--seed``. OUT
becomes the result, with intervals, and thirty titles for reading, without those that are copied word for word. With
``--corpus`` the scores of an evaluation's report.json on the model's own test split stand beside them.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

from machine import write_report

from titlegen.data import Example, load_split, prepare
from titlegen.evaluate import evaluate, read_predictions
from titlegen.generation import TransformersGenerator
from titlegen.models import resolve_base
from titlegen.results import EvaluationReport
from titlegen.settings import DataSettings, EvaluateSettings, ModelSettings

_SHOWN = 30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("articles", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="directory of the merged model")
    parser.add_argument("--base", default="embedded", help="the untuned base model")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--candidates", type=int, default=1, help="score the best of so many titles")
    parser.add_argument(
        "--redraws", type=int, default=4, help="serve.redraws; 0 scores what POST /api/generate answers"
    )
    parser.add_argument("--max-content-tokens", type=int, default=512)
    parser.add_argument("--predictions", type=Path, help="titles made elsewhere, in place of the model's")
    parser.add_argument("--corpus", type=Path, help="report.json of the model's own test split")
    arguments = parser.parse_args()
    base = resolve_base(ModelSettings(base=arguments.base))
    examples = draw_examples(arguments, base / "tokenizer.json")
    contents = [example.content for example in examples]
    settings = EvaluateSettings(candidates=arguments.candidates, batch_size=16)
    if arguments.predictions:
        titles = read_predictions(arguments.predictions, examples)
    else:
        titles = TransformersGenerator(arguments.model, None, settings, arguments.redraws).generate(contents)
    untuned = TransformersGenerator(base, None, EvaluateSettings(batch_size=16)).generate(contents)
    report = evaluate(examples, titles, settings, base_predictions=untuned).content
    score, lead = report.scores["rougeL"], report.baselines["lead1"]
    metrics = {
        "rows": len(examples),
        "candidates": arguments.candidates,
        "redraws": arguments.redraws,
        "rougeL": score.value,
        "rougeL_low": score.low,
        "rougeL_high": score.high,
        "bleu1": report.scores["bleu1"].value,
        "rougeL_lead1": lead["rougeL"],
        "ratio": score.value / lead["rougeL"],
        "rougeL_untuned": report.baselines["base_model"]["rougeL"],
        "number_support": report.scores["number_support"].value,
        "title_only_rate": report.scores["title_only_rate"].value,
        "length_rate": report.scores["length_rate"].value,
    }
    if arguments.corpus:
        own = EvaluationReport.model_validate_json(arguments.corpus.read_bytes())
        metrics |= {f"corpus_{name}": own.scores[name].value for name in ("rougeL", "bleu1")}
        metrics["corpus_rows"] = own.rows
    found = {
        "metrics": {name: round(value, 4) for name, value in metrics.items()},
        "notes": f"{len(examples)} articles of {arguments.articles.name}, seed {arguments.seed}, at most "
        f"{arguments.max_content_tokens} tokens each; none of them was seen in training.",
        "titles": [
            # Not what the untuned model writes, which repeats the article, nor what is copied from it word for word.
            {"id": example.id, "title": None if title in f"{example.title}\n{example.content}" else title}
            for example, title in list(zip(examples, titles, strict=True))[:_SHOWN]
        ],
    }
    write_report(arguments.out, found, "titlegen", "torch", "transformers", name="generalise")


def draw_examples(arguments: Any, tokenizer: Path) -> list[Example]:
    """Return the articles, cleaned and shortened as for training, in an order that depends on the seed alone."""
    settings = DataSettings(
        source=str(arguments.articles),
        val_share=0.0,
        test_share=0.0,
        max_content_tokens=arguments.max_content_tokens,
    )
    with tempfile.TemporaryDirectory() as folder:
        prepare(settings, tokenizer, Path(folder))
        examples = sorted(load_split(Path(folder), "train"), key=lambda example: example.id)
    return random.Random(arguments.seed).sample(examples, min(arguments.rows, len(examples)))


if __name__ == "__main__":
    main()
