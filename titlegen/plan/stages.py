"""The stages of a run, one estimate each; the later ones need the sizes of the earlier ones."""

import math
from pathlib import Path

from titlegen.cards import visible_cards
from titlegen.environment import cache_directory
from titlegen.families import ModelSize
from titlegen.plan.estimate import StageEstimate
from titlegen.plan.figures import (
    BESIDE_MODEL_GIB,
    GPU_STEPS_S,
    LLAMA_CPU_TITLE_S,
    MEASURED,
    NETWORK_MIB_S,
    SERVED_TITLE_S,
    UNCOMPILED_TOK_S,
    cite,
    disk_minutes,
    network_minutes,
)
from titlegen.plan.sizes import TOKENS_PER_CHAR, ArticleSizes
from titlegen.plural import count
from titlegen.runs import Folder
from titlegen.settings import EMBEDDED, Settings
from titlegen.train import COMPILE_TOKENS
from titlegen.train.devices import choose_devices

# Bytes for one weight in a GGUF file. Source: Q8_0 keeps 32 weights in 34 bytes; the last four are llama.cpp's mixtures
# of blocks of 256 weights in 144 (Q4_K), 176 (Q5_K) and 210 bytes (Q6_K).
_GGUF_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q6_k": 210 / 256}
_GGUF_BYTES |= {"q5_k_m": 0.71, "q4_k_m": 0.61, "q4_k_s": 0.58}
_DISK = f"disk speed from {cite('push_speed.dd_s')} for 2 GiB"
_STEPS = f"assumed: {GPU_STEPS_S:.0f} tokens a second and row"
# With 4-bit weights, everything recomputed and 4 full rows at a time, which auto_batch found on a card of 13 GiB.
_LEAST = "train_e4b_small.reserved_gib_13gib"
_NETWORK = f"assumed: {NETWORK_MIB_S:.0f} MiB/s over the network"
_SEVERAL = "train_e4b_two_gpus.ratio_train"
# Of llama.cpp's own working memory beside weights and context.
_RUNTIME_GIB = 0.5


