"""Every byte of the prompt, in training and in serving: text, turns, stop tokens and the Ollama template."""

import re

from titlegen.manifest import digest_json

# Source: the specification's training and serving prompts (docs/spec.md).
SYSTEM = "你是精煉新聞標題的助理，回覆僅輸出標題，不需解釋。"
INSTRUCTION = "請將以下內容濃縮成一則新聞標題（僅輸出標題）："

BOS = "<bos>"
START_OF_TURN = "<start_of_turn>"
END_OF_TURN = "<end_of_turn>"
# Source: Gemma 3 and Gemma 3n generation_config.json: <eos> is 1 and <end_of_turn> is 106.
STOP = (END_OF_TURN,)

# Gemma has no system role: the system text opens the user turn.
TEMPLATE = (
    f"{START_OF_TURN}user\n"
    "{{ if .System }}{{ .System }}\n\n{{ end }}"
    f"{INSTRUCTION}\n"
    f"{{{{ .Prompt }}}}{END_OF_TURN}\n"
    f"{START_OF_TURN}model\n"
    "{{ .Response }}"
)

# For the embedded base model, whose GGUF file carries none; it renders what Gemma's own template renders for text.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

# Anything that Gemma's tokenizer reads as a control token: <bos>, <start_of_turn>, <unused12>, [multimodal], ...
_CONTROL = re.compile(
    r"<(?=/?(?:bos|eos|pad|unk|mask|start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token|"
    r"audio_soft_token|start_of_audio|end_of_audio|start_of_function\w*|end_of_function\w*|unused\d+)>)"
    r"|\[(?=(?:multimodal|@BOS@)\])",
    re.IGNORECASE,
)
_FULL_WIDTH = {"<": "＜", "[": "［"}


def neutralise_control_tokens(text: str) -> str:
    """Make chat control tokens inside an article plain text, by widening their opening bracket.

    The result has the same length, and applying it twice changes nothing more.
    """
    return _CONTROL.sub(lambda match: _FULL_WIDTH[match[0]], text)


def render_prompt(content: str, system: str = SYSTEM) -> str:
    """Render the model's input for an article, from ``<bos>`` to the opened model turn.

    Hugging Face's chat template strips the user text and Ollama's does not, so it is stripped here for both.
    """
    article = neutralise_control_tokens(content).strip()
    head = f"{system}\n\n" if system else ""
    return f"{BOS}{START_OF_TURN}user\n{head}{INSTRUCTION}\n{article}{END_OF_TURN}\n{START_OF_TURN}model\n"


def render_completion(title: str) -> str:
    """Render what the model has to learn to write: the title and the end of its turn."""
    return f"{neutralise_control_tokens(title).strip()}{END_OF_TURN}"


def prompt_digest() -> str:
    """Return a digest of all that prompts and titles are rendered from; what another prompt gave is stale.

    Constants count for themselves, and an article that is rendered shows changes of the code.
    """
    article = f" \n{START_OF_TURN}內文[multimodal]\n"
    texts = [SYSTEM, INSTRUCTION, BOS, START_OF_TURN, END_OF_TURN, *STOP, TEMPLATE, CHAT_TEMPLATE, _CONTROL.pattern]
    return digest_json([texts, render_prompt(article, SYSTEM), render_completion(article), chat_messages(article)])


def chat_messages(content: str) -> list[dict[str, str]]:
    """Return the conversation for a tokenizer's chat template; it renders the same bytes as ``render_prompt``."""
    article = neutralise_control_tokens(content).strip()
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{INSTRUCTION}\n{article}"}]


def parameters(temperature: float, num_ctx: int, num_predict: int) -> dict[str, float | int | list[str]]:
    """Return the Modelfile's PARAMETER values, as ``/api/create`` takes them."""
    return {"temperature": temperature, "num_ctx": num_ctx, "num_predict": num_predict, "stop": list(STOP)}
