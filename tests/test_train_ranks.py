import dataclasses
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import TRAIN as TINY
from training_models import keep_double, relative, train_exactly
from transformers import AutoTokenizer

from titlegen import cards
from titlegen.daemon import free_port
from titlegen.data import Example, load_split
from titlegen.errors import ConfigError, TrainError
from titlegen.generation import SpreadGenerator, TransformersGenerator, open_generator
from titlegen.locks import locked
from titlegen.record import made_by
from titlegen.runs import Run
from titlegen.settings import EvaluateSettings, TrainSettings, load_settings
from titlegen.stages import TRAIN
from titlegen.train import fit
from titlegen.train.devices import Devices, choose_devices
from titlegen.train.launch import train_on
from titlegen.train.memory import Activations, Plan, candidates, smallest
from titlegen.train.ranks import ALONE
from titlegen.train.steps import Rows, StepSampler, deal, order_rows
from titlegen.train.trim import CompletionTrim
from titlegen.train.work import Work

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = Path(__file__).parent


def start_ranks(count: int, script: str, *arguments: str) -> None:
    """Run a script as each of several ranks, as torchrun does."""
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    common |= {"LOCAL_WORLD_SIZE": str(count), "GLOO_SOCKET_IFNAME": "lo", "TQDM_DISABLE": "1"}
    processes = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, str(HERE / script), *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]
    assert [process.wait(240) for process in processes] == [0] * count


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.heavy)])
def test_several_ranks_do_what_one_does(
    count: int, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_double(monkeypatch)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    start_ranks(count, "ranks_exact.py", str(tiny_base), str(tmp_path / "found"))
    found = [torch.load(tmp_path / f"found{rank}") for rank in range(count)]
    for kind in ("gemma3n", "gemma3"):
        for accumulation in (1, 3):
            one = train_exactly(kind, accumulation, tokenizer, tmp_path / "one", ALONE)
            for each in found:
                several = each[f"{kind} {accumulation}"]
                assert relative(several["losses"], one["losses"]) < 1e-9
                assert relative(several["adapter"], one["adapter"]) < 1e-9
                assert torch.equal(several["adapter"], found[0][f"{kind} {accumulation}"]["adapter"])


SETTINGS = TINY.model_copy(update={"num_train_epochs": 4.0, "gradient_accumulation_steps": 2, "save_steps": 3})
TWO = Devices(2, "two processes")


@pytest.fixture
def work(articles: list[dict[str, str]], tiny_base: Path, tmp_path: Path) -> Work:
    examples = [Example(f"a{i}", row["content"][:80], row["title"], "test", None) for i, row in enumerate(articles)]
    prepared = tmp_path / "data"
    prepared.mkdir()
    for split, part in (("train", examples[2:]), ("val", examples[:2])):
        lines = [json.dumps(dataclasses.asdict(example)) + "\n" for example in part]
        (prepared / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "adapter").mkdir()
    return Work(
        prepared=prepared,
        base=tiny_base,
        settings=SETTINGS,
        work=tmp_path / "work",
        directory=tmp_path / "adapter",
        key="key",
        timeout_s=60,
    )


def train_with(fault: str, work: Work) -> dict[str, Any]:
    return train_on(TWO, work, (sys.executable, str(HERE / "ranks_worker.py"), fault)).as_json()


def train_alone(work: Work) -> dict[str, Any]:
    train, val = (load_split(work.prepared, split) for split in ("train", "val"))
    return fit(train, val, work.base, work.settings, work.work, work.directory).as_json()


def losses(work: Work) -> dict[int, float]:
    lines = (work.directory / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["step"]: record["loss"] for record in map(json.loads, lines) if "loss" in record}


def elsewhere(work: Work, folder: Path) -> Work:
    """The same training in another place."""
    (folder / "adapter").mkdir(parents=True)
    return work.model_copy(update={"work": folder / "work", "directory": folder / "adapter"})


@pytest.mark.slow
@pytest.mark.fault
def test_a_killed_rank_ends_all_and_one_process_goes_on(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    message = r"rank 1 of 2 was ended by SIGKILL .* while exchanging the gradients of pass 5; run the same"
    with pytest.raises(TrainError, match=message):
        train_with("killed_in_exchange", work)
    assert [path.name for path in work.work.glob("checkpoint-*")] == ["checkpoint-3"]
    # Each is to torch the first: what is compiled for one serves all.
    assert [(work.work / "ranks" / f"seen{rank}").read_text("ascii") for rank in range(2)] == ["4", "7"]
    resumed = train_alone(work)
    assert (resumed["resumed_from_step"], resumed["steps"], resumed["devices"]) == (3, 12, 1)
    whole = elsewhere(work, tmp_path / "whole")
    found = train_alone(whole)
    assert losses(work) == pytest.approx(losses(whole), rel=1e-4)
    assert resumed["val_loss"] == pytest.approx(found["val_loss"], rel=1e-4)
    assert not work.work.exists()


@pytest.mark.fault
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("killed_in_forward", r"rank 1 of 2 was ended by SIGKILL .* while computing pass 5"),
        ("killed_in_checkpoint", r"rank 0 of 2 was ended by SIGKILL"),
        ("out_of_memory", r"rank 1 of 2: out of memory at a peak of .* GiB with batch 2 and length 192; lower"),
        ("not_a_number", r"rank 1 of 2: loss nan at step 4 .*, batch of articles a\d+, a\d+; look at these"),
        ("hung", r"rank 1 hangs: it has not finished pass 5, and the others have waited for it in vain"),
    ],
)
def test_a_rank_that_fails_is_named_and_the_next_run_resumes(fault: str, message: str, work: Work) -> None:
    waiting = work.model_copy(update={"timeout_s": 20}) if fault == "hung" else work
    with pytest.raises(TrainError, match=message) as caught:
        train_with(fault, waiting)
    assert "\n" not in str(caught.value)
    resumed = train_with("none", work)
    assert (resumed["resumed_from_step"], resumed["steps"], resumed["devices"]) == (3, 12, 2)
    assert resumed["last_loss"] < resumed["first_loss"]


