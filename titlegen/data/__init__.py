"""From any collection of zh-TW articles to train, val and test: read, clean, filter, deduplicate, shorten, split."""

from titlegen.data.example import SPLITS, Example, load_split
from titlegen.data.prepare import prepare
from titlegen.data.sources import source_digest
from titlegen.data.untitled import load_untitled

__all__ = ["SPLITS", "Example", "load_split", "load_untitled", "prepare", "source_digest"]
