"""Every row of Tables 1 to 4 of the paper has a recipe, and the documentation lists them all."""

import re
from pathlib import Path

import pytest

from mood.data import card
from mood.data.named import SETS
from mood.recipes.train import TrainConfig, plan

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "recipes" / "paper"

# As printed: (table, row) → average AUROC, and for Table 4 the stages that are ticked.
FIGURES = {
    ("1", "Classification, CIFAR-10"): "98.5",
    ("1", "Classification, CIFAR-100"): "86.7",
    ("1", "Classification, ImageNet-30"): "98.8",
    ("1", "MoCov3, CIFAR-10"): "93.6",
    ("1", "MoCov3, CIFAR-100"): "75.8",
    ("1", "MoCov3, ImageNet-30"): "86.0",
    ("1", "MIM, CIFAR-10"): "99.7",
    ("1", "MIM, CIFAR-100"): "97.0",
    ("1", "MIM, ImageNet-30"): "98.9",
    ("2", "BiT R50"): "81.71",
    ("2", "BiT R101×3"): "90.10",
    ("2", "ViT"): "95.53",
    ("2", "MLP-Mixer"): "95.31",
    ("2", "R50 + ViT"): "96.23",
    ("2", "MIM, ViT (section 3.2)"): "98.30",
    ("3", "CIFAR-10, MIM"): "72.2",
    ("3", "CIFAR-10, MIM + intermediate"): "97.9",
    ("3", "CIFAR-100, MIM"): "66.3",
    ("3", "CIFAR-100, MIM + intermediate"): "96.5",
    ("3", "ImageNet-30, MIM"): "75.2",
    ("3", "ImageNet-30, MIM + fine-tuning"): "92.0",
    ("4", "CIFAR-10, MIM"): "74.5",
    ("4", "CIFAR-10, MIM + intermediate"): "93.1",
    ("4", "CIFAR-10, MIM + fine-tuning"): "97.0",
    ("4", "CIFAR-10, all three"): "99.7",
    ("4", "CIFAR-100, MIM"): "62.2",
    ("4", "CIFAR-100, MIM + intermediate"): "68.2",
    ("4", "CIFAR-100, MIM + fine-tuning"): "89.6",
    ("4", "CIFAR-100, all three"): "97.0",
    ("4", "ImageNet-30, MIM"): "51.1",
    ("4", "ImageNet-30, MIM + intermediate"): "98.2",
    ("4", "ImageNet-30, MIM + fine-tuning"): "92.9",
    ("4", "ImageNet-30, all three"): "98.9",
}
STAGES = {
    "MIM": ["pretrain"],
    "MIM + intermediate": ["pretrain", "intermediate"],
    "MIM + fine-tuning": ["pretrain", "finetune"],
    "all three": ["pretrain", "intermediate", "finetune"],
}


def rows():
    """(table, row, figure, recipe, stages left out) of the page's table."""
    text = (ROOT / "docs" / "guide" / "paper.md").read_text()
    for line in text.splitlines():
        if re.match(r"\| [1-4] \|", line):
            table, row, figure, recipe, without = (cell.strip() for cell in line.strip("|").split("|"))
            yield table, row, figure, recipe.strip("`"), tuple(filter(None, without.split(", ")))


def test_the_page_has_every_row_once_with_its_figure():
    listed = [(table, row, figure) for table, row, figure, *_ in rows()]
    assert listed == [(*key, figure) for key, figure in FIGURES.items()]


@pytest.mark.parametrize("line", list(rows()), ids=lambda line: f"{line[0]} {line[1]}")
def test_the_recipe_is_there_and_tells_the_figure(line, tmp_path):
    table, row, figure, recipe, without = line
    path = PAPER / f"{recipe}.toml"
    text = path.read_text()
    assert f"Table {table}" in text.split("\n[")[0]
    assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]\d|\d)", text), f"{figure} is not in {path.name}"
    if table == "4":
        stages = plan(TrainConfig(stages=path, output=tmp_path, skip=without))
        assert [stage.name for stage in stages] == STAGES[row.split(", ")[1]]
    else:
        assert not without


def test_no_recipe_of_the_paper_is_forgotten():
    beside = {"beit-large-imagenet1k", "beit-base-cifar10", "beit-base-cifar100"}
    listed = {recipe for *_, recipe, _ in rows()}
    assert {path.stem for path in PAPER.glob("*.toml")} == listed | beside
    page = (ROOT / "docs" / "guide" / "paper.md").read_text()
    assert all(f"`{name}`" in page for name in beside)


@pytest.mark.parametrize("own", ["cifar10", "cifar100"])
@pytest.mark.parametrize("arm", ["scratch", "classification", "moco-v3", "mim"])
def test_the_same_rows_are_there_at_cifar_scale_with_equal_budgets(arm, own, tmp_path):
    stages = plan(TrainConfig(stages=ROOT / "recipes" / "cifar" / f"{arm}-{own}.toml", output=tmp_path))
    assert [stage.name for stage in stages] == ["pretrain", "intermediate", "finetune"]
    first, second, third = (stage.config for stage in stages)
    assert (first.model, first.data) == ("mood_vit_patch4_32", (f"{own}:train",))
    assert first.model_options == ("embed_dim=128", "depth=6", "num_heads=4")
    assert {second.data, third.data} == {"cifar10:train", "cifar100:train"}
    assert third.data == f"{own}:train"
    twin = plan(TrainConfig(stages=ROOT / "recipes" / "cifar" / f"mim-{own}.toml", output=tmp_path))
    assert [stage.config for stage in stages[1:]] == [stage.config for stage in twin[1:]]
    if arm != "scratch":
        assert (first.epochs, first.batch_size) == (twin[0].config.epochs, twin[0].config.batch_size)


def test_every_recipe_of_imagenet_30_asks_for_the_set_that_checks_its_list_of_classes():
    last = [
        plan(TrainConfig(stages=path, output=Path("out")))[-1].config.data
        for path in PAPER.glob("*vit-large-imagenet30.toml")
    ]
    assert last == ["imagenet30:train"] * 3
    assert card("imagenet30").classes == 30


def test_the_page_says_what_to_give_for_the_one_set_that_no_name_finds():
    asked = {name for path in PAPER.glob("*.toml") for name in re.findall(r'"([a-z][\w-]*):train"', path.read_text())}
    assert asked - {*SETS} == {"imagenet22k"}
    assert "`imagenet22k:train`" in (ROOT / "docs" / "guide" / "paper.md").read_text()
