"""Size and shape of what a run starts from: the base model and the articles."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from titlegen.data.files import is_local
from titlegen.data.sources import open_source
from titlegen.errors import ConfigError
from titlegen.models import read_json, text_config
from titlegen.settings import EMBEDDED, DataSettings, ModelSettings

# Source: counted with Gemma's tokenizer; 0.79 on 2,767 press releases, 0.85 on the embedded corpus.
TOKENS_PER_CHAR = 0.8
# Source: counted likewise: the prompt around an article, a title with its end.
_AROUND_TOKENS = 50 + 21
# Source: the data set's card on the Hub; the mean length is that of benchmarks/results/faster.json.
_PTS, _PTS_ROWS, _PTS_TOKENS = "AWeirdDev/zh-tw-pts-articles-sm", 1400, 551.0


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """Size and shape of a base model."""

    parameters: float
    """All that are stored, towers for pictures and sound included."""
    text_parameters: float
    """Those that a GGUF file holds."""
    stored_bytes: int
    """Bytes for one weight in the base model's files."""
    largest_tensor: float
    """Elements of the largest tensor."""
    linear: dict[str, int]
    """Rows plus columns of all matrices of a name: what each rank of an adapter adds."""
    cache_bytes: int
    """Keys and values of one token, in 16 bits."""
    on_gpu: bool
    """Whether its figures were measured on a GPU, else on two CPU cores."""

    @property
    def gib(self) -> float:
        """Size of the base model's files."""
        return self.parameters * self.stored_bytes / 2**30

    def adapter_gib(self, rank: int, targets: tuple[str, ...]) -> float:
        """Return the size of an adapter in float32."""
        return 4 * rank * sum(self.linear.get(name, 0) for name in targets) / 2**30


def _linear(*, layers: int, own_kv: int, hidden: int, attention: int, kv: int, feed_forward: int) -> dict[str, int]:
    outer, inner, mlp = layers * (hidden + attention), own_kv * (hidden + kv), layers * (hidden + feed_forward)
    names = ("gate_proj", "up_proj", "down_proj")
    return {"q_proj": outer, "o_proj": outer, "k_proj": inner, "v_proj": inner} | dict.fromkeys(names, mlp)


# Source: the models' config.json; all parameters of E4B as its page on the Hub counts them.
_E4B = BaseModel(
    parameters=7.85e9,
    text_parameters=6.87e9,
    stored_bytes=2,
    largest_tensor=262_144 * 35 * 256,
    linear=_linear(layers=35, own_kv=20, hidden=2048, attention=2048, kv=512, feed_forward=16_384),
    cache_bytes=20 * 2 * 512 * 2,
    on_gpu=True,
)
_270M = BaseModel(
    parameters=268.1e6,
    text_parameters=268.1e6,
    stored_bytes=4,
    largest_tensor=262_144 * 640,
    linear=_linear(layers=18, own_kv=18, hidden=640, attention=1024, kv=256, feed_forward=2048),
    cache_bytes=18 * 2 * 256 * 2,
    on_gpu=False,
)
_MODELS = {EMBEDDED: _270M, "unsloth/gemma-3n-E4B-it": _E4B, "google/gemma-3n-E4B-it": _E4B}
# What tells them apart in a local directory.
_BY_LAYERS = {35: _E4B, 18: _270M}


def find_model(settings: ModelSettings) -> BaseModel:
    """Return size and shape of the base model, without asking the Hub.

    Raises:
        ConfigError: it is none of the models whose figures are known.
    """
    if settings.base in _MODELS:
        return _MODELS[settings.base]
    path = Path(settings.base) / "config.json"
    if path.is_file():
        config = read_json(path)
        layers = text_config(config).get("num_hidden_layers")
        if layers in _BY_LAYERS:
            return _BY_LAYERS[layers]
    raise ConfigError(
        f"no plan for model.base {settings.base!r}: nothing was measured with it; known are {', '.join(_MODELS)} and "
        "local copies of them"
    )


class Articles(NamedTuple):
    """Rows of the source before any filter, and the mean length of a training row."""

    rows: int
    tokens: float
    source: str
    """Where the two figures come from."""


def count_articles(settings: DataSettings, rows: int | None) -> Articles:
    """Return size and mean length of the source; a local one is read, one on the Hub is not.

    Args:
        settings: what is read.
        rows: number of articles, for a Hub data set whose size is not known here.

    Raises:
        ConfigError: the size of a Hub data set is not known.
        DataError: a local source cannot be read.
    """
    longest = settings.max_content_tokens + _AROUND_TOKENS
    if settings.source == EMBEDDED or is_local(settings.source):
        lengths = [len(str(row.content or "")) for row in open_source(settings).rows]
        content = sum(min(length * TOKENS_PER_CHAR, settings.max_content_tokens) for length in lengths) / len(lengths)
        return Articles(rows or len(lengths), content + _AROUND_TOKENS, f"read, {TOKENS_PER_CHAR} tokens a character")
    if settings.source == _PTS:
        number = rows or min(settings.limit or _PTS_ROWS, _PTS_ROWS)
        return Articles(number, min(_PTS_TOKENS, longest), "the data set's card, and faster.json for the length")
    if rows is None:
        raise ConfigError(
            f"no plan for data.source {settings.source!r}: its size is known to the Hub alone, which a plan does not "
            "ask; give the number of articles with --rows"
        )
    return Articles(rows, longest, "--rows, and the longest article that data.max_content_tokens allows")
