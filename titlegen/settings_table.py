"""The reference of all settings as Markdown: ``python -m titlegen.settings_table > docs/settings.md``."""

import sys

from titlegen.settings import ENV_PREFIX, Settings, profile_names, read_profile

_HEADER = f"""\
# Settings

Made from the program by `python -m titlegen.settings_table > docs/settings.md`; `titlegen VERB --help` tells the same.

A setting `stage.name` is `--stage.name` on the command line (with `-` for `_`), `{ENV_PREFIX}STAGE__NAME` in the
environment, and `name` in the table `[stage]` of a profile; the command line comes first, then the environment, then
the profile. `profile` and `output` belong to no stage.

An output remembers how its model was made: the settings of `data`, `model`, `train` and `export` that its stages ran
with stand in `OUTPUT/PROFILE/settings.json`, and later commands use them. The command line comes before them, and so
does what environment or profile say otherwise than they did then. A stage that was made with other settings is made
again, and the command says so; `titlegen push` and `titlegen deploy` stop instead, unless `--remake` is given. The
settings of `evaluate`, `hub`, `serve` and `latency`, and `data.workers`, are those of one command. Remove the file to
go back to the profile's settings.
"""


def render_settings() -> str:
    """Return every setting with its default, its value in the shipped profiles where that differs, and its meaning."""
    parts = [_HEADER]
    profiles = {name: read_profile(name) for name in profile_names()}
    for stage in Settings.STAGES:
        model = type(Settings.model_fields[stage].default)
        parts.append(f"## {stage}\n\n{model.__doc__}\n")
        rows = [("setting", "default", *profiles, "meaning"), ("---",) * (len(profiles) + 3)]
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                for inner, gate in field.annotation.model_fields.items():
                    chosen = [_cell(profile.get(stage, {}).get(name, {}), inner) for profile in profiles.values()]
                    rows.append((f"`{stage}.{name}.{inner}`", _shown(gate.default), *chosen, str(gate.description)))
                continue
            chosen = [_cell(profile.get(stage, {}), name) for profile in profiles.values()]
            rows.append((f"`{stage}.{name}`", _shown(field.default), *chosen, str(field.description)))
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
    return "\n".join(parts)


def _cell(table: dict[str, object], name: str) -> str:
    return _shown(table[name]) if name in table else ""


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value))
    return f"`{value}`" if value is not None and value != "" else "none"


if __name__ == "__main__":
    sys.stdout.write(render_settings())
