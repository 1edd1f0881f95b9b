"""Go's text/template, as far as a TEMPLATE of Ollama for one article needs it.

Known are fields, variables, ``if``, ``else``, ``with``, ``range`` and the functions that compare and count. What is
left out is refused when the template is read, never rendered otherwise than Ollama would.
"""

from collections.abc import Mapping

from titlegen.template.nodes import TemplateError
from titlegen.template.parsing import Parser
from titlegen.template.rendering import Rendering

__all__ = ["Template", "TemplateError", "values_of"]


class Template:
    """A TEMPLATE that was read."""

    def __init__(self, text: str) -> None:
        """Read it.

        Raises:
            TemplateError: it is no template, or uses what is not known here.
        """
        reader = Parser(text)
        self._nodes, self._uses_messages = reader.nodes, reader.uses_messages

    def render(self, values: Mapping[str, object]) -> str:
        """Render what the model reads: up to ``.Response``, or all of a template that asks for the messages.

        Args:
            values: of the fields, such as ``System``, ``Prompt`` and ``Messages``.

        Raises:
            TemplateError: a value is not of the kind that the template takes it for.
        """
        # Source: Ollama's template.Execute, which cuts at the response where there are no messages.
        rendering = Rendering(values, stops=not self._uses_messages)
        rendering.run(self._nodes, values)
        return "".join(rendering.output)


def values_of(system: str, prompt: str) -> dict[str, object]:
    """Return what Ollama gives a template for one prompt: the texts, and the conversation that they are."""
    spoken = [("system", system), ("user", prompt)]
    messages = [_message(role, content) for role, content in spoken if content or role == "user"]
    return {"System": system, "Prompt": prompt, "Response": "", "Messages": messages}


def _message(role: str, content: str) -> dict[str, object]:
    return {"Role": role, "Content": content, "Thinking": "", "Images": [], "ToolCalls": [], "ToolName": ""}
