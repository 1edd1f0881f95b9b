"""From any collection of zh-TW articles to train, val and test: read, clean, filter, deduplicate, shorten, split."""

from titlegen.data.example import Example, load_split
from titlegen.data.prepare import prepare
from titlegen.data.sources import source_digest

__all__ = ["Example", "load_split", "prepare", "source_digest"]
