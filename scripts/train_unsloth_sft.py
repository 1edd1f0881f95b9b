"""Fit the adapter: ``titlegen train`` under the specification's name, on the specification's profile."""

import os
import sys

from titlegen.cli import main

if __name__ == "__main__":
    # What the command line says comes before the environment.
    os.environ.setdefault("TITLEGEN_PROFILE", "gemma3n-e4b")
    sys.exit(main(["train", *sys.argv[1:]]))
