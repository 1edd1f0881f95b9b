import os
from pathlib import Path

import pytest

from titlegen.errors import TitlegenError, VerifyError
from titlegen.files import new_directory, write_atomically
from titlegen.manifest import MANIFEST, check_files, is_up_to_date, read_manifest, stage_key, write_manifest


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    directory = tmp_path / "stage"
    (directory / "sub").mkdir(parents=True)
    (directory / "a.txt").write_text("標題", encoding="utf-8")
    (directory / "sub" / "b.bin").write_bytes(bytes(1000))
    write_manifest(directory, "stage", {"x": 1}, {"input": "abc"}, {"rows": 3})
    return directory


def test_manifest_records_every_file(stage: Path) -> None:
    manifest = read_manifest(stage)
    assert set(manifest.files) == {"a.txt", "sub/b.bin"}
    assert manifest.files["sub/b.bin"].size == 1000
    assert manifest.results == {"rows": 3}
    assert "torch" in manifest.versions
    check_files(stage, manifest)


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["changed", "missing", "extra"])
def test_a_touched_file_is_named(stage: Path, fault: str) -> None:
    target = stage / "sub" / "b.bin"
    if fault == "changed":
        target.write_bytes(b"\x01" + bytes(999))
    elif fault == "missing":
        target.unlink()
    else:
        target = stage / "new.txt"
        target.touch()
    with pytest.raises(VerifyError, match=target.name):
        check_files(stage, read_manifest(stage))


def test_up_to_date_only_with_the_same_key_and_sizes(stage: Path) -> None:
    key = stage_key("stage", {"x": 1}, {"input": "abc"})
    assert is_up_to_date(stage, key)
    assert not is_up_to_date(stage, stage_key("stage", {"x": 2}, {"input": "abc"}))
    assert not is_up_to_date(stage, stage_key("stage", {"x": 1}, {"input": "abd"}))
    (stage / "a.txt").unlink()
    assert not is_up_to_date(stage, key)


def test_broken_manifest_says_what_to_do(stage: Path) -> None:
    (stage / MANIFEST).write_text("{", encoding="utf-8")
    with pytest.raises(VerifyError, match="is not a manifest"):
        read_manifest(stage)
    (stage / MANIFEST).unlink()
    with pytest.raises(VerifyError, match="does not exist; run the stage"):
        read_manifest(stage)


def test_digest_depends_on_content_alone(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("same", encoding="utf-8")
        digests.append(write_manifest(tmp_path / name, "s", {"n": name}, {}, {}).digest)
    assert digests[0] == digests[1]


def test_new_directory_replaces_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_directory(target) as directory:
        (directory / "v").write_text("1", encoding="utf-8")
    with pytest.raises(RuntimeError, match="half"), new_directory(target) as directory:
        (directory / "v").write_text("2", encoding="utf-8")
        raise RuntimeError("half")
    assert (target / "v").read_text(encoding="utf-8") == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_write_atomically_leaves_nothing_behind(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "a.json", "內容\n")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.json"]


@pytest.mark.fault
def test_no_permission_names_the_remedy(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(TitlegenError, match="choose another folder with --output"), new_directory(blocker / "data"):
        pass


@pytest.mark.fault
def test_full_disk_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TitlegenError, match="free some disk space"), new_directory(tmp_path / "data") as directory:
        # /dev/full answers every write with "no space left on device".
        descriptor = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(descriptor, b"x")
        finally:
            os.close(descriptor)
        (directory / "never").touch()
    assert not (tmp_path / "data").exists()


def test_a_stage_whose_code_changed_its_results_runs_again() -> None:
    assert stage_key("train", {"x": 1}, {}, revision=2) != stage_key("train", {"x": 1}, {}, revision=1)
