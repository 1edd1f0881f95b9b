"""Parity of training and serving: the same prompt bytes, the same token ids, and the same titles."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from titlegen.errors import VerifyError
from titlegen.prompt import (
    BOS,
    STOP,
    SYSTEM,
    TEMPLATE,
    chat_messages,
    neutralise_control_tokens,
    render_prompt,
    render_template,
)
from titlegen.verify.check import Check, none_wrong

# Smallest share of identical greedy titles, and largest mean KL divergence (nats) of the next token after the prompt,
# by type. Measured on the quickstart model over 8 articles: Q8_0 diverges by 0.006, and three titles or more part from
# the merged model's at some near-tie, so the divergence is the sharper of the two.
OUTPUT_BOUNDS = {
    "merged": (1.0, 1e-4),
    "F32": (0.9, 1e-3),
    "F16": (0.9, 1e-3),
    "BF16": (0.7, 1e-2),
    "Q8_0": (0.5, 5e-2),
}
# With few articles one title more or less would decide.
_SLACK_TITLES = 1
_MAX_NEW_TOKENS = 48
_LINE_BREAK_ID = 107  # Source: Gemma's vocabulary
_TIMEOUT_S = 120


def check_prompt_bytes(export: Path, articles: Sequence[str]) -> Check:
    """The chat template and the Ollama template render the very bytes that the model was trained on."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(export)
    wrong = []
    for number, article in enumerate(articles):
        trained = render_prompt(article)
        chat = tokenizer.apply_chat_template(chat_messages(article), tokenize=False, add_generation_prompt=True)
        served = BOS + render_template(TEMPLATE, SYSTEM, neutralise_control_tokens(article).strip())
        if chat != trained:
            wrong.append(f"article {number}: the chat template renders {_difference(trained, chat)}")
        if served != trained:
            wrong.append(f"article {number}: the Ollama template renders {_difference(trained, served)}")
    return none_wrong("parity.prompt", f"{len(articles)} articles, chat template and Ollama template", wrong)


def check_token_ids(export: Path, ggufs: Sequence[Path], texts: Sequence[str]) -> list[Check]:
    """The Hugging Face tokenizer and llama.cpp's read every text as the same tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    checks = []
    for path in ggufs[:1]:
        with llama_server(path) as url:
            wrong = []
            for text in texts:
                prompt = render_prompt(text)
                ids = tokenizer.encode(prompt, add_special_tokens=False).ids
                served = _post(url, "/tokenize", {"content": prompt, "add_special": False, "parse_special": True})[
                    "tokens"
                ]
                if ids != served:
                    wrong.append(f"{text[:20]!r}: {_difference(ids, served)}")
        checks.append(none_wrong("parity.tokens", f"{len(texts)} prompts, tokenizer.json and {path.name}", wrong))
    return checks


def check_outputs(
    export: Path, base: Path, adapter: Path, ggufs: Sequence[Path], articles: Sequence[str]
) -> list[Check]:
    """Adapter on base, merged model and GGUF write the same titles and predict like next tokens."""
    prompts = [render_prompt(article) for article in articles]
    reference = _transformers_outputs(export, None, prompts)
    checks = [
        _compare(
            "merged",
            "merged model against the adapter on its base",
            _transformers_outputs(base, adapter, prompts),
            reference,
        )
    ]
    for path in ggufs:
        kind = path.stem.rpartition("-")[2]
        checks.append(
            _compare(
                kind,
                f"{path.name} in llama.cpp against the merged model",
                reference,
                _llama_outputs(path, export, prompts),
            )
        )
    return checks


@contextmanager
def llama_server(path: Path) -> Iterator[str]:
    """Run llama.cpp's own server on a GGUF file, on a free loopback port, and yield its address."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = 4096
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.port = 0
    # Its log goes to standard error as it is; only errors concern a person here.
    parameters.verbosity = 0
    server = xllamacpp.Server(parameters)
    try:
        yield server.listening_address
    finally:
        del server


