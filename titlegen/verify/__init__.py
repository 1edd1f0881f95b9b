"""Proof that an exported model is the trained one, and that its prompt is served as it was trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from titlegen.errors import VerifyError
from titlegen.verify.check import Check, failures
from titlegen.verify.gguf_file import check_gguf
from titlegen.verify.integrity import check_export, check_foreign
from titlegen.verify.parity import check_outputs, check_prompt_bytes, check_token_ids

__all__ = ["Check", "check_foreign", "failures", "require", "verify"]


def verify(
    export: Path,
    base: Path,
    adapter: Path,
    ggufs: Sequence[Path],
    articles: Sequence[str],
    titles: Sequence[str],
    *,
    greedy_articles: int,
) -> list[Check]:
    """Run every check and return all results; none of them stops the others.

    Args:
        export: merged Hugging Face directory.
        base: directory of the base model.
        adapter: directory of the trained adapter.
        ggufs: GGUF files made from the export.
        articles: articles for prompt and token parity.
        titles: titles for token parity.
        greedy_articles: number of articles whose outputs are compared, adapter to merged model to GGUF.
    """
    checks = check_foreign(export)
    checks += check_export(export, base, adapter)
    # A model that is broken or not the trained one has no outputs worth comparing.
    if failures(checks):
        return checks
    for path in ggufs:
        checks += check_gguf(path, export)
    checks.append(check_prompt_bytes(export, articles))
    if not failures(checks):
        checks += check_token_ids(export, ggufs, [*articles, *titles])
        checks += check_outputs(export, base, adapter, ggufs, articles[:greedy_articles])
    return checks


def require(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks for a manifest.

    Raises:
        VerifyError: a check failed; the message names up to three.
    """
    failed = failures(checks)
    if failed:
        named = "; ".join(f"{check.name}: {check.detail or check.figure}" for check in failed[:3])
        raise VerifyError(f"{len(failed)} of {len(checks)} checks failed: {named}; export again from the adapter")
    return {"checks": [check._asdict() for check in checks]}
