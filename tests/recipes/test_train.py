"""Stages in a row: each starts from the one before it, and a recipe that is wrong anywhere starts nothing."""

import pytest

from mood.core.errors import InputError, MoodError, OutputError
from mood.models import load_model
from mood.recipes.train import TrainConfig, plan, train

RECIPE = """
[common]
epochs = 1
batch_size = 16
warmup_epochs = 0.0
held_out = 0.0
workers = 0
seed = 3

[[stages]]
name = "pretrain"
command = "pretrain"
data = ["{data}"]
model = "mood_vit_patch4_32"
model_options = ["embed_dim=32", "depth=1", "num_heads=2", "img_size=16"]
decoder_width = 16
decoder_heads = 2

[[stages]]
name = "intermediate"
command = "finetune"
data = "{data}"

[[stages]]
name = "fine-tune"
command = "finetune"
data = "{data}"
classes = ["class 0", "class 1"]
"""


@pytest.fixture
def config(stripes_folder, tmp_path):
    data = stripes_folder(tmp_path / "data", 48, classes=3)

    def config(text=RECIPE, **changes):
        path = tmp_path / "recipe.toml"
        path.write_text(text.replace("{data}", str(data)))
        return TrainConfig(**{"stages": path, "output": tmp_path / "out", **changes})

    return config


def test_each_stage_starts_from_the_one_before_it(config, tmp_path):
    result = train(config())
    assert result.output == tmp_path / "out" / "fine-tune"
    history = load_model(result.output).history
    assert [(stage.stage, stage.seed) for stage in history] == [("pretrain", 3), ("finetune", 3), ("finetune", 3)]
    assert len(load_model(result.output).class_names) == 2
    assert [line.split(":")[0] for line in result.lines] == ["pretrain", "intermediate", "fine-tune"]
    again = train(config())
    assert all("already finished" in line for line in again.lines)
    with pytest.raises(OutputError, match="another"):
        train(config(RECIPE.replace("seed = 3", "seed = 4")))
    assert "already" not in train(config(RECIPE.replace("seed = 3", "seed = 4"), overwrite=True)).summary()


def test_a_stage_can_be_left_out(config):
    stages = plan(config(skip=("intermediate",)))
    assert [stage.name for stage in stages] == ["pretrain", "fine-tune"]
    assert stages[1].config.model == str(stages[0].config.output)
    assert len(load_model(train(config(skip=("intermediate",))).output).history) == 2


def test_a_stage_may_name_its_own_start(config, tmp_path):
    text = RECIPE.replace('name = "fine-tune"', 'name = "fine-tune"\nmodel = "embedded"')
    assert plan(config(text))[-1].config.model == "embedded"
    only = plan(config(text, skip=("pretrain", "intermediate")))
    assert [stage.config.model for stage in only] == ["embedded"]


def test_a_stage_may_ask_for_another_size_and_inherits_none(config):
    text = RECIPE.replace("seed = 3", 'seed = 3\nmodel_options = ["img_size=16"]')
    text = text.replace('name = "fine-tune"', 'name = "fine-tune"\nmodel_options = ["img_size=32"]')
    assert [stage.config.model_options for stage in plan(config(text))[1:]] == [(), ("img_size=32",)]
    assert load_model(train(config(text)).output).transform.size == (32, 32)


