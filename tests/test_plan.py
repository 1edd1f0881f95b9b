"""The plan: right sums, honest sources, every setting that matters has its effect, and nothing is touched."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titlegen import doctor
from titlegen.cli import main
from titlegen.console import EXIT_DONE, EXIT_ERROR
from titlegen.errors import ConfigError, DataError
from titlegen.files import write_atomically
from titlegen.plan import StageEstimate, as_record, make_plan, table, total
from titlegen.plan.figures import MEASURED, cite
from titlegen.plan.sizes import count_articles, find_model
from titlegen.plural import count
from titlegen.settings import DataSettings, ModelSettings, Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
STAGES = ["fetch", "prepare", "train", "merge", "gguf", "evaluate", "verify", "push", "deploy", "evaluate served"]


@pytest.fixture(autouse=True, scope="module")
def _no_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_TOKEN", "HF_ORG", "HF_REPO"):
            patch.delenv(name, raising=False)
        patch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path_factory.mktemp("home") / "no-token"))
        yield


def settings_of(profile: str, **stages: dict[str, Any]) -> Settings:
    return load_settings(profile=profile, **stages)


def stage_of(name: str, profile: str = "gemma3n-e4b", **stages: dict[str, Any]) -> StageEstimate:
    return next(stage for stage in make_plan(settings_of(profile, **stages)) if stage.stage == name)


@pytest.mark.parametrize("name", MEASURED)
def test_a_figure_is_the_one_that_was_measured(name: str) -> None:
    file, _, metric = name.partition(".")
    measured = json.loads((RESULTS / f"{file}.json").read_bytes())["metrics"][metric]
    assert MEASURED[name] == measured, "take it in with benchmarks/keep.py"


def test_a_figure_is_cited_with_its_place_and_value() -> None:
    assert cite("push_speed.dd_s", "train_e4b.tok_s_plain") == (
        "benchmarks/results: push_speed.dd_s = 5.047, train_e4b.tok_s_plain = 4,355"
    )


@pytest.mark.parametrize("profile", ["quickstart", "gemma3n-e4b", "gemma4-e4b"])
def test_every_stage_is_there_with_places_and_sources(profile: str) -> None:
    stages = make_plan(settings_of(profile))
    assert [stage.stage for stage in stages] == STAGES
    for stage in stages:
        assert stage.reads
        assert stage.writes
        assert stage.sources
        assert stage.minutes > 0
        assert min(stage.disk_gib, stage.host_gib, stage.gpu_gib) >= 0
    assert all(stage.gpu_gib == 0 for stage in stages) == (profile == "quickstart")


def test_the_quickstart_takes_as_long_as_it_took() -> None:
    measured = json.loads((RESULTS / "quickstart.json").read_bytes())["metrics"]
    summed = total(make_plan(settings_of("quickstart")))
    assert summed.minutes * 60 == pytest.approx(measured["total_s"], rel=0.15)


def test_training_on_the_gpu_takes_as_long_as_it_took() -> None:
    """All 1,400 rows, 3 epochs, measured with a filled compile cache."""
    measured = json.loads((RESULTS / "faster.json").read_bytes())["metrics"]
    stage = stage_of("train", data={"val_share": 0.0, "test_share": 0.0})
    warm_s = stage.minutes * 60 - measured["first_step_cold_s"] + measured["first_step_warm_s"]
    assert warm_s == pytest.approx(measured["seconds_1400x3"], rel=0.15)


def test_the_cards_that_train_are_said_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    one = stage_of("train", train={"devices": 1})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5")
    several = stage_of("train")
    assert "2 cards (2 of 3 cards, the most that a step's 32 rows can be divided among)" in "; ".join(several.sources)
    assert several.minutes < one.minutes
    assert several.gpu_gib == one.gpu_gib


def test_the_conversion_takes_as_much_memory_as_it_took() -> None:
    measured = json.loads((RESULTS / "export_e4b.json").read_bytes())["steps"]["gguf"]["peak_host_gib"]["anonymous"]
    assert stage_of("gguf", export={"gguf_types": ("bf16",)}).host_gib == pytest.approx(measured, rel=0.1)


def test_the_sizes_of_the_quickstart_are_those_of_its_files() -> None:
    """Bytes of a run's adapter, merged weights and GGUF file."""
    adapter, merged, gguf = 15_220_968, 1_072_419_256, 291_544_096
    stages = {stage.stage: stage for stage in make_plan(settings_of("quickstart"))}
    model = find_model(ModelSettings(base="embedded"))
    train = settings_of("quickstart").train
    assert model.adapter_gib(train.lora_r, train.target_modules) * 2**30 == pytest.approx(adapter, rel=0.01)
    assert stages["merge"].disk_gib * 2**30 == pytest.approx(merged, rel=0.01)
    assert stages["gguf"].disk_gib * 2**30 == pytest.approx(gguf, rel=0.05)


