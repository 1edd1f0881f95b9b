import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from titlegen import environment
from titlegen.environment import SHORT_WAIT, cache_directory, check_remote, is_writable, python_command
from titlegen.errors import ConfigError
from titlegen.settings import load_settings

HUB = "https://huggingface.co"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the next test the old environment."""
    before = dict(os.environ)
    monkeypatch.setattr(environment, "_withheld", {})
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.fault
@pytest.mark.parametrize(
    "variables",
    [
        {
            "ALL_PROXY": "socks4://127.0.0.1:7890",
            "OLLAMA_HOST": "http://[::1",
            "SSL_CERT_FILE": "/no/such/file",
            "HF_HUB_DOWNLOAD_TIMEOUT": "soon",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        },
        {
            "https_proxy": "garbage:::",
            "NO_PROXY": "[::1]",
            "OLLAMA_HOST": "h:abc",
            "SSLKEYLOGFILE": "/no/such/folder/file",
            "HF_DATASETS_IN_MEMORY_MAX_SIZE": "much",
            "MPLBACKEND": "none such",
        },
    ],
)
def test_libraries_that_read_the_environment_can_be_imported_and_built(variables: dict[str, str]) -> None:
    code = (
        "from titlegen import environment; environment.prepare()\n"
        "import httpx, ollama, huggingface_hub, huggingface_hub.constants, datasets.config\n"
        "import matplotlib.pyplot\n"
        "ollama.Client(host='http://127.0.0.1:1'), httpx.Client(trust_env=False), httpx.Client()\n"
        "huggingface_hub.get_session()\n"
    )
    result = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("variable", "value"),
    [("SSL_CERT_FILE", "/no/such/file"), ("SSL_CERT_DIR", "/no/such"), ("HF_HUB_ETAG_TIMEOUT", "soon")],
)
def test_what_was_taken_out_is_named_where_another_machine_is_asked(variable: str, value: str) -> None:
    os.environ[variable] = value
    environment.prepare()
    check_remote("http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=rf"^{variable} = '{value}' cannot be used \("):
        check_remote(HUB)


@pytest.mark.fault
def test_a_token_that_is_none_is_named_without_its_value() -> None:
    os.environ["HF_TOKEN"] = "hf_密碼"  # noqa: S105 - no token
    with pytest.raises(ConfigError, match=r"^HF_TOKEN holds characters that no token has") as raised:
        check_remote(HUB)
    assert "密碼" not in str(raised.value)


def test_what_a_file_of_variables_from_another_system_leaves_is_taken_off() -> None:
    os.environ |= {"\ufeffHF_ORG": "newsroom\r", "HF_REPO": '"titles"', "TITLEGEN_OUTPUT": "out\r"}
    environment.prepare()
    settings = load_settings()
    assert settings.hub.repo_id == "newsroom/titles"
    assert settings.output == Path("out")


def test_an_address_of_ollama_that_was_taken_out_is_still_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "h:abc")
    environment.prepare()
    assert "OLLAMA_HOST" not in os.environ
    assert environment.ollama_host() == "h:abc"


@pytest.mark.fault
@pytest.mark.parametrize("home", ["/proc/none", "/no/such/home", None])
def test_caches_get_another_place_where_the_home_folder_takes_none(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "TITLEGEN_CACHE", "HF_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if home is None:
        # A container's user without HOME and without a line in /etc/passwd.
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        monkeypatch.setenv("HOME", home)
        if home.startswith("/no"):
            # Root could make it.
            monkeypatch.setattr(environment, "is_writable", lambda folder: not str(folder).startswith(home))
    environment.prepare()
    assert cache_directory().parent == tmp_path
    assert Path(os.environ["HF_HOME"]).is_relative_to(tmp_path)
    assert cache_directory().stat().st_mode & 0o077 == 0


@pytest.mark.fault
def test_a_folder_that_somebody_else_put_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"titlegen-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        environment._fallback()


def test_a_folder_is_writable_when_it_can_be_made(tmp_path: Path) -> None:
    assert is_writable(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    assert not is_writable(tmp_path / "file" / "b")
    # Where the file system takes nothing, root is told that it may write.
    assert not is_writable(Path("/proc/none"))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}),
        # The number of rounds outweighs the policy, so that ours would undo the user's.
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "30000000000"}),
        ({"GOMP_SPINCOUNT": "77"}, {"GOMP_SPINCOUNT": "77"}),
    ],
)
def test_how_threads_wait_reaches_the_library_that_torch_runs_on(own: dict[str, str], expected: dict[str, str]) -> None:
    # The doctor imports torch, whose library prints what it has read.
    code = "import titlegen.cli; titlegen.cli.main(['doctor'])"
    clean = {name: value for name, value in os.environ.items() if name not in SHORT_WAIT}
    result = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", code],
        env=clean | own | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = dict(re.findall(r"(OMP_WAIT_POLICY|GOMP_SPINCOUNT) = '(\w+)'", result.stderr))
    assert shown.items() >= expected.items()


@pytest.mark.fault
def test_a_module_of_ours_is_not_taken_for_one_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('this is not the json that was meant')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    root = Path(environment.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setattr(sys, "path", [str(root), *sys.path[1:]])
    subprocess.run([*python_command("titlegen.standins.hub"), "--help"], check=True, capture_output=True)  # noqa: S603
    # A source tree that is not installed is found in the working directory alone.
    for here in ("", str(tmp_path)):
        monkeypatch.setattr(sys, "path", [here, *sys.path])
        assert python_command("titlegen") == [sys.executable, "-m", "titlegen"]


@pytest.mark.fault
def test_every_process_of_ours_is_begun_by_one_command() -> None:
    package = Path(environment.__file__).parent
    begun = [path.name for path in package.rglob("*.py") if '"-m", ' in path.read_text(encoding="utf-8")]
    assert begun == ["environment.py"]


MEMORY = "when host memory runs out; `titlegen plan` says how much is needed"


OUT_OF_MEMORY = "the system does that when host memory runs out; `titlegen plan` says how much is needed"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with code 0"),
        (3, "ended with code 3"),
        (-15, "was ended by SIGTERM"),
        (-9, f"was ended by SIGKILL ({OUT_OF_MEMORY})"),
        (-40, "was ended by signal 40"),
    ],
)
def test_how_a_process_ended_is_told_from_its_code(code: int, text: str) -> None:
    assert environment.describe_exit(code) == text
