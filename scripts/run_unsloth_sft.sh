#!/usr/bin/env bash
# Prepare, fit, merge and prove, in the specification's order; arguments go to every step.
set -euo pipefail
cd "$(dirname "$0")/.."
# One profile for every step, unless the arguments name another.
export TITLEGEN_PROFILE="${TITLEGEN_PROFILE:-gemma3n-e4b}"

python scripts/prepare_dataset.py "$@"
python scripts/train_unsloth_sft.py "$@"
python scripts/export_merged_hf_unsloth.py "$@"
# Nothing is uploaded that is not proven.
titlegen verify "$@"
