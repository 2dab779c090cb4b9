"""Artifacts come back as they were written, or say what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mood
from mood.core import artifact
from mood.core.errors import ArtifactError, InputError

META = {"alpha": 0.05, "name": "knn", "nested": {"a": [1, None, "ä"]}}


def tensors() -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(4, 3, generator=generator)
    return {
        "score": {"mean": shared[0], "tied": shared, "turned": shared.T, "half": shared.half()},
        "calibration": {"scores": torch.randn(5, dtype=torch.float64, generator=generator)},
        "nothing": {},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    artifact.write(tmp_path / "saved", kind="detector", tensors=tensors(), meta=META)
    return tmp_path / "saved"


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the description and make its checksum right again."""
    path = folder / "artifact.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_text(json.dumps({**content, "sha256": artifact._checksum(content)}))


def test_what_was_written_comes_back(folder: Path) -> None:
    read, meta = artifact.read(folder, kind="detector")
    assert meta == META
    assert list(read) == ["score", "calibration", "nothing"]
    for stem, named in tensors().items():
        assert set(read[stem]) == set(named)
        for name, tensor in named.items():
            assert read[stem][name].dtype == tensor.dtype
            assert torch.equal(read[stem][name], tensor)


def test_the_same_content_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = {stem: dict(reversed(named.items())) for stem, named in tensors().items()}
    artifact.write(tmp_path / "again", kind="detector", tensors=again, meta=META)
    assert sorted(path.name for path in folder.iterdir()) == [
        "artifact.json",
        "calibration.safetensors",
        "nothing.safetensors",
        "score.safetensors",
    ]
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_its_files_are_as_open_as_its_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    artifact.write(tmp_path, kind="k", tensors={"a": {}}, meta={})
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640


def test_it_describes_itself_without_its_tensors(folder: Path) -> None:
    (folder / "score.safetensors").unlink()
    description = artifact.describe(folder)
    assert (description["kind"], description["meta"]) == ("detector", META)
    assert (description["version"], description["mood"]) == (artifact.VERSION, mood.__version__)


def test_keys_that_are_numbers_come_back_as_text(tmp_path: Path) -> None:
    artifact.write(tmp_path, kind="k", tensors={}, meta={1: "one", "b": {2: "two"}})  # type: ignore[dict-item]
    assert artifact.read(tmp_path, kind="k") == ({}, {"1": "one", "b": {"2": "two"}})


@pytest.mark.parametrize("stem", ["", "..", "../score", "a/b", "/score", "score.x", ".hidden", "-"])
def test_a_stem_that_is_no_plain_name_is_refused(tmp_path: Path, stem: str) -> None:
    with pytest.raises(InputError, match="tensor file name"):
        artifact.write(tmp_path, kind="k", tensors={stem: {}}, meta={})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, torch.zeros(1)])
def test_meta_that_is_no_json_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match="meta of a k must be JSON"):
        artifact.write(tmp_path, kind="k", tensors={}, meta={"value": value})


def test_a_write_that_fails_half_way_leaves_no_artifact(folder: Path) -> None:
    with pytest.raises(AttributeError):
        artifact.write(folder, kind="detector", tensors={"score": {"a": 3}}, meta={})  # type: ignore[dict-item]
    with pytest.raises(ArtifactError, match=r"is no folder that mood saved: artifact\.json: No such file"):
        artifact.read(folder, kind="detector")


def test_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="holds a detector, a model was expected"):
        artifact.read(folder, kind="model")


def test_a_newer_format_says_which_mood_it_needs(folder: Path) -> None:
    forge(folder, lambda content: content.update(version=2, mood="9.1.0"))
    with pytest.raises(ArtifactError, match=r"format version 2.*reads up to 1: it needs mood-ood 9\.1\.0 or newer"):
        artifact.read(folder, kind="detector")


def test_every_changed_byte_of_a_tensor_file_is_noticed(folder: Path) -> None:
    path = folder / "score.safetensors"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ArtifactError, match=r"damaged: score\.safetensors is not the file that was written"):
            artifact.read(folder, kind="detector")


def test_every_changed_byte_of_the_description_is_noticed_or_means_the_same(folder: Path) -> None:
    path = folder / "artifact.json"
    whole = path.read_bytes()
    wanted = artifact.describe(folder)
    noticed = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            assert artifact.describe(folder) == wanted
        except ArtifactError:
            noticed += 1
    assert noticed > len(whole) / 2


def test_a_truncated_file_and_a_missing_one_are_named(folder: Path) -> None:
    path = folder / "calibration.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"damaged: calibration\.safetensors is not the file"):
        artifact.read(folder, kind="detector")
    path.unlink()
    with pytest.raises(ArtifactError, match=r"damaged: calibration\.safetensors cannot be read \(No such file"):
        artifact.read(folder, kind="detector")


def test_a_file_with_the_right_hash_that_is_no_safetensors_is_told(folder: Path) -> None:
    (folder / "score.safetensors").write_bytes(b"\x08")
    forge(
        folder,
        lambda content: content["files"].update({"score.safetensors": artifact._sha256(folder / "score.safetensors")}),
    )
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.read(folder, kind="detector")


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/secret.safetensors", "a/b.safetensors", "..", "score.pkl", ".safetensors"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret.safetensors").write_bytes((folder / "score.safetensors").read_bytes())
    forge(folder, lambda content: content["files"].update({name: content["files"]["score.safetensors"]}))
    with pytest.raises(ArtifactError, match="which is no file of this folder"):
        artifact.read(folder, kind="detector")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"format": "x"}', "[" * 100_000, "\udcff", '{"format": "mood.artifact"}']
)
def test_a_description_that_is_none_is_told(folder: Path, text: str) -> None:
    (folder / "artifact.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match="is damaged, or nothing that mood saved"):
        artifact.read(folder, kind="detector")


def test_another_programs_description_is_told(folder: Path) -> None:
    (folder / "artifact.json").write_text('{"format": "other", "version": 1, "mood": "0"}')
    with pytest.raises(ArtifactError, match="is nothing that mood saved"):
        artifact.read(folder, kind="detector")


def test_a_huge_description_is_not_read(folder: Path) -> None:
    with (folder / "artifact.json").open("r+b") as file:
        file.truncate(artifact.MAX_DESCRIPTION + 1)
    with pytest.raises(ArtifactError, match="is larger than 16 MiB"):
        artifact.read(folder, kind="detector")
