"""``titlegen generate --engine ray``: any number of articles, on real Ray, with the titles of a single machine."""

import csv
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported_models import ANSWERS, ECHO_TEMPLATE, Export, question, quiz
from ollama_server import OfflineServer, offline_server

from titlegen.cli import main
from titlegen.cluster import generate_directory
from titlegen.cluster.job import Job, Receipt, pack_lines, unpack_lines
from titlegen.cluster.parts import Place, as_line, count_rows, find_parts, join_parts, part_path, read_part, write_part
from titlegen.cluster.progress import estimate_rows
from titlegen.cluster.start import _check_nodes
from titlegen.cluster.titlers import LocalModel, Servers
from titlegen.cluster.vllm import processor_config, request
from titlegen.console import EXIT_ERROR, EXIT_GATE
from titlegen.daemon import free_port
from titlegen.errors import ConfigError, DataError, MissingDependencyError, TitlegenError
from titlegen.families import neutralise_control_tokens
from titlegen.families.gemma3 import PROMPT
from titlegen.prompt import SYSTEM
from titlegen.serve.answer import Answer
from titlegen.serve.endpoint import UnavailableError
from titlegen.serve.lines import Line, read_lines
from titlegen.settings import DataSettings, RaySettings, ServeSettings, Settings, further_hosts, load_settings
from titlegen.text import first_line, to_traditional