class Estimator:
    """Estimates each stage for some settings, a base model and a number of articles."""

    def __init__(self, settings: Settings, model: ModelSize, articles: ArticleSizes) -> None:
        self.settings, self.model, self.articles = settings, model, articles
        data, export = settings.data, settings.export
        self.train_rows = articles.rows * (1 - data.val_share - data.test_share)
        scored = math.ceil(articles.rows * (data.test_share if settings.evaluate.split == "test" else data.val_share))
        self.titles = min(settings.evaluate.limit or scored, scored)
        self.adapter_gib = model.adapter_gib(settings.train.lora_r, settings.train.target_modules)
        stored = {"base": model.stored_bytes, "float32": 4, "bfloat16": 2, "float16": 2}[export.dtype]
        self.merged_gib = model.parameters * stored / 2**30
        self.gguf_gib = [model.text_parameters * _GGUF_BYTES[kind] / 2**30 for kind in export.gguf_types]
        # transformers loads 16 bits on a GPU and 32 without one.
        self.loaded_gib = model.parameters * (2 if model.on_gpu else 4) / 2**30

    def stages(self) -> list[StageEstimate]:
        """Return all stages in the order of `nox -s train push deploy`."""
        first = [self.fetch(), self.prepare(), self.train()]
        first += [self.prefer()] if self.settings.prefer.enabled else []
        first += [self.merge(), self.gguf(), self.evaluate()]
        return [*first, self.verify(), self.push(), self.deploy(), self.evaluate_served()]

    def fetch(self) -> StageEstimate:
        """Return the download or preparation of the base model."""
        base, gib = self.settings.model.base, self.model.gib
        size = f"{self.model.parameters / 1e9:.2f} G parameters, {self.model.stored_bytes} bytes each"
        if base == EMBEDDED:
            target = f"{cache_directory()}/"
            return StageEstimate(
                "fetch", "the installed package", target, gib, 2 * gib, 0.0, disk_minutes(gib), (size, _DISK)
            )
        if Path(base).is_dir():
            return StageEstimate("fetch", base, "nothing", sources=("a local directory is used where it is",))
        sources = (size, _NETWORK, "nothing, when the cache has it already")
        return StageEstimate("fetch", base, "the Hub cache", gib, 1.0, 0.0, network_minutes(gib), sources)

    def prepare(self) -> StageEstimate:
        """Return cleaning, deduplication and split."""
        rows, tokens = self.articles.rows, self.articles.tokens
        # Three bytes a character, once as JSONL and once as a data set.
        disk = rows * tokens / TOKENS_PER_CHAR * 3 * 2 / 2**30
        host = MEASURED["data_speed.peak_gib_1m"] * max(1.0, rows / 1e6)
        minutes = (MEASURED["quickstart.prepare_s"] + rows / MEASURED["data_speed.docs_s"]) / 60
        sources = (
            f"{count(rows, 'article')}, {tokens:.0f} tokens a training row ({self.articles.source})",
            cite("data_speed.docs_s", "data_speed.peak_gib_1m", "quickstart.prepare_s"),
        )
        return StageEstimate(
            "prepare", self.settings.data.source, self._folder(Folder.DATA), disk, host, 0.0, minutes, sources
        )

    def train(self) -> StageEstimate:
        """Return the fit of the adapter."""
        train = self.settings.train
        least = None
        tokens = self.train_rows * train.num_train_epochs * min(self.articles.tokens, train.max_length)
        # A checkpoint holds the adapter and AdamW's two moments.
        disk = self.adapter_gib * (1 + 3 * train.save_total_limit)
        sources = [
            f"{count(round(self.train_rows), 'row')} x {train.num_train_epochs:g} = {tokens / 1e6:.2f} M tokens",
            f"disk: adapter of rank {train.lora_r} in float32 and {train.save_total_limit} checkpoints",
        ]
        if self.model.on_gpu:
            speed, gpu, start, origin = self._pace(tokens)
            sources += [f"assumed: as {self.model.measured_as}"] if self.model.measured_as else []
            least = MEASURED[_LEAST] if train.auto_batch and train.completion_trim and not train.low_memory else None
            host = self.model.gib
            sources += [origin, "host: the base model passes through it"]
        else:
            names = ("quickstart.train_tok_s", "quickstart.train_start_s", "quickstart.train_peak_gib")
            (speed, start, host), gpu = (MEASURED[name] for name in names), 0.0
            sources.append(cite(*names))
        devices = choose_devices(train, *visible_cards())
        if devices.count > 1 or devices.hosts != "1":
            hosts = "" if devices.hosts == "1" else f" on each of {devices.hosts} hosts"
            sources.append(f"{count(devices.count, 'card')}{hosts} ({devices.why}); GPU memory is that of each card")
        if self.model.on_gpu and devices.count > 1:
            # Each of several cards is assumed to reach the share of its speed alone that each of two reaches.
            speed *= devices.count * MEASURED[_SEVERAL] / 2
            sources.append(cite(_SEVERAL))
        minutes = (start + tokens / speed) / 60
        stage = StageEstimate(
            "train", self._folder(Folder.DATA), self._folder(Folder.ADAPTER), disk, host, gpu, minutes, tuple(sources)
        )
        return stage._replace(gpu_least_gib=least)

    def prefer(self) -> StageEstimate:
        """Return preference training: candidates for each train article, then passes over their pairs."""
        prefer, evaluation, trained = self.settings.prefer, self.settings.evaluate, self.train()
        articles = min(self.train_rows, prefer.limit or self.train_rows)
        tokens = min(self.articles.tokens, self.settings.train.max_length) * articles
        # An article is read once for all of its titles; the reference is a pass without its way back, a third.
        passes = prefer.num_train_epochs + 1 / 3
        share = passes / self.settings.train.num_train_epochs * articles / self.train_rows
        if self.model.on_gpu:
            # All drawn titles of a batch are written together, beside the greedy ones.
            steps = 2 * math.ceil(articles / evaluation.batch_size) * evaluation.max_new_tokens
            drawing, source = steps / GPU_STEPS_S / 60, _STEPS
        else:
            names = ("quickstart.evaluate_s", "quickstart.evaluate_titles")
            drawing = articles * prefer.candidates * MEASURED[names[0]] / MEASURED[names[1]] / 60
            source = f"{cite(*names)}, which is more than titles take that share a reading"
        sources = (
            f"{count(round(articles), 'article')}, {prefer.candidates} titles each: {drawing:.0f} min",
            f"{passes:.2f} passes over {tokens / 1e6:.2f} M tokens, at the pace of train",
            source,
        )
        minutes = drawing + trained.minutes * share
        folder = self._folder(Folder.PREFERRED)
        return trained._replace(stage="prefer", reads=trained.writes, writes=folder, minutes=minutes, sources=sources)

    def _pace(self, tokens: float) -> tuple[float, float, float, str]:
        """Return tokens a second, GPU GiB, seconds before the first step, and where they come from."""
        train = self.settings.train
        start = "faster.first_step_warm_s"
        if not train.completion_trim:
            pace = "plain" if train.backend == "peft" else "unsloth_compiled" if train.compile is True else "unsloth"
        elif train.low_memory:
            pace = "titlegen_low_memory"
        elif train.compile is True or (train.compile == "auto" and tokens >= COMPILE_TOKENS):
            pace, start = "titlegen_pts" if train.auto_batch else "titlegen", "faster.first_step_cold_s"
        else:
            peak = "train_e4b.peak_gib_titlegen"
            origin = f"docs/performance.md: {UNCOMPILED_TOK_S:,.0f} tokens/s not compiled; {cite(peak, start)}"
            return UNCOMPILED_TOK_S, MEASURED[peak], MEASURED[start], origin
        # The fewest GiB are those of loading.
        peak = "train_e4b_small.load_peak_gib" if train.low_memory else f"train_e4b.peak_gib_{pace}"
        names = (f"train_e4b.tok_s_{pace}", peak, start)
        speed, gpu, seconds = (MEASURED[name] for name in names)
        smaller = f"; a smaller card takes fewer rows at a time or recomputes more, down to {cite(_LEAST)}"
        return speed, gpu, seconds, cite(*names) + (smaller if train.auto_batch and not train.low_memory else "")

    def merge(self) -> StageEstimate:
        """Return base + (alpha / r) B A, written as a Hugging Face directory."""
        part = max(self.settings.export.max_shard_gib, self.model.largest_tensor * self.model.stored_bytes / 2**30)
        host, minutes = 2 * min(part, self.merged_gib), disk_minutes(self.model.gib + self.merged_gib)
        sources = ("disk: the base model's size; host: one of its files, twice", _DISK)
        reads = f"base model, {self._folder(Folder.ADAPTER)}"
        return StageEstimate("merge", reads, self._folder(Folder.EXPORT), self.merged_gib, host, 0.0, minutes, sources)

    def gguf(self) -> StageEstimate:
        """Return the conversion for llama.cpp and Ollama."""
        # The converter holds the largest tensor as it is stored, in 32 bits, and in its new type.
        written = max(_GGUF_BYTES[kind] for kind in self.settings.export.gguf_types)
        host = self.model.largest_tensor * (self.model.stored_bytes + 4 + written) / 2**30 + BESIDE_MODEL_GIB
        minutes = len(self.gguf_gib) * self.model.text_parameters / MEASURED["quickstart.gguf_params_s"] / 60
        types = ", ".join(self.settings.export.gguf_types)
        host_source = f"host: the largest tensor, three times; assumed: {BESIDE_MODEL_GIB:g} GiB beside it"
        sources = (
            f"disk: {types} of {self.model.text_parameters / 1e9:.2f} G parameters; {host_source}",
            f"{cite('quickstart.gguf_params_s')}, on two cores",
        )
        disk = sum(self.gguf_gib)
        return StageEstimate(
            "gguf", self._folder(Folder.EXPORT), self._folder(Folder.GGUF), disk, host, 0.0, minutes, sources
        )

    def evaluate(self) -> StageEstimate:
        """Return scoring the merged model, and the untuned one beside it."""
        models = 2 if self.settings.evaluate.base_model else 1
        candidates = self.settings.evaluate.candidates
        articles = f"{count(self.titles, 'article')}, {'with' if models > 1 else 'without'} the untuned model"
        articles += f", {candidates} titles each" if candidates > 1 else ""
        if self.model.on_gpu:
            batches = math.ceil(self.titles / self.settings.evaluate.batch_size)
            seconds = models * batches * candidates * self.settings.evaluate.max_new_tokens / GPU_STEPS_S
            minutes = seconds / 60 + models * disk_minutes(self.model.gib)
            sources = (articles, _STEPS, _DISK)
        else:
            names = ("quickstart.evaluate_s", "quickstart.evaluate_titles")
            minutes = self.titles * models * candidates * MEASURED[names[0]] / MEASURED[names[1]] / 60
            sources = (articles, cite(*names), "")
        return self._with_model(
            "evaluate", f"{self._folder(Folder.EXPORT)}, {Folder.DATA}/", Folder.REPORT, minutes, sources
        )

    def verify(self) -> StageEstimate:
        """Return the proof that the export is the trained model."""
        articles = self.settings.export.verify_articles
        if self.model.on_gpu:
            steps = 2 * articles * self.settings.evaluate.max_new_tokens / GPU_STEPS_S
            seconds = steps + len(self.gguf_gib) * articles * LLAMA_CPU_TITLE_S
            minutes = seconds / 60 + 2 * disk_minutes(self.model.gib + self.merged_gib)
            sources = (_DISK, _STEPS, f"assumed: {LLAMA_CPU_TITLE_S:.0f} s a title by llama.cpp on the CPU")
        else:
            names = ("quickstart.verify_s", "quickstart.verify_articles")
            minutes = articles * MEASURED[names[0]] / MEASURED[names[1]] / 60
            sources = (cite(*names), "", "")
        reads = f"{self._folder(Folder.EXPORT)}, {Folder.GGUF}/, {Folder.ADAPTER}/"
        return self._with_model("verify", reads, Folder.VERIFICATION, minutes, sources)

    def push(self) -> StageEstimate:
        """Return the upload and the comparison of what arrived."""
        from huggingface_hub import get_token

        hub = self.settings.hub
        size = self.merged_gib + hub.include_gguf * sum(self.gguf_gib) + hub.include_adapter * self.adapter_gib
        reads = f"{self._folder(Folder.EXPORT)}, {Folder.GGUF}/, reports"
        if get_token() is None:
            minutes = size * 1024 / MEASURED["push_speed.push_mib_s"] / 60
            sources = ("no Hub token is configured, so the bundled Hub", cite("push_speed.push_mib_s"))
            return StageEstimate(
                "push", reads, f"{self.settings.output / 'run/hub'}/", size, 1.0, 0.0, minutes, sources
            )
        target = hub.repo_id or "a Hub repository (hub.repo_id is not set)"
        return StageEstimate(
            "push", reads, target, minutes=network_minutes(size), sources=(f"{size:.1f} GiB", _NETWORK)
        )

    def deploy(self) -> StageEstimate:
        """Return the deployment to the server, which keeps a copy of its own."""
        weights, serve = self.gguf_gib[0], self.settings.serve
        memory = weights + serve.num_ctx * self.model.cache_bytes / 2**30 + _RUNTIME_GIB
        gpu = memory if self.model.on_gpu else 0.0
        minutes = disk_minutes(2 * weights) if self.model.on_gpu else MEASURED["quickstart.deploy_s"] / 60
        origin = _DISK if self.model.on_gpu else cite("quickstart.deploy_s")
        sources = ("disk: the server's copy of the GGUF file; memory: it and the context", origin)
        server = f"{serve.model_name} at {serve.host}"
        return StageEstimate("deploy", self._folder(Folder.GGUF), server, weights, memory, gpu, minutes, sources)

    def evaluate_served(self) -> StageEstimate:
        """Return the scoring of the server's titles."""
        server, reads = self.deploy(), self.settings.serve.model_name
        titles = self.titles * self.settings.evaluate.candidates
        if self.model.on_gpu:
            seconds, source = titles * SERVED_TITLE_S, f"assumed: {SERVED_TITLE_S} s a title, the latency gate"
        else:
            names = ("quickstart.served_s", "quickstart.served_titles")
            seconds, source = titles * MEASURED[names[0]] / MEASURED[names[1]], cite(*names)
        stage = StageEstimate(
            "evaluate served", reads, self._folder(Folder.SERVED_REPORT), minutes=seconds / 60, sources=(source,)
        )
        # The untuned model's titles are kept from the evaluation before, so that it is not loaded again.
        return stage._replace(host_gib=stage.host_gib + server.host_gib, gpu_gib=server.gpu_gib)

    def _folder(self, name: str) -> str:
        return f"{self.settings.directory / name}/"

    def _with_model(
        self, name: str, reads: str, writes: str, minutes: float, sources: tuple[str, ...]
    ) -> StageEstimate:
        """Return a stage that holds one model of transformers in memory at a time."""
        bits, need = 16 if self.model.on_gpu else 32, self.loaded_gib + BESIDE_MODEL_GIB
        host, gpu = (self.loaded_gib, need) if self.model.on_gpu else (need, 0.0)
        memory = f"memory: the model in {bits} bits; assumed: {BESIDE_MODEL_GIB:g} GiB beside it"
        sources = (*filter(None, sources), memory)
        return StageEstimate(name, reads, self._folder(writes), 0.0, host, gpu, minutes, sources)