def test_e4b_has_the_size_that_its_users_know() -> None:
    """13.7 GB of text weights in 16 bits; 1.0625 bytes for each in Q8_0."""
    assert find_model(ModelSettings()).text_parameters * 2 == pytest.approx(13.7e9, rel=0.01)
    assert stage_of("gguf").disk_gib * 2**30 == pytest.approx(7.3e9, rel=0.01)
    adapter_bytes = json.loads((RESULTS / "resume_e4b.json").read_bytes())["metrics"]["adapter_bytes"]
    train = settings_of("gemma3n-e4b").train
    adapter = find_model(ModelSettings()).adapter_gib(train.lora_r, train.target_modules)
    assert adapter * 2**30 == pytest.approx(adapter_bytes, rel=0.001)


@pytest.mark.parametrize(
    ("change", "speed", "peak"),
    [
        ({}, "train_e4b.tok_s_titlegen_pts", "train_e4b.peak_gib_titlegen_pts"),
        ({"auto_batch": False}, "train_e4b.tok_s_titlegen", "train_e4b.peak_gib_titlegen"),
        ({"low_memory": True}, "train_e4b.tok_s_titlegen_low_memory", "train_e4b_small.load_peak_gib"),
        ({"completion_trim": False}, "train_e4b.tok_s_unsloth", "train_e4b.peak_gib_unsloth"),
        (
            {"completion_trim": False, "compile": True},
            "train_e4b.tok_s_unsloth_compiled",
            "train_e4b.peak_gib_unsloth_compiled",
        ),
        ({"completion_trim": False, "backend": "peft"}, "train_e4b.tok_s_plain", "train_e4b.peak_gib_plain"),
    ],
)
def test_the_settings_of_training_choose_the_pace(change: dict[str, Any], speed: str, peak: str) -> None:
    stage = stage_of("train", train=change)
    tokens = 1400 * 0.8 * 3 * 551
    start = MEASURED[
        "faster.first_step_cold_s" if "pts" in speed or speed.endswith("titlegen") else "faster.first_step_warm_s"
    ]
    assert stage.gpu_gib == MEASURED[peak]
    assert stage.minutes * 60 == pytest.approx(start + tokens / MEASURED[speed])
    assert any(speed in source for source in stage.sources)


def test_a_card_needs_what_doctor_says_and_more_is_used_where_it_is() -> None:
    settings = settings_of("gemma3n-e4b")
    summed = total(make_plan(settings))
    # What `titlegen doctor` asks for.
    assert doctor._GPU_GIB - 1 < summed.gpu_needs_gib <= doctor._GPU_GIB
    assert summed.gpu_gib == MEASURED["train_e4b.peak_gib_titlegen_pts"]
    lines = table(settings, make_plan(settings)).splitlines()
    assert lines[0].split("  ")[-3:] == ["GPU least", "GPU used", "minutes"]
    (row,) = [line.split() for line in lines if line.startswith("total ")]
    assert row[-3:-1] == [f"{summed.gpu_needs_gib:.1f}", f"{summed.gpu_gib:.1f}"]
    # A setting that fixes the rows at a time needs what it uses.
    fixed = stage_of("train", train={"auto_batch": False})
    assert fixed.gpu_needs_gib == fixed.gpu_gib


