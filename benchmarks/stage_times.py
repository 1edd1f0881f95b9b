"""Seconds of every stage of a finished run, read from its manifests; nothing runs.

``python benchmarks/stage_times.py outputs/quickstart`` after ``nox -s train push deploy`` on a machine with no other
work. ``titlegen plan`` scales these figures.
"""

import argparse
import datetime as dt
import json
import os
import platform
from pathlib import Path
from typing import Any

from machine import measured_folder

from titlegen.files import write_atomically
from titlegen.runs import Folder
from titlegen.stages import PIPELINE

NOTES = (
    "One run of nox -s train push deploy with the quickstart profile, read from the manifests of its stages; "
    "installation is not in it. train_s: the whole stage, train_start_s: its part before the first step. evaluate_s: "
    "evaluate_titles titles, half of them by the untuned model. served_s: served_titles titles from the bundled "
    "server, the untuned model's being at hand. gguf_params_s: parameters converted to Q8_0 a second. disk_gib: "
    "everything below the profile's folder."
)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, help="folder of the profile's outputs")
    folder: Path = parser.parse_args().run
    names = (*(stage.folder for stage in PIPELINE), Folder.REPORT, Folder.SERVED_REPORT)
    # A run without preference training has no folder for it; what is missing else is missed below.
    found = {name: folder / name / "manifest.json" for name in names}
    manifests: dict[str, dict[str, Any]] = {name: read(path) for name, path in found.items() if path.is_file()}
    results: dict[str, Any] = {name: manifest["results"] for name, manifest in manifests.items()}
    seconds: dict[str, float] = {name: result["elapsed_s"] for name, result in results.items()}
    push, deploy = read(folder / "push.json"), read(folder / "deploy.json")
    rows = results["report"]["report"]["rows"]
    total = sum(seconds.values()) + push["elapsed_s"] + deploy["elapsed_s"]
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    report = {
        "name": "quickstart",
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "date": dt.datetime.fromtimestamp((folder / "deploy.json").stat().st_mtime, dt.UTC).date().isoformat(),
        "versions": manifests["lora"]["versions"],
        "metrics": {
            "articles": results["data"]["rows"],
            "prepare_s": seconds["data"],
            "train_s": seconds["lora"],
            "train_start_s": round(seconds["lora"] - results["lora"]["train_s"], 2),
            "train_tok_s": results["lora"]["tokens_per_s"],
            "train_peak_gib": results["lora"]["peak_gib"],
            "merge_s": seconds["final-hf"],
            "gguf_s": seconds["gguf"],
            "gguf_params_s": round(results["final-hf"]["parameters"] / seconds["gguf"]),
            "verify_s": seconds["verify"],
            "verify_articles": manifests["verify"]["settings"]["verify_articles"],
            "evaluate_s": seconds["report"],
            "evaluate_titles": 2 * rows,
            "served_s": seconds["report-served"],
            "served_titles": rows,
            "push_s": push["elapsed_s"],
            "deploy_s": deploy["elapsed_s"],
            "total_s": round(total, 1),
            "disk_gib": round(disk / 2**30, 2),
        },
        "notes": NOTES,
    }
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(measured_folder() / "quickstart.json", text)
    print(text)


if __name__ == "__main__":
    main()
