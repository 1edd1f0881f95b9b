"""The process' environment beside the settings: switches, folders, and variables that libraries read while imported."""

import contextlib
import ipaddress
import os
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from titlegen import proxies
from titlegen.errors import ConfigError

# Read outside the settings model, so not "unknown" when present.
SWITCHES = frozenset({"TITLEGEN_DEBUG", "TITLEGEN_CACHE", "TITLEGEN_DESK_TOKEN"})
# A thread spins for a short while before it sleeps. Waking for each operation slows a quiet machine down, and spinning
# for long slows a busy one down many times: benchmarks/results/waiting_train.json, and short_wait_gain in
# offline_server.json. GNU's library (torch's, llama.cpp's) knows the first of the two, which then outweighs the second;
# others know the second alone.
SHORT_WAIT = {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": "passive"}
# Source: torch, oneDNN (both of its names), MKL, OpenBLAS, numpy and the C library.
_PROCESSOR_LIMITS = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "GLIBC_TUNABLES"),
)
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_NUMBERS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "HF_DATASETS_IN_MEMORY_MAX_SIZE")
_OURS = ("TITLEGEN_", "HF_", "HUGGING_FACE_", "OLLAMA_")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")

# What was taken out of the environment, with the reason.
_withheld: dict[str, tuple[str, str]] = {}


def prepare() -> None:
    """Rewrite variables that a library would fail on while it is imported; an error is raised where one is needed.

    Proxies become readable (:func:`titlegen.proxies.normalise_proxies`), certificates that do not exist and an
    OLLAMA_HOST that is no address are taken out, and where the home folder cannot be written to, caches get another
    place.
    """
    _clean_values()
    proxies.normalise_proxies()
    _withheld.clear()
    # Pictures are written to files; a notebook's back end is not installed here.
    os.environ["MPLBACKEND"] = "agg"
    for name in _NUMBERS:
        if not os.environ.get(name, "0").strip().isdecimal():
            _withhold(name, "is no number")
    if "SSLKEYLOGFILE" in os.environ:
        try:
            ssl.create_default_context()
        except OSError as error:
            _withhold("SSLKEYLOGFILE", str(error.strerror))
    for name in _CERTIFICATES:
        if value := os.environ.get(name):
            try:
                _ = ssl.create_default_context(cafile=value) if name.endswith("FILE") else None
                reason = "" if Path(value).exists() else "does not exist"
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
            _withhold(name, reason)
    if (host := os.environ.get("OLLAMA_HOST")) and not _is_address(host):
        _withhold("OLLAMA_HOST", "is no address")
    _settle_caches()


def ollama_host() -> str | None:
    """Return OLLAMA_HOST as the user set it."""
    return os.environ.get("OLLAMA_HOST") or _withheld.get("OLLAMA_HOST", (None,))[0]


def check_remote(url: str) -> None:
    """Raise when the environment keeps an address on another machine from being reached.

    Raises:
        ConfigError: naming the variable, its value and what to do.
    """
    if proxies.is_loopback(url):
        return
    proxies.check_proxy(url)
    for name in (*_NUMBERS, *_CERTIFICATES):
        if name in _withheld:
            value, reason = _withheld[name]
            raise ConfigError(f"{name} = {value!r} cannot be used ({reason}); correct or unset it to reach {url}")
    for name in _TOKENS:
        if not os.environ.get(name, "").strip().isascii():
            raise ConfigError(f"{name} holds characters that no token has; copy it again, or unset it to reach {url}")


def cache_directory() -> Path:
    """Return the folder of materialised base models.

    That is TITLEGEN_CACHE, else ``titlegen`` in XDG_CACHE_HOME or ~/.cache; where that can be neither found nor made,
    a folder of this user's below the temporary one.
    """
    if own := os.environ.get("TITLEGEN_CACHE"):
        return Path(own)
    cache = _cache_home()
    if cache is not None and (_is_folder(cache / "titlegen") or is_writable(cache)):
        return cache / "titlegen"
    return _fallback()


def is_writable(folder: Path) -> bool:
    """Return whether a folder can be written to, or made."""
    try:
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            return False
        # For root every folder looks writable, also where the file system takes nothing.
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder; one that the system refuses to look at, such as too long a name, is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def draw_rarely() -> None:
    """Let progress bars write a line now and then instead of redrawing, for a log or another program."""
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TQDM_MININTERVAL": "30",
    }.items():
        os.environ.setdefault(name, value)


def assume_size() -> None:
    """Give progress bars a usual terminal size: they draw nothing on a terminal without one."""
    for name, value in {"TQDM_NCOLS": "78", "TQDM_NROWS": "24"}.items():
        os.environ.setdefault(name, value)


def processor_limits() -> dict[str, str]:
    """Return the variables in use that keep a library from some of the processor's features, or choose its code."""
    return {name: os.environ[name] for name in _PROCESSOR_LIMITS if name in os.environ}


