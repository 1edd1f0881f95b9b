"""Every setting of every stage, frozen, from profile, environment and command line (in rising precedence)."""

from titlegen.settings.prefer import PreferSettings
from titlegen.settings.profiles import profile_names, read_profile
from titlegen.settings.ray import RaySettings, further_hosts
from titlegen.settings.run import ENV_PREFIX, Settings, describe_invalid, load_settings
from titlegen.settings.stages import (
    EMBEDDED,
    DataSettings,
    DeskSettings,
    EvaluateSettings,
    ExportSettings,
    GateSettings,
    HubSettings,
    Language,
    LatencySettings,
    ModelSettings,
    ReportSettings,
    ServeSettings,
)
from titlegen.settings.training import TrainSettings

__all__ = [
    "EMBEDDED",
    "ENV_PREFIX",
    "DataSettings",
    "DeskSettings",
    "EvaluateSettings",
    "ExportSettings",
    "GateSettings",
    "HubSettings",
    "Language",
    "LatencySettings",
    "ModelSettings",
    "PreferSettings",
    "RaySettings",
    "ReportSettings",
    "ServeSettings",
    "Settings",
    "TrainSettings",
    "describe_invalid",
    "further_hosts",
    "load_settings",
    "profile_names",
    "read_profile",
]
