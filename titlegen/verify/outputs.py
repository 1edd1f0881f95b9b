"""Parity of outputs: adapter on base, merged model and GGUF write the same titles with like probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from titlegen.errors import VerifyError
from titlegen.families import TokenIds
from titlegen.generation import least_rounding, load_model, write_tokens
from titlegen.generation.transformers import MAX_NEW_TOKENS
from titlegen.models import family_at
from titlegen.plural import count
from titlegen.tensors import Tensors
from titlegen.verify.check import Check
from titlegen.verify.llama_cpp import ask, llama_server

if TYPE_CHECKING:
    import httpx
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# The likeliest tokens at each position whose probabilities are compared; the others count together.
_CHOICES = 256
_SMALLEST_SHARE = 1e-6
_BATCH = 4


class Bounds(NamedTuple):
    """The bounds on the outputs of one type: no single figure would catch every fault."""

    equal: float
    """Smallest share of identical greedy titles."""
    divergence: float
    """Largest mean KL divergence of the next token's distribution, nats."""
    margin: float
    """Where titles part: largest lead of the reference's token over the other one, nats. A tie is 0."""


# A type that is not listed is one of llama.cpp's K-quants. On the quickstart model, made by llama-quantize: Q6_K and
# Q5_K_M pass; Q4_K_M (KL 0.62) and Q4_K_S (0.73) round what was trained away, for its base lies on their very grid.
# Measured on the quickstart model over 100 articles: F16 97 equal, KL 1.5e-5, lead 0.02; Q8_0 57 equal, KL 0.005, lead
# 0.67. The rounding of the weights alone, all else in float32, leaves 63 equal, KL 0.0012; llama.cpp rounds the
# activations to 8 bits too. Over 30 articles or fewer: F32 all equal, KL 9e-6; BF16 28 equal, KL 2.5e-4, lead 0.06.
OUTPUT_BOUNDS = {
    "merged": Bounds(1.0, 1e-6, 1e-3),
    "merged16": Bounds(0.85, 2e-3, 0.3),
    "F32": Bounds(0.97, 1e-4, 0.05),
    "F16": Bounds(0.97, 2e-4, 0.05),
    "BF16": Bounds(0.85, 2e-3, 0.3),
    "Q8_0": Bounds(0.5, 2e-2, 1.0),
}
_OTHER_BOUNDS = Bounds(0.0, 0.3, 3.0)
# A share of equal titles below the bound counts as chance while its probability is at least this.
_CHANCE = 0.01


class Continuation(NamedTuple):
    """A greedy title, its tokens with the stop, and at each of them the likeliest tokens' log-probabilities."""

    text: str
    ids: list[int]
    choices: list[dict[int, float]]


def check_served(served: Sequence[str], merged: Sequence[str], kind: str) -> Check:
    """A server writes the merged model's greedy titles, up to what its quantisation type may change."""
    bounds = OUTPUT_BOUNDS.get(kind, _OTHER_BOUNDS)
    equal = [a == b for a, b in zip(merged, served, strict=True)]
    first = next((i for i, same in enumerate(equal) if not same), None)
    detail = "" if first is None else f"article {first}: {merged[first][:40]!r} against {served[first][:40]!r}"
    # Titles are all there is to compare here: with none equal, few articles would otherwise pass any model.
    passed = (any(equal) or not equal) and _is_chance(sum(equal), len(equal), bounds.equal)
    return Check(
        "parity.served",
        f"{count(len(equal), 'article')}, the deployed model against the merged model",
        f"{sum(equal)} of {len(equal)} greedy titles equal",
        f"{bounds.equal:.0%} equal, fewer by chance alone, at least one",
        passed,
        "" if passed else detail,
    )


def check_outputs(
    export: Path,
    base: Path | None,
    adapter: Path | None,
    ggufs: Sequence[Path],
    articles: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[Check], list[str]]:
    """Adapter on base, merged model and GGUF write the same titles and predict like next tokens.

    Without a base model and an adapter the GGUF files alone are compared with the merged model.

    Returns:
        The checks, and the merged model's titles.
    """
    if not articles:
        return [], []
    family = family_at(export)
    prompt, tokens = family.prompt, family.tokens
    # As ids: llama.cpp's server would put a second <bos> in front of a text.
    rows = tokenizer([prompt.render(article) for article in articles], add_special_tokens=False)["input_ids"]
    model = load_model(export, dtype=least_rounding(export))
    reference = [title for batch in _batches(rows) for title in _write(model, batch, tokenizer, tokens)]
    dtype = str(next(model.parameters()).dtype)
    del model
    checks = []
    if base and adapter:
        model = load_model(base, adapter, dtype=least_rounding(base))
        followed = [_follow(model, ids, title, tokenizer, tokens) for ids, title in zip(rows, reference, strict=True)]
        del model
        stored = Tensors(export)
        rounded = dtype != "torch.float32" or any(stored.dtype(key) != "F32" for key in stored)
        kind = "merged16" if rounded else "merged"
        checks.append(_compare("merged", "adapter on its base against the merged model", reference, followed, kind))
    for path in ggufs:
        kind = path.stem.rpartition("-")[2]
        with llama_server(path) as client:
            served = [_serve(client, ids, path, prompt.stop) for ids in rows]
        checks.append(_compare(kind, f"{path.name} in llama.cpp against the merged model", reference, served, kind))
    return checks, [title.text for title in reference]