def prepare_threads() -> None:
    """Let torch's threads spin for a short while before they sleep; call it before torch is imported.

    Beside other work, a thread that spins for long takes the time that the others need. A user who has set one of the
    variables has decided about both, for the first outweighs the second.
    """
    if not SHORT_WAIT.keys() & os.environ.keys():
        os.environ.update(SHORT_WAIT)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread of the processor meanwhile.

    For the small operations that make a batch, a dozen of them: waking all threads of a large machine for every one
    takes longer than computing it, and a GPU waits.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def prepare_compiler() -> None:
    """Let torch keep what it compiles in titlegen's cache, not in a folder that a reboot empties."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_directory() / "compiled"))


def prepare_training_environment(*, compile_model: bool) -> None:
    """Turn off the telemetry of the training libraries, and give their caches and the GPU's memory a lasting order.

    Variables that the user has set stay as they are.

    Args:
        compile_model: let Unsloth compile the whole model, which costs a minute before its first use.
    """
    prepare_threads()
    prepare_compiler()
    for name, value in {
        "UNSLOTH_COMPILE_DISABLE": "0" if compile_model else "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Unsloth writes generated source beside the current directory otherwise.
        "UNSLOTH_COMPILE_LOCATION": str(cache_directory() / "unsloth"),
        # Batches of many sizes would leave gaps that no later batch fits into.
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }.items():
        os.environ.setdefault(name, value)


def python_command(module: str) -> list[str]:
    """Return a command that runs a module of ours, whatever lies in the folder in which titlegen is used.

    ``-m`` alone looks there first, and takes somebody's ``json.py`` for Python's own. Where this process looks there,
    too, as in a source tree that is not installed, so does the new one.
    """
    looked_at = {os.path.realpath(folder) for folder in sys.path}
    safe = [] if os.path.realpath("") in looked_at else ["-P"]
    return [sys.executable, *safe, "-m", module]


def describe_exit(code: int) -> str:
    """Return how a process ended, with its exit code or its signal, and what a kill may mean."""
    if code >= 0:
        return f"ended with code {code}"
    # Python has no names for most real-time signals.
    name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
    killed = ""
    if name == "SIGKILL":
        killed = " (the system does that when host memory runs out; `titlegen plan` says how much is needed)"
    return f"was ended by {name}{killed}"


def locale_name() -> str:
    """Return the locale for texts as gettext finds it, such as ``zh_TW.UTF-8``; ``C`` when there is none."""
    locale = next(filter(None, (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "C")
    if locale.partition(".")[0] in {"C", "POSIX"}:
        return "C"
    return os.environ.get("LANGUAGE") or locale


def debugging() -> bool:
    """Return whether TITLEGEN_DEBUG asks for tracebacks."""
    return os.environ.get("TITLEGEN_DEBUG", "") not in {"", "0"}


def desk_token() -> str:
    """Return the password of the editor's desk; empty when none is set."""
    return os.environ.get("TITLEGEN_DESK_TOKEN", "").strip()


def secrets() -> set[str]:
    """Return the values of the variables that hold tokens, keys and passwords."""
    marks = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "APIKEY", "CREDENTIAL")
    shortest = 8
    return {
        value.strip()
        for name, value in os.environ.items()
        if any(mark in name.upper() for mark in marks) and len(value.strip()) >= shortest
    }


def _clean_values() -> None:
    """Remove what another system's .env file adds: a BOM, carriage returns, quotes that Docker keeps."""
    for name, value in list(os.environ.items()):
        bare = name.lstrip("\ufeff")
        if not bare.startswith(_OURS):
            continue
        clean = value.strip()
        if len(clean) > 1 and clean[0] == clean[-1] and clean[0] in "\"'":
            clean = clean[1:-1]
        if bare != name:
            del os.environ[name]
        if (bare, clean) != (name, value) and (bare == name or bare not in os.environ):
            os.environ[bare] = clean


def _withhold(name: str, reason: str) -> None:
    if reason and name in os.environ:
        _withheld[name] = (os.environ.pop(name), reason)


def _is_address(host: str) -> bool:
    """Return whether Ollama's client can read an OLLAMA_HOST; it does so while it is imported."""
    import httpx

    try:
        parts = urlsplit(host if "://" in host else f"http://{host}")
        port, name = parts.port or 1, parts.hostname or "127.0.0.1"
        with contextlib.suppress(ValueError):
            name = f"[{name}]" if ipaddress.ip_address(name).version == 6 else name  # noqa: PLR2004 - the protocol's
        httpx.URL(f"{parts.scheme}://{name}:{port}{parts.path}")
    except (ValueError, httpx.InvalidURL):
        return False
    return True


def _settle_caches() -> None:
    """Give libraries that write into the home folder another place where they cannot."""
    cache = _cache_home()
    if cache is not None and is_writable(cache):
        return
    os.environ.setdefault("MPLCONFIGDIR", str(_fallback() / "matplotlib"))
    # A token and models in it can still be read.
    if cache is None or not _is_folder(cache / "huggingface"):
        os.environ.setdefault("HF_HOME", str(_fallback() / "huggingface"))
    else:
        os.environ.setdefault("HF_DATASETS_CACHE", str(_fallback() / "huggingface" / "datasets"))


def _cache_home() -> Path | None:
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        # Neither HOME nor the system's list of users names one.
        return None


def _fallback() -> Path:
    """Return a folder below the temporary one that is this user's alone.

    Raises:
        ConfigError: somebody else's stands in its place.
    """
    folder = Path(tempfile.gettempdir()) / f"titlegen-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to somebody else; say with TITLEGEN_CACHE where base models may lie")
    return folder
