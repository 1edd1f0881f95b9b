"""What a workflow of this project must not do, beyond what GitHub's own schema and zizmor say."""

from collections.abc import Iterator
from typing import Any

import yaml

# A pull request's code has not been read by anybody when these start.
UNREAD_TRIGGERS = {"pull_request", "pull_request_target", "issue_comment", "workflow_run", "issues", "discussion"}
OWN_TRIGGERS = {"workflow_dispatch", "schedule"}
OWN_LABELS = {"self-hosted", "gpu"}


def violations(text: str) -> list[str]:
    """Return what is wrong with a workflow, one line each."""
    workflow: dict[Any, Any] = yaml.safe_load(text)
    # YAML 1.1 reads the key `on` as true.
    triggers = set(workflow[True])
    found = ["shows a secret to every job"] if "secrets." in str(workflow.get("env")) else []
    for name, job in workflow["jobs"].items():
        found += [f"job {name}: {problem}" for problem in _job_violations(job, triggers)]
        found += [f"job {name}: shows a secret to {step['uses']}" for step in job["steps"] if _shows_secret(step)]
    if triggers & UNREAD_TRIGGERS and "secrets." in text:
        found.append("a secret is shown to code that nobody has read")
    return found


def _job_violations(job: dict[str, Any], triggers: set[str]) -> Iterator[str]:
    labels = [job["runs-on"]] if isinstance(job["runs-on"], str) else job["runs-on"]
    if "self-hosted" in labels:
        if not set(labels) >= OWN_LABELS:
            yield "runs on the project's own machine without asking for the label gpu"
        if foreign := triggers - OWN_TRIGGERS:
            yield f"runs on the project's own machine, started by {sorted(foreign)}"
    elif any(label.endswith("latest") for label in labels):
        yield f"runs on {labels}, which is no pinned version of a hosted machine"
    if "timeout-minutes" not in job:
        yield "may run for six hours"
    if "secrets" in str({key: value for key, value in job.items() if key != "steps"}):
        yield "shows a secret to every step"


def _shows_secret(step: dict[str, Any]) -> bool:
    return "uses" in step and "secrets." in str(step)
