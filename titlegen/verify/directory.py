"""Proofs of a model directory that any tool may have made."""

from pathlib import Path

from titlegen.data.sources import open_source
from titlegen.errors import ConfigError
from titlegen.settings import EMBEDDED, DataSettings
from titlegen.verify import Check, verify
from titlegen.verify.modelfile import check_modelfile

# Articles whose prompts are compared with a Modelfile's.
_MODELFILE_ARTICLES = 10


def verify_directory(
    directory: Path,
    base: Path | None = None,
    adapter: Path | None = None,
    modelfile: Path | None = None,
    *,
    greedy_articles: int,
) -> list[Check]:
    """Check a model directory, whoever made it, and the GGUF files in it; nothing is written.

    Args:
        directory: the model, in safetensors.
        base: directory of the base model, None to check what holds without it.
        adapter: directory of the adapter, None to leave the merge itself unchecked.
        modelfile: a Modelfile, whoever wrote it, whose prompt is compared with the model's chat template.
        greedy_articles: number of articles whose titles are compared.

    Raises:
        ConfigError: a directory does not exist, the Modelfile cannot be read, or an adapter is given without its base.
    """
    for path in filter(None, (directory, base, adapter)):
        if not path.is_dir():
            raise ConfigError(f"{path} is not a directory; give one to `titlegen verify`")
    if adapter and not base:
        raise ConfigError(f"--adapter {adapter} changes a base model; give its directory with --base")
    rows = list(open_source(DataSettings(source=EMBEDDED)).rows)
    contents, titles = [row.content for row in rows], [row.title for row in rows]
    ggufs = sorted(directory.glob("*.gguf"))
    audited = [] if modelfile is None else check_modelfile(directory, modelfile, contents[:_MODELFILE_ARTICLES])
    return verify(directory, base, adapter, ggufs, contents, titles, greedy_articles=greedy_articles).checks + audited