def test_a_short_run_is_not_compiled() -> None:
    stage = stage_of("train", data={"limit": 200})
    assert any("not compiled" in source for source in stage.sources)
    compiled = stage_of("train", data={"limit": 200}, train={"compile": True})
    assert not any("not compiled" in source for source in compiled.sources)


@given(
    rows=st.integers(100, 100_000),
    epochs=st.floats(0.5, 10),
    rank=st.integers(1, 256),
    types=st.lists(st.sampled_from(["f16", "q8_0", "q4_k_m"]), min_size=1, max_size=3, unique=True),
)
def test_more_work_never_costs_less(rows: int, epochs: float, rank: int, types: list[str]) -> None:
    def plan(rows: int, epochs: float, rank: int, types: list[str]) -> StageEstimate:
        train = {"num_train_epochs": epochs, "lora_r": rank, "compile": True}
        return total(make_plan(settings_of("gemma3n-e4b", train=train, export={"gguf_types": types}), rows))

    less, more = plan(rows, epochs, rank, types), plan(2 * rows, 2 * epochs, 2 * rank, [*types, "f32"])
    for name in ("disk_gib", "host_gib", "gpu_gib", "minutes"):
        assert getattr(more, name) >= getattr(less, name)
    assert more.minutes > less.minutes
    assert more.disk_gib > less.disk_gib


def test_the_total_adds_disk_and_time_and_takes_the_highest_memory() -> None:
    stages = [
        StageEstimate("a", "", "", disk_gib=1.0, host_gib=3.0, gpu_gib=0.0, minutes=2.0),
        StageEstimate("b", "", "", disk_gib=2.0, host_gib=1.0, gpu_gib=5.0, minutes=0.5),
    ]
    assert total(stages)[3:7] == (3.0, 3.0, 5.0, 2.5)


def test_what_is_left_out_costs_nothing() -> None:
    alone = stage_of("evaluate", evaluate={"base_model": False})
    assert stage_of("evaluate").minutes == pytest.approx(2 * alone.minutes)
    many = {"base_model": False, "candidates": 16}
    assert stage_of("evaluate", evaluate=many).minutes > 2 * alone.minutes
    usual = stage_of("evaluate served", evaluate={"base_model": False}).minutes
    assert stage_of("evaluate served", evaluate=many).minutes == pytest.approx(16 * usual)
    assert stage_of("evaluate", evaluate={"limit": 10}).minutes < stage_of("evaluate").minutes
    assert stage_of("evaluate served", evaluate={"base_model": False}).gpu_gib == stage_of("deploy").gpu_gib
    assert stage_of("push", hub={"include_gguf": False}).disk_gib == pytest.approx(stage_of("merge").disk_gib)
    assert stage_of("verify", export={"verify_articles": 0}).minutes < stage_of("verify").minutes


def test_a_push_with_a_token_goes_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stage_of("push").writes == "outputs/run/hub/"
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setenv("HF_ORG", "newsroom")
    monkeypatch.setenv("HF_REPO", "titles")
    stage = stage_of("push")
    assert stage.writes == "newsroom/titles"
    assert stage.disk_gib == 0
    assert any("assumed" in source for source in stage.sources)


def test_a_local_source_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "articles.jsonl"
    line = json.dumps({"content": "字" * 100, "title": "標題"}, ensure_ascii=False)
    path.write_text(f"{line}\n" * 30, encoding="utf-8")
    found = count_articles(DataSettings(source=str(path)), None)
    assert found.rows == 30
    assert found.tokens == pytest.approx(100 * 0.8 + 71)
    assert count_articles(DataSettings(source=str(path), limit=7), None).rows == 7
    assert count_articles(DataSettings(source=str(path), max_content_tokens=16), None).tokens == pytest.approx(16 + 71)
    with pytest.raises(DataError, match="does not exist"):
        count_articles(DataSettings(source=str(tmp_path / "none.jsonl")), None)


