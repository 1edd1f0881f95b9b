"""The latency gates: their arithmetic by exact sums and simulations, their measurement against a server."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from corpus import corpus_rows
from exported_models import new_export
from hypothesis import given
from hypothesis import strategies as st
from latency_probe import LatencyProbe, choose_articles, find_deployment, measure_latency
from latency_report import LatencyReport, failed_latency_gates, render_latency
from ollama_server import OfflineServer, offline_server
from percentiles import check_latency, estimate_percentile, judge_percentile, requests_to_decide
from scipy.stats import binom, norm
from slow_proxy import SlowProxy, slow_proxy

from titlegen.daemon import free_port
from titlegen.errors import ConfigError, DataError, ServeError
from titlegen.settings import Settings, load_settings
from titlegen.text import clean_content

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MS = 1000.0
SIMULATIONS = 100
REQUESTS = load_settings(profile="gemma3n-e4b").latency.articles
ENOUGH_FOR_P95 = 60

# The verdict


@pytest.mark.parametrize(
    ("over", "requests", "percentile", "verdict"),
    [
        (0, 59, 95, "pass"),
        (0, 58, 95, "undecided"),
        (8, 300, 95, "pass"),
        (9, 300, 95, "undecided"),
        (22, 300, 95, "fail"),
        (21, 300, 95, "undecided"),
        (0, 5, 50, "pass"),
        (0, 4, 50, "undecided"),
        (5, 5, 50, "fail"),
        (50, 100, 50, "undecided"),
        (0, 299, 99, "pass"),
        (0, 298, 99, "undecided"),
    ],
)
def test_verdicts_that_can_be_computed_by_hand(over: int, requests: int, percentile: int, verdict: str) -> None:
    assert judge_percentile(over, requests, percentile) == verdict


@pytest.mark.parametrize("requests", [20, 59, 189, REQUESTS])
@pytest.mark.parametrize("percentile", [50, 95])
def test_a_server_exactly_at_the_limit_is_called_wrong_in_at_most_5_of_100(requests: int, percentile: int) -> None:
    chances = binom.pmf(np.arange(requests + 1), requests, 1 - percentile / 100)
    verdicts = [judge_percentile(over, requests, percentile) for over in range(requests + 1)]
    for wrong in ("pass", "fail"):
        assert sum(p for p, verdict in zip(chances, verdicts, strict=True) if verdict == wrong) <= 0.05
    # From good to bad: never back.
    assert sorted(verdicts, key=["pass", "undecided", "fail"].index) == verdicts


def simulate(seed: int, percentile: int, at_ms: float, *, floor: float, spread: float, requests: int) -> list[float]:
    """Latencies as servers have them: a fixed share, and a log-normal one, with the true percentile at ``at_ms``."""
    true = floor + (1 - floor) * math.exp(spread * norm.ppf(percentile / 100))
    drawn = floor + (1 - floor) * np.random.default_rng(seed).lognormal(0, spread, requests)
    return list(drawn * at_ms / true)


SHAPES = {
    "articles of like length": {"floor": 0.5, "spread": 0.3},
    "articles of all lengths": {"floor": 0.0, "spread": 0.3},
    "long tail": {"floor": 0.3, "spread": 0.45},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percentile", [50, 95])
@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "fail"), (0.8, "pass")])
def test_twenty_percent_over_the_limit_fails_and_twenty_under_passes(
    shape: str, percentile: int, factor: float, verdict: str
) -> None:
    found: list[str] = [
        check_latency(
            simulate(seed, percentile, factor * LIMIT_MS, requests=REQUESTS, **SHAPES[shape]), {percentile: LIMIT_MS}
        )[0].verdict
        for seed in range(SIMULATIONS)
    ]
    assert found.count(verdict) >= 0.95 * SIMULATIONS, found


def test_the_sample_percentile_alone_would_be_no_gate() -> None:
    """A server at its limit, judged by the measured p95 alone, would pass every other time."""
    measured = [simulate(seed, 95, LIMIT_MS, requests=REQUESTS, **SHAPES["long tail"]) for seed in range(SIMULATIONS)]
    naive = sum(float(np.percentile(latencies, 95)) <= LIMIT_MS for latencies in measured)
    exact = [check_latency(latencies, {95: LIMIT_MS})[0].verdict for latencies in measured]
    assert naive > 0.3 * SIMULATIONS
    assert exact.count("pass") <= 0.1 * SIMULATIONS
    assert exact.count("fail") <= 0.1 * SIMULATIONS


@pytest.mark.parametrize("percentile", [50, 95])
def test_intervals_hold_the_true_percentile(percentile: int) -> None:
    held = 0
    for seed in range(200):
        found = estimate_percentile(simulate(seed, percentile, 700, floor=0, spread=0.3, requests=150), percentile)
        assert found.low_ms is not None
        held += found.low_ms <= 700 <= (found.high_ms or math.inf)
    # At least 95% in the long run; the bound is that less twice the deviation of 200 draws.
    assert held >= 0.92 * 200


@given(st.lists(st.floats(0.1, 1e5), min_size=1, max_size=120), st.sampled_from([50, 95, 99]))
def test_a_percentile_lies_in_its_interval(latencies: list[float], percentile: int) -> None:
    found = estimate_percentile(latencies, percentile)
    assert (found.low_ms or 0) <= found.value_ms * (1 + 1e-9)
    assert found.value_ms <= (found.high_ms or math.inf) * (1 + 1e-9)


def test_twenty_requests_have_no_upper_end_for_the_99th_percentile() -> None:
    assert estimate_percentile([float(i) for i in range(20)], 99).high_ms is None


def test_a_request_at_the_limit_is_not_over_it() -> None:
    gate = check_latency([LIMIT_MS] * 60, {95: LIMIT_MS})[0]
    assert (gate.name, gate.over, gate.verdict, gate.requests_to_decide) == ("p95_ms", 0, "pass", None)


def test_an_undecided_gate_says_how_many_requests_would_decide() -> None:
    gate = check_latency([100.0] * 30, {95: LIMIT_MS})[0]
    assert gate.verdict == "undecided"
    assert gate.requests_to_decide is not None
    assert 59 <= gate.requests_to_decide <= 61
    assert judge_percentile(0, gate.requests_to_decide, 95) == "pass"
    assert requests_to_decide(5, 10, 50) is None


@pytest.mark.parametrize("limit", ["0", "-1", "inf", "nan"])
def test_no_setting_turns_a_latency_gate_off(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITLEGEN_LATENCY__P95_MS", limit)
    with pytest.raises(ConfigError, match="p95_ms"):
        load_settings()


def test_the_mission_has_the_specifications_limits() -> None:
    latency = load_settings(profile="gemma3n-e4b").latency
    assert (latency.p50_ms, latency.p95_ms) == (500, 1000)


# The measurement


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfflineServer]:
    with offline_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def profile(server: OfflineServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A profile whose articles are prepared and whose model is deployed."""
    output = tmp_path_factory.mktemp("outputs")
    settings = load_settings(output=output, serve={"host": server.host, "model_name": "latency"})
    write_data(settings.directory / "data", corpus_rows()[:90])
    new_export(settings.directory).deploy(settings.serve, output / "run")
    return settings


