"""The part of Go's templates that is known, and that all else is refused; what Go renders was seen in Ollama."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titlegen.prompt import BOS, SYSTEM, TEMPLATE, render_prompt
from titlegen.template import Template, TemplateError

VALUES = {"System": "S", "Prompt": "P"}


def test_the_template_of_a_title_renders_the_prompt_of_training() -> None:
    assert BOS + Template(TEMPLATE).render({"System": SYSTEM, "Prompt": "內文"}) == render_prompt("內文")
    assert BOS + Template(TEMPLATE).render({"System": "", "Prompt": "內文"}) == render_prompt("內文", system="")


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("", ""),
        ("{{ .Prompt }}", "P"),
        ("{{.Prompt}}", "P"),
        ("<{{ .System }}>{{ .Prompt }}", "<S>P"),
        ("{{ if .System }}{{ .System }}|{{ end }}{{ .Prompt }}", "S|P"),
        ("{{ if .Nope }}a{{ else }}c{{ end }}", "c"),
        ("{{ if .Nope }}a{{ if .System }}b{{ end }}{{ else }}{{ if .System }}c{{ else }}d{{ end }}e{{ end }}", "ce"),
        ("{{ if .System }}{{ if .Nope }}{{ else }}x{{ end }}y{{ end }}z", "xyz"),
        ("a {{- .Prompt -}} b", "aPb"),
        ("a\n{{- if .System -}}\nb{{ end }}", "ab"),
        ("{{/* a remark */}}{{ .Prompt }}", "P"),
        ("{{ .Nope }}", "<no value>"),
        ("{{ .Prompt }}{{ .Response }}<end>", "P"),
        ("{{ if .Prompt }}{{ .Prompt }}{{ .Response }}x{{ end }}<end>", "P"),
        ("}} { {", "}} { {"),
    ],
)
def test_template_renders(template: str, rendered: str) -> None:
    assert Template(template).render(VALUES) == rendered


def test_what_a_value_holds_is_no_template() -> None:
    assert Template("{{ .Prompt }}").render({"Prompt": "{{ .System }}"}) == "{{ .System }}"


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ .Prompt", "unclosed action"),
        ("{{ if .A }}x", "unexpected EOF"),
        ("{{ if .A }}x{{ else }}y", "unexpected EOF"),
        ("{{ end }}", "unexpected {{end}}"),
        ("{{ else }}", "unexpected {{else}}"),
        ("{{ if .A }}{{ else }}{{ else }}{{ end }}", "unexpected {{else}}"),
        ("{{ if .A }}{{ else if .B }}{{ end }}", "unexpected {{else if .B}}"),
        ("{{ nope .A }}", 'function "nope" not defined'),
        ('{{ printf "%s" .A }}', 'function "printf" not defined'),
        ("{{ if eq .A 1 }}{{ end }}", 'function "eq" not defined'),
        ("{{ range .Messages }}{{ end }}", 'function "range" not defined'),
        ("{{ $x := 1 }}", "not supported by the bundled server"),
        ("{{ .A.B }}", "not supported by the bundled server"),
        ("{{ .A | .B }}", "not supported by the bundled server"),
        ("{{}}", "missing value for command"),
        ("{{ if }}{{ end }}", "missing value for command"),
        ("{{ if .A }}" * 100, "nested too deeply"),
        ("x" * 200_000, "too many"),
    ],
)
def test_template_that_is_none_is_refused(template: str, error: str) -> None:
    with pytest.raises(TemplateError, match=r"^template: :1: ") as caught:
        Template(template)
    assert error in str(caught.value)


@given(
    st.text(alphabet='{}. -$()"`abPrompt\n', max_size=60)
    | st.lists(
        st.sampled_from(["{{ if .A }}", "{{ else }}", "{{ end }}", "x", "{{ .Response }}", "{{ .A }}"]), max_size=12
    ).map("".join)
)
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = Template(text)
    except TemplateError:
        return
    assert isinstance(template.render(VALUES), str)