def test_a_pretext_takes_the_tokenizer_of_the_stage_before_it(config, tmp_path):
    tokens = """[[stages]]
name = "tokens"
command = "tokenizer"
data = ["{data}"]
image_size = [16]
grid = [4]
codes = 8
width = 4
code_width = 8
measured = 0.3
crop_scale = 0.5

"""
    text = RECIPE.replace("[[stages]]", tokens + "[[stages]]", 1).replace(
        "decoder_width = 16\ndecoder_heads = 2", 'pretext = "beit"'
    )
    result = train(config(text, skip=("intermediate",)))
    history = load_model(result.output).history
    assert [stage.stage for stage in history] == ["tokenizer", "pretrain", "finetune"]
    assert "tokens: mood tokenizer on" in train(config(text, check=True)).summary()
    _, first, *_ = plan(config(text))
    assert first.config.tokenizer == tmp_path / "out" / "tokens"
    own = plan(config(text.replace('pretext = "beit"', 'pretext = "beit"\ntokenizer = "mine"')))
    assert str(own[1].config.tokenizer) == "mine"
    # Without it, what is missing is told by the stage that needs it.
    with pytest.raises(InputError, match="train one with `mood tokenizer`"):
        train(config(text, skip=("tokens",)))


def test_what_stands_for_the_stages_left_out_can_be_named(config, tmp_path):
    rest = {"skip": ("pretrain",), "model": "mood_vit_patch4_32", "checkpoint": tmp_path / "weights.pth"}
    first, second = plan(config(**rest))
    assert (first.config.model, first.config.checkpoint) == ("mood_vit_patch4_32", tmp_path / "weights.pth")
    assert (second.config.model, second.config.checkpoint) == (str(first.config.output), None)


def test_the_run_decides_where_it_runs(config):
    stages = plan(
        config(device="cpu", workers=3, strategy="ddp", accumulate=2, seed=7, data_root=("here",), overwrite=True)
    )
    assert {(s.config.strategy, s.config.accumulate, s.config.seed) for s in stages} == {("ddp", 2, 7)}
    assert {(s.config.device, s.config.workers, s.config.data_root, s.config.overwrite) for s in stages} == {
        ("cpu", 3, ("here",), True)
    }


def test_checking_tells_what_would_be_done_and_does_nothing(config, tmp_path):
    result = train(config(check=True))
    assert result.summary().splitlines()[1].startswith("intermediate: mood finetune on ")
    assert "from " + str(tmp_path / "out" / "pretrain") in result.summary()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[common]", "[comon]", r"unknown table 'comon'"),
        ("[common]", "[[common]]", r"\[common\] is one table"),
        ("workers = 0", "wokers = 0", r"'wokers' in \[common\] is no setting that stages share"),
        ("workers = 0", 'data = "x"', r"'data' in \[common\] is no setting that stages share"),
        ('name = "intermediate"', "", "stage 2 has no 'name'"),
        ('name = "intermediate"', 'name = "../up"', "stage 2 is named '../up'"),
        ('name = "intermediate"', 'name = "pretrain"', "stage 2 is named 'pretrain'; names are words, each once"),
        (
            'command = "finetune"',
            'command = "tune"',
            "stage 'intermediate' is a 'tune'; it can be tokenizer, pretrain, finetune",
        ),
        ("decoder_width = 16", "decoder_with = 16", "stage 'pretrain': .*'decoder_with'.* 'decoder_width'"),
        ("epochs = 1", 'epochs = "1"', "stage 'pretrain': 'epochs' is '1'"),
        ("[[stages]]", "[[stage]]", "unknown table 'stage'"),
    ],
)
def test_a_recipe_that_is_wrong_starts_nothing(config, tmp_path, old, new, message):
    text = RECIPE.replace(old, new) if old == "[[stages]]" else RECIPE.replace(old, new, 1)
    with pytest.raises(InputError, match=message):
        train(config(text))
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(config, tmp_path):
    with pytest.raises(
        InputError, match="skip is 'nothing', and the recipe's stages are pretrain, intermediate, fine-"
    ):
        plan(config(skip=("nothing",)))
    with pytest.raises(InputError, match="no stage is left to run"):
        plan(config(skip=("pretrain", "intermediate", "fine-tune")))
    with pytest.raises(InputError, match="stage 'intermediate' has no network to start from: put a stage before it"):
        plan(config(skip=("pretrain",)))
    with pytest.raises(InputError, match="no stage is left to run"):
        plan(config(""))
    with pytest.raises(InputError, match="model is 'embedded', and no stage of .* starts from it"):
        plan(config(model="embedded"))
    with pytest.raises(InputError, match="weights of a network that model would name: give model too"):
        plan(config(checkpoint=tmp_path / "weights.pth"))


