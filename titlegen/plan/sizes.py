"""Size and shape of a run's inputs: the base model and the articles."""

from pathlib import Path
from typing import NamedTuple

from titlegen.data.files import is_local
from titlegen.data.sources import open_source
from titlegen.errors import ConfigError
from titlegen.families import ModelSize, all_families
from titlegen.models import family_at, read_json, text_config
from titlegen.settings import EMBEDDED, DataSettings, ModelSettings

# Source: counted with Gemma's tokenizer; 0.79 on 2,767 press releases, 0.85 on the embedded corpus.
TOKENS_PER_CHAR = 0.8
# Source: counted likewise: the prompt around an article, a title with its end.
_AROUND_TOKENS = 50 + 21
# Source: the data set's card on the Hub; the mean length is that of benchmarks/results/faster.json.
_PTS, _PTS_ROWS, _PTS_TOKENS = "AWeirdDev/zh-tw-pts-articles-sm", 1400, 551.0


def find_model(settings: ModelSettings) -> ModelSize:
    """Return size and shape of the base model, without asking the Hub.

    Raises:
        ConfigError: it is none of the models whose figures are known.
    """
    sizes = [size for family in all_families() for size in family.sizes]
    names = {name: size for size in sizes for name in size.names}
    if settings.base in names:
        return names[settings.base]
    path = Path(settings.base)
    if (path / "config.json").is_file():
        layers = text_config(read_json(path / "config.json")).get("num_hidden_layers")
        found = [size for size in family_at(path).sizes if size.layers == layers]
        if found:
            return found[0]
    raise ConfigError(
        f"no plan for model.base {settings.base!r}: nothing was measured with it; known are {', '.join(names)} and "
        "local copies of them"
    )


class ArticleSizes(NamedTuple):
    """Rows of the source before any filter, and the mean length of a training row."""

    rows: int
    tokens: float
    source: str
    """Where the two figures come from."""


def count_articles(settings: DataSettings, rows: int | None) -> ArticleSizes:
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
        return ArticleSizes(
            rows or len(lengths), content + _AROUND_TOKENS, f"read, {TOKENS_PER_CHAR} tokens a character"
        )
    if settings.source == _PTS:
        number = rows or min(settings.limit or _PTS_ROWS, _PTS_ROWS)
        return ArticleSizes(number, min(_PTS_TOKENS, longest), "the data set's card, and faster.json for the length")
    if rows is None:
        raise ConfigError(
            f"no plan for data.source {settings.source!r}: its size is known to the Hub alone, which a plan does not "
            "ask; give the number of articles with --rows"
        )
    return ArticleSizes(rows, longest, "--rows, and the longest article that data.max_content_tokens allows")
