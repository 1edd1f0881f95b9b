"""Publish an export as it is, under the specification's name: no stage runs, so neither GPU nor torch is needed.

HF_TOKEN, HF_ORG and HF_REPO say who publishes where; ``titlegen push`` does the same after bringing stages up to date.
"""

import argparse
import os
import sys
from pathlib import Path

from titlegen import hub
from titlegen.errors import TitlegenError
from titlegen.record import recall
from titlegen.release import artefacts
from titlegen.runs import Run
from titlegen.settings import load_settings

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument("--profile", help="profile that the export was made with (default: gemma3n-e4b)")
    parser.add_argument("--output", type=Path, help="folder of the outputs (default: outputs)")
    given = vars(parser.parse_args())
    os.environ.setdefault("TITLEGEN_PROFILE", "gemma3n-e4b")
    try:
        run = Run(recall(load_settings(**given)))
        target = hub.ensure_hub(run.settings.hub, run.state, run.settings.profile)
        print(hub.push_model(target, artefacts(run), run.settings).url)  # noqa: T201 - the result
    except TitlegenError as error:
        sys.exit(str(error))