@pytest.mark.fault
@pytest.mark.heavy
def test_two_processes_go_on_where_one_was_stopped(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, seen = CompletionTrim.__call__, itertools.count()

    def stop(self: CompletionTrim, inputs: dict[str, Any], num_items: Any = None) -> Any:
        if num_items is not None and next(seen) == 14:
            raise KeyboardInterrupt
        return compute(self, inputs, num_items)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CompletionTrim, "__call__", stop)
        train_alone(work)
    resumed = train_with("none", work)
    # In the second of the epochs, whose order only its number decides.
    assert (resumed["resumed_from_step"], resumed["devices"]) == (6, 2)
    whole = elsewhere(work, tmp_path / "whole")
    train_alone(whole)
    assert losses(work) == pytest.approx(losses(whole), rel=1e-4)


@pytest.mark.fault
@pytest.mark.heavy
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_the_ranks_end_with_the_command(name: str, work: Work, tmp_path: Path) -> None:
    (tmp_path / "work.json").write_text(work.model_dump_json(), encoding="utf-8")
    code = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from titlegen import console
        from titlegen.train.devices import Devices
        from titlegen.train.launch import train_on
        from titlegen.train.work import Work
        work = Work.model_validate_json(Path({str(tmp_path / "work.json")!r}).read_bytes())
        command = (sys.executable, {str(HERE / "ranks_worker.py")!r}, "slow")
        sys.exit(console.run(lambda: train_on(Devices(2, "two"), work, command) and 0))
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)  # noqa: S603
    ranks: list[psutil.Process] = []
    for _ in range(1200):
        if list(work.work.glob("checkpoint-*/trainer_state.json")):
            ranks = psutil.Process(process.pid).children(recursive=True)
            break
        assert process.poll() is None
        time.sleep(0.1)
    assert len(ranks) >= 2
    process.send_signal(getattr(signal, name))
    _, shown = process.communicate(timeout=30)
    assert process.returncode == (130 if name == "SIGINT" else -signal.SIGKILL)
    if name == "SIGINT":
        assert shown.splitlines()[-1] == "interrupted; run the same command again to go on from the last checkpoint"
    _, alive = psutil.wait_procs(ranks, timeout=30)
    assert alive == []


