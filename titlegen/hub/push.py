"""The push itself: every check that is possible beforehand, then one commit, then its verification."""

import glob
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titlegen.errors import HubError
from titlegen.files import write_atomically
from titlegen.hub.assembly import CARD, Artefacts, Assembled, assemble_files
from titlegen.hub.check import Difference, compare, read_remote_manifest
from titlegen.hub.scan import scan_files
from titlegen.hub.target import HubTarget, connect, status_of, with_retries
from titlegen.manifest import MANIFEST, FileRecord
from titlegen.results import Pushed
from titlegen.settings import HubSettings, Settings

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

_MAIN = "main"
_CONFLICT = 412
# How often ours starts again after another push came in between.
_ROUNDS = 4
# What transformers loads in place of a sharded model, or on top of it.
_SHADOWING = frozenset({"model.safetensors", "model.safetensors.index.json", "adapter_config.json"})
_READ_ROLES = frozenset({"read"})
_SHOWN = 3


def preview_push(target: HubTarget, artefacts: Artefacts, settings: Settings) -> dict[str, Any]:
    """Run every check before a push and return what it would do; nothing is changed.

    Raises:
        VerifyError: the export is not what its manifest says.
        GateError: a gate failed, and the settings do not allow that.
        HubError: another check failed.
    """
    with _ready(target, artefacts, settings) as staged, connect(target) as api:
        head = _head(api, target.repo_id, settings.hub.revision or _MAIN)
        difference = Difference(tuple(sorted(staged.files)), (), ())
        stale: list[str] = []
        if head is not None:
            difference = compare(api, target.repo_id, head, staged.files, read_all=False)
            stale = _stale_files(api, target.repo_id, head, difference, staged)
        return {
            "url": target.url,
            "repo_id": target.repo_id,
            "offline": target.offline,
            "private": settings.hub.private,
            "revision": "a new pull request" if settings.hub.create_pr else settings.hub.revision or _MAIN,
            "tag": settings.hub.tag,
            "files": {name: record.size for name, record in sorted(staged.files.items())},
            "bytes": staged.total_bytes,
            "changes": {"add": list(difference.missing), "update": list(difference.changed), "delete": stale},
            "evaluated": staged.evaluated,
            "failed_gates": list(staged.failed_gates),
        }


def push_model(target: HubTarget, artefacts: Artefacts, settings: Settings) -> Pushed:
    """Upload the export in one commit, compare every remote file with what was sent, and tag it.

    An export that is there already makes no commit.

    Raises:
        VerifyError: the export is not what its manifest says.
        GateError: a gate failed, and the settings do not allow that.
        HubError: a check before or after the upload failed, or the Hub refused.
    """
    hub = settings.hub
    with _ready(target, artefacts, settings) as staged:
        with connect(target) as api:
            if _head(api, target.repo_id, _MAIN) is None:
                # exist_ok: another push may create it now.
                with_retries(lambda: api.create_repo(target.repo_id, private=hub.private, exist_ok=True))
            if hub.revision is not None:
                with_retries(lambda: api.create_branch(target.repo_id, branch=str(hub.revision), exist_ok=True))
            head, commit = _upload(api, target.repo_id, staged, hub)
            difference = compare(api, target.repo_id, commit.oid, staged.files, read_all=target.offline)
            if difference.describe():
                raise HubError(
                    f"{target.url} at {commit.oid[:12]} does not hold what was sent: {difference.describe()}; "
                    "delete these files there and push again"
                )
            if hub.tag is not None:
                _tag(api, target.repo_id, hub.tag, commit.oid)
        if artefacts.card is not None:
            write_atomically(artefacts.card, (staged.folder / CARD).read_text(encoding="utf-8"))
        return Pushed(
            url=target.url,
            repo_id=target.repo_id,
            offline=target.offline,
            revision=commit.pr_revision or hub.revision or _MAIN,
            commit=commit.oid,
            committed=commit.oid != head,
            pull_request=commit.pr_url,
            tag=hub.tag,
            files=len(staged.files),
            bytes=staged.total_bytes,
            verified_files=len(staged.files),
            extra_files=list(difference.extra),
            failed_gates=list(staged.failed_gates),
        )


@contextmanager
def _ready(target: HubTarget, artefacts: Artefacts, settings: Settings) -> Iterator[Assembled]:
    """Yield what is to be uploaded, after everything that could fail was checked.

    Raises:
        HubError: a check failed; nothing was sent.
    """
    _check_settings(target, settings.hub)
    with assemble_files(artefacts, settings, target.repo_id) as staged:
        paths = {name: staged.folder / name for name in staged.files}
        found = scan_files(paths, [] if target.offline else [target.token])
        if found:
            raise HubError(
                f"nothing was uploaded: {'; '.join(found[:_SHOWN])}; remove it from the stage that wrote it, then push"
            )
        if target.directory is not None:
            _check_space(target.directory, staged)
        with connect(target) as api:
            _check_access(api, target, settings.hub)
            _check_card(target, paths[CARD])
            if settings.hub.tag is not None:
                _check_tag(api, target.repo_id, settings.hub, staged.files)
        yield staged


