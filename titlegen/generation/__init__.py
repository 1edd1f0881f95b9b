"""Titles from a model directory in this process: loading, the trimmed decoder, transformers' own way, candidates."""

from titlegen.generation.decoder import TitleDecoder
from titlegen.generation.generator import Advance, Draft, TransformersGenerator, unwatched
from titlegen.generation.spread import SpreadGenerator, open_generator
from titlegen.generation.transformers import greedy_title, least_rounding, load_model, write_tokens

__all__ = [
    "Advance",
    "Draft",
    "SpreadGenerator",
    "TitleDecoder",
    "TransformersGenerator",
    "greedy_title",
    "least_rounding",
    "load_model",
    "open_generator",
    "unwatched",
    "write_tokens",
]
