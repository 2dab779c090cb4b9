"""From what the user says to a network: names, folders, files, modules, and every way it can go wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import nn

from mood.core import artifact
from mood.core.errors import ArtifactError, InputError, ModelError
from mood.core.transform import Transform
from mood.models import (
    Architecture,
    Beside,
    Embedder,
    Model,
    Stage,
    check_spelling,
    image_keys,
    load_model,
    open_model,
    own_model,
    randomised,
    resized,
    save_model,
)

SMALL = {"embed_dim": 48, "depth": 2, "num_classes": 5}
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def small(**options):
    return open_model("mood_vit_patch4_32", options={**SMALL, **options}, random_weights=True)


def test_the_transform_is_the_models_own_at_the_size_it_was_built_for():
    model = small(img_size=48)
    assert model.transform.size == (48, 48)
    assert model.transform.mean == pytest.approx((0.5, 0.484, 0.444))
    beit = open_model("beit_base_patch16_224", options={"depth": 1}, random_weights=True)
    assert beit.transform.mean == (0.5, 0.5, 0.5)
    assert beit.transform.size == (224, 224)


def test_the_size_is_found_in_mixers_too():
    mixer = open_model("mixer_s32_224", options={"img_size": 64}, random_weights=True)
    assert mixer.transform.size == (64, 64)
    with pytest.raises(ModelError, match="patches of 32 pixels do not fill 80"):
        Architecture("mixer_s32_224", {"img_size": 80}).check()


@pytest.mark.parametrize(
    ("name", "size"), [("levit_128s", 64), ("tnt_s_legacy_patch16_224", [32, 64]), ("mvitv2_tiny", 64)]
)
def test_a_network_that_does_not_say_its_size_is_fed_as_it_was_built(name, size):
    model = open_model(name, options={"img_size": size}, random_weights=True)
    sides = (64, 64) if size == 64 else (32, 64)
    assert model.transform.size == sides
    assert model.module(torch.zeros(1, 3, *sides)).shape == (1, 1000)
    assert open_model(name, random_weights=True).transform.size == (224, 224)


def test_the_transform_can_be_told_otherwise():
    model = open_model("mood_vit_patch4_32", options=SMALL, random_weights=True, transform={"crop_pct": 0.8})
    assert (model.transform.size, model.transform.resize) == ((32, 32), 40)
    assert open_model("embedded", transform={"crop_pct": 0.8}).transform.resize == 40


def test_random_weights_depend_on_the_seed_alone():
    first, second = small().module.state_dict(), small().module.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    other = open_model("mood_vit_patch4_32", options=SMALL, random_weights=True, seed=1)
    assert small().fingerprint() != other.fingerprint()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    small()
    assert torch.equal(torch.get_rng_state(), before)


def test_saved_and_loaded_it_is_the_same_network(tmp_path):
    stage = Stage(
        stage="pretrain",
        data="x",
        images=3,
        class_names=("a",),
        labelled=False,
        manifest="m",
        seed=0,
        held_out=0.1,
        settings={"e": 1},
    )
    keys = image_keys(["ab" * 32, "00" * 32])
    model = Model(
        name="mine",
        module=small().module,
        transform=small().transform,
        architecture=Architecture("mood_vit_patch4_32", SMALL),
        class_names=("a", "b", "c", "d", "e"),
        history=(stage,),
        seen=keys,
        source="test",
        beside=Beside("mae", {"decoder_width": 4}, {"mask_token": torch.ones(1, 1, 4)}),
    )
    save_model(tmp_path / "m", model)
    again = open_model(str(tmp_path / "m"))
    assert again.beside is not None
    assert again.beside.fingerprint() == model.beside.fingerprint()
    assert again.fingerprint() == model.fingerprint()
    assert (again.history, again.class_names, again.source) == (model.history, model.class_names, "test")
    assert again.seen_among(["ab" * 32, "cd" * 32, "00" * 32]).tolist() == [True, False, True]
    assert torch.equal(Embedder(model, device="cpu")(PIXELS)[0], Embedder(again, device="cpu")(PIXELS)[0])


def test_a_network_keeps_what_was_chosen_of_it(tmp_path):
    save_model(tmp_path / "chosen", replace(small(), pool="avg", layer="0+last"))
    model = open_model(str(tmp_path / "chosen"))
    for known in (model, randomised(model, 1), resized(model, 16)):
        own = Embedder(known, device="cpu")
        assert (own.pool, own.layer) == ("avg", "0+last")
    told = Embedder(model, pool="model", layer="last", device="cpu")
    assert (told.pool, told.layer) == ("model", "last")
    assert (Embedder(model, pool="mean+std", device="cpu").layer) == "0+last"


def test_a_network_of_an_older_mood_has_chosen_nothing(tmp_path):
    save_model(tmp_path / "new", small())
    tensors, meta = artifact.read(tmp_path / "new", kind="model")
    older = {key: value for key, value in meta.items() if key not in ("pool", "layer")}
    artifact.write(tmp_path / "old", kind="model", tensors=tensors, meta=older)
    old = load_model(tmp_path / "old")
    assert (old.pool, old.layer) == ("model", "last")


def test_half_precision_storage_is_read_as_float32(tmp_path):
    save_model(tmp_path, small(), dtype=torch.float16)
    weight = load_model(tmp_path).module.state_dict()["head.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, small().module.state_dict()["head.weight"].half().float())


def test_a_checkpoint_for_a_timm_name_has_unknown_history(tmp_path):
    torch.save({"model": small().module.state_dict()}, tmp_path / "w.pth")
    model = open_model("mood_vit_patch4_32", checkpoint=tmp_path / "w.pth", options=SMALL)
    assert model.history is None
    assert "tensors loaded" in model.source
    with pytest.raises(InputError, match="not known"):
        model.seen_among(["ab" * 32])


def test_unknown_names_are_met_with_the_nearest_known_ones():
    with pytest.raises(ModelError, match="did you mean vit_base_patch16_224"):
        open_model("vit_base_patch16_244")


def test_a_file_of_weights_and_a_folder_that_is_not_there_are_told_from_names(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file: give it as checkpoint, and the name of its architecture as model"):
        open_model(str(tmp_path / "m.pt"))
    with pytest.raises(ModelError, match="'beit-large/finetune' is neither .*; a folder such as NAME/finetune is writ"):
        open_model("beit-large/finetune")
    with pytest.raises(ModelError, match=r"timm.list_models\(\) has their names"):
        open_model("qqqqqqqq")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("vit_tinny_patch16_224", "did you mean vit_tiny_patch16_224"),
        ("vit-tiny-patch16-224", "did you mean vit_tiny_patch16_224"),
        ("vit_tinny_patch16_224.augreg_in21k", "did you mean vit_tiny_patch16_224"),
        ("embeded", "did you mean embedded"),
        ("vit_tiny_patch16_224.in21k", "no weights 'in21k'; timm has vit_tiny_patch16_224.augreg_in21k, "),
    ],
)
def test_a_slip_is_told_from_a_folder_that_is_yet_to_be_written(tmp_path, monkeypatch, name, told):
    with pytest.raises(ModelError, match=rf"{told}.* \(a folder .* slash: \./{name}\)$"):
        check_spelling(name)
    check_spelling(f"./{name}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    check_spelling(name)


@pytest.mark.parametrize(
    "name", ["tuned", "vit_cifar10", "embedded", "vit_tiny_patch16_224.augreg_in21k", "mood_vit_patch4_32.untrained"]
)
def test_what_may_be_a_folder_or_is_a_network_is_no_slip(name):
    check_spelling(name)


def test_options_that_the_architecture_does_not_take():
    with pytest.raises(ModelError, match="does not take"):
        open_model("mood_vit_patch4_32", options={"dpeth": 3}, random_weights=True)


def test_arguments_that_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="exclude"):
        open_model("mood_vit_patch4_32", checkpoint=tmp_path, random_weights=True)
    save_model(tmp_path, small())
    with pytest.raises(InputError, match="own architecture.* all options but img_size"):
        open_model(str(tmp_path), options={"depth": 1})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mood_vit_patch4_32", {}),
        ("mood_vit_conv4_32", {"img_size": [32, 48]}),
        ("beit_base_patch16_224", {"img_size": 32, "patch_size": 4, "num_heads": 2}),
    ],
)
def test_a_network_with_its_weights_can_be_opened_for_another_size(tmp_path, name, options):
    made = open_model(name, options={**SMALL, **options}, random_weights=True)
    for parameter in made.module.parameters():
        parameter.data.normal_(0, 0.1)
    save_model(tmp_path, replace(made, transform=made.transform.changed({"crop_pct": 0.8})))
    model = open_model(str(tmp_path), options={"img_size": 64})
    assert (model.transform.size, model.transform.resize) == ((64, 64), 80)
    assert model.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert model.source.endswith("to 64 x 64 pixels")
    old, new = made.module.state_dict(), model.module.state_dict()
    tables = {key for key, value in old.items() if value.shape != new[key].shape}
    assert tables == {key for key in old if key == "pos_embed" or "relative_position_bias_table" in key}
    assert all(torch.equal(value, new[key]) for key, value in old.items() if key not in tables)
    save_model(tmp_path / "again", model)
    assert load_model(tmp_path / "again").fingerprint() == model.fingerprint()
    same = open_model(str(tmp_path), options={"img_size": list(made.transform.size)})
    assert all(torch.equal(value, same.module.state_dict()[key]) for key, value in old.items())


def test_a_grid_that_is_turned_is_resampled_though_it_has_as_many_patches():
    wide = small(img_size=(16, 32))
    tall = resized(wide, (32, 16))
    assert tall.transform.size == (32, 16)
    assert tall.module.pos_embed.shape == wide.module.pos_embed.shape
    assert not torch.equal(tall.module.pos_embed, wide.module.pos_embed)


def test_sizes_that_cannot_be(tmp_path):
    save_model(tmp_path, small())
    with pytest.raises(ModelError, match="patches of 4 pixels do not fill 30"):
        open_model(str(tmp_path), options={"img_size": 30})
    for size in (0, -4):
        with pytest.raises(ModelError, match="cannot be built with these options"):
            open_model("embedded", options={"img_size": size})
    convolutions = open_model("resnet10t", options={"num_classes": 2}, random_weights=True)
    with pytest.raises(ModelError, match="resnet10t is built for no size of its own"):
        resized(convolutions, 64)
    with pytest.raises(ModelError, match="your own module cannot be resized"):
        resized(replace(convolutions, architecture=None), 64)


def test_weights_that_do_not_fit_their_architecture(tmp_path):
    wider = replace(small(), architecture=Architecture("mood_vit_patch4_32", {**SMALL, "embed_dim": 96}))
    save_model(tmp_path, wider)
    with pytest.raises(ModelError, match="do not fit mood_vit_patch4_32"):
        load_model(tmp_path)


def test_a_description_that_was_edited_is_not_believed(tmp_path):
    save_model(tmp_path, small())
    index = json.loads((tmp_path / "artifact.json").read_text())
    index["meta"]["source"] = "somebody else"
    (tmp_path / "artifact.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match="sha256 differs"):
        load_model(tmp_path)


def test_an_unreachable_hub_says_what_to_do(monkeypatch):
    def unreachable(*args, pretrained=False, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ModelError, match=r"as checkpoint.*the model 'embedded'.*beit_large_patch16_224"):
        open_model("vit_base_patch16_224")


def test_a_name_without_hub_weights():
    with pytest.raises(ModelError, match="no weights|could not be fetched"):
        open_model("mood_vit_patch4_32")


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(6, 4)

    def forward(self, images):
        return self.fc(self.body(images))


TRANSFORM = Transform.from_pretrained_cfg({"input_size": (3, 32, 32)})


def test_the_users_own_module_gives_what_its_head_sees():
    torch.manual_seed(0)
    module = Own()
    model = own_model(module, TRANSFORM, head="fc")
    embedder = Embedder(model, device="cpu", precision="fp32")
    embedding, logits = embedder(PIXELS)
    images = torch.from_numpy(TRANSFORM.normalise(PIXELS))
    torch.testing.assert_close(embedding, module.body(images))
    torch.testing.assert_close(logits, module(images))
    head = embedder.head
    torch.testing.assert_close(embedding @ head.weight.T + head.bias, logits)
    with pytest.raises(ModelError, match="has no random twin"):
        randomised(model, 0)
    with pytest.raises(ModelError, match="cannot be saved"):
        save_model(TRANSFORM, model)


def test_a_head_name_that_is_not_there_lists_the_linear_layers():
    with pytest.raises(ModelError, match="no layer 'head'; its linear layers are fc"):
        own_model(Own(), TRANSFORM, head="head")


def test_a_module_without_a_head_must_give_one_matrix():
    encoder = own_model(Own().body, TRANSFORM, head=None)
    embedding, logits = Embedder(encoder, device="cpu")(PIXELS)
    assert embedding.shape == (3, 6)
    assert logits is None
    with pytest.raises(ModelError, match="pass head="):
        Embedder(own_model(nn.Conv2d(3, 2, 3), TRANSFORM, head=None), device="cpu")(PIXELS)


def test_the_named_layer_must_see_one_row_an_image():
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(2), nn.Linear(16, 2))
    with pytest.raises(ModelError, match=r"the layer '2' must see one \(N, D\) tensor a pass"):
        Embedder(own_model(module, TRANSFORM, head="2"), device="cpu")(PIXELS)
    unused = nn.ModuleDict({"body": nn.Flatten(), "head": nn.Linear(2, 2)})
    unused.forward = lambda images: unused["body"](images)
    with pytest.raises(ModelError, match="the layer 'head' must see one"):
        Embedder(own_model(unused, TRANSFORM, head="head"), device="cpu")(PIXELS)