def _transformers_outputs(model_directory: Path, adapter: Path | None, prompts: Sequence[str]) -> tuple[list[str], Any]:
    """Return greedy titles, and the log-probabilities of the first token: (prompts, vocabulary) float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=dtype)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    stop = [tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(token) for token in STOP)]
    titles, first = [], []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]], device=model.device)
        with torch.no_grad():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=_MAX_NEW_TOKENS,
                eos_token_id=stop,
                pad_token_id=tokenizer.pad_token_id,
                return_dict_in_generate=True,
                output_scores=True,
            )
        titles.append(tokenizer.decode(output.sequences[0, ids.shape[1] :], skip_special_tokens=True))
        first.append(torch.log_softmax(output.scores[0][0].float().cpu(), dim=-1))
    return titles, torch.stack(first).numpy()


def _llama_outputs(path: Path, export: Path, prompts: Sequence[str]) -> tuple[list[str], Any]:
    """Return greedy titles, and the log-probabilities of the first token: (prompts, vocabulary) float32."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    # As ids: the server would put a second <bos> in front of a text.
    rows = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
    with llama_server(path) as url:
        request = {"temperature": 0, "cache_prompt": False, "n_predict": _MAX_NEW_TOKENS, "stop": list(STOP)}
        titles = [_post(url, "/completion", {"prompt": ids, **request})["content"] for ids in rows]
    return titles, llama_log_probabilities(path, rows)


def llama_log_probabilities(path: Path, rows: Sequence[Sequence[int]]) -> Any:
    """Return llama.cpp's log-probabilities of the token after each row of ids: (rows, vocabulary) float32."""
    import numpy as np

    with llama_server(path) as url:
        vocabulary = int(_get(url, "/v1/models")["data"][0]["meta"]["n_vocab"])
        result = np.full((len(rows), vocabulary), -np.inf, dtype=np.float32)
        for number, ids in enumerate(rows):
            request = {
                "prompt": list(ids),
                "temperature": 0,
                "cache_prompt": False,
                "n_predict": 1,
                "n_probs": vocabulary,
            }
            answer = _post(url, "/completion", request)
            if not answer.get("completion_probabilities"):
                raise VerifyError(f"llama.cpp gave no probabilities for {path.name}: {str(answer)[:300]}")
            for item in answer["completion_probabilities"][0]["top_logprobs"]:
                result[number, item["id"]] = item["logprob"]
    return result


def _compare(kind: str, compared: str, reference: tuple[list[str], Any], other: tuple[list[str], Any]) -> Check:
    import numpy as np

    share_bound, kl_bound = OUTPUT_BOUNDS.get(kind, (0.8, 0.1))
    titles, logs = reference
    other_titles, other_logs = other
    same = [a == b for a, b in zip(titles, other_titles, strict=True)]
    # A token that one side gives no chance at all would make the divergence infinite through rounding alone.
    floor = -60.0
    width = min(logs.shape[1], other_logs.shape[1])
    p, q = np.maximum(logs[:, :width], floor), np.maximum(other_logs[:, :width], floor)
    divergence = float(np.mean(np.sum(np.exp(p) * (p - q), axis=1)))
    needed = len(titles) if share_bound == 1.0 else len(titles) * share_bound - _SLACK_TITLES
    passed = sum(same) >= needed and abs(divergence) <= kl_bound
    first = next((i for i, equal in enumerate(same) if not equal), None)
    detail = (
        ""
        if passed
        else f"KL {divergence:.3g}"
        + ("" if first is None else f"; article {first}: {titles[first][:40]!r} against {other_titles[first][:40]!r}")
    )
    return Check(
        f"parity.outputs.{kind}",
        f"{len(titles)} articles, {compared}",
        f"{sum(same)} of {len(titles)} greedy titles equal, mean KL {divergence:.2g} nats",
        f"at least {share_bound:.0%} equal, KL at most {kl_bound:g}",
        passed,
        detail,
    )


def _difference(expected: Sequence[Any], found: Sequence[Any]) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), min(len(expected), len(found))
    )
    return f"{found[at : at + 12]!r} where {expected[at : at + 12]!r} is expected (position {at})"


def _post(url: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(  # noqa: S310 - our own loopback server
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
        return json.loads(response.read())


def _get(url: str, path: str) -> Any:
    with urllib.request.urlopen(url + path, timeout=_TIMEOUT_S) as response:  # noqa: S310
        return json.loads(response.read())
