"""Fit the adapter: ``titlegen train`` under the specification's name, on the mission's profile."""

import sys

from titlegen.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", "--profile", "gemma3n-e4b", *sys.argv[1:]]))
