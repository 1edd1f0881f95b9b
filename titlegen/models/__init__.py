"""Base models: a Hub name, a local directory, or the embedded model."""

from collections.abc import Sequence
from pathlib import Path

from titlegen.environment import check_remote
from titlegen.errors import ConfigError, TitlegenError
from titlegen.families import ModelFamily, all_families, family_of
from titlegen.files import digest_json
from titlegen.models.embedded import EMBEDDED_NAME, materialise_embedded
from titlegen.models.load import load_tokenizer, uncollected
from titlegen.models.read import check_safe, read_json, text_config
from titlegen.models.tokenizer import write_tokenizer
from titlegen.proxies import proxy_hint
from titlegen.settings import EMBEDDED, ModelSettings

__all__ = [
    "check_safe",
    "download",
    "family_at",
    "fingerprint",
    "load_tokenizer",
    "materialise_embedded",
    "name_of_base",
    "read_json",
    "resolve_base",
    "text_config",
    "uncollected",
    "write_tokenizer",
]

_HUB_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*", "USE_POLICY*"]


def resolve_base(settings: ModelSettings) -> Path:
    """Return a local directory with the base model's config, tokenizer and safetensors.

    Raises:
        ConfigError: the name cannot exist, or the directory holds something that is not safe to load.
        TitlegenError: the Hub cannot be reached, or does not give access.
    """
    if settings.base == EMBEDDED:
        return materialise_embedded()
    for family in all_families():
        if settings.base in family.renamed:
            raise ConfigError(
                f"model.base {settings.base!r} does not exist on the Hub; use {family.renamed[settings.base]}"
            )
    directory = Path(settings.base)
    if not directory.is_dir():
        if settings.base.startswith((".", "/", "~")):
            raise ConfigError(f"model.base {settings.base!r} is not a directory; give a Hub name or an existing path")
        directory = download(settings.base, settings.revision, _HUB_PATTERNS, "model.base")
    check_safe(directory)
    # Checked before hours go into a model that could not be exported.
    family_at(directory)
    return directory


def family_at(directory: Path) -> ModelFamily:
    """Return the family of the model in a directory.

    Raises:
        ConfigError: there is no configuration, or it is of none that titlegen knows.
    """
    return family_of(read_json(directory / "config.json"))


def fingerprint(base: Path) -> str:
    """Return a digest that changes when a model directory does, without reading its weights."""
    if base.name == EMBEDDED_NAME:
        return digest_json(base.name)
    files = [path for path in sorted(base.iterdir()) if path.is_file()]
    return digest_json([(path.name, path.stat().st_size, path.resolve().stat().st_mtime_ns) for path in files])


def name_of_base(base: Path) -> str:
    """Return a base model's name on the Hub, else its directory's: never the path on this machine."""
    # Source: huggingface_hub's cache, models--ORG--NAME/snapshots/COMMIT.
    repository = base.parent.parent.name if base.parent.name == "snapshots" else ""
    return repository.removeprefix("models--").replace("--", "/") or base.name


def download(name: str, revision: str | None, patterns: Sequence[str], setting: str) -> Path:
    """Return the local copy of a model repository's files that match the patterns.

    Args:
        name: ``ORG/NAME`` on the Hub.
        revision: branch, tag or commit; None for main.
        patterns: files to fetch; nothing else is downloaded.
        setting: what named the repository, for the messages.

    Raises:
        ConfigError: there is no such repository or revision.
        TitlegenError: the Hub cannot be reached, or does not give access.
    """
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except HFValidationError as error:
        raise ConfigError(
            f"{setting} {name!r} is neither a Hub name nor an existing directory; correct its spelling"
        ) from error
    except GatedRepoError as error:
        raise TitlegenError(
            f"{setting} {name!r} is gated: accept its terms at https://huggingface.co/{name} and run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"{setting} {name!r} has no revision {revision!r}; leave it out for main") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"{setting} {name!r} does not exist on the Hub, or needs a token; correct its name, or run `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # Only now: a cached model needs no network.
        check_remote(constants.ENDPOINT)
        raise TitlegenError(
            f"{setting} {name!r} cannot be downloaded{proxy_hint(constants.ENDPOINT)} ({type(error).__name__}); "
            "check the network and HF_ENDPOINT, or give a local directory"
        ) from error
