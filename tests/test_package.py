"""What is shipped: small enough, and only what may be shipped."""

from pathlib import Path

import mood
from mood.data import open_source
from mood.models import open_model

PACKAGE = Path(mood.__file__).parent


def test_everything_together_is_at_most_12_megabytes():
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= 12e6


def test_the_samples_are_those_whose_licences_allow_it():
    folder = PACKAGE / "data" / "samples"
    assert {path.stem for path in folder.glob("*.parquet")} == {"clothing", "omniglot", "bccd"}
    assert all(f"`{path.stem}`" in (folder / "README.md").read_text() for path in folder.glob("*.parquet"))
    assert [len(open_source(name)) for name in ("clothing", "omniglot", "bccd")] == [1000, 400, 200]


def test_the_embedded_network_says_what_it_has_seen():
    model = open_model("embedded")
    assert [stage.stage for stage in model.history] == ["pretrain", "pretrain", "finetune"]
    assert {stage.data for stage in model.history} == {"cifar10:train", "cifar100:train"}
    assert {stage.held_out for stage in model.history} == {0.1}
    # The sets share a few images.
    assert sum(stage.images for stage in model.history if stage.stage == "pretrain") - len(model.seen) < 100
    assert "Accuracy on `cifar100:test`" in (PACKAGE / "models" / "embedded" / "README.md").read_text()