LAST = 'name = "fine-tune"\n'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (LAST, LAST + "epoch = 3\n", r"stage 'fine-tune': .*'epoch'.*epochs"),
        (LAST, LAST + 'epochs = "many"\n', r"stage 'fine-tune': .*epochs.*many"),
        (
            LAST,
            LAST + 'model = "mood_vit_patch4_32"\nmodel_options = ["patch_size=5"]\n',
            r"stage 'fine-tune': .*patches of 5 pixels do not fill 32: set img_size to a multiple of patch_size.* 30",
        ),
        ('"img_size=16"]', '"img_size=18"]', r"stage 'pretrain': .*patches of 4 pixels do not fill 18"),
        (
            LAST,
            LAST + "batch_size = 33\n",
            r"batch_size is 33, and 32 images .*set it to 32 or less",
        ),
        (LAST, LAST + "held_out = 0.9\n", r"stage 'fine-tune': batch_size is 16, and . images are left"),
        (
            'name = "intermediate"\n',
            'name = "intermediate"\nhead_classes = 2\n',
            r"stage .intermediate.: .* has 3 classes.* would have 2 outputs: set head_classes to at least 3",
        ),
        (
            LAST,
            LAST + 'model = "mood_vit_patch4_32"\ncheckpoint = "gone.pth"\n',
            r"stage 'fine-tune': checkpoint is gone.pth, and there is nothing: check the path",
        ),
        (
            LAST,
            LAST + 'model = "no/such/folder"\n',
            r"stage 'fine-tune': model 'no/such/folder' is neither 'embedded', a folder, nor a timm model",
        ),
        (
            'name = "pretrain"\n',
            'name = "pretrain"\ntokenizer = "gone"\n',
            r"tokenizer is gone, and there is nothing",
        ),
        (
            'name = "pretrain"\n',
            'name = "pretrain"\nmask_unit = 4\n',
            r"stage 'pretrain': mask_unit is a setting of pretext simmim; mae has",
        ),
        (LAST, LAST + 'eval = "no-such-set"\n', r"no-such-set"),
        (LAST, LAST + "epochs = 0\n", r"stage 'fine-tune': 'epochs' is 0; it should be greater than or equal to 1"),
        (LAST, LAST + "min_lr = 1.0\n", r"stage 'fine-tune': min_lr is 1.0; it must be between 0 and lr"),
        (
            LAST,
            LAST + "crop_scale = 2.0\n",
            r"stage 'fine-tune': 'crop_scale' is 2.0; it should be less than or equal to 1",
        ),
        (LAST, LAST + "drop_path = 1.0\n", r"stage 'fine-tune': 'drop_path' is 1.0"),
        (LAST, LAST + "label_smoothing = -0.1\n", r"stage 'fine-tune': 'label_smoothing' is -0.1"),
        (LAST, LAST + "mixup = -1.0\n", r"stage 'fine-tune': 'mixup' is -1.0"),
        (LAST, LAST + "cutmix = 1.0\nbatch_size = 15\n", r"stage 'fine-tune': .*pairs: set it to 16"),
        (
            LAST,
            LAST + "batch_size = 0\n",
            r"stage 'fine-tune': 'batch_size' is 0; it should be greater than or equal to 1",
        ),
        (
            LAST,
            LAST + "accumulate = 3\n",
            r"stage 'fine-tune': .* cut it into 3 equal parts: set it to 15",
        ),
        (LAST, LAST + 'strategy = "fsdp"\n', r"stage 'fine-tune': .*start them with torchrun"),
        (
            LAST,
            LAST + 'model = "resnet10t"\nmodel_options = []\naccumulate = 2\n',
            r"stage 'fine-tune': accumulate is 2, and batch normalisation needs the whole batch",
        ),
        (
            LAST,
            LAST + 'model = "deit_tiny_distilled_patch16_224"\nmodel_options = []\n',
            r"stage 'fine-tune': deit_tiny_distilled_patch16_224 has more than one head",
        ),
        (
            LAST,
            LAST + 'model = "vgg11"\nmodel_options = []\n',
            r"stage 'fine-tune': model 'vgg11' does not take these options",
        ),
        (
            LAST,
            LAST + 'model = "dla34"\nmodel_options = []\ndrop_path = 0.0\ncheckpoint_activations = true\n',
            r"stage 'fine-tune': dla34 cannot compute its inner values again: leave checkpoint_activations out",
        ),
        (LAST, LAST + "freeze = 7\n", r"stage 'fine-tune': freeze is 7; it must be .* from 0 to 1, the blocks"),
        (LAST, LAST + 'model_options = ["img_size=18"]\n', r"stage 'fine-tune': .*patches of 4 pixels do not fill 18"),
        (LAST, LAST + "stream = true\nlimit = 3\n", r"stage 'fine-tune': limit picks images from a list"),
        (LAST, LAST + "stream = true\n", r"stage 'fine-tune': .*(is streamed, and|coarse and classes pick)"),
        (
            'name = "pretrain"\n',
            'name = "pretrain"\nbase_lr = 0.0\n',
            r"stage 'pretrain': 'base_lr' is 0.0; it should be greater than 0",
        ),
        (
            'name = "pretrain"\n',
            'name = "pretrain"\nbeta2 = 1.0\n',
            r"stage 'pretrain': 'beta2' is 1.0; it should be less than 1",
        ),
        ('name = "pretrain"\n', 'name = "pretrain"\nstream = true\n', r"stage 'pretrain': .* is streamed, and"),
    ],
)
def test_what_no_stage_could_do_is_refused_before_a_weight_is_loaded(config, tmp_path, monkeypatch, old, new, message):
    monkeypatch.setattr("mood.models.open_model", lambda *_, **__: pytest.fail("a network was opened"))
    monkeypatch.setattr("mood.training.train", lambda *_, **__: pytest.fail("a stage was started"))
    with pytest.raises(MoodError, match=message):
        train(config(RECIPE.replace(old, new, 1)))
    assert not (tmp_path / "out").exists()


