"""Proof that an exported model is the trained one, and that its prompt is served as it was trained."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from titlegen.errors import VerifyError
from titlegen.models import load_tokenizer
from titlegen.plural import count
from titlegen.verify.check import Check, failures
from titlegen.verify.foreign import check_foreign
from titlegen.verify.gguf_file import check_gguf
from titlegen.verify.integrity import check_export
from titlegen.verify.outputs import check_outputs, check_served
from titlegen.verify.parity import check_prompt_bytes, check_token_ids
from titlegen.verify.served import check_served_file

__all__ = [
    "Check",
    "Verification",
    "check_export",
    "check_foreign",
    "check_gguf",
    "check_prompt_bytes",
    "check_served",
    "check_served_file",
    "check_token_ids",
    "failures",
    "require",
    "verify",
]


class Verification(NamedTuple):
    """All checks, and the merged model's greedy titles for the first articles, to compare a server's with."""

    checks: list[Check]
    titles: list[str]


def verify(
    export: Path,
    base: Path | None,
    adapter: Path | None,
    ggufs: Sequence[Path],
    articles: Sequence[str],
    titles: Sequence[str],
    *,
    greedy_articles: int,
    say: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Run every check and return all results; those that would load what an earlier one found broken are left out.

    Args:
        export: merged Hugging Face directory, ours or another tool's.
        base: directory of the base model, None to check what holds without it.
        adapter: directory of the trained adapter, None to leave the merge itself unchecked.
        ggufs: GGUF files made from the export.
        articles: articles for prompt and token parity.
        titles: titles for token parity.
        greedy_articles: number of articles whose outputs are compared, adapter to merged model to GGUF.
        say: is told what is compared next; each takes a while.
    """
    checks = check_foreign(export)
    if failures(checks):
        return Verification(checks, [])
    say("verify: comparing the merged weights with base and adapter")
    checks += check_export(export, base, adapter)
    # A model that is broken or not the trained one has no outputs worth comparing.
    if failures(checks):
        return Verification(checks, [])
    for path in ggufs:
        say(f"verify: comparing {path.name} with them")
        checks += check_gguf(path, export)
    say(f"verify: comparing the prompts of {count(len(articles), 'article')}")
    tokenizer = load_tokenizer(export)
    checks.append(check_prompt_bytes(export, articles, tokenizer))
    if failures(checks):
        return Verification(checks, [])
    checks += check_token_ids(export, ggufs, [*articles, *titles], tokenizer)
    number = count(min(greedy_articles, len(articles)), "article")
    say(f"verify: comparing what adapter, merged model and GGUF write for {number}")
    compared, written = check_outputs(export, base, adapter, ggufs, articles[:greedy_articles], tokenizer)
    return Verification(checks + compared, written)


def require(checks: Sequence[Check]) -> None:
    """Go on only when every check passed.

    Raises:
        VerifyError: a check failed; the message names up to three.
    """
    failed = failures(checks)
    if failed:
        named = "; ".join(f"{check.name}: {check.detail or check.figure}" for check in failed[:3])
        raise VerifyError(f"{len(failed)} of {len(checks)} checks failed: {named}; export again from the adapter")