def test_the_embedded_corpus_is_about_as_long_as_its_training_rows() -> None:
    """97,051 tokens in the 406 rows of the quickstart's train split."""
    found = count_articles(settings_of("quickstart").data, None)
    assert found.rows == 614
    assert found.tokens == pytest.approx(97_051 / 406, rel=0.15)


def test_a_hub_data_set_of_unknown_size_needs_its_size() -> None:
    with pytest.raises(ConfigError, match="--rows"):
        count_articles(DataSettings(source="newsroom/articles"), None)
    assert count_articles(DataSettings(source="newsroom/articles"), 5000).rows == 5000


def test_a_local_copy_of_the_base_model_is_recognised(tmp_path: Path) -> None:
    write_atomically(
        tmp_path / "config.json", json.dumps({"text_config": {"model_type": "gemma3n_text", "num_hidden_layers": 35}})
    )
    assert find_model(ModelSettings(base=str(tmp_path))) is find_model(ModelSettings())
    stage = stage_of("fetch", model={"base": str(tmp_path)})
    assert stage.disk_gib == 0
    write_atomically(tmp_path / "config.json", json.dumps({"model_type": "gemma3_text", "num_hidden_layers": 80}))
    for base in (str(tmp_path), "newsroom/gemma"):
        with pytest.raises(ConfigError, match="nothing was measured"):
            find_model(ModelSettings(base=base))


def test_the_table_shows_every_figure_and_every_source() -> None:
    settings = settings_of("gemma3n-e4b")
    stages = make_plan(settings)
    text = table(settings, stages)
    lines = text.splitlines()
    assert lines[0].split()[0] == "stage"
    assert len({len(line) for line in lines[: len(stages) + 2]}) == 1
    for stage in stages:
        assert all(source in text for source in stage.sources)
    assert "one NVIDIA H100 80GB" in text
    assert "two CPU cores" in table(settings_of("quickstart"), make_plan(settings_of("quickstart")))


def test_small_figures_are_not_shown_as_nothing() -> None:
    settings = settings_of("quickstart")
    row = table(
        settings, [StageEstimate("a", "x", "y", disk_gib=0.04, host_gib=0.0, gpu_gib=0.06, minutes=12.34)]
    ).splitlines()
    assert row[1].split() == ["a", "x", "y", "<0.1", "-", "0.1", "0.1", "12.3"]


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--json"]) == EXIT_DONE
    printed = json.loads(capsys.readouterr().out)
    settings = settings_of("quickstart")
    assert printed == json.loads(json.dumps(as_record(settings, make_plan(settings))))
    assert [stage["stage"] for stage in printed["stages"]] == STAGES
    assert printed["total"]["minutes"] == pytest.approx(sum(stage["minutes"] for stage in printed["stages"]))


def test_an_unknown_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model.base", "newsroom/gemma"]) == EXIT_ERROR
    assert capsys.readouterr().err.startswith("titlegen: no plan for model.base 'newsroom/gemma'")


_WITHOUT_NETWORK = """
import socket, sys
def refuse(*arguments, **options):
    raise AssertionError("a plan uses no network")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
from titlegen.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "transformers", "trl", "peft", "datasets", "unsloth", "xllamacpp", "matplotlib"} & set(sys.modules)
sys.exit(code or (f"loaded {heavy}" if heavy else 0))
"""


@pytest.mark.parametrize("profile", ["quickstart", "gemma3n-e4b", "gemma4-e4b"])
def test_a_plan_uses_no_network_loads_nothing_heavy_and_writes_nothing(profile: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WITHOUT_NETWORK, "plan", "--profile", profile]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    environment |= {"TITLEGEN_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(  # noqa: S603 - our own command
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "total" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_one_article_is_no_articles() -> None:
    stages = make_plan(settings_of("gemma3n-e4b"), 1)
    sources = "; ".join(source for stage in stages for source in stage.sources)
    assert "1 article, " in sources
    assert "1 articles" not in sources
    assert [count(number, "article") for number in (0, 1, 2, 1200)] == [
        "0 articles",
        "1 article",
        "2 articles",
        "1,200 articles",
    ]
