"""What must never be published: tokens, keys, and the names and paths of the machine and person that trained."""

import getpass
import mmap
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

# Tensors are numbers; what a person or program wrote stands in the head of such a file.
_GGUF_HEAD_BYTES = 2**24
_CONFIG_BYTES = 2**20
# Each pattern opens with letters of its own: `re` then searches about a gigabyte a second, else a fiftieth of that.
# Source: the token formats that each service documents.
_PATTERNS = (
    ("a Hugging Face token", rb"hf_[A-Za-z0-9]{30,}"),
    ("a GitHub token", rb"ghp_[A-Za-z0-9]{30,}"),
    ("a GitHub token", rb"gho_[A-Za-z0-9]{30,}"),
    ("a GitHub token", rb"ghs_[A-Za-z0-9]{30,}"),
    ("a GitHub token", rb"github_pat_[A-Za-z0-9_]{40,}"),
    ("a GitLab token", rb"glpat-[A-Za-z0-9_-]{20,}"),
    ("an AWS key", rb"AKIA[0-9A-Z]{16}"),
    ("a Google key", rb"AIza[A-Za-z0-9_-]{35}"),
    ("a Slack token", rb"xox[abposr]-[A-Za-z0-9-]{20,}"),
    ("an API key", rb"sk-[A-Za-z0-9_-]{32,}"),
    ("a password in an address", rb"http[s]?://[^\s/:@\"'<>]{1,64}:[^\s/:@\"'<>]{1,64}@"),
    ("a private key", rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"),
    ("the path of a home directory", rb"/home/[A-Za-z0-9._-]+"),
    ("the path of a home directory", rb"/Users/[A-Za-z0-9._-]+"),
    ("the path of a home directory", rb"/root/"),
    ("the path of a home directory", rb":\\{1,2}Users\\"),
)
_SECRETS = tuple((kind, re.compile(pattern)) for kind, pattern in _PATTERNS)
# Account names that say nothing about a person and are words of their own.
_COMMON_NAMES = frozenset({"root", "user", "admin", "ubuntu", "debian", "runner", "docker", "nobody", "model", "data"})
_SHORTEST_NAME = 4


def scan_files(files: Mapping[str, Path], tokens: Sequence[str]) -> list[str]:
    """Return which files hold what must not be published, without showing it.

    Args:
        files: files to publish, by their path in the repository.
        tokens: secrets that are known here; they are looked for in every byte of every file.
    """
    found = []
    person = _person()
    for name, path in files.items():
        if path.stat().st_size == 0:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = _text_bytes(name, content)
            kinds = {kind for kind, pattern in _SECRETS if _holds(content, pattern, end)}
            if any(content.find(token.encode()) >= 0 for token in tokens):
                kinds.add("the Hub token in use")
            is_config = name.endswith(".json") and len(content) <= _CONFIG_BYTES
            if is_config and person is not None and person.search(content):
                kinds.add("the user name of this machine")
        found += [f"{name} holds {kind}" for kind in sorted(kinds)]
    return found


def _text_bytes(name: str, content: mmap.mmap) -> int:
    """Return how much of a file can be text, bytes."""
    if name.endswith(".safetensors"):
        # Source: the safetensors format: the length of its JSON header, then the header, then numbers.
        return min(8 + int.from_bytes(content[:8], "little"), len(content))
    return min(_GGUF_HEAD_BYTES, len(content)) if name.endswith(".gguf") else len(content)


def _holds(content: mmap.mmap, pattern: re.Pattern[bytes], end: int) -> bool:
    # Inside of a longer word it is something else: task-, or an address that ends in /home/.
    return any(
        match.start() == 0 or not chr(content[match.start() - 1]).isalnum()
        for match in pattern.finditer(content, 0, end)
    )


def _person() -> re.Pattern[bytes] | None:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        # A container may run under a number without a name.
        return None
    if len(name) < _SHORTEST_NAME or name.lower() in _COMMON_NAMES:
        return None
    return re.compile(rb"(?<![A-Za-z0-9_-])" + re.escape(name.encode()) + rb"(?![A-Za-z0-9_-])")
