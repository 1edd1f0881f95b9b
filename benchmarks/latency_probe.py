"""How long one user waits for a title: every prompt new, the client's clock beside the server's own timings."""

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from latency_report import LatencyReport, Timing, write_latency_report
from percentiles import PERCENTILES, check_latency, estimate_percentile

from titlegen import specification
from titlegen.data import Example, load_split
from titlegen.errors import DataError, ServeError
from titlegen.runs import Folder
from titlegen.serve.client import Client
from titlegen.serve.deployment import is_deployed, read_deployment
from titlegen.serve.server import connection_failure, find_version, http_options, server_url
from titlegen.settings import LatencySettings, ServeSettings, Settings

# The first request after loading allocates buffers and opens the connection.
_WARM_UP = 3
_SPLITS = ("test", "val", "train")
_CONNECT_TIMEOUT_S = 10.0
_NS_PER_MS, _MS_PER_S = 1e6, 1e3
_TIMINGS = ("wall_ms", "total_ms", "load_ms", "prompt_eval_ms", "eval_ms")
# No article of a news data set has such a date, and there are more of these days than requests.
_YEARS, _MONTHS, _DAYS = range(2100, 10_000), range(1, 13), range(1, 29)


class LatencyProbe:
    """A client that asks a deployed model for titles, one article after the other, and never sends a prompt twice."""

    def __init__(self, settings: ServeSettings, model_directory: Path, examples: Sequence[Example]) -> None:
        """Prepare every request, and warm the model up with the last few of them, which are not measured.

        A date far in the future is put in front of each article: a prompt that the server still knows from an
        evaluation or an earlier measurement would cost it half the time.

        Args:
            settings: where the server is, and the model's name.
            model_directory: the exported model, for its tokenizer; where there is none, tokens are counted as bytes.
            examples: different articles, at least one more than are used to warm up.

        Raises:
            DataError: there are too few articles, or two have the same text.
            ServeError: the server or the model does not answer.
        """
        import httpx

        if len(examples) <= _WARM_UP:
            raise DataError(
                f"too few articles to measure latency, {len(examples)}: {_WARM_UP} warm the model up; prepare more"
            )
        has_tokenizer = (model_directory / "tokenizer.json").is_file()
        client = Client(settings, model_directory if has_tokenizer else None)
        client.close()
        prompts = [client.prepare(_new_dateline() + example.content)[0] for example in examples]
        if len({example.content for example in examples}) < len(examples) or len(set(prompts)) < len(prompts):
            raise DataError(
                "two articles have the same text: the server would answer the second from its cache; "
                "prepare the data again"
            )
        self.url, self.model_name = client.url, client.model_name
        self._requests = [(example.id, prompt) for example, prompt in zip(examples, prompts, strict=True)]
        timeout = httpx.Timeout(settings.timeout_s, connect=_CONNECT_TIMEOUT_S)
        self._http = httpx.Client(base_url=self.url, timeout=timeout, **http_options(self.url))
        try:
            self.warm_up = [self._send(*self._requests.pop()) for _ in range(_WARM_UP)]
        except BaseException:
            self._http.close()
            raise
        self._requests.reverse()
        self.timings: list[Timing] = []

    @property
    def remaining(self) -> int:
        """How many requests are left."""
        return len(self._requests)

    def send_next(self) -> None:
        """Send the next article and note how long it took.

        Raises:
            ServeError: no answer came, or none that a model gives.
        """
        self.timings.append(self._send(*self._requests.pop()))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _send(self, example_id: str, prompt: str) -> Timing:
        import httpx

        body = {"model": self.model_name, "prompt": prompt, "stream": False}
        started = time.perf_counter()
        try:
            response = self._http.post("/api/generate", json=body)
        except httpx.TransportError as error:
            raise ServeError(
                f"{self.url} gave no answer to article {example_id} ({connection_failure(error)}): latency cannot "
                "be measured; see the server's log"
            ) from error
        wall_ms = (time.perf_counter() - started) * _MS_PER_S
        try:
            answer = response.raise_for_status().json()
            return Timing(
                id=example_id,
                wall_ms=wall_ms,
                # A server leaves out what is zero.
                total_ms=answer.get("total_duration", 0) / _NS_PER_MS,
                load_ms=answer.get("load_duration", 0) / _NS_PER_MS,
                prompt_eval_ms=answer.get("prompt_eval_duration", 0) / _NS_PER_MS,
                eval_ms=answer.get("eval_duration", 0) / _NS_PER_MS,
                prompt_tokens=int(answer.get("prompt_eval_count", 0)),
                eval_tokens=int(answer.get("eval_count", 0)),
                done_reason=str(answer.get("done_reason", "aborted")) if answer["done"] else "aborted",
            )
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServeError(
                f"{self.url} answered article {example_id} with status {response.status_code} and "
                f"{response.text[:200]!r}: latency cannot be measured; run `titlegen deploy` first"
            ) from error


