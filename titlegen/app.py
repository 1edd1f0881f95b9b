"""The command line's program, and the options and output that its verbs share."""

import json
import re
from typing import Annotated

import cyclopts
from pydantic import ValidationError
from pydantic_settings import SettingsError

from titlegen import __version__, console, environment
from titlegen.console import EXIT_DONE
from titlegen.errors import ConfigError
from titlegen.help import HELP_FLAGS, OPTIONS, SETTINGS, HelpView
from titlegen.settings import Settings, describe_invalid, further_hosts, load_settings
from titlegen.upstream import silence_harmless

app = cyclopts.App(
    name="titlegen",
    help="Fine-tune, prove, publish and serve a Traditional Chinese headline model.",
    version=__version__,
    result_action="return_value",
    # `console.run` says how to go on.
    suppress_keyboard_interrupt=False,
    help_flags=HELP_FLAGS,
    group_parameters=OPTIONS,
    group_arguments=OPTIONS,
)

Options = Annotated[Settings | None, cyclopts.Parameter(name="*", group=SETTINGS)]
Remake = Annotated[bool, cyclopts.Parameter(negative="", show_default=False)]
_JSON = cyclopts.Parameter(name="--json", negative="", show_default=False, help="print one JSON object")
AsJson = Annotated[bool, _JSON]


def emit(value: object, text: str, *, as_json: bool) -> None:
    """Print a result: for a program with ``--json``, else for a person."""
    print(json.dumps(value, ensure_ascii=not console.speaks_unicode(), default=str) if as_json else text)


def bring_up_to_date(settings: Settings | None, verb: str, *, as_json: bool) -> int:
    """Bring a verb's stage, and those before it, up to date, and show its result."""
    from titlegen import stages, summary

    (last,) = [stage for stage in stages.PIPELINE if stage.name == verb]
    made = stages.bring_up_to_date(summary.open_run(settings or load_settings(), verb), *stages.stages_up_to(last))
    emit(made.manifest.results, summary.describe(made), as_json=as_json)
    return EXIT_DONE


def run(given: list[str]) -> int:
    """Run the verb that a command line asks for, and return its exit code.

    Raises:
        ConfigError: the command line, or a setting, is wrong.
    """
    environment.prepare()
    # Before anything imports torch, which reads them once.
    environment.prepare_threads()
    silence_harmless()
    # The base model is all that --model can mean.
    arguments = further_hosts([re.sub(r"^--model(?==|$)", "--model.base", argument) for argument in given])
    app.help_formatter = HelpView(arguments)
    try:
        return int(app(arguments, exit_on_error=False, print_error=False) or EXIT_DONE)
    except cyclopts.CycloptsError as error:
        if isinstance(error, cyclopts.UnusedCliTokensError):
            odd = " ".join(error.unused_tokens or ())
            raise ConfigError(
                f"nothing takes {odd!r}; a switch has no value (--serve.start-offline, --serve.no-start-offline), and "
                "`titlegen VERB --help` lists what there is"
            ) from error
        cause = error.__cause__
        raise ConfigError(describe_invalid(cause) if isinstance(cause, ValidationError) else str(error)) from error
    except SettingsError as error:
        raise ConfigError(describe_invalid(error)) from error
