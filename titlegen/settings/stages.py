"""The settings of each stage, frozen, with their defaults and what they mean."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from titlegen import environment, specification
from titlegen.settings.stage import Seed, Share, StageSettings

EMBEDDED = "embedded"

Language = Literal["en", "zh-TW"]


class DataSettings(StageSettings):
    """Where the articles come from and how they become train, val and test."""

    source: Annotated[str, Field(min_length=1)] = "AWeirdDev/zh-tw-pts-articles-sm"
    """Hub data set, file, folder or pattern of JSON, CSV or Parquet, or `embedded` for the corpus of titlegen."""
    revision: str | None = None
    """Hub revision of the data set; a branch may move, which goes unnoticed, a commit id may not."""
    config_name: str | None = None
    """Configuration (subset) of a Hub data set that has several."""
    source_split: str | None = None
    """Split of a Hub data set that is read, or several joined by `+`; all of them by default."""
    encoding: str | None = None
    """Encoding of text files that are not UTF-8, UTF-16 or UTF-32, such as `big5` or `gb18030`."""
    content_column: str = "content"
    """Column that holds the article."""
    title_column: str = "title"
    """Column that holds the title."""
    date_column: str = "date"
    """Column that holds the date, when there is one."""
    date_order: Literal["auto", "month-first", "day-first", "year-first", "roc"] = "auto"
    """How dates such as 5/1/2024, 01/05/24 or 99/05/01 are read; `auto` lets the whole column decide."""
    split: Literal["random", "time"] = "random"
    """How train, val and test are separated; near-duplicates always stay together."""
    val_share: Share = 0.1
    """Share of the articles for validation."""
    test_share: Share = 0.1
    """Share of the articles for the test."""
    seed: Seed = 20240601
    """Seed of the split, of balancing and of every other draw in this stage."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Use at most this many rows of the source, 0 for all."""
    min_content_chars: Annotated[int, Field(ge=1)] = 50
    """Shortest article kept, characters after cleaning."""
    min_title_chars: Annotated[int, Field(ge=1)] = 6
    """Shortest title kept, characters after cleaning."""
    max_title_chars: Annotated[int, Field(ge=1)] = 60
    """Longest title kept, characters after cleaning."""
    script: Literal["convert", "drop", "keep"] = "convert"
    """What happens to Simplified Chinese: convert it to what Taiwan writes, drop the row, or keep it."""
    near_duplicate: Share = specification.NEAR_DUPLICATE
    """Jaccard similarity of character 5-grams from which two articles count as the same."""
    max_content_tokens: Annotated[int, Field(ge=16)] = 1536
    """Token budget of the article; a longer article is shortened at a sentence end."""
    max_title_tokens: Annotated[int, Field(ge=4)] = 64
    """Token budget of the title; a longer title drops the row."""
    shorten: Literal["truncate", "lead", "textrank"] = "truncate"
    """How an article over its budget is shortened: cut at a sentence end, Lead-3, or TextRank sentences."""
    balance: bool = False
    """Re-sample the train split so that title lengths are evenly spread."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes for cleaning, 0 for one a core; the output does not depend on it."""


class ModelSettings(StageSettings):
    """The base model."""

    base: str = "unsloth/gemma-3n-E4B-it"
    """Hub name, local directory, or `embedded` for Gemma 3 270M out of its PyPI package."""
    revision: str | None = None
    """Hub revision of the base model."""


class ExportSettings(StageSettings):
    """The merged model and its GGUF files."""

    dtype: Literal["base", "float32", "bfloat16", "float16"] = "base"
    """Element type of the merged safetensors; `base` keeps the base model's."""
    gguf_types: tuple[Literal["f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s"], ...] = ("q8_0",)
    """GGUF files to write; the first is the one that is deployed. Those with a k need the program llama-quantize."""
    max_shard_gib: Annotated[float, Field(gt=0)] = 4.0
    """Largest safetensors shard, GiB."""
    verify_articles: Annotated[int, Field(ge=0)] = 8
    """Articles whose generated titles are compared: adapter, merged model, GGUF."""


class GateSettings(StageSettings):
    """Smallest value of each score with which the model may be released, the specification's by default; -1 is off."""

    rougeL: Annotated[float, Field(ge=-1, le=1)] = specification.SCORES["rougeL"]  # noqa: N815 - the metric's name
    """Mean ROUGE-L F1."""
    bleu1: Annotated[float, Field(ge=-1, le=1)] = specification.SCORES["bleu1"]
    """Corpus BLEU-1 with brevity penalty."""
    title_only_rate: Annotated[float, Field(ge=-1, le=1)] = specification.SCORES["title_only_rate"]
    """Share of raw outputs that are a title and nothing else."""
    length_rate: Annotated[float, Field(ge=-1, le=1)] = specification.SCORES["length_rate"]
    """Share of titles of 8 to 30 characters."""


