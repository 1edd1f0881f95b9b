"""The figures behind the estimates: measured, or assumed."""

import json
from importlib import resources

# Measured by the scripts in benchmarks/: FILE.METRIC of benchmarks/results, from where benchmarks/keep.py brings them.
MEASURED: dict[str, float] = json.loads((resources.files("titlegen") / "plan" / "measured.json").read_bytes())
# Source: docs/performance.md, "When compiling pays".
UNCOMPILED_TOK_S = 8200.0

# Assumed, not measured; wherever one of these is used, the plan says so.
NETWORK_MIB_S = 50.0
GPU_STEPS_S = 20.0
LLAMA_CPU_TITLE_S = 20.0
SERVED_TITLE_S = 0.5
BESIDE_MODEL_GIB = 1.0

# push_speed.dd_s is the time for this much.
_DD_MIB = 2048


def cite(*names: str) -> str:
    """Return measured figures with their place."""
    return f"benchmarks/results: {', '.join(f'{name} = {MEASURED[name]:,.10g}' for name in names)}"


def disk_minutes(gib: float) -> float:
    """Return the minutes that the disk takes to write so much."""
    return gib * 1024 / _DD_MIB * MEASURED["push_speed.dd_s"] / 60


def network_minutes(gib: float) -> float:
    """Return how long a download or upload takes, at the assumed speed."""
    return gib * 1024 / NETWORK_MIB_S / 60
