"""Titles for millions of articles on Ray, with the cleaning, prompt, ranking and records of a single machine."""

from titlegen.cluster.run import DirectoryTitles, generate_directory

__all__ = ["DirectoryTitles", "generate_directory"]
