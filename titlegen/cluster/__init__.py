"""Titles for millions of articles on Ray, with the cleaning, prompt, ranking and records of a single machine."""

from titlegen.cluster.run import generate_directory

__all__ = ["generate_directory"]
