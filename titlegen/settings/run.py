"""The settings of a run, from profile, environment and command line (in rising precedence)."""

import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import PrivateAttr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from titlegen import environment
from titlegen.errors import ConfigError
from titlegen.settings.prefer import PreferSettings
from titlegen.settings.profiles import describe_unknown, read_profile
from titlegen.settings.ray import RaySettings
from titlegen.settings.stage import refuse_nul
from titlegen.settings.stages import (
    DataSettings,
    DeskSettings,
    EvaluateSettings,
    ExportSettings,
    HubSettings,
    LatencySettings,
    ModelSettings,
    ReportSettings,
    ServeSettings,
)
from titlegen.settings.training import TrainSettings

ENV_PREFIX = "TITLEGEN_"


class Settings(BaseSettings):
    """All settings of a run."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    profile: str = "quickstart"
    """Name of a shipped profile, or path to a TOML file."""
    output: Path = Path("outputs")
    """Folder under which every stage writes, in a folder named like the profile."""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    prefer: PreferSettings = PreferSettings()
    export: ExportSettings = ExportSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()
    hub: HubSettings = HubSettings()
    serve: ServeSettings = ServeSettings()
    latency: LatencySettings = LatencySettings()
    ray: RaySettings = RaySettings()
    desk: DeskSettings = DeskSettings()

    STAGES: ClassVar[tuple[str, ...]] = (
        "data",
        "model",
        "train",
        "prefer",
        "export",
        "evaluate",
        "report",
        "hub",
        "serve",
        "latency",
        "ray",
        "desk",
    )

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._given = given

    @property
    def given(self) -> dict[str, Any]:
        """What the command line gave, neither profile nor environment."""
        return self._given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: command line, environment, profile, and the variables of the tools we drive."""
        return init_settings, env_settings, _ProfileSource(settings_cls), _ForeignEnvironment(settings_cls)

    @field_validator("output", mode="before")
    @classmethod
    def _without_nul(cls, value: object) -> object:
        return refuse_nul(value)

    @model_validator(mode="after")
    def _refuse_unknown_environment(self) -> "Settings":
        known = {f"{ENV_PREFIX}{name}".upper() for name in type(self).model_fields} | environment.SWITCHES
        for name in os.environ:
            head = name.upper().split("__", maxsplit=1)[0]
            if head.startswith(ENV_PREFIX) and head not in known:
                raise ConfigError(describe_unknown(f"environment variable {name}", head, known))
        return self

    @property
    def directory(self) -> Path:
        """Folder of this profile's outputs."""
        return self.output / Path(self.profile).stem


class _Source(PydanticBaseSettingsSource):
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[object, str, bool]:
        raise NotImplementedError  # pydantic-settings asks for it, but calls only __call__


class _ProfileSource(_Source):
    def __call__(self) -> dict[str, Any]:
        return read_profile(str(self.current_state.get("profile", "quickstart")))


class _ForeignEnvironment(_Source):
    """HF_ORG and HF_REPO of the specification, and Ollama's own OLLAMA_HOST."""

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        organisation, repository = os.environ.get("HF_ORG"), os.environ.get("HF_REPO")
        if organisation and repository:
            found["hub"] = {"repo_id": f"{organisation}/{repository}"}
        if host := environment.ollama_host():
            found["serve"] = {"host": host}
        return found


def load_settings(**overrides: Any) -> Settings:
    """Resolve the settings of a run.

    Raises:
        ConfigError: a key is unknown or a value cannot be used; the message names it.
    """
    try:
        return Settings(**overrides)
    except (ValidationError, SettingsError) as error:
        raise ConfigError(describe_invalid(error)) from error


def describe_invalid(error: ValidationError | SettingsError) -> str:
    """Put an error of the settings into one line: each key, the value received, what is wrong, and a like key."""
    if isinstance(error, SettingsError):
        # It names the part of the settings alone.
        field = str(error).partition('"')[2].partition('"')[0]
        given = [
            f"{name} = {os.environ[name]!r}"
            for name in os.environ
            if name.upper().startswith(ENV_PREFIX + field.upper())
        ]
        return f'{" or ".join(given)} is not written in JSON, as lists and tables must be, such as ["q8_0"]'
    names = _setting_names()
    problems: dict[str, list[str]] = {}
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        # Behind the setting stands which of several types did not fit.
        known = [".".join(parts[:end]) for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in names]
        key = known[0] if known and item["type"] != "extra_forbidden" else ".".join(parts)
        if item["type"] == "extra_forbidden":
            problems[describe_unknown(f"setting {key!r}", key, names)] = []
        else:
            wrong = item["msg"].removeprefix("Value error, ")
            problems.setdefault(f"setting {key!r} = {item['input']!r}: ", []).append(wrong)
    return "; ".join(f"{what}{', or: '.join(messages)}" for what, messages in problems.items())


def _setting_names() -> list[str]:
    return list(Settings.model_fields) + [
        f"{stage}.{field}"
        for stage in Settings.STAGES
        for field in Settings.model_fields[stage].default.__class__.model_fields
    ]
