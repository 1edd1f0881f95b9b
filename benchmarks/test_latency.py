"""The latency gates of a deployed model: ``pytest benchmarks [--profile P] [--host URL] [--articles N]``."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import NoReturn

import pytest
from latency_probe import LatencyProbe, choose_articles, find_deployment, summarise_latency
from latency_report import failed_latency_gates, render_latency, write_latency_report
from pytest_benchmark.fixture import BenchmarkFixture

from titlegen.errors import DataError, ServeError
from titlegen.runs import Folder
from titlegen.settings import Settings


@pytest.mark.benchmark(group="latency")
# Some hundred answers; each has serve.timeout_s of its own.
@pytest.mark.timeout(0)
def test_latency(
    benchmark: BenchmarkFixture,
    settings: Settings,
    unavailable: Callable[[str], NoReturn],
    show: Callable[[str], None],
    pytestconfig: pytest.Config,
) -> None:
    if benchmark.disabled:
        unavailable("nothing is measured with --benchmark-disable")
    try:
        serve = find_deployment(settings, pytestconfig.getoption("host"))
        articles = choose_articles(settings)
    except (DataError, ServeError) as error:
        unavailable(f"nothing to measure: {error}")

    with closing(LatencyProbe(serve, settings.directory / Folder.EXPORT, articles)) as probe:
        benchmark.pedantic(probe.send_next, rounds=probe.remaining)
        report = summarise_latency(probe, settings)

    write_latency_report(report, settings.directory / "latency")
    benchmark.extra_info.update({key: value for key, value in asdict(report).items() if key != "timings"})
    show(render_latency(report))
    failed = failed_latency_gates(report)
    assert not failed, "; ".join(failed)