def test_what_is_not_here_is_named_by_a_check(config, tmp_path, stripes_folder, monkeypatch):
    monkeypatch.setattr("mood.data.open_source", lambda *_, **__: pytest.fail("images were opened"))
    text = RECIPE.replace('["{data}"]', '["{data}", "cifar10:train"]').replace(
        'name = "fine-tune"', 'name = "fine-tune"\neval = "gone/*.png"'
    )
    assert [line.partition(" in ")[0].partition(" of ")[0] for line in train(config(text, check=True)).lines[3:]] == [
        "cifar10:train is not here: cifar10:train is under none",
        "gone/*.png is not here: No file matches gone/*.png.",
    ]
    text = RECIPE.replace('["{data}"]', '["gone-{0..1}.tar"]\nstream = true')
    assert "there is no file gone-0.tar" in train(config(text, check=True)).lines[-1]


def test_images_are_not_opened_to_check_and_networks_are(config, tmp_path):
    text = RECIPE.replace('data = "{data}"', 'data = "no-such-set"').replace('["{data}"]', '["no-such-set"]')
    *stages, missing = train(config(text, check=True)).lines
    assert len(stages) == 3
    assert missing.startswith("no-such-set is not here: There is no file, folder or set 'no-such-set'. Searched for")
    with pytest.raises(MoodError, match="patches of 4 pixels do not fill 18"):
        train(config(text.replace("img_size=16", "img_size=18"), check=True))
