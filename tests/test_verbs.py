"""Any input to a verb ends in a result or in one line: never in a traceback, never in exit code 1."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from titlegen.cli import main
from titlegen.console import EXIT_DONE, EXIT_ERROR

# An unused port of this machine: what needs a server ends there.
NOWHERE = "http://127.0.0.1:9"
QUIET = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

TEXT = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from("新聞標題。，\n\r\t\0\ufeff\u2028\x1b\"'\\{}[]<>&｜|,;=%$"), max_size=40),
    st.sampled_from(
        ["台北市今天上午發生地震，目前沒有傳出災情。" * 5, "a" * 5000, "堃😀", "\ud800", "..", "~", "-", "--"]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.just(10**400), st.just(-(2**63))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
ROW = st.one_of(
    JSON,
    st.fixed_dictionaries({"content": JSON, "title": JSON}, optional={"date": JSON, "id": JSON}),
    st.fixed_dictionaries({"messages": JSON}),
)


def lines(rows: list[Any]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


FILE = st.one_of(
    st.binary(max_size=300),
    st.lists(ROW, max_size=4).map(lines),
    st.lists(ROW, max_size=4).map(lambda rows: json.dumps(rows, indent=1).encode()),
    st.tuples(st.lists(ROW, min_size=1, max_size=3).map(lines), st.sampled_from(["utf-16", "utf-8-sig", "big5"])).map(
        lambda made: made[0].decode().encode(made[1])
    ),
    st.lists(st.lists(TEXT, min_size=1, max_size=4), max_size=4).map(
        lambda rows: "\n".join(["title,content", *(",".join(row) for row in rows)]).encode(errors="surrogatepass")
    ),
    st.sampled_from([b"", b"\n", b"PAR1", b"PAR1PAR1", b"\x1f\x8b", b"[" * 50_000, b"\xff\xfe"]),
)
SUFFIX = st.sampled_from([".jsonl", ".JSONL", ".json", ".csv", ".tsv", ".parquet", ".txt", ".gz", ".xlsx", ""])
# A name may have 255 bytes.
_TOO_LONG = "新聞" * 50
NAME = st.text(st.sampled_from("新聞 堃'\"\n-_.~%*?[]\\"), min_size=1, max_size=8).map(lambda name: f"x{name}")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in a folder and with an environment of its own, and put both back."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    os.environ["TITLEGEN_CACHE"] = str(tmp_path / "cache")
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


class _Pipe(io.TextIOWrapper):
    """A stream in memory as strict as a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)

    def text(self) -> str:
        data: bytes = self.buffer.getvalue()  # type: ignore[attr-defined]
        return data.decode()


def call(*arguments: str) -> tuple[int, str, str]:
    """Run a verb in this process; returns its exit code, standard output and standard error."""
    out, err, before = _Pipe(), _Pipe(), (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        code = main(list(arguments))
    finally:
        sys.stdout, sys.stderr = before
    return code, out.text(), err.text()


def check(*arguments: str, codes: tuple[int, ...] = (EXIT_DONE, EXIT_ERROR)) -> None:
    """Assert that a verb ends well: with a result, or with one line that says what was not to be used."""
    code, out, err = call(*arguments)
    assert code in codes, err
    assert "Traceback" not in out + err
    if code == EXIT_ERROR:
        last = err.rstrip("\n").split("\n")[-1]
        assert last.startswith("titlegen: "), err
        assert last.isprintable()
        assert not last.startswith("titlegen: unexpected"), (arguments, last)
        assert "its log" not in last, (arguments, last)
        assert len(last) < 2000


@pytest.mark.fault
@QUIET
@given(FILE, NAME, SUFFIX)
def test_prepare_takes_any_file(tiny_base: Path, place: Path, content: bytes, name: str, suffix: str) -> None:
    path = place / f"{name}{suffix}"
    path.write_bytes(content)
    try:
        check("prepare", "--data.source", str(path), "--model.base", str(tiny_base), "--data.workers", "1")
    finally:
        path.unlink()


@pytest.mark.fault
@QUIET
@given(FILE, NAME, SUFFIX, st.booleans())
def test_generate_takes_any_file(place: Path, content: bytes, name: str, suffix: str, many: bool) -> None:
    path = place / f"{name}{suffix}"
    path.write_bytes(content)
    (place / "outputs" / "quickstart" / "final-hf").mkdir(parents=True, exist_ok=True)
    tail = ["--out", str(place / "titles.jsonl")] if many else []
    try:
        # Titles that no server wrote are failures of articles, which have a code of their own.
        check("generate", str(path), *tail, "--serve.host", NOWHERE, "--serve.retries", "0", codes=(0, 1, 2))
    finally:
        path.unlink()


@pytest.mark.fault
@QUIET
@given(
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(st.sampled_from(["data", "train", "serve", "profile", "output", "x"]), JSON, max_size=3).map(
            lambda table: "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items()).encode()
        ),
        st.tuples(st.sampled_from(["data", "train", "evaluate.gates", "serve", "hub"]), TEXT, JSON).map(
            lambda made: f"[{made[0]}]\n{json.dumps(made[1])} = {json.dumps(made[2])}\n".encode()
        ),
        st.sampled_from([b"a = " + b"[" * 5000, b'output = "a\\u0000b"', b"seed = 9" + b"9" * 5000]),
    ),
    NAME,
)
def test_any_profile_is_read_or_refused(place: Path, content: bytes, name: str) -> None:
    path = place / f"{name}.toml"
    path.write_bytes(content)
    try:
        check("plan", "--profile", str(path))
    finally:
        path.unlink()


