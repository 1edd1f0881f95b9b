"""The two ways out of a proven model: to the Hub, and to the server."""

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from titlegen.files import write_atomically
from titlegen.results import Check, Deployed, Pushed, R, Verified, read_result
from titlegen.runs import Folder, Run, say
from titlegen.settings import Settings
from titlegen.stages import PREFER, VERIFY, adapter_stage, bring_up_to_date, parity_examples, stages_up_to

if TYPE_CHECKING:
    from titlegen import hub
    from titlegen.serve import Client


def push(run: Run) -> Pushed:
    """Publish the export."""
    from titlegen import hub

    settings = run.settings
    target, published = _ready(run, gates=not settings.hub.allow_failed_gates)
    started = time.monotonic()
    earlier = kept_result(settings, "push", Pushed)
    result = hub.push_model(target, published, settings)
    # Checked even when nothing was committed: an earlier download of that commit may have failed or been interrupted.
    if earlier is None or (earlier.url, earlier.commit) != (result.url, result.commit):
        say("push: downloading what arrived, and comparing a title")
        article = parity_examples(run)[0].content
        hub.check_download(target, article, revision=result.commit, export=published.export)
    return _kept(settings, "push", result, started)


def preview_push(run: Run) -> dict[str, object]:
    """Return what a push would do."""
    from titlegen import hub

    return hub.preview_push(*_ready(run, gates=not run.settings.hub.allow_failed_gates), run.settings)


def verify_remote(run: Run, repo_id: str) -> Pushed:
    """Compare a repository with the export."""
    from titlegen import hub

    target, published = _ready(run, gates=False)
    return hub.verify_remote(target, repo_id, published, run.settings)


def _ready(run: Run, *, gates: bool) -> "tuple[hub.HubTarget, hub.Artefacts]":
    """Return where the export goes and what of it, once it is up to date; with ``gates`` none must have failed."""
    from titlegen import hub

    # Checked first, before minutes are spent in vain.
    if gates:
        hub.require_gates(artefacts(run))
    bring_up_to_date(run, *stages_up_to(VERIFY))
    target = hub.ensure_hub(run.settings.hub, run.state, run.settings.profile)
    say(f"push: {target.describe()}")
    return target, artefacts(run)


def artefacts(run: Run) -> "hub.Artefacts":
    """Return the directories of what is published."""
    from titlegen import hub

    return hub.Artefacts(
        export=run.folder(Folder.EXPORT),
        gguf=run.folder(Folder.GGUF),
        report=run.folder(Folder.REPORT),
        adapter=run.folder(adapter_stage(run).folder),
        data=run.folder(Folder.DATA),
        verification=run.folder(Folder.VERIFICATION),
        card=run.card,
        trained=run.folder(Folder.ADAPTER) if PREFER.applies(run) else None,
        checked=run.checked_directories,
    )


def deploy(run: Run) -> Deployed:
    """Put the exported model on the server and switch over to it."""
    from titlegen import serve as serving

    settings = run.settings
    verified = bring_up_to_date(run, *stages_up_to(VERIFY))
    started = time.monotonic()
    folders = (run.folder(Folder.EXPORT), run.folder(Folder.GGUF))
    is_exported = settings.serve.source == "gguf"
    accept = partial(_check_served, run, read_result(Verified, verified.manifest).titles) if is_exported else None
    result = serving.deploy(*folders, settings.serve, run.state, say, accept)
    return _kept(settings, "deploy", result, started)


def rollback(settings: Settings) -> Deployed:
    """Switch back to the previous version of the model."""
    from titlegen import serve as serving

    return serving.rollback(settings.serve, Run(settings).state)


def _check_served(run: Run, titles: Sequence[str], client: "Client") -> Check:
    """Compare the greedy titles of a model on the server with those of the merged model.

    Raises:
        VerifyError: too few are equal.
    """
    from titlegen.verify import check_served, require

    say("deploy: comparing the new model's titles with the merged model's")
    examples = parity_examples(run)[: len(titles)]
    served = [client.ask(example.content, {"temperature": 0.0}).raw for example in examples]
    kind = run.settings.serve.quantize or run.settings.export.gguf_types[0]
    check = check_served(served, titles, kind.upper())
    require([check])
    return check


def _kept(settings: Settings, name: str, result: R, started: float) -> R:
    """Keep the result of what has no directory of its own, for the table."""
    result = result.model_copy(update={"elapsed_s": round(time.monotonic() - started, 2)})
    text = json.dumps(result.as_json(), indent=2, ensure_ascii=False)
    write_atomically(settings.directory / f"{name}.json", text + "\n")
    return result


def kept_result(settings: Settings, name: str, kind: type[R]) -> R | None:
    """Return what the last ``push`` or ``deploy`` came to; None when there was none."""
    path = settings.directory / f"{name}.json"
    return kind.model_validate_json(path.read_bytes()) if path.is_file() else None
