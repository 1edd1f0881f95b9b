"""Take measured figures into the project: ``python benchmarks/keep.py NAME...``, after looking at them.

A benchmark writes ``outputs/benchmarks/NAME.json``. Documents and the estimates of ``titlegen plan`` rest on the files
in ``benchmarks/results``; both change only here, so that a run for its own sake leaves the project as it was.
"""

import json
import sys
from pathlib import Path

from machine import measured_folder

from titlegen.files import write_atomically

RESULTS = Path(__file__).resolve().parent / "results"
# Of each file, the figures that `titlegen plan` uses.
PLANNED = RESULTS.parents[1] / "titlegen" / "plan" / "measured.json"


def keep(name: str) -> str:
    """Put a measured file in the place of the project's, and return what changed, one line a figure.

    Raises:
        SystemExit: nothing of that name was measured, or not every figure that the project has.
    """
    source, target = measured_folder() / f"{name}.json", RESULTS / f"{name}.json"
    if not source.is_file():
        measured = ", ".join(sorted(path.stem for path in measured_folder().glob("*.json"))) or "nothing"
        raise SystemExit(f"{source} does not exist; measured is: {measured}")
    text = source.read_text(encoding="utf-8")
    new = json.loads(text)["metrics"]
    old = json.loads(target.read_bytes())["metrics"] if target.is_file() else {}
    if missing := sorted(old.keys() - new.keys()):
        raise SystemExit(f"{source} lacks {', '.join(missing)}, which {target.name} has; run the whole benchmark first")
    write_atomically(target, text)
    planned = json.loads(PLANNED.read_bytes())
    used = {key: new[key.partition(".")[2]] for key in planned if key.startswith(f"{name}.")}
    write_atomically(PLANNED, json.dumps(planned | used, indent=2) + "\n")
    changed = [f"  {key}: {old.get(key, '-')} -> {value}" for key, value in new.items() if old.get(key) != value]
    return "\n".join([str(target), *changed])


def main() -> None:
    """Keep every benchmark that is named."""
    if len(sys.argv) == 1:
        raise SystemExit(__doc__)
    for name in sys.argv[1:]:
        print(keep(name))


if __name__ == "__main__":
    main()
