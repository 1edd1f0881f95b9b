"""The help of a verb: its own options first, then the settings that matter for it, as they stand in the profile."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cyclopts import Group
from cyclopts.help import DefaultFormatter

from titlegen.console import say_line
from titlegen.errors import TitlegenError
from titlegen.settings import Settings, load_settings

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_ALL = "--help-all"
HELP_FLAGS = ("--help", "-h", _ALL)
OPTIONS = Group("Options", sort_key=1)
SETTINGS = Group("Settings", sort_key=2)

_DATA = ("data.source", "data.content_column", "data.title_column")
_MODEL = ("model.base",)
_SERVER = ("serve.host", "serve.model_name")
# What a person is likely to set; everything else is as the profile has it.
_SHOWN: dict[str, tuple[str, ...]] = {
    "prepare": (
        *_DATA,
        "data.date_column",
        "data.split",
        "data.val_share",
        "data.test_share",
        "data.limit",
        "data.script",
        "data.max_content_tokens",
    ),
    "train": (
        *_DATA,
        *_MODEL,
        "train.num_train_epochs",
        "train.learning_rate",
        "train.per_device_train_batch_size",
        "train.max_length",
        "train.low_memory",
    ),
    "prefer": (
        *_MODEL,
        "prefer.candidates",
        "prefer.reference_weight",
        "prefer.choices",
        "prefer.source",
        "prefer.objective",
        "prefer.learning_rate",
        "prefer.num_train_epochs",
    ),
    "export": (*_MODEL, "export.gguf_types", "export.verify_articles"),
    "verify": (*_MODEL, "export.verify_articles"),
    "evaluate": ("evaluate.target", "evaluate.split", "evaluate.limit", "evaluate.candidates", "evaluate.base_model"),
    "push": ("hub.repo_id", "hub.private", "hub.tag", "hub.include_gguf", "hub.allow_failed_gates"),
    "deploy": (*_SERVER, "serve.source", "serve.quantize"),
    "generate": (*_SERVER, "data.content_column", "serve.timeout_s"),
    "serve": ("serve.host", "serve.start_offline"),
    "desk": ("desk.host", "desk.port", "desk.candidates", "desk.style", "desk.keep_articles", *_SERVER),
    "plan": (*_DATA[:1], *_MODEL, "export.gguf_types"),
    "doctor": (*_MODEL, "serve.host"),
}
_ALWAYS = ("profile", "output")


class HelpView(DefaultFormatter):
    """Shows a verb's options and settings as they are for the command line that asks for help."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Take the command line."""
        super().__init__()
        self._arguments = arguments
        verb = next((argument for argument in arguments if argument in _SHOWN), None)
        self._shown = None if verb is None or _ALL in arguments else {*_ALWAYS, *_SHOWN[verb]}
        self._verb = verb

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print one panel."""
        if panel.title != SETTINGS.name:
            super().__call__(console, options, panel)
            return
        named = [(_key(entry), entry) for entry in panel.entries]
        entries = [self._resolved(key, entry) for key, entry in named if self._shown is None or key in self._shown]
        super().__call__(console, options, panel.copy(entries=entries))
        if self._shown is not None:
            console.print(
                f"{len(named) - len(entries)} more settings: titlegen {self._verb} {_ALL}; "
                "each is also a line of a profile and an environment variable: docs/settings.md",
                highlight=False,
            )

    def _resolved(self, key: str, entry: "HelpEntry") -> "HelpEntry":
        """Return a setting with the value that it has unless it is given."""
        value: Any = self._settings
        for part in key.split("."):
            value = getattr(value, part)
        if value is None:
            return entry.copy(default=None)
        return entry.copy(default=",".join(map(str, value)) if isinstance(value, tuple) else str(value))

    @cached_property
    def _settings(self) -> Settings:
        """The settings of the profile in use, or the defaults where they cannot be read: help is needed then most."""
        given = iter(self._arguments)
        profile = None
        for argument in given:
            name, mark, value = argument.partition("=")
            if name == "--profile":
                profile = value if mark else next(given, None)
        try:
            return load_settings(**({"profile": profile} if profile else {}))
        except TitlegenError as error:
            say_line(str(error))
            return Settings.model_construct()


def _key(entry: "HelpEntry") -> str:
    """Return a setting's name in :class:`titlegen.settings.Settings`, from that of its option."""
    name = entry.positive_names[0].removeprefix("--").replace("-", "_")
    # The one setting that is not written in small letters.
    return name.replace("rouge_l", "rougeL")
