"""What llama.cpp gives each token of a vocabulary, beside what transformers gives it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from titlegen.verify.llama_cpp import ask, llama_server

_LINE_BREAK = 107  # as in Gemma's own vocabulary


def compare_logits(model: Any, prompts: Sequence[Sequence[int]], gguf_file: Path) -> list[float]:
    """Return the cosine between both sides' logits at every position of the prompts."""
    import numpy as np
    import torch

    cosines: list[float] = []
    # All prompts begin with the same instruction.
    known: dict[tuple[int, ...], Any] = {}
    with llama_server(gguf_file) as client:
        for ids in prompts:
            with torch.no_grad():
                expected = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1).numpy()
            starts = [tuple(ids[: end + 1]) for end in range(len(ids))]
            known |= {s: _log_probabilities(client, s, expected.shape[1]) for s in starts if s not in known}
            served = np.stack([known[start] for start in starts])
            a = expected - expected.mean(axis=1, keepdims=True)
            b = served - served.mean(axis=1, keepdims=True)
            cosines += list((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    return cosines


def _log_probabilities(client: httpx.Client, ids: Sequence[int], vocabulary: int) -> Any:
    """Return llama.cpp's log-probabilities of every token after some ids.

    The server leaves them out where the chosen token is a piece of a character, as random weights often choose; so it
    is made to choose a line break, which does not change the probabilities.
    """
    import numpy as np

    request = {"prompt": list(ids), "n_predict": 1, "n_probs": vocabulary, "logit_bias": [[_LINE_BREAK, 1e4]]}
    (answer,) = ask(client, "/completion", request)["completion_probabilities"]
    assert answer["id"] == _LINE_BREAK
    result = np.full(vocabulary, np.nan)
    for item in answer["top_logprobs"]:
        result[item["id"]] = item["logprob"]
    return result
