"""Profiles: TOML files with settings, some of them shipped."""

import difflib
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from titlegen.encodings import decode_text, marked_codec, read_at_most
from titlegen.errors import ConfigError, DataError

# A profile that sets everything has a hundredth of it.
_MAX_BYTES = 2**20


def profile_names() -> list[str]:
    """Return the names of the shipped profiles."""
    folder = resources.files("titlegen") / "profiles"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def read_profile(name: str) -> dict[str, Any]:
    """Read a shipped profile by name, or any TOML file by path.

    Raises:
        ConfigError: the profile does not exist (a like name is suggested) or is not valid TOML.
    """
    if name.endswith(".toml"):
        text = _read_text(Path(name))
    elif name in profile_names():
        text = (resources.files("titlegen") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        raise ConfigError(
            f"profile {name!r} is a file whose name does not end in .toml; write it in TOML under such a name"
        )
    else:
        raise ConfigError(describe_unknown(f"profile {name!r}", name, profile_names()))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"profile {name!r} is not valid TOML: {error}; correct that line") from error
    except (RecursionError, ValueError) as error:
        # Thousands of brackets, or of digits.
        raise ConfigError(f"profile {name!r} holds a value that cannot be read: {error}; write it shorter") from error


def _read_text(path: Path) -> str:
    """Return the text of a profile that any editor may have saved."""
    what = f"the profile {str(path)!r}"
    try:
        raw = read_at_most(path, _MAX_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{what} does not exist; correct its path, or use one of {_listed(profile_names())}"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{what} cannot be read: {reason}; give a TOML file that you may read") from error
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{what} has more than {_MAX_BYTES} bytes; no profile is so large, give one")
    # Notepad's "Unicode", and what PowerShell writes with >, have a mark.
    try:
        return decode_text(raw, what, marked_codec(raw) or "utf-8")
    except DataError as error:
        raise ConfigError(str(error)) from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def describe_unknown(what: str, given: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the most similar one, or else all that are known."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {_listed(known)}"
    return f"unknown {what}; {hint}"
