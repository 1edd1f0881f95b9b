"""The features of this machine's processor by which libraries choose their code."""

import platform
from pathlib import Path

from titlegen.environment import processor_limits

# Those by which torch, oneDNN, bitsandbytes, numpy and llama.cpp choose, x86's first.
_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve", "sve2", "i8mm", "bf16"),
)
# xllamacpp's llama.cpp is built for these; without them, the process ends with an illegal instruction.
_NEEDED = ("avx2", "fma", "f16c", "bmi2")
_CPUINFO = Path("/proc/cpuinfo")


def describe_processor(cpuinfo: Path = _CPUINFO) -> str:
    """Return model and features of the processor, and what the environment forbids libraries to use of them."""
    model, has = _read(cpuinfo)
    found = [feature for feature in _FEATURES if feature in has]
    text = f"{model}, {' '.join(found) or 'no features known'}"
    limits = [f"{name}={value}" for name, value in processor_limits().items()]
    return f"{text}; limited by {', '.join(limits)}" if limits else text


def missing_features(cpuinfo: Path = _CPUINFO) -> list[str]:
    """Return what the processor lacks to run the llama.cpp that titlegen installs; empty where that is not known."""
    has = _read(cpuinfo)[1]
    # Every x86-64 processor has it; another kind has other names, and a wheel of its own.
    return [feature for feature in _NEEDED if feature not in has] if "sse2" in has else []


def _read(cpuinfo: Path) -> tuple[str, set[str]]:
    """Return the model's name and the features of the first core, which stands for all."""
    fields: dict[str, str] = {}
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        for name, _, value in (line.partition(":") for line in lines):
            fields.setdefault(name.strip(), value.strip())
    features = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    return fields.get("model name") or platform.machine(), set(features)
