"""The part of Go's templates that is known, and that all else is refused; what Go renders was seen in Ollama."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titlegen.families.gemma3 import PROMPT
from titlegen.prompt import SYSTEM
from titlegen.template import Template, TemplateError, values_of

VALUES = values_of("S", "P")
PIECES = ["{{ if .A }}", "{{ else }}", "{{ end }}", "x", "{{ .Response }}", "{{ .A }}", "{{ range .Messages }}"]
PIECES += ["{{ else if .Prompt }}", "{{ $x := .Prompt }}", "{{ $x }}", "{{ .Content }}", "{{ with .System }}"]
LAST = "{{ $last := eq (len (slice $.Messages $i)) 1 }}"


def test_the_template_of_a_title_renders_the_prompt_of_training() -> None:
    template = Template(PROMPT.template)
    assert PROMPT.bos + template.render({"System": SYSTEM, "Prompt": "內文"}) == PROMPT.render("內文")
    assert PROMPT.bos + template.render({"System": "", "Prompt": "內文"}) == PROMPT.render("內文", system="")


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
        ("{{ if .Nope }}a{{ else if .System }}b{{ else }}c{{ end }}", "b"),
        ("{{ if .Nope }}a{{ else if .Nope }}b{{ else }}c{{ end }}d", "cd"),
        ("{{ if and .System (not .Nope) }}x{{ end }}", "x"),
        ('{{ if or (eq .System "A" "S") .Nope }}x{{ end }}', "x"),
        ('{{ if ne .System "S" }}x{{ else }}y{{ end }}', "y"),
        ('{{ "a}}b" }}{{ `c"d` }}{{ "\\n" }}', 'a}}bc"d\n'),
        ("{{ len .Prompt }}{{ lt 1 2 }}{{ true }}{{ 3 }}", "1truetrue3"),
        ("{{ with .System }}<{{ . }}>{{ end }}{{ with .Nope }}x{{ else }}-{{ end }}", "<S>-"),
        ("{{ $a := .System }}{{ if true }}{{ $a = .Prompt }}{{ $b := 1 }}{{ end }}{{ $a }}", "P"),
        ('{{ .System | eq "S" }}', "true"),
        ("{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}", "[system:S][user:P]"),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ $m.Content }}{{ end }}", "0S1P"),
        ("{{ range $m := .Messages }}{{ $m.Role }} {{ end }}", "system user "),
        ("{{ range $i, $_ := .Messages }}" + LAST + "{{ .Content }}{{ if $last }}!{{ end }}{{ end }}", "SP!"),
        ("{{ range .Nope }}x{{ else }}none{{ end }}", "none"),
        ("{{ (index .Messages 1).Content }}", "P"),
        # Where a template asks for the messages, what stands behind the response is read, too.
        ("{{ range .Messages }}{{ .Content }}{{ end }}{{ .Response }}<end>", "SP<end>"),
        ("{{ if .Messages }}{{ .Prompt }}{{ .Response }}{{ end }}<end>", "P<end>"),
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
        ("{{ if .A }}{{ else range .B }}{{ end }}", "unexpected {{else range .B}}"),
        ("{{ if .A }}{{ else if .B }}x", "unexpected EOF"),
        ("{{ nope .A }}", 'function "nope" not defined'),
        ('{{ printf "%s" .A }}', 'function "printf" not defined'),
        ('{{ define "x" }}{{ end }}', "unexpected {{define"),
        ("{{ break }}", "unexpected {{break}}"),
        ("{{ .A | .B }}", "can't give argument to non-function"),
        ("{{ .A .B }}", "can't give argument to non-function"),
        ("{{ eq .A }}", "wrong number of args for eq: got 1"),
        ("{{ (eq .A 1 }}", "unclosed left paren"),
        ("{{ eq .A 1) }}", "unexpected ')' in command"),
        ("{{ $x }}", "undefined variable '$x'"),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "undefined variable '$x'"),
        ("{{ $x = 1 }}", "undefined variable '$x'"),
        ("{{ $x, $y := 1 }}", "unexpected ':=' in command"),
        ("{{ if $x := .A }}{{ end }}", "unexpected ':=' in command"),
        ("{{ 1.5 }}", "not supported by the bundled server"),
        ('{{ "\\q" }}', "unknown escape"),
        ("{{ " + "(" * 100 + ".A" + ")" * 100 + " }}", "nested too deeply"),
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


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ range .Prompt }}{{ end }}", "range can't iterate over str"),
        ("{{ .Prompt.Role }}", "can't evaluate field Role in type str"),
        ("{{ range .Messages }}{{ .Nope }}{{ end }}", "can't evaluate field Nope in a message"),
        ("{{ eq .Prompt 1 }}", "incompatible types for comparison"),
        ("{{ lt .Messages 1 }}", "incompatible types for comparison"),
        ("{{ slice .Messages 9 }}", "index out of range"),
        ("{{ index .Messages 2 }}", "index out of range"),
        ("{{ len 1 }}", "len of type int"),
        ("{{ .Messages }}", "can't show a value of type list"),
        ("{{ range $.Messages }}" * 39 + "{{ end }}" * 39, "too many steps"),
    ],
)
def test_what_cannot_be_rendered_is_an_error(template: str, error: str) -> None:
    with pytest.raises(TemplateError, match=r"^template: :1: ") as caught:
        Template(template).render(VALUES)
    assert error in str(caught.value)


@given(
    st.text(alphabet='{}. -$()"`abPrompt\n', max_size=60)
    | st.lists(
        st.sampled_from(PIECES),
        max_size=12,
    ).map("".join)
)
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = Template(text)
    except TemplateError:
        return
    try:
        rendered = template.render(VALUES)
    except TemplateError:
        return
    assert isinstance(rendered, str)
