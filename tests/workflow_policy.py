"""What a workflow of this project must not do, beyond what GitHub's own schema says."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

# A pull request's code has not been read by anybody when these start.
UNREAD_TRIGGERS = {"pull_request", "pull_request_target", "issue_comment", "workflow_run", "issues", "discussion"}
HOSTED_TRIGGERS = {"push", "pull_request", "workflow_dispatch", "schedule"}
OWN_TRIGGERS = {"workflow_dispatch", "schedule"}
OWN_LABELS = {"self-hosted", "gpu"}
HOSTED = re.compile(r"ubuntu-\d+\.\d+")
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def violations(text: str) -> list[str]:
    """Return what is wrong with a workflow, one line each."""
    workflow: dict[Any, Any] = yaml.safe_load(text)
    # YAML 1.1 reads the key `on` as true.
    triggers = set(workflow[True])
    jobs: dict[str, dict[str, Any]] = workflow["jobs"]
    found = list(_workflow_violations(workflow, triggers))
    for name, job in jobs.items():
        found += [f"job {name}: {problem}" for problem in _job_violations(job, triggers)]
        for number, step in enumerate(job["steps"], start=1):
            found += [f"job {name}, step {number}: {problem}" for problem in _step_violations(step)]
    if triggers & UNREAD_TRIGGERS and "secrets." in text:
        found.append("a secret is shown to code that nobody has read")
    return found


def _workflow_violations(workflow: dict[Any, Any], triggers: set[str]) -> Iterator[str]:
    if foreign := triggers - HOSTED_TRIGGERS:
        yield f"is started by {sorted(foreign)}"
    if workflow.get("permissions") != {"contents": "read"}:
        yield "has other permissions than to read"
    if "concurrency" not in workflow:
        yield "may run many times at once"
    if "secrets." in str(workflow.get("env")):
        yield "shows a secret to every job"


def _job_violations(job: dict[str, Any], triggers: set[str]) -> Iterator[str]:
    labels = [job["runs-on"]] if isinstance(job["runs-on"], str) else job["runs-on"]
    if "self-hosted" in labels:
        if not set(labels) >= OWN_LABELS:
            yield "runs on the project's own machine without asking for the label gpu"
        if foreign := triggers - OWN_TRIGGERS:
            yield f"runs on the project's own machine, started by {sorted(foreign)}"
    elif not all(HOSTED.fullmatch(label) for label in labels):
        yield f"runs on {labels}, which is no pinned version of a hosted machine"
    if "permissions" in job:
        yield "has permissions of its own"
    if "timeout-minutes" not in job:
        yield "may run for six hours"
    outside = {key: value for key, value in job.items() if key != "steps"}
    if "secrets" in str(outside):
        yield "shows a secret to every step"
    if "secrets." in str(job) and "environment" not in job:
        yield "uses a secret of the whole repository; name an environment that holds it"


def _step_violations(step: dict[str, Any]) -> Iterator[str]:
    action = step.get("uses")
    if action is not None and not PINNED.fullmatch(action):
        yield f"{action} is not pinned to a commit"
    if action is not None and action.startswith("actions/checkout@"):
        kept = step.get("with", {}).get("persist-credentials", True)
        if kept is not False:
            yield "leaves the repository's credentials on disk"
    if "${{" in step.get("run", ""):
        yield "puts an expression into a shell script; give it in env"
    elsewhere = {key: value for key, value in step.items() if key != "env"}
    if "secrets." in str(elsewhere):
        yield "has a secret outside env"
    if action is not None and "secrets." in str(step):
        yield f"shows a secret to {action}"