@pytest.mark.heavy
def test_two_hosts_train_together(work: Work, tmp_path: Path) -> None:
    hosts = [elsewhere(work, tmp_path / name) for name in ("first", "second")]
    for number, host in enumerate(hosts):
        (tmp_path / f"host{number}.json").write_text(host.model_dump_json(), encoding="utf-8")
    try:
        ended = subprocess.run(  # noqa: S603
            ["unshare", "--user", "--map-root-user", "--net", "bash", str(HERE / "two_hosts.sh"), sys.executable],  # noqa: S607
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "not permitted" in ended.stderr:
        pytest.skip(f"no network namespaces here: {ended.stderr.splitlines()[-1]}")
    assert ended.returncode == 0, ended.stderr[-3000:]
    whole = elsewhere(work, tmp_path / "whole")
    train_alone(whole)
    for host in hosts:
        # Each has all of the result.
        assert losses(host) == pytest.approx(losses(whole), rel=1e-4)
        adapters = [(each.directory / "adapter_model.safetensors").read_bytes() for each in (host, hosts[0])]
        assert adapters[0] == adapters[1]


@pytest.mark.fault
def test_hosts_that_share_a_folder_do_not_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PET_NNODES", "2")
    path = tmp_path / "run.lock"
    with locked(path), pytest.raises(ConfigError, match="give each host its own with --output"), locked(path):
        pass


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=120),
    batch=st.integers(1, 9),
    ranks=st.integers(1, 8),
)
def test_dealing_loses_no_row_and_exceeds_no_batch(lengths: list[int], batch: int, ranks: int) -> None:
    passes = deal(range(len(lengths)), lengths, batch, ranks)
    assert sorted(row for dealt in passes for rows in dealt for row in rows) == list(range(len(lengths)))
    assert all(len(dealt) == ranks for dealt in passes)
    assert all(len(rows) <= batch for dealt in passes for rows in dealt)
    for dealt in passes:
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1 or dealt is passes[-1]


