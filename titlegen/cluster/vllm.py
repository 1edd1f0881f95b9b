"""vLLM on Ray Data: the configuration for the merged model."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from titlegen.errors import ConfigError, MissingDependencyError
from titlegen.prompt import PromptFormat
from titlegen.settings import RaySettings, ServeSettings

# Source: the requirements of ray 2.60.0's extra `llm`.
PAIR = {"ray": "2.60.0", "vllm": "0.29.0"}
INSTALL = f"pip install 'ray[llm]=={PAIR['ray']}' 'vllm=={PAIR['vllm']}'"


def check_vllm(settings: RaySettings, export: Path) -> None:
    """Refuse the back end ``vllm`` where it cannot run; the other ones pass.

    Raises:
        MissingDependencyError: vLLM is not installed.
        ConfigError: it is; titles that no one has compared are not written.
    """
    if settings.backend != "vllm":
        return
    if importlib.util.find_spec("vllm") is None:
        raise MissingDependencyError(
            f"--ray.backend vllm needs vLLM, which is not installed; install a pair that goes together with {INSTALL}, "
            "or take --ray.backend local"
        )
    raise ConfigError(
        f"--ray.backend vllm is a configuration for your own program (titlegen.cluster.vllm, model {export}): compare "
        "its titles with --ray.backend local first, as docs/cluster.md says; or take --ray.backend local"
    )


def processor_config(export: Path, serve: ServeSettings, ray: RaySettings) -> Any:
    """Return the ``vLLMEngineProcessorConfig`` for a merged model.

    vLLM has no LoRA for Gemma 3n, so that it serves the merged model. Prompts come as tokens, so that no chat template
    renders them again.

    Args:
        export: the merged model.
        serve: context window.
        ray: processes, and articles of a batch.

    Raises:
        MissingDependencyError: Ray's own part of it is not installed.
    """
    try:
        from ray.data.llm import vLLMEngineProcessorConfig
    except ImportError as error:
        raise MissingDependencyError(f"Ray's part for vLLM needs {error.name}; install it with {INSTALL}") from error
    return vLLMEngineProcessorConfig(
        model_source=str(export),
        engine_kwargs={
            "dtype": "bfloat16",
            "max_model_len": serve.num_ctx,
            "enable_prefix_caching": True,
            # Code in a model's directory is not run.
            "trust_remote_code": False,
            "seed": 0,
        },
        batch_size=ray.batch_size,
        concurrency=ray.workers or 1,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )


def request(prompt: Sequence[int], form: PromptFormat, serve: ServeSettings) -> dict[str, object]:
    """Return vLLM's request for an article: the tokens of its rendered prompt, decoded greedily.

    Ray's own stage for tokens would put a second <bos> in front of it.
    """
    sampling = {
        "temperature": 0.0,
        "max_tokens": serve.num_predict,
        "stop": list(form.stop),
        "seed": 0,
        "detokenize": True,
    }
    return {"tokenized_prompt": list(prompt), "sampling_params": sampling}