@pytest.mark.fault
@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--output", _TOO_LONG),
        ("plan", "--profile", f"{_TOO_LONG}.toml"),
        ("prepare", "--data.source", f"./{_TOO_LONG}.csv"),
        ("prepare", "--model.base", _TOO_LONG),
        ("generate", _TOO_LONG),
        ("verify", _TOO_LONG),
    ],
)
def test_a_name_that_no_file_system_takes_is_said_in_a_line(arguments: tuple[str, ...]) -> None:
    check(*arguments, codes=(EXIT_ERROR,))


@pytest.mark.fault
@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "HF_HOME", "TITLEGEN_CACHE"])
def test_a_cache_that_no_file_system_takes_does_not_stop_what_needs_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, _TOO_LONG)
    check("plan", codes=(EXIT_DONE,))


@pytest.mark.fault
@QUIET
@given(
    st.dictionaries(
        st.sampled_from(
            [
                *[
                    "TITLEGEN_PROFILE",
                    "TITLEGEN_OUTPUT",
                    "TITLEGEN_DATA__SOURCE",
                    "TITLEGEN_DATA",
                    "TITLEGEN_TRAIN__SEED",
                ],
                *["TITLEGEN_X", "OLLAMA_HOST", "HF_ORG", "HF_REPO", "HF_ENDPOINT", "HF_TOKEN", "NO_PROXY", "ALL_PROXY"],
                *["HTTPS_PROXY", "SSL_CERT_FILE", "XDG_CACHE_HOME", "COLUMNS", "TITLEGEN_CACHE", "\ufeffHF_ORG"],
            ]
        ),
        TEXT.filter(lambda text: "\0" not in text and "\ud800" not in text),
        max_size=4,
    ),
    st.sampled_from([["plan"], ["plan", "--json"], ["train", "--help"], ["generate", "a.txt"], ["serve", "--stop"]]),
)
def test_any_environment_gives_a_result_or_a_line(place: Path, variables: dict[str, str], arguments: list[str]) -> None:
    before = dict(os.environ)
    os.environ.update(variables)
    (place / "a.txt").write_text("新聞", encoding="utf-8")
    try:
        check(*arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.fault
@QUIET
@given(
    st.dictionaries(
        st.sampled_from(["config.json", "tokenizer.json", "model.safetensors", "adapter_config.json", "model.gguf"]),
        st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())),
        max_size=4,
    )
)
def test_verify_takes_any_directory(place: Path, files: dict[str, bytes]) -> None:
    folder = place / "model"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        check("verify", "--directory", str(folder), "--export.verify-articles", "0")
    finally:
        for name in files:
            (folder / name).unlink()


@pytest.mark.fault
@QUIET
@given(
    st.lists(
        st.one_of(
            TEXT,
            st.sampled_from(["plan", "prepare", "generate", "--json", "--help", "--profile", "--data.limit", "--n"]),
        ),
        max_size=5,
    )
)
def test_any_command_line_gives_a_result_or_a_line(arguments: list[str]) -> None:
    # Verbs that would really work are asked for help alone.
    named = [argument.replace("\0", "") for argument in arguments if argument not in {"doctor", "serve"}]
    check(*(["plan", *named] if "prepare" not in named else [*named, "--help"]))


@pytest.mark.fault
def test_ctrl_c_while_workers_start_is_one_line(tiny_base: Path, place: Path) -> None:
    row = {"content": "台北市今天上午發生地震，目前沒有傳出災情。" * 12, "title": "台北地震無災情傳出"}
    source = place / "many.jsonl"
    source.write_bytes(lines([row | {"id": number} for number in range(20_000)]))
    command = [sys.executable, "-m", "titlegen", "prepare", "--model.base", str(tiny_base), "--data.workers", "2"]
    with subprocess.Popen(  # noqa: S603 - our own command line
        ["/usr/bin/env", "--default-signal=INT", *command, "--data.source", str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C reaches every process of a terminal's group.
        start_new_session=True,
    ) as started:
        watched, deadline = psutil.Process(started.pid), time.monotonic() + 120
        while time.monotonic() < deadline and started.poll() is None:
            if any("spawn_main" in " ".join(child.cmdline()) for child in watched.children(recursive=True)):
                break
            time.sleep(0.01)
        os.killpg(started.pid, signal.SIGINT)
        out, err = started.communicate(timeout=120)
    assert (started.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.endswith("interrupted; run the same command again to go on from the last checkpoint\n")
