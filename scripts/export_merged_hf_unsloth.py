"""Merge the adapter into a Hugging Face directory and GGUF: ``titlegen export`` under the specification's name."""

import sys

from titlegen.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", "--profile", "gemma3n-e4b", *sys.argv[1:]]))
