"""Merge, BF16 GGUF and verification of a full-size E4B of Gemma 3n or 4 with random weights: seconds, and host memory.

``python benchmarks/gpu_export.py OUT --tokenizer DIR --articles FILE [--work DIR] [--family gemma4] [--small]`` writes
OUT/export_e4b.json (or export_gemma4_e4b.json) after each step. Each step runs in a process of its own, whose memory is
looked at while it runs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from gpu_train import TARGETS
from machine import device_name
from random_e4b import FAMILIES, copy_tokenizer, random_model, text_config, unread_weights

ROOT = Path(__file__).resolve().parents[1]
_GIB = 2**30
_POLL_S = 0.1
_RANK, _ALPHA = 16, 32

MERGE = """
from titlegen.export import merge_adapter
from titlegen.settings import ExportSettings
target = work / "final-hf"
target.mkdir()
print(merge_adapter(work / "base", work / "adapter", ExportSettings(), target).as_json())
"""
CONVERT = """
from titlegen.export import gguf_name, write_gguf
(work / "gguf").mkdir()
write_gguf(work / "final-hf", "bf16", work / "gguf" / gguf_name("bf16"))
"""
VERIFY = """
import json
from dataclasses import asdict
from titlegen.verify import verify
rows = [json.loads(line) for line in open(articles, encoding="utf-8")][:1000]
contents, titles = [row["content"] for row in rows], [row["title"] for row in rows]
checks = verify(
    work / "final-hf", work / "base", work / "adapter", sorted((work / "gguf").glob("*.gguf")), contents, titles,
    greedy_articles=2,
).checks
(work / "checks.json").write_text(json.dumps([asdict(check) for check in checks]))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("outputs/gpu-export"))
    parser.add_argument("--family", default="gemma3n", choices=FAMILIES)
    parser.add_argument("--small", action="store_true", help="few and narrow layers, to try this script")
    arguments = parser.parse_args()
    work: Path = arguments.work
    names = {"gemma3n": "export_e4b.json", "gemma4": "export_gemma4_e4b.json"}
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    build(work / "base", arguments.tokenizer, arguments.family, small=arguments.small)
    add_adapter(work / "base", work / "adapter")
    found: dict[str, Any] = {"machine": device_name(), "date": time.strftime("%Y-%m-%d"), "steps": {}}
    found["versions"] = {name: metadata.version(name) for name in ("torch", "transformers", "gguf", "xllamacpp")}
    shards = [path.stat().st_size / _GIB for path in (work / "base").glob("*.safetensors")]
    found |= {"largest_shard_gib": round(max(shards), 2), "model_gib": round(sum(shards), 2)}
    for name, code in (("merge", MERGE), ("gguf", CONVERT), ("verify", VERIFY)):
        found["steps"][name] = run(code, work, arguments.articles)
        if name == "verify":
            found["checks"] = json.loads((work / "checks.json").read_bytes())
        found["seconds"] = round(sum(step["seconds"] for step in found["steps"].values()), 1)
        (arguments.out / names[arguments.family]).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        sys.stdout.write(f"{name}: {found['steps'][name]}\n")
        sys.stdout.flush()


def build(directory: Path, tokenizer: Path, family: str, *, small: bool) -> None:
    """Write a random model as the published ones are: with the keys and values that no layer reads."""
    import torch
    from safetensors.torch import save_file

    config = text_config(family, small=small)
    model = random_model(config)
    model.save_pretrained(directory, max_shard_size="4GB")
    fields = json.loads((directory / "config.json").read_bytes())
    if family == "gemma3n":
        # The name under which Ollama imports the text weights.
        fields["architectures"] = ["Gemma3nForConditionalGeneration"]
    (directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if single.is_file():
        from safetensors import safe_open

        with safe_open(single, framework="pt") as file:
            weight_map = dict.fromkeys(file.keys(), single.name)
    else:
        weight_map = json.loads(index.read_bytes())["weight_map"]
    unread = {
        name: 0.02 * torch.randn(shape) if len(shape) > 1 else torch.ones(shape)
        for name, shape in unread_weights(config)
    }
    save_file(unread, directory / "model-unread.safetensors", metadata={"format": "pt"})
    weight_map |= dict.fromkeys(unread, "model-unread.safetensors")
    size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
    copy_tokenizer(tokenizer, directory, family)


def add_adapter(base: Path, directory: Path) -> None:
    """Write an adapter with random A and B for the layers that a training changes, as PEFT does."""
    import torch
    from peft import LoraConfig
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {}
    for shard in base.glob("*.safetensors"):
        if shard.name == "model-unread.safetensors":
            continue
        with safe_open(shard, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                name = key.removesuffix(".weight")
                if name.rpartition(".")[2] in TARGETS and ".layers." in name:
                    rows, columns = file.get_slice(key).get_shape()
                    tensors[f"base_model.model.{name}.lora_A.weight"] = 0.02 * torch.randn(_RANK, columns)
                    tensors[f"base_model.model.{name}.lora_B.weight"] = 0.02 * torch.randn(rows, _RANK)
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM").save_pretrained(directory)


def run(code: str, work: Path, articles: Path) -> dict[str, Any]:
    """Run a step and return its seconds and the most host memory of its processes, GiB."""
    head = f"from pathlib import Path\nwork, articles = Path({str(work)!r}), Path({str(articles)!r})\n"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", head + code], env=environment)  # noqa: S603
    peak = {"anonymous": 0.0, "resident": 0.0}
    thread = threading.Thread(target=_watch, args=(process, peak))
    thread.start()
    code_of_exit = process.wait()
    thread.join()
    if code_of_exit:
        raise SystemExit(f"exit code {code_of_exit}")
    seconds = round(time.monotonic() - started, 1)
    return {"seconds": seconds, "peak_host_gib": {name: round(value, 2) for name, value in peak.items()}}


def _watch(process: "subprocess.Popen[bytes]", peak: dict[str, float]) -> None:
    import psutil

    while process.poll() is None:
        total = dict.fromkeys(peak, 0.0)
        try:
            parent = psutil.Process(process.pid)
            for part in [parent, *parent.children(recursive=True)]:
                status = Path(f"/proc/{part.pid}/status").read_text(encoding="ascii")
                fields = dict(line.split(":", 1) for line in status.splitlines())
                # Pages of mapped files are the kernel's to take back; the rest is what the process needs.
                for name, field in (("anonymous", "RssAnon"), ("resident", "VmRSS")):
                    total[name] += int(fields.get(field, "0").split()[0]) * 1024 / _GIB
        except (psutil.Error, OSError):
            continue
        for name, value in total.items():
            peak[name] = max(peak[name], value)
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
