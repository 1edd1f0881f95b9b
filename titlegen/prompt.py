"""The words of the prompt, and how a model family puts them into turns: every byte, in training and in serving."""

import re
from dataclasses import dataclass

from titlegen.files import digest_json

# Source: the specification's training and serving prompts (docs/spec.md).
SYSTEM = "你是精煉新聞標題的助理，回覆僅輸出標題，不需解釋。"
INSTRUCTION = "請將以下內容濃縮成一則新聞標題（僅輸出標題）："

_FULL_WIDTH = {"<": "＜", "[": "［"}


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """The turns of a model family, made for one article; all that is rendered anywhere comes from here."""

    bos: str
    """Begins a prompt; the runtime adds it, so that no Ollama template has it."""
    start_of_turn: str
    end_of_turn: str
    """Ends a title, and is where a server stops."""
    opening: str
    """What comes first, with a system text or without."""
    before_system: str
    after_system: str
    before_text: str
    """What comes between the system text, or the opening, and the instruction."""
    after_text: str
    """What ends the article and opens the model's turn."""
    chat_template: str
    """For a base model that comes with none; it renders what the family's own template renders for text."""
    control: re.Pattern[str]
    """The opening bracket of anything that the tokenizer reads as a control token."""

    @property
    def stop(self) -> tuple[str, ...]:
        """What a server stops at."""
        return (self.end_of_turn,)

    @property
    def template(self) -> str:
        """Ollama's TEMPLATE."""
        system = f"{{{{ if .System }}}}{self.before_system}{{{{ .System }}}}{self.after_system}{{{{ end }}}}"
        text = f"{INSTRUCTION}\n{{{{ .Prompt }}}}"
        return f"{self.opening}{system}{self.before_text}{text}{self.after_text}{{{{ .Response }}}}"

    @property
    def digest(self) -> str:
        """Digest of all that prompts and titles are rendered from; what another prompt gave is stale.

        Constants count for themselves, and an article that is rendered shows changes of the code.
        """
        article = f" \n{self.start_of_turn}內文[multimodal]\n"
        texts = [SYSTEM, INSTRUCTION, self.bos, self.start_of_turn, self.end_of_turn, *self.stop, self.template]
        texts += [self.chat_template, self.control.pattern]
        return digest_json([texts, self.render(article), self.render_completion(article), self.messages(article)])

    def neutralise(self, text: str) -> str:
        """Make control tokens inside a text plain, by widening their opening bracket.

        The result has the same length, and applying it twice changes nothing more.
        """
        return self.control.sub(lambda match: _FULL_WIDTH[match[0]], text)

    def render(self, content: str, system: str = SYSTEM) -> str:
        """Render the model's input for an article, from ``bos`` to the opened model turn.

        Hugging Face's chat template strips the user text and Ollama's does not, so it is stripped here for both.
        """
        article = self.neutralise(content).strip()
        head = f"{self.before_system}{system}{self.after_system}" if system else ""
        return f"{self.bos}{self.opening}{head}{self.before_text}{INSTRUCTION}\n{article}{self.after_text}"

    def render_completion(self, title: str) -> str:
        """Render what the model has to learn to write: the title and the end of its turn."""
        return f"{self.neutralise(title).strip()}{self.end_of_turn}"

    def messages(self, content: str) -> list[dict[str, str]]:
        """Return the conversation for a tokenizer's chat template; it renders the same bytes as ``render``."""
        article = self.neutralise(content).strip()
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{INSTRUCTION}\n{article}"}]

    def parameters(self, temperature: float, num_ctx: int, num_predict: int) -> dict[str, float | int | list[str]]:
        """Return the Modelfile's PARAMETER values, as ``/api/create`` takes them."""
        return {"temperature": temperature, "num_ctx": num_ctx, "num_predict": num_predict, "stop": list(self.stop)}