def write_data(directory: Path, rows: list[dict[str, str]]) -> None:
    directory.mkdir(parents=True)
    for start, split in enumerate(("test", "val", "train")):
        lines = [
            json.dumps({"id": f"{split}-{number}", "source": "corpus", "date": None} | row, ensure_ascii=False)
            for number, row in enumerate({key: row[key] for key in ("content", "title")} for row in rows[start::3])
        ]
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def proxy(server: OfflineServer) -> Iterator[SlowProxy]:
    with slow_proxy(server.host) as running:
        yield running


def with_latency(settings: Settings, **latency: float) -> Settings:
    return settings.model_copy(update={"latency": settings.latency.model_copy(update=latency)})


def slowest_ms(report: LatencyReport) -> float:
    return max(timing.wall_ms for timing in report.timings)


@pytest.mark.slow
def test_a_server_that_delays_each_answer_fails_and_passes_when_it_does_not(
    profile: Settings, proxy: SlowProxy
) -> None:
    first = measure_latency(with_latency(profile, articles=30), proxy.url)
    # Limits out of this run's own times, so that no machine is too slow for this test.
    limit = 10 * slowest_ms(first)
    limited = with_latency(profile, p50_ms=limit, p95_ms=limit, articles=ENOUGH_FOR_P95)
    prompt = measure_latency(limited, proxy.url)
    assert [gate.verdict for gate in prompt.gates] == ["pass", "pass"]
    assert failed_latency_gates(prompt) == []

    proxy.delay_s = 1.2 * limit / 1000
    slow = measure_latency(with_latency(limited, articles=5), proxy.url)
    assert [gate.verdict for gate in slow.gates] == ["fail", "fail"]
    assert [line.partition(":")[0] for line in failed_latency_gates(slow)] == ["p50_ms", "p95_ms"]
    # The server did not see the delay: its own timings tell where the time went.
    assert slow.percentiles["total_ms"]["p50"].value_ms < limit
    assert slow.percentiles["wall_ms"]["p50"].value_ms > limit