def _batches(rows: Sequence[list[int]]) -> Iterator[Sequence[list[int]]]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


def _write(
    model: PreTrainedModel | PeftModel, rows: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase, tokens: TokenIds
) -> list[Continuation]:
    """Return the model's greedy titles."""
    written = write_tokens(model, rows, padding=tokens.pad, stop=tokens.stop, with_logits=True)
    choices = [_choices(step) for step in written.logits]
    titles = []
    for number, ids in enumerate(written.rows):
        end = next((i + 1 for i, token in enumerate(ids) if token in tokens.stop), len(ids))
        titles.append(
            Continuation(_text(ids[:end], tokenizer, tokens), ids[:end], [step[number] for step in choices[:end]])
        )
    return titles


def _follow(
    model: PreTrainedModel | PeftModel,
    prompt: list[int],
    title: Continuation,
    tokenizer: PreTrainedTokenizerBase,
    tokens: TokenIds,
) -> Continuation:
    """Return what a model would choose at every token of a title; one pass, instead of one for each token."""
    import torch

    ids = torch.tensor([prompt + title.ids[:-1]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, logits_to_keep=len(title.ids)).logits[0]
    chosen = logits.argmax(dim=-1).tolist()
    return Continuation(_text(chosen, tokenizer, tokens), chosen, _choices(logits))


def _choices(logits: Tensor) -> list[dict[int, float]]:
    """Return the likeliest tokens and their log-probabilities for each row of logits."""
    import torch

    best = torch.log_softmax(logits.float(), dim=-1).topk(min(_CHOICES, logits.shape[-1]))
    return [
        dict(zip(ids, values, strict=True))
        for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _text(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, tokens: TokenIds) -> str:
    """Return the text of tokens; servers leave control tokens out of theirs."""
    return str(tokenizer.decode([token for token in ids if token not in tokens.stop], skip_special_tokens=True))


def _serve(client: httpx.Client, prompt: Sequence[int], path: Path, stop: Sequence[str]) -> Continuation:
    """Return llama.cpp's greedy title."""
    request = {
        "prompt": list(prompt),
        "temperature": 0,
        "cache_prompt": False,
        "n_predict": MAX_NEW_TOKENS,
        "n_probs": _CHOICES,
        "stop": list(stop),
    }
    answer = ask(client, "/completion", request)
    # A token that ends within a character comes without probabilities.
    steps = answer.get("completion_probabilities") or []
    choices = [{item["id"]: item["logprob"] for item in step["top_logprobs"]} for step in steps]
    if any(value is None for step in choices for value in step.values()):
        raise VerifyError(f"{path.name} gives probabilities that are no numbers; its weights are damaged")
    return Continuation(answer["content"], [step["id"] for step in steps], choices)


def _compare(
    name: str, compared: str, reference: Sequence[Continuation], other: Sequence[Continuation], kind: str
) -> Check:
    bounds = OUTPUT_BOUNDS.get(kind, _OTHER_BOUNDS)
    equal = [a.text == b.text for a, b in zip(reference, other, strict=True)]
    divergences, margins = [0.0], [0.0]
    for a, b in zip(reference, other, strict=True):
        # Beyond the first other token the contexts differ, and nothing can be compared.
        for i, (expected, found) in enumerate(zip(a.ids, b.ids, strict=False)):
            divergences.append(_divergence(a.choices[i], b.choices[i]))
            if expected != found:
                if a.text != b.text:
                    ranks = a.choices[i]
                    margins.append(ranks[expected] - ranks.get(found, min(ranks.values())))
                break
    divergence, margin = sum(divergences) / max(len(divergences) - 1, 1), max(margins)
    enough = _is_chance(sum(equal), len(equal), bounds.equal)
    passed = enough and divergence <= bounds.divergence and margin <= bounds.margin
    first = next((i for i, same in enumerate(equal) if not same), None)
    detail = f"KL {divergence:.3g}, titles part at a lead of {margin:.3g}"
    if kind not in OUTPUT_BOUNDS:
        detail += "; this type rounds too much of the training away: take a larger one with --export.gguf-types"
    if first is not None:
        detail += f"; article {first}: {reference[first].text[:40]!r} against {other[first].text[:40]!r}"
    return Check(
        f"parity.outputs.{name}",
        f"{count(len(equal), 'article')}, {compared}",
        f"{sum(equal)} of {len(equal)} greedy titles equal, mean KL {divergence:.2g} nats over {len(divergences) - 1} "
        f"tokens, parting at a lead of at most {margin:.2g}",
        f"{bounds.equal:.0%} equal, fewer by chance alone; KL at most {bounds.divergence:g}, lead at most "
        f"{bounds.margin:g}",
        passed,
        "" if passed else detail,
    )


def _is_chance(equal: int, titles: int, share: float) -> bool:
    """Return whether so few equal titles, or fewer, are to be expected where each is equal with this probability."""
    from scipy.stats import binom

    return bool(binom.cdf(equal, titles, share) >= _CHANCE)


def _divergence(expected: Mapping[int, float], found: Mapping[int, float]) -> float:
    """Return the KL divergence in nats, where all tokens that either lacks count as one."""
    shared = expected.keys() & found.keys()
    p, q = [math.exp(expected[token]) for token in shared], [math.exp(found[token]) for token in shared]
    p.append(max(1 - sum(p), _SMALLEST_SHARE))
    q.append(max(1 - sum(q), _SMALLEST_SHARE))
    return max(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0 and b > 0), 0.0)
