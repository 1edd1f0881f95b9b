"""Publish an export as it is, under the specification's name: no stage runs, so neither GPU nor torch is needed.

HF_TOKEN, HF_ORG and HF_REPO say who publishes where; ``titlegen push`` does the same after bringing stages up to date.
"""

import argparse
import sys
from pathlib import Path

from titlegen import hub
from titlegen.errors import TitlegenError
from titlegen.release import artefacts
from titlegen.runs import Run
from titlegen.settings import load_settings

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="gemma3n-e4b")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    try:
        settings = load_settings(**vars(parser.parse_args()))
        run = Run(settings)
        target = hub.ensure_hub(settings.hub, run.state, settings.profile)
        print(hub.push_model(target, artefacts(run), settings)["url"])  # noqa: T201 - the result
    except TitlegenError as error:
        sys.exit(str(error))
