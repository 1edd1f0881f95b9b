"""What this machine's processor can do, as far as libraries choose their code by it."""

import platform
from pathlib import Path

from titlegen.environment import processor_limits

# Those by which torch, oneDNN, bitsandbytes, numpy and llama.cpp choose, x86's first.
_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve", "sve2", "i8mm", "bf16"),
)
_CPUINFO = Path("/proc/cpuinfo")


def describe_processor(cpuinfo: Path = _CPUINFO) -> str:
    """Return model and features of the processor, and what the environment forbids libraries to use of them."""
    fields: dict[str, str] = {}
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        for name, _, value in (line.partition(":") for line in lines):
            # The first core stands for all.
            fields.setdefault(name.strip(), value.strip())
    has = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    found = [feature for feature in _FEATURES if feature in has]
    text = f"{fields.get('model name') or platform.machine()}, {' '.join(found) or 'no features known'}"
    limits = [f"{name}={value}" for name, value in processor_limits().items()]
    return f"{text}; limited by {', '.join(limits)}" if limits else text
