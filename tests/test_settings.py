from pathlib import Path
from typing import Any

import pytest

from titlegen.errors import ConfigError
from titlegen.settings import Settings, load_settings, profile_names, read_profile


def test_every_shipped_profile_is_valid() -> None:
    assert profile_names() == ["gemma3n-e4b", "gemma4-e4b", "quickstart"]
    for name in profile_names():
        assert load_settings(profile=name).profile == name


def test_mission_profile_has_the_specification_numbers() -> None:
    settings = load_settings(profile="gemma3n-e4b")
    train = settings.train
    assert (train.lora_r, train.lora_alpha, train.lora_dropout) == (16, 32, 0.05)
    assert train.per_device_train_batch_size * train.gradient_accumulation_steps == 32
    assert (train.learning_rate, train.num_train_epochs, train.lr_scheduler_type) == (2e-4, 3, "cosine")
    assert (train.warmup_ratio, train.max_length, train.logging_steps, train.save_steps) == (0.03, 2048, 20, 500)
    assert settings.serve.num_ctx == 4096
    assert settings.serve.num_predict == 48
    gates = settings.evaluate.gates
    assert (gates.rougeL, gates.bleu1, gates.title_only_rate, gates.length_rate) == (0.30, 0.45, 0.98, 0.95)


def test_precedence_is_profile_then_environment_then_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().train.max_length == read_profile("quickstart")["train"]["max_length"]
    monkeypatch.setenv("TITLEGEN_TRAIN__MAX_LENGTH", "512")
    monkeypatch.setenv("TITLEGEN_TRAIN__SEED", "1")
    assert load_settings().train.max_length == 512
    resolved = load_settings(train={"max_length": 640}).train
    assert (resolved.max_length, resolved.seed) == (640, 1)
    assert resolved.backend == "peft", "the profile's other values must survive"


def test_profile_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nsource = "a.jsonl"\n', encoding="utf-8")
    settings = load_settings(profile=str(path))
    assert settings.data.source == "a.jsonl"
    assert settings.directory == Path("outputs/mine")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quikstart", "did you mean 'quickstart'"),
        ("gemma3n-e4", "did you mean 'gemma3n-e4b'"),
        ("no.toml", "does not exist"),
    ],
)
def test_wrong_profile_is_named_and_a_like_one_suggested(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_settings(profile=name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_profile_of_any_editor_is_read(encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "新 profile.toml"
    mark = "\ufeff" if encoding.endswith("e") else ""
    path.write_bytes(f'{mark}# 新聞{end}[data]{end}source = "文章.jsonl"{end}'.encode(encoding))
    assert load_settings(profile=str(path)).data.source == "文章.jsonl"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("# 新聞\n# 標題".encode("big5"), "is not UTF-8 text in line 1; save it as UTF-8"),
        ("[data]\n".encode("utf-16-le"), "not valid TOML"),
        (b"\xff\xfe\x00", "is not UTF-16 text in line 1"),
        (None, "cannot be read: Is a directory"),
        (b"#" * 2**21, "has more than 1048576 bytes"),
    ],
)
def test_a_profile_that_cannot_be_read_is_one_line(raw: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.mkdir() if raw is None else path.write_bytes(raw)
    with pytest.raises(ConfigError, match=said):
        load_settings(profile=str(path))


def test_unknown_setting_in_toml_names_the_like_one(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[train]\nmax_lenght = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'train.max_lenght'; did you mean 'train.max_length'"):
        load_settings(profile=str(path))
    path.write_text("[train\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings(profile=str(path))


def test_unknown_environment_variable_names_the_like_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITLEGEN_TRIAN__MAX_LENGTH", "3")
    with pytest.raises(ConfigError, match="TITLEGEN_TRIAN__MAX_LENGTH; did you mean 'TITLEGEN_TRAIN'"):
        load_settings()
    monkeypatch.delenv("TITLEGEN_TRIAN__MAX_LENGTH")
    monkeypatch.setenv("TITLEGEN_TRAIN__MAX_LENGHT", "3")
    with pytest.raises(ConfigError, match=r"did you mean 'train.max_length'"):
        load_settings()


def test_a_bad_value_is_shown_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"'train.max_length' = 'long'"):
        load_settings(train={"max_length": "long"})
    with pytest.raises(ConfigError, match=r"'data.test_share' = 2"):
        load_settings(data={"test_share": 2})


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": {"devices": "two"}}, "setting 'train.devices' = 'two': Input should be a valid integer"),
        ({"train": {"devices": 0}}, "or equal to 1, or: Input should be 'auto'"),
        ({"train": {"learning_rate": float("inf")}}, "'train.learning_rate' = inf: Input should be a finite number"),
        ({"data": {"source": ""}}, "setting 'data.source' = '': String should have at least 1 character"),
        ({"train": {"seed": 2**32}}, "setting 'train.seed' = 4294967296: Input should be less than 4294967296"),
        ({"data": {"seed": -1}}, "setting 'data.seed' = -1: Input should be greater than or equal to 0"),
        ({"prefer": {"seed": 10**200}}, "setting 'prefer.seed' = 1000"),
        ({"evaluate": {"seed": 2**64}}, "setting 'evaluate.seed' = "),
        (
            {"desk": {"style": "a\0b"}},
            "setting 'desk.style' = 'a\\x00b': it holds a null byte; take it out",
        ),
        ({"data": {"source": "a\0b"}}, "setting 'data.source' = 'a\\x00b': it holds a null byte"),
        ({"output": "a\0b"}, "setting 'output' = 'a\\x00b': it holds a null byte"),
        ({"train": 3}, "setting 'train' = 3: Input should be a valid dictionary"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_by_its_setting(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(**options)
    assert said in str(raised.value)
    assert "constrained" not in str(raised.value)


@pytest.mark.fault
def test_a_profile_under_another_name_is_told_from_one_that_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train:\n  lora_r: 4\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml' is a file whose name does not end in \.toml"):
        read_profile(str(tmp_path / "mine.yaml"))


def test_variables_of_the_specification_and_of_ollama_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ORG", "newsroom")
    monkeypatch.setenv("HF_REPO", "gemma3n-4b-zh-titlegen")
    monkeypatch.setenv("OLLAMA_HOST", "10.0.0.5:11434")
    settings = load_settings()
    assert settings.hub.repo_id == "newsroom/gemma3n-4b-zh-titlegen"
    assert settings.serve.host == "10.0.0.5:11434"
    assert load_settings(hub={"repo_id": "a/b"}).hub.repo_id == "a/b"


def test_every_setting_is_explained() -> None:
    for stage in Settings.STAGES:
        for name, field in type(Settings.model_fields[stage].default).model_fields.items():
            assert field.description, f"{stage}.{name} has no description"


def test_low_memory_is_refused_without_the_computation_that_saves_it() -> None:
    with pytest.raises(ConfigError, match=r"low_memory needs train.completion_trim"):
        load_settings(profile="quickstart", train={"low_memory": True, "completion_trim": False})


@pytest.mark.fault
def test_a_file_without_an_end_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="no profile is so large"):
        read_profile(str(tmp_path / "mine.toml"))