def test_too_few_articles_decide_nothing_and_that_is_no_pass(profile: Settings, proxy: SlowProxy) -> None:
    report = measure_latency(with_latency(profile, p50_ms=1e6, p95_ms=1e6, articles=20), proxy.url)
    assert [gate.verdict for gate in report.gates] == ["pass", "undecided"]
    (line,) = failed_latency_gates(report)
    assert "requests would decide" in line


def test_every_prompt_is_new_in_a_run_and_in_the_next(profile: Settings, proxy: SlowProxy) -> None:
    settings = with_latency(profile, articles=10)
    for _ in range(2):
        measure_latency(settings, proxy.url)
    assert len(proxy.prompts) == 2 * (10 + 3)
    assert len({prompt[:30] for prompt in proxy.prompts}) == len(proxy.prompts)
    # A day that no article has, and the articles behind it, as a client cleans them.
    contents = [clean_content(example.content) for example in choose_articles(settings)]
    for prompt in proxy.prompts:
        assert re.match(r"\d{4}年\d+月\d+日，", prompt)
        assert any(prompt.endswith(content[-40:]) for content in contents)


def test_articles_come_from_the_test_split_first_and_none_comes_twice(profile: Settings, tmp_path: Path) -> None:
    ids = [example.id for example in choose_articles(with_latency(profile, articles=40))]
    assert len(ids) == 43
    assert [name.partition("-")[0] for name in ids] == ["test"] * 30 + ["val"] * 13
    copied = load_settings(output=tmp_path)
    rows = corpus_rows()[:6]
    write_data(copied.directory / "data", rows + rows)
    assert len(choose_articles(copied)) == 6


@pytest.mark.fault
def test_the_same_article_twice_is_refused(profile: Settings) -> None:
    examples = choose_articles(with_latency(profile, articles=3))
    with pytest.raises(DataError, match="same text"):
        LatencyProbe(profile.serve, profile.directory / "final-hf", [*examples, examples[0]])
    with pytest.raises(DataError, match="too few"):
        LatencyProbe(profile.serve, profile.directory / "final-hf", examples[:3])


@pytest.mark.fault
@pytest.mark.parametrize(
    "answer",
    [(500, b'{"error": "llama runner died"}'), (200, b"<html>"), (200, b"[]"), (200, b"{}"), (503, b"")],
    ids=["error", "page", "list", "empty", "busy"],
)
def test_an_answer_that_is_none_stops_the_measurement(
    profile: Settings, proxy: SlowProxy, answer: tuple[int, bytes]
) -> None:
    proxy.answer = answer
    with pytest.raises(ServeError, match=f"status {answer[0]}"):
        measure_latency(with_latency(profile, articles=5), proxy.url)


@pytest.mark.fault
def test_a_server_that_goes_away_stops_the_measurement(profile: Settings, server: OfflineServer) -> None:
    with slow_proxy(server.host) as proxy:
        serve = profile.serve.model_copy(update={"host": proxy.url})
        probe = LatencyProbe(serve, profile.directory / "final-hf", choose_articles(profile))
        proxy.closing = True
        probe.send_next()
    with closing(probe), pytest.raises(ServeError, match="gave no answer"):
        probe.send_next()
    assert len(probe.timings) == 1


def test_the_report_is_written_as_numbers_table_and_picture(profile: Settings, proxy: SlowProxy) -> None:
    report = measure_latency(with_latency(profile, articles=10), proxy.url)
    directory = profile.directory / "latency"
    assert json.loads((directory / "latency.json").read_bytes()) == asdict(report)
    assert (directory / "latency.md").read_text(encoding="utf-8") == render_latency(report) + "\n"
    assert (directory / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in directory.iterdir()) == ["latency.json", "latency.md", "latency.png"]
    assert set(report.percentiles) == {"wall_ms", "total_ms", "load_ms", "prompt_eval_ms", "eval_ms"}
    for timing in report.timings:
        # The server cannot have taken longer than its client waited.
        assert timing.prompt_eval_ms + timing.eval_ms <= timing.total_ms <= timing.wall_ms
        assert (timing.done_reason, timing.eval_tokens > 0, timing.prompt_tokens > 0) == ("stop", True, True)


