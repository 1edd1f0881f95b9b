"""The command line's program, and the options and output that its verbs share."""

import json
from typing import Annotated

import cyclopts

from titlegen import __version__, console
from titlegen.console import EXIT_DONE
from titlegen.help import HELP_FLAGS, OPTIONS, SETTINGS
from titlegen.settings import Settings, load_settings

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
    emit(made.results, summary.describe(made), as_json=as_json)
    return EXIT_DONE
