"""The settings that made an output, kept beside it so that later commands use them."""

import os
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_settings import EnvSettingsSource

from titlegen.errors import ConfigError
from titlegen.files import write_atomically
from titlegen.settings import EMBEDDED, Settings, load_settings, read_profile

RECORD = "settings.json"
# How a model was made. The other sections say what one command does with it, and are never remembered: what is scored,
# where it is published and served, how long users may wait.
MADE_BY = ("data", "model", "train", "prefer", "export")
# Changes the speed and nothing else, on this machine.
_OF_THE_MACHINE = frozenset({"data.workers", "train.devices"})
# Settings that may be a path, which means the same from another working directory.
_PATHS = ("data.source", "model.base", "train.init_adapter", "prefer.source", "prefer.choices")

Values = dict[str, Any]
"""Values in JSON's types by the dotted name of their setting."""


class Section(BaseModel):
    """Settings that a stage was run with, and what environment and profile gave for them at that time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: Values
    environment: Values
    profile: Values


class Record(BaseModel):
    """The settings that made an output, section by section: a stage that never ran has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str
    sections: dict[Literal["data", "model", "train", "prefer", "export"], Section]

    @cached_property
    def settings(self) -> Values:
        """All values."""
        return {name: value for section in self.sections.values() for name, value in section.settings.items()}


def read_record(directory: Path) -> Record | None:
    """Return what a profile's folder remembers; None when nothing was made there.

    Raises:
        ConfigError: the file is no record, or cannot be read.
    """
    path = directory / RECORD
    try:
        return Record.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise ConfigError(
            f"{path} is not a record of settings: {error.errors()[0]['msg']}; remove it, and give the settings that "
            "the output was made with"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"cannot read {str(path)!r}: {reason}; choose another folder with --output") from error


def remember(settings: Settings, sections: Collection[str]) -> Record | None:
    """Keep these sections of the settings for later commands, and return what was kept before.

    Raises:
        TitlegenError: the record cannot be written.
    """
    earlier = read_record(settings.directory)
    if not sections:
        return earlier
    made = {
        section: Section(
            settings=made_by(settings, section),
            environment=_environment(section),
            profile=_profile(settings.profile, section),
        )
        for section in MADE_BY
        if section in sections
    }
    record = Record(profile=settings.profile, sections=(earlier.sections if earlier else {}) | made)
    if record != earlier:
        restore(settings, record)
    return earlier


def restore(settings: Settings, record: Record | None) -> None:
    """Replace a record with another."""
    path = settings.directory / RECORD
    if record is None:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, record.model_dump_json(indent=2) + "\n")


def recall(settings: Settings) -> Settings:
    """Return the settings as their output remembers them, but for what is given now.

    A setting counts as given when the command line has it, or when environment or profile have changed since the output
    was made.

    Raises:
        ConfigError: the record cannot be read, or what is given does not go with what it holds.
    """
    record = read_record(settings.directory)
    given = {name: value for section in MADE_BY for name, value in _flat(section, settings.given.get(section)).items()}
    kept: dict[str, Values] = {section: dict(settings.given.get(section, {})) for section in MADE_BY}
    for section, then in record.sections.items() if record else ():
        environment, profile = _environment(section), _profile(settings.profile, section)
        for name, value in then.settings.items():
            in_environment = name in environment and environment[name] != then.environment.get(name)
            in_profile = name not in profile or profile[name] != then.profile.get(name)
            if not (name in given or in_environment or in_profile):
                kept[section][name.partition(".")[2]] = value
    values = {**settings.given, **{section: values for section, values in kept.items() if values}}
    try:
        return with_whole_paths(load_settings(**values))
    except ConfigError as error:
        # Without the record it was right.
        raise ConfigError(
            f"with what {settings.directory / RECORD} remembers: {error}; give the setting, or remove that file"
        ) from error


def serve_as_trained(settings: Settings) -> Settings:
    """Return the settings of a command that asks the model: serving treats an article as training did.

    Column, encoding and the like are those of the file that is asked about.
    """
    script = recall(settings).data.script
    return settings.model_copy(update={"data": settings.data.model_copy(update={"script": script})})


def made_by(settings: Settings, section: str) -> Values:
    """Return the values of a section that a model is made by."""
    values = _flat(section, getattr(settings, section).model_dump(mode="json"))
    return {name: value for name, value in values.items() if name not in _OF_THE_MACHINE}


def given_profile(settings: Settings) -> bool:
    """Return whether the profile was chosen, and is not the default's."""
    return "profile" in settings.given or "profile" in EnvSettingsSource(Settings)()


def profiles_made(output: Path) -> list[str]:
    """Return the profiles whose folders in an output hold a record."""
    records = (read_record(path.parent) for path in sorted(output.glob(f"*/{RECORD}")))
    return [record.profile for record in records if record is not None]


def with_whole_paths(settings: Settings) -> Settings:
    """Return the settings with paths that mean the same from another working directory."""
    changed = {}
    for name in _PATHS:
        section, _, field = name.partition(".")
        values = getattr(settings, section)
        path = getattr(values, field)
        if path not in {None, EMBEDDED} and _exists(path):
            # Links are kept: the user gave the link, and its target may change.
            changed[section] = values.model_copy(update={field: os.path.abspath(path)})  # noqa: PTH100
    return settings.model_copy(update=changed)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        # No name of a file: too long, or with a character that none has.
        return False


def _flat(section: str, values: Mapping[str, object] | None) -> Values:
    return {f"{section}.{name}": value for name, value in dict(values or {}).items()}


def _environment(section: str) -> Values:
    return _flat(section, EnvSettingsSource(Settings)().get(section))


def _profile(profile: str, section: str) -> Values:
    """Return the defaults with a profile's values over them: removing a value from a profile is a change, too."""
    defaults = Settings.model_fields[section].default.model_dump(mode="json")
    return _flat(section, defaults | read_profile(profile).get(section, {}))
