"""The reasons for a title's place among the candidates, in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from titlegen.metrics.contract import has_title_length
from titlegen.metrics.evidence import Claim
from titlegen.metrics.ranking import Standing
from titlegen.slots import Length

Subject = Literal["agreement", "facts", "length", "clean"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason, and whether it speaks for the title."""

    subject: Subject
    good: bool
    message: str
    message_zh: str


def explain_place(
    title: str, standing: Standing, claims: Sequence[Claim], number: int, *, wanted: Length | None = None
) -> tuple[Reason, ...]:
    """Return the reasons for a title's place.

    Args:
        title: the title.
        standing: what decided.
        claims: what it says, and what of that the article backs.
        number: how many candidates there are.
        wanted: the length that was asked for; None: that of any title.
    """
    backed = sum(claim.supported for claim in claims)
    is_clean = not standing.broken and not standing.unclean
    found, found_zh = "no figures", "沒有數字或名稱可查"
    if claims:
        found = f"{backed} of {len(claims)} numbers, names and quotations are in the article"
        found_zh = f"數字、名稱與引文 {len(claims)} 處，內文有 {backed} 處"
    if standing.grave and backed == len(claims):
        # Such as a denial, which is no claim.
        found, found_zh = "the article may say otherwise", "內文可能不是這樣說"
    reasons = [Reason("facts", backed == len(claims) and not standing.grave, found, found_zh)]
    if number > 1:
        percent = round(100 * standing.agreement)
        # Candidates of one article share a third of their words where the model is sure of nothing.
        reasons.append(
            Reason(
                "agreement",
                standing.agreement >= 1 / 3,
                f"{percent}% like the other candidates",
                f"與其他候選相似 {percent}%",
            )
        )
    length = len(title.strip())
    fits = wanted.fits(title) if wanted else has_title_length(title)
    reasons.append(Reason("length", fits, f"{length} characters", f"{length} 字"))
    reasons.append(
        Reason(
            "clean",
            is_clean,
            "clean" if is_clean else "marks or words that do not belong",
            "格式乾淨" if is_clean else "有多餘的標點或字句",
        )
    )
    return tuple(reasons)
