"""Merge the adapter into a Hugging Face directory and GGUF: ``titlegen export`` under the specification's name."""

import os
import sys

from titlegen.cli import main

if __name__ == "__main__":
    # What the command line says comes before the environment.
    os.environ.setdefault("TITLEGEN_PROFILE", "gemma3n-e4b")
    sys.exit(main(["export", *sys.argv[1:]]))