def _new_dateline() -> str:
    return f"{secrets.choice(_YEARS)}年{secrets.choice(_MONTHS)}月{secrets.choice(_DAYS)}日，"


def find_deployment(settings: Settings, host: str | None = None) -> ServeSettings:
    """Return the settings with which the profile's model answers.

    Args:
        settings: the profile's; where they name no server, the one of the last deployment counts.
        host: any server that has a model of that name; without it, the model must be the one that was exported.

    Raises:
        ServeError: it is not deployed there.
    """
    serve = settings.serve
    if host is not None:
        found = serve.model_copy(update={"host": host})
        if not _has_model(found):
            raise ServeError(f"{server_url(host)} does not answer with a model {serve.model_name!r}; deploy it there")
        return found
    if "host" not in serve.model_fields_set and (recorded := read_deployment(settings.directory)):
        serve = serve.model_copy(update={"host": recorded.host})
    if not is_deployed(serve, settings.directory / Folder.GGUF):
        raise ServeError(
            f"{server_url(serve.host)} does not serve the model {serve.model_name!r} of {settings.directory}; run "
            f"`nox -s deploy -- --profile {settings.profile}`, or name the server with --host"
        )
    return serve


def _has_model(serve: ServeSettings) -> bool:
    import httpx

    url = server_url(serve.host)
    try:
        shown = httpx.post(
            f"{url}/api/show", json={"model": serve.model_name}, timeout=_CONNECT_TIMEOUT_S, **http_options(url)
        )
    except httpx.HTTPError:
        return False
    return shown.is_success


def choose_articles(settings: Settings) -> list[Example]:
    """Return the articles of a measurement and its warm-up, all different: the test split's, then val's and train's.

    Writing takes as long for an article that the model was trained on.

    Raises:
        DataError: the profile has no data.
    """
    chosen: dict[str, Example] = {}
    for split in _SPLITS:
        for example in load_split(settings.directory / Folder.DATA, split):
            chosen.setdefault(example.content, example)
    return list(chosen.values())[: settings.latency.articles + _WARM_UP]


def measure_latency(settings: Settings, host: str | None = None) -> LatencyReport:
    """Measure the deployed model, write ``latency/`` below the profile's outputs and return the report.

    Args:
        settings: the profile's.
        host: as for ``find_deployment``.

    Raises:
        DataError: the profile has no articles.
        ServeError: nothing is deployed, or the model does not answer.
    """
    serve = find_deployment(settings, host)
    with closing(LatencyProbe(serve, settings.directory / Folder.EXPORT, choose_articles(settings))) as probe:
        while probe.remaining:
            probe.send_next()
        report = summarise_latency(probe, settings)
    write_latency_report(report, settings.directory / "latency")
    return report


def summarise_latency(probe: LatencyProbe, settings: Settings) -> LatencyReport:
    """Return percentiles with intervals, gates, and every request."""
    timings = probe.timings
    wall = [timing.wall_ms for timing in timings]
    eval_s = sum(timing.eval_ms for timing in timings) / _MS_PER_S
    eval_tokens = sum(timing.eval_tokens for timing in timings)
    return LatencyReport(
        profile=settings.profile,
        host=probe.url,
        server_version=find_version(probe.url),
        model=probe.model_name,
        requests=len(timings),
        percentiles={
            name: {
                f"p{percentile}": estimate_percentile([getattr(timing, name) for timing in timings], percentile)
                for percentile in PERCENTILES
            }
            for name in _TIMINGS
        },
        gates=check_latency(wall, limits_ms(settings.latency)),
        specification=check_latency(wall, specification.LATENCY_MS),
        first_load_ms=probe.warm_up[0].load_ms,
        prompt_tokens=sum(timing.prompt_tokens for timing in timings),
        eval_tokens=eval_tokens,
        eval_tokens_per_s=eval_tokens / eval_s if eval_s else None,
        done_reasons=dict(Counter(timing.done_reason for timing in timings)),
        timings=timings,
    )


def limits_ms(settings: LatencySettings) -> dict[int, float]:
    """Return the limit of each percentile that has one, milliseconds."""
    return {50: settings.p50_ms, 95: settings.p95_ms}