def _check_settings(target: HubTarget, hub: HubSettings) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(target.repo_id)
    except HFValidationError as error:
        raise HubError(
            f"hub.repo_id {target.repo_id!r} is not a valid name: {error}; set --hub.repo-id ORG/NAME"
        ) from error
    if "/" not in target.repo_id:
        raise HubError(f"hub.repo_id {target.repo_id!r} names no owner; set --hub.repo-id ORG/NAME")
    if hub.create_pr and hub.revision not in {None, _MAIN}:
        raise HubError(f"a pull request goes to main; leave out --hub.revision {hub.revision} or --hub.create-pr")
    if hub.create_pr and hub.tag is not None:
        raise HubError(f"a pull request is not a release; tag it {hub.tag!r} after it was merged")


def _check_space(directory: Path, staged: Assembled) -> None:
    place = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < staged.total_bytes:
        raise HubError(
            f"{staged.total_bytes / 2**30:.1f} GiB are to be pushed and {free / 2**30:.1f} GiB are free at {place}; "
            "free some disk space, or set --output to another disk"
        )


def _check_access(api: "HfApi", target: HubTarget, hub: HubSettings) -> None:
    """Refuse a token that cannot write, and a public repository for a model that is meant to be private."""
    from huggingface_hub.errors import RepositoryNotFoundError

    account = with_retries(api.whoami)
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role in _READ_ROLES:
        raise HubError(f"the Hub token of {account['name']} may only read; use one with write access")
    try:
        info = with_retries(lambda: api.repo_info(target.repo_id))
    except RepositoryNotFoundError:
        owner = target.repo_id.split("/")[0]
        known = {account["name"], *(organisation["name"] for organisation in account.get("orgs", []))}
        if not target.offline and owner not in known:
            raise HubError(
                f"hub.repo_id {target.repo_id!r}: {account['name']} is not a member of {owner}; use one of "
                f"{', '.join(sorted(known))}"
            ) from None
        return
    if hub.private and info.private is False:
        raise HubError(
            f"{target.url} is public, and hub.private is on; make it private there, or push with --hub.no-private"
        )
    with_retries(lambda: api.auth_check(target.repo_id, write=True))


def _check_card(target: HubTarget, path: Path) -> None:
    """Let the Hub check the card's metadata; the client asks a custom endpoint about it with the commit."""
    from huggingface_hub import ModelCard, constants

    if target.endpoint == constants.HUGGINGFACE_CO_URL_HOME.rstrip("/"):
        card = ModelCard(path.read_text(encoding="utf-8"))
        with_retries(card.validate)


def _check_tag(api: "HfApi", repo_id: str, hub: HubSettings, files: Mapping[str, FileRecord]) -> None:
    """Refuse to move an existing tag to other files: a release does not change."""
    tagged = _tags(api, repo_id).get(str(hub.tag)) if _head(api, repo_id, _MAIN) else None
    if tagged is not None and compare(api, repo_id, tagged, files, read_all=False).describe():
        raise HubError(f"the tag {hub.tag!r} is on another model ({tagged[:12]}); choose a new one with --hub.tag")


def _tags(api: "HfApi", repo_id: str) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in with_retries(lambda: api.list_repo_refs(repo_id)).tags}


def _tag(api: "HfApi", repo_id: str, tag: str, commit: str) -> None:
    with_retries(lambda: api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True))
    tagged = _tags(api, repo_id).get(tag)
    if tagged != commit:
        raise HubError(f"the tag {tag!r} is on commit {str(tagged)[:12]}, not on {commit[:12]}; choose a new one")


def _head(api: "HfApi", repo_id: str, revision: str) -> str | None:
    """Return the commit of a branch; None when there is no such repository or branch."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return str(with_retries(lambda: api.repo_info(repo_id, revision=revision)).sha)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None


def _stale_files(api: "HfApi", repo_id: str, head: str, difference: Difference, staged: Assembled) -> list[str]:
    """Return files of an earlier push that are not part of this one, and those that would be loaded in its place.

    Other files of other people stay.
    """
    earlier = read_remote_manifest(api, repo_id, head)
    known = _SHADOWING | (earlier.files.keys() if earlier is not None else set())
    return [name for name in difference.extra if name in known and name not in staged.files]


def _upload(api: "HfApi", repo_id: str, staged: Assembled, hub: HubSettings) -> tuple[str, "CommitInfo"]:
    """Upload the folder; returns the commit before and huggingface_hub's description of the commit after."""
    for _ in range(_ROUNDS - 1):
        try:
            return _upload_onto_head(api, repo_id, staged, hub)
        except Exception as error:
            if status_of(error) != _CONFLICT:
                raise
    return _upload_onto_head(api, repo_id, staged, hub)


def _upload_onto_head(api: "HfApi", repo_id: str, staged: Assembled, hub: HubSettings) -> tuple[str, "CommitInfo"]:
    revision = hub.revision or _MAIN
    head = str(with_retries(lambda: api.repo_info(repo_id, revision=revision)).sha)
    difference = compare(api, repo_id, head, {MANIFEST: staged.files[MANIFEST]}, read_all=False)
    stale = _stale_files(api, repo_id, head, difference, staged)
    commit = with_retries(
        lambda: api.upload_folder(
            repo_id=repo_id,
            folder_path=staged.folder,
            revision=None if hub.create_pr else revision,
            create_pr=hub.create_pr,
            # The Hub refuses our commit when another push came in between, so that no revision mixes two.
            parent_commit=head,
            delete_patterns=[glob.escape(name) for name in stale] or None,
            commit_message="Publish the model with its GGUF files, scores and manifest",
        )
    )
    return head, commit