# Ray leaves files and sockets to the interpreter's end.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Ray Data sets its own deprecated fields.
    pytest.mark.filterwarnings("ignore:`.*` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
Generate = Callable[..., int]


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Ray, started once for the module; what is started is joined."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    # Workers do not have this module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    before = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", num_cpus=4, object_store_memory=128 * 2**20, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def generate(outputs: Path, server: OfflineServer) -> Generate:
    """Run the command with a model of the server."""

    def run(*arguments: str) -> int:
        fixed = ["--output", str(outputs), "--serve.host", server.host, "--serve.model-name", "quiz"]
        # An answer of one character is doubtful, and the same again.
        return main(["generate", *arguments, *fixed, "--serve.redraws", "0"])

    return run


def settings_of(outputs: Path, **ray: Any) -> Settings:
    return load_settings(output=outputs, ray=RaySettings(**ray), serve={"redraws": 0})


def write_articles(path: Path, numbers: Sequence[int]) -> Path:
    rows = [{"id": f"a{number}", "content": question(number % 200)} for number in numbers]
    path.write_text("".join(map(as_line, rows)), encoding="utf-8")
    return path


def read_all(directory: Path, form: str = "jsonl") -> list[dict[str, Any]]:
    return [record for path in find_parts(directory, form).values() for record in read_part(path)]


class Echo:
    """Answers at once, with the beginning of the article; in workers it is known by its module."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, articles: Sequence[str]) -> list[list[Answer] | TitlegenError]:
        return [[answer(article[:12])] for article in articles]


class Mortal(Echo):
    """Kills its own process at the first block of each of three, as the kernel does for lack of memory."""

    def __call__(self, articles: Sequence[str]) -> list[list[Answer] | TitlegenError]:
        for number in range(3):
            try:
                (self.job.directory.parent / f"killed-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(articles)


class Meeting(Echo):
    """Waits until two processes are at work."""

    def __call__(self, articles: Sequence[str]) -> list[list[Answer] | TitlegenError]:
        (self.job.directory.parent / f"met-{os.getpid()}").touch()
        deadline = time.monotonic() + 60
        while len(list(self.job.directory.parent.glob("met-*"))) < 2:
            if time.monotonic() > deadline:
                raise TitlegenError("one process does all blocks of a file")
            time.sleep(0.05)
        return super().__call__(articles)


class Stops(Echo):
    """Stops in the middle, as when the last server goes."""

    def __call__(self, articles: Sequence[str]) -> list[list[Answer] | TitlegenError]:
        if len(find_parts(self.job.directory, self.job.ray.format)) >= 2:
            raise UnavailableError("every model server has gone; start them again")
        return super().__call__(articles)


def answer(title: str) -> Answer:
    return Answer(title, title, "stop", prompt_tokens=0, eval_tokens=0, total_s=0, load_s=0, trimmed=False)


# The same titles as on one machine


@pytest.mark.usefixtures("ray_here")
def test_titles_and_records_are_those_of_a_single_machine(
    generate: Generate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    write_articles(source, range(60))
    with source.open("a", encoding="utf-8") as file:
        file.write('{"id": 7, "content": ""}\n{"id": "\\ud800", "content": 5}\nnot JSON\n')
    single, folder = tmp_path / "titles.jsonl", tmp_path / "titles"
    assert generate(str(source), "--out", str(single)) == EXIT_GATE
    capsys.readouterr()
    more = ["--engine", "ray", "--ray.block-rows", "20", "--ray.format", "jsonl", "--ordered"]
    assert generate(str(source), "--out", str(folder), *more, "--json") == EXIT_GATE
    assert (folder / "titles.jsonl").read_bytes() == single.read_bytes()
    result = json.loads(capsys.readouterr().out)
    assert (result["lines"], result["failed"], result["resumed"], result["repeated_ids"]) == (63, 3, 0, 0)
    assert [record["title"] for record in read_all(folder)[:60]] == ANSWERS[:60]
    assert len(find_parts(folder, "jsonl")) == 4
    # Everything is done: the same command has nothing to do.
    assert generate(str(source), "--out", str(folder), *more) == EXIT_GATE
    assert "done before      63" in capsys.readouterr().out
    # A block that is lost is done again, the others are not.
    parts = list(find_parts(folder, "jsonl").values())
    stamps = [part.stat().st_mtime_ns for part in parts]
    parts[1].unlink()
    assert generate(str(source), "--out", str(folder), *more) == EXIT_GATE
    assert [part.stat().st_mtime_ns == stamp for part, stamp in zip(parts, stamps, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
    assert (folder / "titles.jsonl").read_bytes() == single.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_any_mixture_of_files_becomes_parquet(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    write_articles(folder / "a.jsonl", range(5))
    with (folder / "b.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "content", "editor"], *[[f"a{n}", question(n), "x"] for n in range(3, 8)]])
    columns = {"content": [question(number) for number in range(9, 13)], "views": list(range(4))}
    pq.write_table(pa.table(columns), folder / "deep" / "c.parquet")
    seen: list[Receipt] = []
    result = generate_directory(
        settings_of(outputs, block_rows=2, workers=2),
        str(folder),
        tmp_path / "out",
        ordered=True,
        make_titler=Echo,
        observe=seen.append,
    )
    table = pq.read_table(tmp_path / "out" / "titles.parquet")
    assert table["id"].to_pylist() == [*(f"a{n}" for n in range(5)), *(f"a{n}" for n in range(3, 8)), *"1234"]
    assert table["title"].to_pylist() == [question(n)[:12] for n in [*range(5), *range(3, 8), *range(9, 13)]]
    assert [Path(name).name for name in dict.fromkeys(table["file"].to_pylist())] == ["a.jsonl", "b.csv", "c.parquet"]
    # Two files have the same ids: each article has its title, and it is said.
    assert (result.repeated_ids, result.repeated_id) == (2, "a3")
    assert "ids that repeat  2, such as 'a3'" in result.message
    assert sum(receipt.rows for receipt in seen) == 14
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["results"]["finished"]
    assert len(manifest["files"]) == 9


@pytest.mark.usefixtures("ray_here")
def test_the_blocks_of_one_file_are_spread(outputs: Path, tmp_path: Path) -> None:
    source = write_articles(tmp_path / "in.jsonl", range(40))
    seen: list[Receipt] = []
    settings = settings_of(outputs, block_rows=2, workers=2)
    generate_directory(settings, str(source), tmp_path / "out", make_titler=Meeting, observe=seen.append)
    assert len({receipt.worker for receipt in seen}) == 2


# What breaks


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_a_killed_process_costs_its_blocks_and_nothing_else(outputs: Path, tmp_path: Path) -> None:
    source = write_articles(tmp_path / "in.jsonl", range(100))
    settings = settings_of(outputs, block_rows=10, format="jsonl", workers=2)
    result = generate_directory(settings, str(source), tmp_path / "out", make_titler=Mortal)
    assert result.lines == 100
    assert len(list(tmp_path.glob("killed-*"))) == 3
    assert [record["id"] for record in read_all(tmp_path / "out")] == [f"a{number}" for number in range(100)]
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_what_is_done_stays_when_every_server_goes(outputs: Path, tmp_path: Path) -> None:
    source = write_articles(tmp_path / "in.jsonl", range(100))
    settings = settings_of(outputs, block_rows=10, format="jsonl")
    with pytest.raises(TitlegenError, match=r"every model server has gone; start them again; .* goes on from there"):
        generate_directory(settings, str(source), tmp_path / "out", make_titler=Stops)
    kept = find_parts(tmp_path / "out", "jsonl")
    assert 2 <= len(kept) < 10
    stamps = {place: path.stat().st_mtime_ns for place, path in kept.items()}
    # As a killed driver leaves it.
    (tmp_path / "out" / ".part-000000-00000009.jsonl.7.tmp").write_text("{", encoding="utf-8")
    result = generate_directory(settings, str(source), tmp_path / "out", make_titler=Echo)
    assert result.resumed == 10 * len(kept)
    assert {place: path.stat().st_mtime_ns for place, path in kept.items()} == stamps
    assert [record["id"] for record in read_all(tmp_path / "out")] == [f"a{number}" for number in range(100)]
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.fault
def test_a_server_that_has_gone_is_left_out(export: Export, server: OfflineServer) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    serve = ServeSettings(host=dead, model_name="quiz", retries=0)
    job = job_of(export, serve=serve, ray=RaySettings(hosts=(server.host,)))
    servers = Servers(job)
    answers = servers([question(number) for number in range(20)])
    assert [found[0].title for found in answers if isinstance(found, list)] == ANSWERS[:20]
    with pytest.raises(UnavailableError, match="no server answers at"):
        Servers(job_of(export, serve=serve, ray=RaySettings()))([question(1)])


def job_of(export: Export, **changes: Any) -> Job:
    values: dict[str, Any] = {
        "directory": export.merged.parent,
        "key": "",
        "data": DataSettings(),
        "serve": ServeSettings(),
        "ray": RaySettings(),
        "export": export.merged,
        "files": (),
    }
    return Job(**values | changes)


@pytest.mark.fault
def test_a_gone_server_at_the_start_is_said_and_another_model_refused(
    generate: Generate, export: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_articles(tmp_path / "in.jsonl", range(3))
    base = [str(source), "--out", str(tmp_path / "out"), "--engine", "ray"]
    # `--serve.host` twice: the second server's model is another one.
    export.write(dict(zip(quiz(), list(quiz().values())[::-1], strict=True)))
    with offline_server(tmp_path / "other") as other:
        other.create("quiz", export.file, template=ECHO_TEMPLATE, system=SYSTEM)
        assert generate(*base, "--serve.host", other.host) == EXIT_ERROR
    assert "have different models as 'quiz'" in capsys.readouterr().err
    export.write(quiz())
    assert further_hosts(["a", "--serve.host", "1", "--serve.host=2"]) == ["a", "--serve.host", "1", "--ray.hosts=2"]
    assert not (tmp_path / "out").exists()


@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_a_directory_of_other_articles_or_settings_is_refused(outputs: Path, tmp_path: Path) -> None:
    source = write_articles(tmp_path / "in.jsonl", range(10))
    generate_directory(settings_of(outputs, block_rows=5), str(source), tmp_path / "out", make_titler=Echo)
    for changes, match in (({"block_rows": 6}, "other block_rows = 5"), ({"block_rows": 5}, "other articles")):
        if match == "other articles":
            write_articles(source, range(11))
        with pytest.raises(DataError, match=match):
            generate_directory(settings_of(outputs, **changes), str(source), tmp_path / "out", make_titler=Echo)


@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_a_cluster_with_another_titlegen_is_refused(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machines have the release of this checkout, and this one says that it is another."""
    source = write_articles(tmp_path / "in.jsonl", range(3))
    monkeypatch.setattr("titlegen.cluster.start.__version__", "9.9.9")
    with pytest.raises(ConfigError, match=r"has titlegen .*, this one 9\.9\.9; install the same version on both"):
        generate_directory(settings_of(outputs), str(source), tmp_path / "out", make_titler=Echo)


@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_a_machine_that_does_not_see_the_folders_is_named(export: Export, tmp_path: Path) -> None:
    import ray

    source = write_articles(tmp_path / "in.jsonl", range(3))
    job = job_of(export, directory=tmp_path, files=(str(source),), key="of a run that another machine began")
    with pytest.raises(ConfigError, match=f"the machine .* of the cluster does not see {tmp_path}; put articles"):
        _check_nodes(ray.nodes(), job)


# Parts


def record_of(number: int, **fields: Any) -> dict[str, Any]:
    span = {"text": "第", "start": 0, "end": 1}
    warning = {"kind": "number", **span, "message": "m", "message_zh": "訊", "evidence": span}
    return {"id": number, "sha256": "0", "title": f"第{number}\ud800", "done_reason": "stop", "trimmed": False} | {
        "warnings": [warning] * (number % 2),
        **fields,
    }


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_parts_are_whole_in_order_and_joined(form: str, tmp_path: Path) -> None:
    places = [Place(10, 0), Place(2, 10), Place(2, 9)]
    for start, place in enumerate(places):
        write_part(part_path(tmp_path, place, form), [record_of(10 * start + n, titles=["甲", "乙"]) for n in range(3)])
    assert list(find_parts(tmp_path, form)) == sorted(places)
    ids = [str(record["id"]) for record in read_all(tmp_path, form)]
    assert ids == ["20", "21", "22", "10", "11", "12", "0", "1", "2"]
    target = tmp_path / f"titles.{form}"
    join_parts(find_parts(tmp_path, form).values(), target)
    assert count_rows(target) == 9
    assert list(read_part(target)) == read_all(tmp_path, form)
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.fault
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_part_that_was_cut_off_is_no_part(form: str, tmp_path: Path) -> None:
    path = part_path(tmp_path, Place(0, 0), form)
    write_part(path, [record_of(number) for number in range(3)])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(TitlegenError, match="remove it, and run the command again"):
        count_rows(path)


def test_articles_travel_as_they_are(tmp_path: Path) -> None:
    lines = [Line(1, "d", "甲\ud800", "文\n章", ""), Line(2, "e", 7, "", "no JSON", "a.jsonl")]
    assert unpack_lines(pack_lines(lines)) == lines
    source = write_articles(tmp_path / "in.jsonl", range(4))
    assert [line.id for line in read_lines(DataSettings(source=str(source)), 2)] == ["a2", "a3"]


def test_rows_are_estimated_without_reading_them(tmp_path: Path) -> None:
    source = write_articles(tmp_path / "in.jsonl", range(30))
    pq.write_table(pa.table({"content": ["甲"] * 12}), tmp_path / "in.parquet")
    assert estimate_rows((str(source), str(tmp_path / "in.parquet"))) == 42
    assert estimate_rows((str(source), str(tmp_path / "in.jsonl.gz"))) is None


# Back ends


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here", "one_thread")
def test_the_local_model_writes_evaluations_titles(
    tiny_merged: Path, articles: list[dict[str, str]], tmp_path: Path
) -> None:
    from titlegen.generation import TransformersGenerator
    from titlegen.serve.article import read_article, token_counter
    from titlegen.settings import EvaluateSettings

    export = tmp_path / "outputs" / "quickstart" / "final-hf"
    shutil.copytree(tiny_merged, export)
    source = tmp_path / "in.jsonl"
    contents = [article["content"][: 60 + 9 * number] for number, article in enumerate(articles[:8])]
    source.write_text("".join(as_line({"content": content}) for content in [*contents, ""]), encoding="utf-8")
    settings = settings_of(tmp_path / "outputs", backend="local", block_rows=4, batch_size=3, format="jsonl")
    settings = settings.model_copy(update={"serve": ServeSettings(num_predict=6)})
    result = generate_directory(settings, str(source), tmp_path / "out")
    assert result.failed == 1
    count = token_counter(export)
    sent = [read_article(content, 2000, count).sent for content in contents]
    raw = TransformersGenerator(export, None, EvaluateSettings(max_new_tokens=6)).generate(sent)
    found = read_all(tmp_path / "out")
    assert [record.get("title") for record in found[:8]] == [make_title(text) for text in raw]
    assert {record["done_reason"] for record in found[:8]} <= {"stop", "length"}
    assert "nothing is left of the article" in found[8]["error"]


def make_title(raw: str) -> str:
    return neutralise_control_tokens(first_line(to_traditional(raw).text))


@pytest.mark.usefixtures("one_thread")
def test_candidates_of_the_local_model_are_ranked(tiny_merged: Path, articles: list[dict[str, str]]) -> None:
    job = Job(tiny_merged, "", DataSettings(), ServeSettings(num_predict=6), RaySettings(), tiny_merged, (), number=4)
    (found,) = LocalModel(job)([articles[0]["content"][:80]])
    assert isinstance(found, list)
    assert 1 < len({one.title for one in found}) == len(found) <= 4


@pytest.mark.usefixtures("ray_here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_vllm_configuration_is_rays_own(export: Export) -> None:
    """A field that Ray's type does not know is an error, and so is a column that its stage does not read."""
    from ray.data.llm import build_processor
    from ray.llm._internal.batch.stages import vLLMEngineStage

    config = processor_config(export.merged, ServeSettings(num_ctx=2048), RaySettings(workers=2, batch_size=16))
    assert (config.model_source, config.concurrency, config.batch_size) == (str(export.merged), 2, 16)
    assert config.engine_kwargs["max_model_len"] == 2048
    # No other stage puts a second <bos> or a chat template around the prompt.
    assert build_processor(config).list_stage_names() == ["vLLMEngineStage"]
    asked = request([2, 105, 7], PROMPT, ServeSettings(num_predict=9))
    stage = vLLMEngineStage(fn_constructor_kwargs={"task_type": config.task_type}, map_batches_kwargs={})
    assert stage.get_required_input_keys().keys() <= asked.keys()
    assert asked.keys() <= stage.get_required_input_keys().keys() | stage.get_optional_input_keys().keys()
    greedy = {"temperature": 0.0, "max_tokens": 9, "stop": list(PROMPT.stop), "seed": 0, "detokenize": True}
    assert asked == {"tokenized_prompt": [2, 105, 7], "sampling_params": greedy}


def test_ray_is_named_when_it_is_missing(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("titlegen.cluster.run.importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'titlegen\[cluster\]'"):
        generate_directory(settings_of(outputs), "in.jsonl", tmp_path / "out")