class EvaluateSettings(StageSettings):
    """Scoring of generated titles against the references."""

    target: str = "auto"
    """What generates: `server`, `merged`, `adapter`, a predictions file, or `auto`: the server once deployed."""
    split: Literal["val", "test"] = "test"
    """Which split is scored."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Score at most this many rows, 0 for all."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Articles generated at a time on each card (merged and adapter)."""
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Cards that write titles together (merged and adapter); `auto` takes all."""
    compile: bool | Literal["auto"] = "auto"
    """Compile each kind of layer (merged and adapter); `auto` does so on a GPU once 4.5 million tokens were read."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 48
    """Longest title, tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy. Candidates after the first have 0.8 at least."""
    candidates: Annotated[int, Field(ge=1, le=64)] = 1
    """Titles written for each article, of which the best is scored; none of them is compared with the reference."""
    base_model: bool = True
    """Score the untuned base model on the same rows, for the calibration card; not beside a predictions file."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap resamples behind each 95% interval."""
    seed: Seed = 7
    """Seed of the bootstrap, of the random baseline, and of titles that are drawn."""
    gates: GateSettings = GateSettings()
    """Limits below which `evaluate` exits with code 1."""


class ReportSettings(StageSettings):
    """The report that people read."""

    language: Literal["auto"] | Language = "auto"
    """Language of report.html and report.md: `en`, `zh-TW`, or `auto` for the user's locale."""

    @property
    def chosen_language(self) -> Language:
        """The language to write in: `auto` is zh-TW wherever the locale is a Chinese one."""
        if self.language != "auto":
            return self.language
        return "zh-TW" if environment.locale_name().lower().startswith("zh") else "en"


class HubSettings(StageSettings):
    """Publication."""

    repo_id: str | None = None
    """`ORG/NAME` of the model repository; HF_ORG and HF_REPO give the default."""
    private: bool = True
    """Create the repository private."""
    revision: str | None = None
    """Branch to push to, created when missing; default is main."""
    create_pr: bool = False
    """Open a pull request instead of committing to the branch."""
    tag: str | None = None
    """Tag to put on the pushed commit, such as v1."""
    include_adapter: bool = False
    """Also upload the adapter, under adapter/."""
    include_gguf: bool = True
    """Also upload the GGUF files."""
    allow_failed_gates: bool = False
    """Push although a gate failed; the model card says so."""
    offline_port: Annotated[int, Field(ge=0, le=65535)] = 8089
    """Loopback port of the bundled Hub, 0 for any free one."""


class ServeSettings(StageSettings):
    """Deployment and the client."""

    host: str = "http://127.0.0.1:11434"
    """Ollama server; OLLAMA_HOST gives the default."""
    model_name: str = "zh-titlegen"
    """Name of the model on the server."""
    source: str = "gguf"
    """`gguf` (the exported file), a path to GGUF or safetensors, `hf.co/ORG/REPO[:QUANT]`, or a model name."""
    quantize: Literal["q4_K_M", "q4_K_S", "q8_0"] | None = None
    """Quantisation by the server while it creates the model."""
    num_ctx: Annotated[int, Field(ge=256)] = 4096
    """Context window, tokens."""
    num_predict: Annotated[int, Field(ge=1)] = 48
    """Longest answer, tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.3
    """Sampling temperature in the Modelfile, for clients that send none; titlegen itself asks greedily."""
    redraws: Annotated[int, Field(ge=0, le=16)] = 0
    """Titles drawn where a single one is doubtful, to take its place if better, also in evaluations; 0 for none."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Timeout of one answer, seconds; longer on a server whose answers take long."""
    retries: Annotated[int, Field(ge=0)] = 3
    """Retries after a server's failure (5xx), a lost connection or, two at most, a timeout."""
    start_offline: bool = True
    """Start `ollama serve`, or else the bundled server, when no server answers at a loopback host."""


class LatencySettings(StageSettings):
    """How long users may wait for a title; the defaults are the specification's."""

    p50_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = specification.LATENCY_MS[50]
    """Half of the requests to the deployed model are answered within this time, milliseconds."""
    p95_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = specification.LATENCY_MS[95]
    """95 of 100 requests are answered within this time, milliseconds."""
    articles: Annotated[int, Field(ge=1)] = 400
    """Different articles that are sent, each once; where the splits hold fewer, all of them."""


class DeskSettings(StageSettings):
    """The editor's desk."""

    host: str = "127.0.0.1"
    """Address that the desk listens at; any other than this machine's own needs a token in TITLEGEN_DESK_TOKEN."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8090
    """Port of the desk, 0 for any free one."""
    open_browser: bool = True
    """Open the page in a browser where there is one."""
    candidates: Annotated[int, Field(ge=1, le=10)] = 5
    """Different titles for each article."""
    parallel: Annotated[int, Field(ge=1, le=16)] = 1
    """Titles of one article that are written at a time; more is faster where the server has a GPU."""
    store: Path | None = None
    """SQLite file of the titles written and chosen; by default `desk.sqlite3` among the profile's outputs."""
    keep_articles: bool = False
    """Keep the articles themselves beside what was chosen, as training on preferences needs them."""
    fetch_urls: bool = False
    """Let the desk read articles from public addresses; never from this machine's or a private network."""
    style: Path | None = None
    """TOML file of the house style; by default the one shipped with titlegen."""
    frame_ancestors: tuple[str, ...] = ()
    """Origins, such as `https://cms.example`, whose pages may show the desk in a frame."""