def test_ranks_get_about_equal_tokens_a_pass() -> None:
    generator = random.Random(0)
    lengths = [min(2048, int(generator.lognormvariate(6.3, 0.45))) for _ in range(1400)]
    rows = Rows(lengths, [20] * len(lengths))
    for ranks in (2, 4, 8):
        order = order_rows(rows, 64, seed=1, group_by_length=True)
        slowest = total = 0
        for start in range(0, len(order) // 64 * 64, 64):
            for dealt in deal(order[start : start + 64], lengths, 32 // ranks, ranks):
                tokens = [sum(lengths[row] for row in part) for part in dealt]
                slowest += max(tokens) * ranks
                total += sum(tokens)
        # What all wait for the slowest.
        assert slowest / total < 1.02


def test_an_epoch_has_the_same_steps_for_any_number_of_ranks() -> None:
    rows = Rows(list(range(100, 137)), [5] * 37)

    def steps(ranks: int, batch: int) -> list[set[int]]:
        samplers = [
            StepSampler(
                rows,
                batch=batch,
                accumulation=12 // batch // ranks,
                seed=5,
                group_by_length=True,
                rank=rank,
                ranks=ranks,
            )
            for rank in range(ranks)
        ]
        for sampler in samplers:
            sampler.set_epoch(2)
        passes = [list(sampler) for sampler in samplers]
        assert len({len(own) for own in passes}) == 1
        assert all(len(sampler) == len(own) for sampler, own in zip(samplers, passes, strict=True))
        given = [
            {row for sampler, own in zip(samplers, passes, strict=True) for row in own[number] if sampler.owns(row)}
            for number in range(len(passes[0]))
        ]
        every = 12 // batch // ranks
        return [set().union(*given[start : start + every]) for start in range(0, len(given), every)]

    expected = steps(1, 12)
    assert [len(step) for step in expected] == [12, 12, 12, 1]
    for ranks, batch in ((1, 4), (2, 6), (2, 2), (3, 4), (4, 3), (6, 1)):
        assert steps(ranks, batch) == expected


@pytest.mark.parametrize(
    ("wanted", "visible", "batch", "found"),
    [
        ("auto", 0, 8, (1, "no card")),
        ("auto", 1, 8, (1, "one card")),
        ("auto", 2, 8, (2, "all 2 cards")),
        ("auto", 3, 8, (2, "2 of 3 cards, the most that a step's 32 rows can be divided among")),
        (2, 4, 8, (2, "2 cards")),
        (1, 4, 8, (1, "1 card")),
        (2, 0, 8, (2, "no card, so 2 on the CPU")),
    ],
)
def test_the_cards_that_train_are_chosen(wanted: Any, visible: int, batch: int, found: tuple[int, str]) -> None:
    chosen = choose_devices(
        TrainSettings(devices=wanted, per_device_train_batch_size=batch, gradient_accumulation_steps=4), visible, "/dev"
    )
    assert (chosen.count, chosen.why) == found


@pytest.mark.fault
def test_cards_that_are_not_there_or_do_not_divide_are_named() -> None:
    with pytest.raises(ConfigError, match=r"train.devices is 4, and this machine shows 2 cards \(/dev\); give"):
        choose_devices(TrainSettings(devices=4), 2, "/dev")
    message = r"a step's 32 rows \(4 x 8\) cannot be divided among 3 cards; .* divides 32 \(1, 2, 4, 8, 16, 32\)"
    with pytest.raises(ConfigError, match=message):
        choose_devices(TrainSettings(devices=3), 4, "/dev")
    with pytest.raises(TrainError, match=message):
        candidates(TrainSettings(), 3)


@pytest.mark.parametrize(
    ("given", "number", "seen"),
    [(None, 1, "1"), ("4, 7", 1, "7"), ("GPU-a,GPU-b", 0, "GPU-a"), ("", 1, ""), ("-1", 1, "-1")],
)
def test_a_process_sees_one_of_the_cards_that_the_user_shows(
    given: str | None, number: int, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the function writes is taken back, too.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given or "")
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    cards.show_card(number)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


def test_every_plan_of_several_cards_keeps_the_effective_batch() -> None:
    plans = candidates(TrainSettings(auto_batch=True), 2)
    assert [(plan.batch, plan.accumulation) for plan in plans] == [(16, 1), (8, 2), (4, 4), (2, 8), (1, 16)]
    assert candidates(TrainSettings(), 2)[0] == Plan(4, 4, checkpointing=True)
    # What does not divide evenly takes fewer rows at a time.
    odd = TrainSettings(per_device_train_batch_size=6, gradient_accumulation_steps=3)
    assert [(plan.batch, plan.accumulation) for plan in candidates(odd, 2)] == [(3, 3)]


def test_the_smallest_card_decides() -> None:
    large, small = Activations(60e9, kept=5e6, recomputed=0.5e6), Activations(12e9, kept=5.1e6, recomputed=0.4e6)
    assert smallest([large, small]) == Activations(12e9, kept=5.1e6, recomputed=0.5e6)
    assert smallest([large, None]) is None


def test_the_number_of_cards_makes_no_training_stale(tmp_path: Path) -> None:
    keys = []
    for devices in ("auto", 1, 2):
        run = Run(load_settings(output=tmp_path, train={"devices": devices}))
        keys.append(TRAIN.settings(run))
        assert "train.devices" not in made_by(run.settings, "train")
    assert keys[0] == keys[1] == keys[2]


@pytest.mark.slow
def test_titles_of_several_processes_are_those_of_one(tiny_base: Path, articles: list[dict[str, str]]) -> None:
    contents = [row["content"][: 20 + 9 * number] for number, row in enumerate(articles)]
    options = EvaluateSettings(batch_size=2, max_new_tokens=6, temperature=0.7, candidates=2, devices=2)
    expected = TransformersGenerator(tiny_base, None, options).generate(contents)
    parts: list[float] = []
    with open_generator(tiny_base, None, options) as generator:
        assert isinstance(generator, SpreadGenerator)
        assert generator.generate(contents, parts.append) == expected
        assert generator.describe() == TransformersGenerator(tiny_base, None, options).describe()
    assert sum(parts) == pytest.approx(len(contents))
