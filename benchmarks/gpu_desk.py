"""How long an editor waits for one article's titles on a GPU: Gemma 3 270M and E4B with random weights, our decoder.

``python benchmarks/gpu_desk.py OUT [--models 270m gemma3n gemma4] [--small]`` writes and prints OUT/desk_gpu.json;
``--small`` tries the script with narrow models, on the CPU as well.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import write_report
from random_e4b import FAMILIES, random_model, text_config, text_config_270m
from turns import Turns

from titlegen.generation.decoder import TitleDecoder
from titlegen.metrics.ranking import candidate_temperature

_SMALLEST, _TITLES = "270m", 5
# Nothing stops a title early.
_NO_TOKEN = -1
NOTES = (
    "Random weights in bfloat16, random tokens in; milliseconds from an article's tokens to those of its titles on the "
    "host, medians, in turn after two rounds to warm up, each round with another article. first: the greedy title, as "
    "the desk asks for it first. five_batch: five drawn titles as one batch, whose article is read once. five_in_turn: "
    "the greedy title, then four drawn ones one after another, of one reading. reading: until the first token. "
    "first_s: the first title of all, with what is loaded and recorded for it. Random weights copy nothing, so that "
    "tokens are looked up in the article in vain for a few passes; benchmarks/gpu_lookup.py measures what that saves. "
    "The page, the model server and HTTP are not in it; benchmarks/desk_speed.py measures them."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", choices=(_SMALLEST, *FAMILIES), default=[_SMALLEST, FAMILIES[0]])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--name", default="desk_gpu")
    parser.add_argument("--read", type=int, default=640, help="tokens of a prompt, at most")
    parser.add_argument("--write", type=int, default=21, help="tokens of a title")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    metrics: dict[str, float] = {}
    for name in arguments.models:
        small = arguments.small
        config = text_config_270m(small=small) if name == _SMALLEST else text_config(name, small=small)
        if small:
            # Their tables of tokens are most of such a model.
            config.vocab_size = config.vocab_size_per_layer_input = 1000
        metrics |= {f"{name}_{key}": value for key, value in measure(random_model(config).eval(), arguments).items()}
        if torch.cuda.is_available():
            metrics[f"{name}_peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    path = arguments.out / f"{arguments.name}.json"
    write_report(path, {"metrics": metrics, "notes": NOTES}, "torch", "transformers")


def measure(model: Any, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the times of every way to write an article's titles."""
    decoder, generator = TitleDecoder(model), torch.Generator().manual_seed(0)
    stop, length, drawn = {_NO_TOKEN}, arguments.write, candidate_temperature(0.0)

    def first(prompt: list[int]) -> list[list[int]]:
        return decoder.generate([prompt], stop, length)

    def five_batch(prompt: list[int]) -> list[list[int]]:
        return decoder.generate([prompt] * _TITLES, stop, length, drawn)

    def five_in_turn(prompt: list[int]) -> list[list[int]]:
        reading = decoder.read([prompt])
        return [decoder.write(reading, stop, length, drawn if number else 0.0)[0] for number in range(_TITLES)]

    def reading(prompt: list[int]) -> list[int]:
        tokens: list[int] = decoder.read([prompt]).logits.argmax(-1).tolist()
        return tokens

    ways: dict[str, Callable[[list[int]], Any]] = {
        "first": first,
        "five_batch": five_batch,
        "five_in_turn": five_in_turn,
        "reading": reading,
    }
    turns = Turns[str]()
    for number in range(arguments.rounds + 2):
        # Articles differ in length, within one shape of a recording.
        size = (arguments.read - number % 40,)
        prompt = torch.randint(5, model.config.vocab_size, size, generator=generator).tolist()
        for name, write in ways.items():
            turns(name, partial(write, prompt))
    medians = {f"{name}_ms": round(1000 * seconds, 1) for name, seconds in turns.medians(2).items()}
    return {"first_s": round(turns.seconds["first"][0], 3), **medians}


if __name__ == "__main__":
    main()
