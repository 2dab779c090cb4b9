"""What `import mood` gives, and what it does not cost."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mood


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_every_public_name_is_there() -> None:
    assert dir(mood) == sorted(mood.__all__)
    for name in mood.__all__:
        assert getattr(mood, name) is not None
    with pytest.raises(AttributeError, match="module 'mood' has no attribute 'fitt'"):
        mood.fitt  # noqa: B018


@pytest.mark.parametrize("room", ["scores", "evaluation", "data"])
def test_a_room_is_there_without_being_imported(room: str) -> None:
    assert python(f"import mood; print(mood.{room}.__name__)") == f"mood.{room}\n"
    assert getattr(mood, room) is importlib.import_module(f"mood.{room}")


@pytest.mark.parametrize(
    "code",
    [
        "import mood",
        "import mood; mood.Transform",
        "import mood.core.errors, mood.core.config, mood.core.output, mood.core.artifact, mood.core.progress",
        "import sys, mood.cli; sys.argv = ['mood', '--help']\ntry: mood.cli.main()\nexcept SystemExit: pass",
        "import sys, mood.cli; sys.argv = ['mood', 'fit', '--help']\ntry: mood.cli.main()\nexcept SystemExit: pass",
    ],
)
def test_torch_is_not_imported_before_it_is_used(code: str) -> None:
    loaded = python(
        f"{code}\nimport sys\nprint(sorted({{'torch', 'timm', 'pyarrow', 'matplotlib'}} & {{*sys.modules}}))"
    )
    assert loaded.endswith("[]\n")


@pytest.mark.parametrize(
    "words",
    [
        "fti",
        "fit --scor mood",
        "fit photos --score moood",
        "fit nothere",
        "scores moood",
        "bench slip.toml -o out",
        "score nothere photos",
        "evaluate nothere --id photos --ood x=photos",
        "calibrate nothere photos -o out",
        "monitor nothere photos --state s",
    ],
)
def test_a_slip_is_answered_before_torch_is_imported(words: str, tmp_path: Path) -> None:
    (tmp_path / "slip.toml").write_text(
        'title = "t"\n[[runs]]\nname = "r"\nprotocol = "pairs"\nfit = "a"\ntest = "b"\nscores = ["moood k=3"]\n'
    )
    code = (
        f"import os, sys, mood.cli\nos.chdir({str(tmp_path)!r})\nsys.argv = ['mood', *{words.split()!r}]\n"
        "try: mood.cli.main()\nexcept SystemExit as left: code = left.code\n"
        "print(code, sorted({'torch', 'timm', 'pyarrow'} & {*sys.modules}))"
    )
    code, loaded = python(code).split(maxsplit=1)
    assert int(code) in (2, mood.DataError.exit_code, mood.ArtifactError.exit_code)
    assert loaded == "[]\n"


def test_what_a_notebook_shows_is_a_line() -> None:
    rows = mood.Features(np.random.default_rng(0).normal(size=(500, 8)), labels=np.zeros(500, np.int64))
    shown = mood.fit(rows, score="knn", alpha=0.1), rows, mood.data.open_source("clothing", limit=60)
    assert repr(rows) == "Features(embedding float64 (500, 8), labels int64 (500,))"
    for thing in (*shown, shown[-1].manifest):
        assert len(repr(thing)) < 250
        assert "\n" not in repr(thing)


def test_every_error_has_an_exit_code_of_its_own() -> None:
    errors = [getattr(mood, name) for name in mood.__all__ if name.endswith("Error")]
    assert len({error.exit_code for error in errors}) == len(errors) == 8
    assert all(issubclass(error, mood.MoodError) for error in errors)


def test_two_lines_from_images_to_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOOD_CACHE", str(tmp_path))
    clothes = mood.data.open_source("clothing", limit=60)
    features = mood.extract(clothes, layer="last")
    assert len(features) == 60
    assert features.labels is not None
    network = mood.models.open_model("embedded")
    score = mood.scores.fit("vim", features, head=network.head(), dim=8)
    assert score(mood.extract("bccd", model=network, layer="last")).shape == (200,)
    assert mood.extract(clothes, layer="0", pool="mean+std").embedding.shape != features.embedding.shape
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    transform = mood.Transform(size=(16, 16), resize=16)
    assert mood.extract(clothes, model=module, transform=transform).embedding.shape == (60, 3)
    with pytest.raises(mood.InputError, match="your own module needs transform"):
        mood.extract(clothes, model=module)
    with pytest.raises(mood.InputError, match="is saved with the detector, got a function"):
        mood.extract(clothes, model=module, transform=lambda image: image)  # type: ignore[arg-type]


def test_fit_passes_everything_on_to_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mood.recipes import fit as recipe

    seen: dict[str, Any] = {}

    class Made:
        detector = "the detector"
        warning = None

    def run(config: recipe.FitConfig, **memory: Any) -> Made:
        seen.update(config=config, memory=memory)
        return Made()

    monkeypatch.setattr(recipe, "fit", run)
    assert mood.fit(tmp_path, alpha=0.1, score="knn", options={"k": 5}, calibration="apart") == "the detector"
    assert seen["config"] == recipe.FitConfig(
        data=str(tmp_path), alpha=0.1, score="knn", options=("k=5",), calibration="apart"
    )
    assert seen["memory"] == {}

    images = [torch.zeros(3, 8, 8, dtype=torch.uint8)]
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    transform = mood.Transform(
        size=(8, 8), resize=8, interpolation="bicubic", crop="center", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    mood.fit(images, model=module, transform=transform, head="1", calibration=images)
    assert seen["config"].data == "images in memory"
    assert seen["memory"]["data"] is images
    assert seen["memory"]["calibration"] is images
    assert seen["memory"]["model"].module is module


def test_fit_tells_what_is_wrong() -> None:
    with pytest.raises(mood.InputError, match="unknown option 'alhpa'; did you mean 'alpha'?"):
        mood.fit("images", alhpa=0.1)
    with pytest.raises(mood.InputError, match="your own module needs transform="):
        mood.fit("images", model=torch.nn.Identity())
    with pytest.raises(mood.InputError, match="model is a function; expected the name"):
        mood.fit("images", model=lambda pixels: pixels)
    with pytest.raises(mood.InputError, match="options are numbers, words and lists"):
        mood.fit("images", options={"k": np.int64(5)})


@pytest.mark.parametrize("entry", [mood.fit, mood.extract])
@pytest.mark.parametrize("words", [{"head": "fc"}, {"transform": mood.Transform(size=(8, 8), resize=8)}])
def test_words_about_an_own_module_are_not_dropped_where_there_is_none(entry: Any, words: dict[str, Any]) -> None:
    with pytest.raises(mood.InputError, match="describe a module of your own, and this network brings both"):
        entry("images", model="embedded", **words)
