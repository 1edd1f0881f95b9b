"""The file that a server runs against the one that was exported."""

from __future__ import annotations

import re
from pathlib import Path

from titlegen.files import digest_file
from titlegen.gguf_reader import GgufError, GgufHeader, read_header
from titlegen.verify.check import Check

_FROM = re.compile(r"^FROM (.*sha256[-:]([0-9a-f]{64}))$", re.MULTILINE)
_BLOCK_BYTES = 16 * 2**20


def check_served_file(exported: Path, modelfile: str) -> Check:
    """The server runs the exported file: the same bytes, or the same keys and tensors in another order.

    Ollama passes an upload through llama.cpp, which may write it in an order of its own; a file is then compared where
    this machine can read it.

    Args:
        exported: the GGUF file that was exported.
        modelfile: the model's Modelfile as the server shows it, whose FROM line names the file that runs.
    """
    # Hashed now: a manifest could be of another file.
    digest = digest_file(exported)
    compared = f"{exported.name} (sha256 {digest[:12]}) against what the server runs"
    bound = "the same bytes, or the same keys and tensors"
    found = _FROM.search(modelfile)
    if found is None:
        return Check("served.file", compared, "unknown", bound, passed=False, detail="the server names no file")
    path, served = Path(found[1]), found[2]
    if served == digest:
        return Check("served.file", compared, "the same bytes", bound, passed=True)
    try:
        wrong = _differences(read_header(exported), read_header(path))
    except (GgufError, OSError) as error:
        advice = "deploy again, and run this on the server's machine"
        wrong = [f"the server runs sha256 {served[:12]}, which cannot be read here ({error}); {advice}"]
    figure = f"{len(wrong)} keys or tensors differ" if wrong else "the same keys and tensors in another order"
    return Check("served.file", compared, figure, bound, not wrong, "; ".join(wrong[:3]))


def _differences(exported: GgufHeader, served: GgufHeader) -> list[str]:
    wrong = [f"key {name}" for name in sorted(exported.fields.keys() ^ served.fields.keys())]
    shared = sorted(exported.fields.keys() & served.fields.keys())
    wrong += [f"key {name}" for name in shared if _key(exported, name) != _key(served, name)]
    ours, theirs = ({item["name"]: item for item in header.tensors} for header in (exported, served))
    wrong += [f"tensor {name}" for name in sorted(ours.keys() ^ theirs.keys())]
    return wrong + [
        f"tensor {name}"
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name] != theirs[name] or not _same_bytes(exported, served, name)
    ]


def _key(header: GgufHeader, name: str) -> str:
    value = header.fields[name]
    # A long array is not kept, and NaN is equal to nothing; so their texts are compared.
    return repr(header.strings(name) or header.numbers(name)) if value is None else repr(value)


def _same_bytes(exported: GgufHeader, served: GgufHeader, name: str) -> bool:
    import numpy as np

    one, other = (header.stored(name)[0].reshape(-1) for header in (exported, served))
    return len(one) == len(other) and all(
        np.array_equal(one[at : at + _BLOCK_BYTES], other[at : at + _BLOCK_BYTES])
        for at in range(0, len(one), _BLOCK_BYTES)
    )
