"""The two ways out of a proven model: to the Hub, and to the server."""

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from titlegen.manifest import write_atomically
from titlegen.runs import Folder, Run, say
from titlegen.settings import Settings
from titlegen.stages import PREFER, VERIFY, adapter_stage, bring_up_to_date, parity_examples, stages_up_to

if TYPE_CHECKING:
    from titlegen import hub
    from titlegen.serve import Client


def push(run: Run, *, dry_run: bool = False, verify_only: str | None = None) -> dict[str, Any]:
    """Publish the export, or with ``dry_run`` say what would be published, or compare a repository with the export."""
    from titlegen import hub

    settings = run.settings
    # Checked first, before minutes are spent in vain; a comparison or a plan is allowed in spite of failed gates.
    if verify_only is None and not settings.hub.allow_failed_gates:
        hub.require_gates(artefacts(run))
    bring_up_to_date(run, *stages_up_to(VERIFY))
    target = hub.ensure_hub(settings.hub, run.state, settings.profile)
    say(f"push: {target.describe()}")
    published = artefacts(run)
    if verify_only is not None:
        return hub.verify_remote(target, verify_only, published, settings)
    if dry_run:
        return hub.preview_push(target, published, settings)
    started = time.monotonic()
    earlier = kept_result(settings, "push") or {}
    result = hub.push_model(target, published, settings)
    # Checked even when nothing was committed: an earlier download of that commit may have failed or been interrupted.
    if (earlier.get("url"), earlier.get("commit")) != (result["url"], result["commit"]):
        say("push: downloading what arrived, and comparing a title")
        article = parity_examples(run)[0].content
        hub.check_download(target, article, revision=result["commit"], export=published.export)
    result["elapsed_s"] = round(time.monotonic() - started, 2)
    keep_result(settings, "push", result)
    return result


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


def deploy(run: Run) -> dict[str, Any]:
    """Put the exported model on the server and switch over to it."""
    from titlegen import serve as serving

    settings = run.settings
    verified = bring_up_to_date(run, *stages_up_to(VERIFY))
    started = time.monotonic()
    folders = (run.folder(Folder.EXPORT), run.folder(Folder.GGUF))
    is_exported = settings.serve.source == "gguf"
    accept = partial(_check_served, run, verified.results["titles"]) if is_exported else None
    result = serving.deploy(*folders, settings.serve, run.state, say, accept)
    result["parity"] = result.pop("accepted")
    result["elapsed_s"] = round(time.monotonic() - started, 2)
    keep_result(settings, "deploy", result)
    return result


def rollback(settings: Settings) -> dict[str, Any]:
    """Switch back to the previous version of the model."""
    from titlegen import serve as serving

    return serving.rollback(settings.serve, Run(settings).state)


def _check_served(run: Run, titles: Sequence[str], client: "Client") -> dict[str, Any]:
    """Compare the greedy titles of a model on the server with those of the merged model.

    Raises:
        VerifyError: too few are equal.
    """
    from titlegen.verify import check_served, require

    say("deploy: comparing the new model's titles with the merged model's")
    examples = parity_examples(run)[: len(titles)]
    served = [client.ask(example.content, {"temperature": 0.0}).raw for example in examples]
    kind = run.settings.serve.quantize or run.settings.export.gguf_types[0]
    check: dict[str, Any] = require([check_served(served, titles, kind.upper())])["checks"][0]
    return check


def keep_result(settings: Settings, name: str, result: Mapping[str, Any]) -> None:
    """Keep the result of a stage that has no directory of its own, for the table."""
    write_atomically(settings.directory / f"{name}.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def kept_result(settings: Settings, name: str) -> dict[str, Any] | None:
    """Return what ``keep_result`` kept; None when nothing was."""
    path = settings.directory / f"{name}.json"
    result: dict[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
    return result