def test_where_a_profile_is_deployed(
    profile: Settings, server: OfflineServer, proxy: SlowProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    unset = {"output": profile.output, "serve": {"model_name": "latency"}}
    # The deployment's server, when no other is named.
    assert find_deployment(load_settings(**unset)).host == server.host
    assert find_deployment(load_settings(**unset), proxy.url).host == proxy.url
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    with pytest.raises(ServeError, match="does not serve the model 'latency'"):
        find_deployment(load_settings(**unset))
    with pytest.raises(ServeError, match="does not answer with a model 'other'"):
        find_deployment(load_settings(output=profile.output, serve={"model_name": "other"}), server.host)


@pytest.mark.fault
def test_another_model_than_the_exported_one_is_not_measured(profile: Settings, tmp_path: Path) -> None:
    """Two profiles share the model's name on a server: one is not measured for the other."""
    other = load_settings(profile="gemma3n-e4b", output=tmp_path, serve=profile.serve.model_dump())
    new_export(other.directory).write({})
    with pytest.raises(ServeError, match="does not serve"):
        find_deployment(other)


# pytest benchmarks


def run_benchmark(settings: Settings, *options: str, **latency: float) -> subprocess.CompletedProcess[str]:
    # A benchmark that believed to be one of several workers would not measure.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_HOST", "PYTEST_"))}
    environment = kept | {
        "TITLEGEN_OUTPUT": str(settings.output),
        "TITLEGEN_SERVE__MODEL_NAME": settings.serve.model_name,
        **{f"TITLEGEN_LATENCY__{name.upper()}": str(value) for name, value in latency.items()},
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "benchmarks/test_latency.py",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        *options,
    ]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


@pytest.mark.slow
def test_the_benchmark_gates_keeps_a_history_and_notices_a_regression(
    profile: Settings, proxy: SlowProxy, noxfile: ModuleType, tmp_path: Path
) -> None:
    options = ["--host", proxy.url, "--articles", str(ENOUGH_FOR_P95), "--benchmark-storage", str(tmp_path)]

    def history() -> list[str]:
        found: list[str] = noxfile.history(SimpleNamespace(posargs=options))
        return found

    assert not [option for option in history() if "compare" in option], "there is nothing to compare with yet"
    first = run_benchmark(profile, *options, *history(), p50_ms=1e6, p95_ms=1e6)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "client: wall clock" in first.stdout
    (saved,) = tmp_path.rglob("0001_*.json")
    (kept,) = json.loads(saved.read_bytes())["benchmarks"]
    assert kept["stats"]["rounds"] == ENOUGH_FOR_P95
    assert [gate["verdict"] for gate in kept["extra_info"]["gates"]] == ["pass", "pass"]

    # Within its limits, and twice as slow as the first run.
    proxy.delay_s = kept["stats"]["median"]
    assert [option for option in history() if "compare" in option]
    second = run_benchmark(profile, "-rA", *options, *history(), p50_ms=1e6, p95_ms=1e6)
    assert second.returncode != 0
    assert "PASSED" in second.stdout
    assert "Performance has regressed" in second.stdout + second.stderr

    proxy.delay_s = 0
    third = run_benchmark(profile, *options[:2], "--articles", "6", p50_ms=1, p95_ms=1)
    assert third.returncode == 1
    assert "p50_ms: fail" in third.stdout


@pytest.mark.slow
def test_the_benchmark_skips_where_nothing_is_deployed_and_a_release_fails(noxfile: ModuleType, tmp_path: Path) -> None:
    settings = load_settings(output=tmp_path, serve={"model_name": "latency"})
    options: list[str] = noxfile.history(SimpleNamespace(posargs=["--benchmark-storage", str(tmp_path)]))
    skipped = run_benchmark(settings, *options)
    assert skipped.returncode == 0
    assert "1 skipped" in skipped.stdout
    assert "nox -s deploy" in skipped.stdout
    released = run_benchmark(settings, "--release")
    assert released.returncode == 1
    assert "nox -s deploy" in released.stdout


def test_acceptance_and_benchmarks_share_their_options() -> None:
    command = [sys.executable, "-m", "pytest", "acceptance", "benchmarks", "--profile", "quickstart", "--release"]
    command += ["--collect-only", "-q", "-m", "not acceptance and not slow and not heavy", "-p", "no:cacheprovider"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert "test_latency[quickstart]" in found.stdout, found.stdout + found.stderr
