"""Prepare train, val and test: `titlegen prepare` under the specification's name."""

import sys

from titlegen.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
