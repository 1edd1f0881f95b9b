"""Constrained decoding: what a search finds in a model whose every title is known, and in real engines."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from desk_server import BACKED
from hypothesis import given
from hypothesis import strategies as st
from ollama_server import offline_server

from titlegen.constrained import LIKELIEST, Place, run_searches, search_titles
from titlegen.control import Control
from titlegen.generation import TransformersGenerator
from titlegen.models import load_tokenizer
from titlegen.prompt import SYSTEM
from titlegen.serve import Client
from titlegen.serve.client import _places
from titlegen.serve.endpoint import Endpoint
from titlegen.settings import EvaluateSettings, ServeSettings
from titlegen.slots import LENGTHS

END = ""


class KnownModel:
    """A model that writes the titles it was given, each as often as its weight says, one character a token."""

    def __init__(self, titles: Mapping[str, float]) -> None:
        self.titles = titles
        self.asked: list[str] = []

    def weigh(self, beginning: str) -> dict[str, float]:
        """Return how likely each next character is; empty where no title begins so."""
        found: dict[str, float] = {}
        for title, weight in self.titles.items():
            if title.startswith(beginning):
                following = title[len(beginning) : len(beginning) + 1]
                found[following] = found.get(following, 0.0) + weight
        total = sum(found.values())
        return {token: weight / total for token, weight in found.items()}

    def write(self, beginning: str) -> list[Place]:
        self.asked.append(beginning)
        path = []
        while likely := self.weigh(beginning):
            tokens = sorted(((token, math.log(share)) for token, share in likely.items()), key=lambda one: -one[1])
            path.append(Place(*tokens[0], tuple(tokens[:LIKELIEST])))
            beginning += tokens[0][0]
            if tokens[0][0] == END:
                break
        return path

    def search(self, control: Control, number: int = 1, article: str = "", avoid: Sequence[str] = ()) -> list[str]:
        searches = [search_titles(control, article, number, avoid)]
        (found,) = run_searches(searches, lambda begun: [self.write(text) for _, text in begun])
        return found


SHORT, MIDDLE, LONG = (
    "縣府發放育兒津貼二萬",
    "縣府下月發放育兒津貼 每名二萬元",
    "縣府下月起發放育兒津貼 每名新生兒可領二萬元",
)
MODEL = {LONG: 0.6, MIDDLE: 0.3, SHORT: 0.1}


def test_a_title_of_each_length_is_found_behind_the_likeliest_one() -> None:
    assert [len(title) for title in (SHORT, MIDDLE, LONG)] == [10, 16, 22]
    for chars, title in ((13, SHORT), (18, MIDDLE), (23, LONG)):
        assert KnownModel(MODEL).search(Control(chars)) == [title]


def test_the_models_own_title_stays_the_first_and_costs_one_try() -> None:
    model = KnownModel(MODEL)
    assert model.search(Control(23)) == [LONG]
    assert model.asked == [""]
    # Another one with the word is likelier in all, but it is not what the model writes by itself.
    assert KnownModel({LONG: 0.4, "臺東": 0.3, "臺西": 0.3}).search(Control(None, ("津貼",)), 2)[0] == LONG


def test_a_word_is_put_where_it_is_likely_and_else_where_a_clause_begins() -> None:
    assert KnownModel(MODEL).search(Control(None, ("下月發",))) == [MIDDLE]
    assert KnownModel(MODEL).search(Control(18, ("每名",))) == [MIDDLE]
    # Nothing speaks for this one: the model goes on behind it as well as it can, here not at all.
    model = KnownModel(MODEL)
    model.search(Control(None, ("嬰兒",)))
    assert {"嬰兒", "縣府下月起發放育兒津貼 嬰兒", f"{LONG} 嬰兒"} <= set(model.asked)
    # What stands there already of a word is not written twice.
    model = KnownModel({"縣府津貼 發放": 0.5, "縣府津貼費用提高": 0.1})
    assert model.search(Control(None, ("津貼費",))) == ["縣府津貼費用提高"]


@pytest.mark.fault
def test_letters_and_digits_are_those_of_the_article_or_asked_for() -> None:
    model = {"縣府發放育兒津貼 penalty": 0.5, "縣府發放育兒津貼 3萬元": 0.4, "縣府發放育兒津貼 二萬元": 0.1}
    for article, control, title in (
        ("縣府二萬元", Control(13), "縣府發放育兒津貼 二萬元"),
        ("每名3萬元", Control(13), "縣府發放育兒津貼 3萬元"),
        ("縣府", Control(13, ("3萬",)), "縣府發放育兒津貼 3萬元"),
        ("penalty", Control(18), "縣府發放育兒津貼 penalty"),
    ):
        assert KnownModel(model).search(control, article=article) == [title]


@pytest.mark.fault
@pytest.mark.parametrize(
    "flawed", ["縣府發放「育兒津貼二萬", "縣府發放育兒津貼二萬、", "標題：縣府發放育兒津貼", "縣府\n發放育兒津貼二萬"]
)
def test_what_an_editor_would_have_to_mend_is_not_taken_where_there_is_another(flawed: str) -> None:
    assert KnownModel({flawed: 0.9, SHORT: 0.1}).search(Control(13)) == [SHORT]
    found = KnownModel({flawed: 1.0}).search(Control(13))
    assert found == ([] if "\n" in flawed else [flawed])
    # Without a place to fill none is better.
    assert KnownModel({flawed: 1.0}).search(Control(None, ("育兒",))) == []


@pytest.mark.fault
def test_a_title_is_not_cut_where_the_model_would_hardly_end_it() -> None:
    cut = {
        "縣府發放育兒津貼二萬元給每一名新生兒的父母親": 0.9,
        "縣府發放育兒津貼二": 0.001,
        "縣府發津貼給新生兒": 0.099,
    }
    assert KnownModel(cut).search(Control(13)) == ["縣府發津貼給新生兒"]


def test_words_that_are_not_wanted_and_known_titles_apart() -> None:
    assert KnownModel(MODEL).search(Control(None, ("津貼",)), avoid=["下月"]) == [SHORT]
    found = KnownModel(MODEL).search(Control(None, ("津貼",)), 9)
    assert found[0] == LONG
    assert {LONG, MIDDLE, SHORT} <= set(found)
    # A title that differs in its signs alone is the same.
    alike = {"縣府發放，育兒津貼": 0.5, "縣府發放 育兒津貼": 0.3, "縣府加發育兒津貼！": 0.2}
    assert KnownModel(alike).search(Control(13), 3) == ["縣府發放，育兒津貼", "縣府加發育兒津貼！"]


def test_words_that_have_no_room_are_not_asked_for() -> None:
    model = KnownModel(MODEL)
    assert model.search(Control(13, ("縣府下月發放育兒津", "每名新生兒"))) == []
    assert model.asked == []


def test_an_engine_that_tells_nothing_gives_nothing() -> None:
    (found,) = run_searches([search_titles(Control(13), "")], lambda begun: [[] for _ in begun])
    assert found == []


def test_the_likelier_of_two_ends_counts() -> None:
    ends = ((END, -0.2), (END, -9.0))
    path = [Place(char, -0.1, ((char, -0.1), *ends)) for char in "縣府發放育兒津貼二"] + [Place(END, -0.2, ends)]
    (found,) = run_searches([search_titles(Control(13), "")], lambda begun: [path if not t else [] for _, t in begun])
    assert found == ["縣府發放育兒津貼二"]


@pytest.mark.fault
def test_control_tokens_are_no_text(tiny_merged: Path) -> None:
    generator = TransformersGenerator(tiny_merged, None, EvaluateSettings())
    named = {text: generator.tokenizer.convert_tokens_to_ids(text) for text in ("<start_of_turn>", "<end_of_turn>")}
    assert generator._token(named["<start_of_turn>"]) == "\ufffd"
    assert generator._token(named["<end_of_turn>"]) == END
    assert generator._token(generator.tokenizer.eos_token_id) == END


def test_a_part_of_a_character_is_followed_no_further() -> None:
    end = Place(END, -0.1, ((END, -0.1), ("\ufffd", -2.0)))
    paths = {"": [Place("\ufffd", -0.1, (("\ufffd", -0.1), ("縣", -2.0))), end], "縣": [end]}
    asked: list[str] = []

    def write(begun: Sequence[tuple[int, str]]) -> list[list[Place]]:
        asked.extend(text for _, text in begun)
        return [paths.get(text, []) for _, text in begun]

    run_searches([search_titles(Control(13), "")], write)
    assert {"", "縣"} <= set(asked)
    assert not any("\ufffd" in text for text in asked)


characters = st.text("縣府津貼發放", min_size=1, max_size=30)


@given(
    st.dictionaries(characters, st.floats(0.01, 1.0), min_size=1, max_size=8),
    st.sampled_from([None, *(length.max_chars for length in LENGTHS)]),
    st.lists(st.text("縣府津貼", min_size=1, max_size=3), max_size=2),
    st.lists(st.sampled_from(["放府", "津津"]), max_size=1),
    st.integers(1, 4),
)
def test_whatever_a_model_writes_a_search_ends_and_gives_what_is_asked_for(
    titles: dict[str, float], chars: int | None, words: list[str], avoid: list[str], number: int
) -> None:
    control, model = Control(chars, tuple(words)), KnownModel(titles)
    found = model.search(control, number, avoid=avoid)
    assert len(found) <= number
    assert len(set(found)) == len(found)
    assert all(not control.unmet(title) and not any(word in title for word in avoid) for title in found)
    assert len(model.asked) <= 10 + 2 * number
    assert len(set(model.asked)) == len(model.asked)
    assert found == KnownModel(titles).search(control, number, avoid=avoid)


def test_searches_share_their_rounds() -> None:
    models = [KnownModel(MODEL), KnownModel({SHORT: 1.0}), KnownModel(MODEL)]
    controls = [Control(13), Control(13), Control(18)]
    rounds = []

    def write(begun: Sequence[tuple[int, str]]) -> list[list[Place]]:
        rounds.append([index for index, _ in begun])
        return [models[index].write(text) for index, text in begun]

    found = run_searches([search_titles(control, "") for control in controls], write)
    assert found == [[SHORT], [SHORT], [MIDDLE]]
    assert rounds[0] == [0, 1, 2]
    assert all(1 not in rows for rows in rounds[1:])


# Real engines


@pytest.mark.fault
def test_tokens_that_a_server_leaves_out_end_what_is_followed() -> None:
    import ollama

    def places(response: str, *tokens: str) -> list[str]:
        told = [{"token": token, "logprob": -0.1, "top_logprobs": []} for token in tokens]
        answer = ollama.GenerateResponse(response=response, done=True, done_reason="stop", logprobs=told)
        return [place.token for place in _places(answer)]

    assert places("縣府津貼", "縣府", "津貼") == ["縣府", "津貼", END]
    assert places("縣府津貼", "縣府", "津貼", END) == ["縣府", "津貼", END]
    assert places("縣府發放津貼", "縣府", "津貼") == ["縣府"]
    assert places("縣府津貼") == []
    assert places("") == [END]


def test_a_served_model_is_searched_and_says_what_it_took(desk_outputs: Path, desk_model_host: str) -> None:
    settings = ServeSettings(host=desk_model_host, model_name="desk")
    client = Client(settings, desk_outputs / "quickstart" / "final-hf")
    read = client.read("公車夜間班次不足，市府今日宣布增開3趟。")
    said: list[str] = []
    (answer,) = client.search(read, Control(13, ("公車", "夜間")), on_text=said.append)
    assert (answer.title, answer.raw, answer.done_reason, answer.unmet) == (BACKED, BACKED, "stop", ())
    assert answer.prompt_tokens > 20
    assert answer.eval_tokens >= len(BACKED)
    assert said[0] == ""
    assert client.search(read, Control(13, ("公車",)), avoid=["公車"]) == []
    # One request after the other, the last article's cache in between: the same titles.
    assert client.search(read, Control(13, ("公車", "夜間")))[0].title == BACKED
    client.close()


def test_transformers_and_the_server_tell_the_same_of_every_place(
    tiny_merged: Path, tiny_gguf: Any, tmp_path: Path, articles: list[dict[str, str]]
) -> None:
    import torch

    gguf = tiny_gguf("f16")
    generator = TransformersGenerator(tiny_merged, None, EvaluateSettings(max_new_tokens=6))
    prompt = generator.prompt.render(articles[0]["content"][:60])
    beginnings = ["", "臺", "臺南", "臺南 3", "公車", "市府：", "縣府發放"]
    theirs = generator._places([prompt + text for text in beginnings], 6)
    # One pass over all of a title gives the same numbers.
    tokenizer = load_tokenizer(tiny_merged)
    for text, path in zip(beginnings, theirs, strict=True):
        ids = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            last = generator.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
        assert path[0].logprob == pytest.approx(float(last.max()), abs=1e-4)
        assert [value for _, value in path[0].likeliest] == pytest.approx(
            last.topk(LIKELIEST).values.tolist(), abs=1e-4
        )
    with offline_server(tmp_path) as server:
        server.create("tiny", gguf, template=generator.prompt.template, system=SYSTEM)
        endpoint, compared = Endpoint(server.host, ServeSettings(host=server.host), "tiny", lambda _: None), 0
        for text, path in zip(beginnings, theirs, strict=True):
            sent = prompt.removeprefix(generator.prompt.bos) + text
            options: dict[str, object] = {"temperature": 0.0, "num_predict": 1}
            places = endpoint.send(sent, options, 500, likeliest=LIKELIEST).logprobs
            if places is None:
                # The likeliest token of all but equal ones is a part of a character here.
                continue
            (told,) = places
            compared += 1
            assert told.logprob == pytest.approx(path[0].logprob, abs=0.02)
            named = {other.token: other.logprob for other in told.top_logprobs}
            both = (named.keys() & dict(path[0].likeliest)) - {"\ufffd"}
            shared = [(named[token], value) for token, value in path[0].likeliest if token in both]
            # Of nearly as likely tokens other ones are the last, and several are bytes without a text.
            assert len(shared) >= LIKELIEST // 2
            assert max(abs(one - other) for one, other in shared) < 0.02
        endpoint.close()
    assert compared > 3
