"""Everything that names images, and every way in which it can be wrong."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from mood.core.errors import DataError, InputError
from mood.data import open_source, opening
from mood.data import parquet as parquet_room
from mood.data.files import FileStore

# --- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_is_sorted_and_labelled(pets, png):
    source = open_source(pets)
    assert source.name == "pets"
    assert source.manifest.ids == ("cat/a.png", "cat/b.png", "dog/a.png", "dog/deep/c.png", "emu/é.png")
    assert source.manifest.class_names == ("cat", "dog", "emu")
    assert source.manifest.labels.tolist() == [0, 0, 1, 1, 2]
    assert source.manifest.labels.dtype == np.int64
    assert source.manifest.coarse_labels is None
    assert source.read(3) == png(3)
    assert source.manifest.hashes[3] == hashlib.sha256(png(3)).hexdigest()
    assert str(pets) in source.description
    assert open_source(str(pets) + os.sep).manifest.fingerprint == source.manifest.fingerprint


def test_classes_stay_together_whatever_their_names(tmp_path, png):
    for name in ("a b/x", "a/x", "a/y", "B/x", "中/x", "a-/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    source = open_source(tmp_path)
    assert source.manifest.class_names == ("B", "a", "a b", "a-", "中")
    assert source.manifest.labels.tolist() == [0, 1, 1, 2, 3, 4]


def test_files_in_the_folder_itself_have_no_class(pets):
    (pets / "notes.txt").write_text("what we saw")
    source = open_source(pets)
    assert source.manifest.labels is None
    assert source.manifest.class_names is None
    assert source.manifest.ids[-1] == "notes.txt"
    assert source.unlabelled == (
        f"notes.txt lies in {pets} itself, beside the folders of the classes, and belongs to none: move it into the "
        "folder of its class, or out"
    )
    (pets / "new.png").write_text("what we saw")
    assert f"new.png (and 1 more) lies in {pets} itself" in open_source(pets).unlabelled
    with pytest.raises(InputError, match="has no labels: new.png .and 1 more. lies in"):
        open_source(pets, classes=["cat"])
    assert open_source(pets / "cat").unlabelled == "put the images of each class into a folder of its own"


def test_what_systems_leave_beside_images_is_no_input(pets):
    before = open_source(pets).manifest.fingerprint
    for name in ("Thumbs.db", "cat/thumbs.db", "dog/ehthumbs.db", "emu/desktop.ini", "Desktop.ini", "Icon\r"):
        (pets / name).write_text("x")
    assert open_source(pets).manifest.fingerprint == before


def test_hidden_things_and_pipes_are_no_input(pets, png):
    (pets / ".DS_Store").write_text("x")
    (pets / ".git").mkdir()
    (pets / ".git" / "x.png").write_bytes(png())
    os.mkfifo(pets / "cat" / "pipe")
    (pets / "fox").mkdir()
    assert len(open_source(pets)) == 5
    assert open_source(pets).manifest.class_names == ("cat", "dog", "emu")


def test_links_stay_inside(pets, tmp_path, png):
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(9))
    (pets / "cat" / "inside.png").symlink_to(pets / "dog" / "a.png")
    (pets / "cat" / "nowhere.png").symlink_to(pets / "none")
    (pets / "cat" / "outside.png").symlink_to(outside)
    (pets / "loop").symlink_to(pets)
    source = open_source(pets)
    assert len(source) == 8
    assert source.read(source.manifest.ids.index("cat/inside.png")) == png(2)
    with pytest.raises(DataError, match="cannot be opened: No such file"):
        source.read(source.manifest.ids.index("cat/nowhere.png"))
    with pytest.raises(DataError, match="link to a file outside of the folder"):
        source.read(source.manifest.ids.index("cat/outside.png"))
    assert source.manifest.hashes[source.manifest.ids.index("cat/outside.png")] == hashlib.sha256(b"").hexdigest()


def test_a_link_to_a_folder_outside_is_one_input_that_cannot_be_read(pets, tmp_path):
    (tmp_path / "far").mkdir()
    (pets / "dog" / "away").symlink_to(tmp_path / "far")
    source = open_source(pets)
    assert source.manifest.ids[2:5] == ("dog/a.png", "dog/away", "dog/deep/c.png")
    assert source.manifest.labels.tolist() == [0, 0, 1, 1, 1, 2]
    with pytest.raises(DataError, match=f"It is a link to the folder {tmp_path / 'far'}, outside of this one"):
        source.read(3)
    (pets / "bird").symlink_to(tmp_path / "far")
    assert open_source(pets).unlabelled.startswith(f"bird in {pets} is a link out of it")
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "cat"
    link.symlink_to(pets / "cat")
    with pytest.raises(DataError, match=f"holds no images.* Of {link}: It is a link to the folder"):
        open_source(tmp_path / "links")


@pytest.fixture
def many(tmp_path):
    """A folder of 1000 files, of which one cannot be read."""
    for number in range(1000):
        (tmp_path / f"{number:04d}.png").write_text(str(number))
    (tmp_path / "0123.png").unlink()
    (tmp_path / "0123.png").symlink_to("nowhere")
    return tmp_path


def test_files_are_hashed_in_their_order_whichever_thread_is_first(many, monkeypatch):
    read = FileStore.read
    monkeypatch.setattr(FileStore, "read", lambda store, row: time.sleep(0.002 * (row % 64 == 0)) or read(store, row))
    hashes = open_source(many).manifest.hashes
    expected = [hashlib.sha256(b"" if number == 123 else str(number).encode()).hexdigest() for number in range(1000)]
    assert list(hashes) == expected
    assert open_source(many, limit=3).manifest.hashes == tuple(expected[number] for number in (0, 333, 666))


def test_who_stops_the_hashing_waits_for_no_more_than_is_being_read(many, monkeypatch):
    seen = []
    monkeypatch.setattr(opening, "_hash", lambda _, row: time.sleep(0.001) or seen.append(row) or "")
    hashes = opening._hashes(FileStore([str(path) for path in sorted(many.iterdir())]), np.arange(1000))
    next(hashes)
    hashes.close()
    count = len(seen)
    assert count < 1000
    time.sleep(0.05)
    assert len(seen) == count


def test_a_link_that_leads_to_itself_is_an_input(pets, png):
    (pets / "cat" / "self.png").symlink_to("self.png")
    source = open_source(pets)
    position = source.manifest.ids.index("cat/self.png")
    with pytest.raises(DataError, match="cannot be opened: Too many levels of symbolic links"):
        source.read(position)


def test_a_link_may_name_the_folder(pets, tmp_path):
    (tmp_path / "alias").symlink_to(pets)
    assert open_source(tmp_path / "alias").manifest.fingerprint == open_source(pets).manifest.fingerprint


def test_names_that_are_no_text(tmp_path, png):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(png())
    source = open_source(tmp_path)
    assert source.manifest.ids == ("caf\\xe9.png",)
    assert source.read(0) == png()


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_source(tmp_path)


def test_a_file_that_vanishes(pets):
    source = open_source(pets)
    (pets / "cat" / "a.png").unlink()
    with pytest.raises(DataError, match="cannot be opened"):
        source.read(0)


def test_a_file_too_large_for_an_image(tmp_path):
    with (tmp_path / "film.mkv").open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(DataError, match="1073741825 bytes"):
        open_source(tmp_path).read(0)


# --- paths ----------------------------------------------------------------------------------------------------------


def test_one_file_a_glob_and_a_list(pets, png):
    assert open_source(pets / "cat" / "b.png").read(0) == png(1)
    globbed = open_source(str(pets / "**" / "a.png"))
    assert globbed.manifest.ids == (f"{pets}/cat/a.png", f"{pets}/dog/a.png")
    assert globbed.manifest.labels is None
    listed = open_source([pets / "dog" / "a.png", str(pets / "cat" / "a.png")])
    assert [listed.read(0), listed.read(1)] == [png(2), png(0)]


def test_a_listed_file_that_is_absent_is_an_input(pets):
    source = open_source([pets / "cat" / "a.png", pets / "none.png", pets])
    assert len(source) == 3
    for position, reason in ((1, "cannot be opened"), (2, "not a regular file")):
        with pytest.raises(DataError, match=reason):
            source.read(position)


def test_nothing_there(tmp_path, roots):
    for data, message in (
        (str(tmp_path / "*.png"), "No file matches"),
        (tmp_path / "none", "There is no file or folder"),
        (str(tmp_path / "none"), "There is no file or folder"),
        ("~nobody-of-this-name/none", "There is no file or folder"),
        ("", "an empty name"),
        (str(tmp_path / ("n" * 300)), "cannot be opened: File name too long"),
        ([], "No images came"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(data)


def test_names_that_no_file_can_have(tmp_path):
    source = open_source([f"{tmp_path}/n\0.png", "~nobody-of-this-name/a.png", tmp_path / ("n" * 300)])
    for position, reason in enumerate(("No file can have this name", "No such file", "File name too long")):
        with pytest.raises(DataError, match=reason):
            source.read(position)


def test_paths_of_two_kinds(pets, tmp_path, png, write_table):
    write_table(tmp_path / "x.parquet", [png()])
    with pytest.raises(DataError, match="name one kind"):
        open_source([tmp_path / "x.parquet", pets / "cat" / "a.png"])


# --- Parquet --------------------------------------------------------------------------------------------------------


def test_a_table_and_its_labels(tmp_path, png, pets_table):
    source = open_source(pets_table(tmp_path / "pets.parquet"))
    assert source.name == "pets"
    assert source.manifest.ids[:2] == ("pets.parquet#0", "pets.parquet#1")
    assert source.manifest.labels.tolist() == [2, 0, 1, 0, 2, 1]
    assert source.manifest.class_names == ("cat", "dog", "emu")
    assert source.manifest.coarse_labels.tolist() == [1, 0, 0, 0, 1, 0]
    assert source.manifest.coarse_class_names == ("mammal", "bird")
    assert [source.read(position) for position in (5, 0)] == [png(5), png(0)]
    assert source.manifest.hashes[4] == hashlib.sha256(png(4)).hexdigest()


def test_tables_follow_each_other(tmp_path, png, pets_table):
    pets_table(tmp_path / "b.parquet", row_group_size=4)
    pets_table(tmp_path / "a.parquet", row_group_size=5)
    source = open_source(str(tmp_path / "*.parquet"))
    assert source.manifest.ids[5:7] == ("a.parquet#5", "b.parquet#0")
    assert [source.read(row) for row in range(12)] == [png(number) for number in (*range(6), *range(6))]
    (tmp_path / "c").mkdir()
    pets_table(tmp_path / "c" / "a.parquet")
    ids = open_source([tmp_path / "a.parquet", tmp_path / "c" / "a.parquet"]).manifest.ids
    assert len(set(ids)) == 12


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_the_struct_of_hugging_face(tmp_path, kind, png, write_table):
    struct = pa.struct([("bytes", kind), ("path", pa.string())])
    images = pa.array([{"bytes": png(0), "path": "a"}, {"bytes": None, "path": "b"}, None], struct)
    described = b'{"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}'
    table = pa.table({"image": images, "label": [1, 0, 1]}).replace_schema_metadata({b"huggingface": described})
    pq.write_table(table, tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet")
    assert source.read(0) == png(0)
    assert source.manifest.class_names == ("no", "yes")
    for position in (1, 2):
        with pytest.raises(DataError, match="empty"):
            source.read(position)


def test_labels_without_names_are_their_own(tmp_path, png, write_table):
    source = open_source(write_table(tmp_path / "x.parquet", [png(), png()], label=[2, 0]))
    assert source.manifest.class_names == ("0", "1", "2")
    assert open_source(write_table(tmp_path / "y.parquet", [png()])).manifest.labels is None


def test_large_tables_keep_few_row_groups(tmp_path, monkeypatch, png, pets_table):
    monkeypatch.setattr(parquet_room, "_RESIDENT_BYTES", 0)
    loads = []
    load = parquet_room.ParquetStore._load
    monkeypatch.setattr(
        parquet_room.ParquetStore, "_load", lambda self, group: loads.append(group) or load(self, group)
    )
    source = open_source(pets_table(tmp_path / "x.parquet", row_group_size=1))
    assert loads == [0, 1, 2, 3, 4, 5]
    assert [source.read(row) for row in range(6)] == [png(number) for number in range(6)]
    assert len(source.images.store._loaded) == 2


def test_small_tables_are_read_once(tmp_path, monkeypatch, png, pets_table):
    source = open_source(pets_table(tmp_path / "x.parquet", row_group_size=2))
    (tmp_path / "x.parquet").unlink()
    assert [source.read(row) for row in (5, 0, 3)] == [png(5), png(0), png(3)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b"x"]}, "no column 'image'; it has picture"),
        ({"image": ["x"]}, "holds string; it must hold bytes"),
        ({"image": [b"x"], "label": ["cat"]}, "'label' of .* holds string"),
        ({"image": [b"x"], "label": pa.array([None], pa.int32())}, "1 empty cells"),
        ({"image": [b"x"], "label": [-1]}, "goes from -1 to -1"),
        ({"image": [b"x"], "label": [2**40]}, "goes up to 1099511627776, without names"),
        ({"image": pa.array([], pa.binary())}, "has no rows"),
    ],
)
def test_tables_that_do_not_serve(tmp_path, columns, message, write_table):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "x.parquet")


@pytest.mark.parametrize("metadata", [{"class_names": "cat"}, {"class_names": "3"}, {"huggingface": '{"info": []}'}])
def test_class_names_that_are_none(tmp_path, metadata):
    table = pa.table({"image": [b"x"], "label": [0]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="do not name the classes of 'label'"):
        open_source(tmp_path / "x.parquet")


def test_tables_that_are_none_or_disagree(tmp_path, png, write_table, pets_table):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as a Parquet table"):
        open_source(tmp_path / "x.parquet")
    pets_table(tmp_path / "a.parquet")
    write_table(tmp_path / "b.parquet", [png()], label=[0], names={"class_names": ["tulip"]})
    write_table(tmp_path / "c.parquet", [png()])
    for other in "bc":
        with pytest.raises(DataError, match="do not agree on 'label'"):
            open_source([tmp_path / "a.parquet", tmp_path / f"{other}.parquet"])
    write_table(tmp_path / "d.parquet", [png()], label=[7], names={"class_names": ["tulip"]})
    with pytest.raises(DataError, match="goes from 7 to 7; with 1 class_names it must lie in 0 to 0"):
        open_source(tmp_path / "d.parquet")


# --- memory ---------------------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        PIXELS,
        list(PIXELS),
        tuple(Image.fromarray(pixels) for pixels in PIXELS),
        torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
        list(torch.from_numpy(PIXELS).permute(0, 3, 1, 2)),
        (pixels for pixels in PIXELS),
    ],
)
def test_every_kind_of_image_in_memory_is_the_same(data):
    source = open_source(data)
    assert source.manifest.ids == ("0", "1", "2")
    assert all(np.array_equal(source.read(row), PIXELS[row]) for row in range(3))
    assert source.manifest.fingerprint == open_source(PIXELS).manifest.fingerprint


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255)])
@pytest.mark.parametrize("kind", ["array", "tensor", "half"])
def test_floats_need_their_range(low, high, kind):
    floats = (PIXELS / 255 * (high - low) + low).astype(np.float32)
    data = floats if kind == "array" else torch.from_numpy(floats).permute(0, 3, 1, 2)
    data = data.bfloat16() if kind == "half" else data
    with pytest.raises(InputError, match=r"pass value_range=\(0, 1\)"):
        open_source(data)
    read = np.stack([open_source(data, value_range=(low, high)).read(row) for row in range(3)]).astype(int)
    assert np.abs(read - PIXELS).max() <= (0 if kind != "half" else 2)


def test_a_hash_is_of_shape_and_pixels():
    hashes = open_source([np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4, 3), np.uint8), np.zeros((4, 6), np.uint8)])
    assert len(set(hashes.manifest.hashes)) == 3


def test_a_pillow_image_that_is_damaged_is_an_input(png):
    source = open_source([Image.open(io.BytesIO(png(0, 64, 64)[:3000])), Image.new("L", (4, 4))])
    with pytest.raises(DataError, match="cut short"):
        source.read(0)
    assert source.read(1).shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (3, {}, "came as int"),
        (PIXELS[0], {}, "put a single one in a list"),
        (torch.from_numpy(PIXELS[0]), {}, "put a single one in a list"),
        (Image.new("L", (4, 4)), {}, "put it in a list"),
        (PIXELS[..., :2], {}, r"shape \(3, 8, 10, 2\)"),
        ([PIXELS[0], "cat.png"], {}, "Image 1 is a str"),
        ([PIXELS[0].astype(np.int64)], {}, "Image 0 holds int64"),
        (PIXELS / 2.0, {"value_range": (0, 1)}, "outside of value_range"),
        (PIXELS / 255.0, {"value_range": (1, 0)}, "lo < hi"),
        ([np.full((4, 4), np.nan)], {"value_range": (0, 1)}, "outside of value_range"),
    ],
)
def test_memory_that_holds_no_images(data, options, message):
    with pytest.raises(InputError, match=message):
        open_source(data, **options)


# --- classes, limit, select -----------------------------------------------------------------------------------------


def test_classes_are_kept_in_their_old_order(pets):
    source = open_source(pets, classes=["emu", "cat"])
    assert source.manifest.class_names == ("cat", "emu")
    assert source.manifest.labels.tolist() == [0, 0, 1]
    for same in ({"classes": [2, 0]}, {"exclude_classes": "dog"}, {"exclude_classes": 1}):
        assert open_source(pets, **same).manifest.fingerprint == source.manifest.fingerprint
    assert open_source(pets, classes="dog").manifest.ids == ("dog/a.png", "dog/deep/c.png")


def test_coarse_labels_take_the_place_of_labels(tmp_path, pets_table):
    table = pets_table(tmp_path / "pets.parquet")
    source = open_source(table, coarse=True)
    assert source.manifest.class_names == ("mammal", "bird")
    assert source.manifest.labels.tolist() == [1, 0, 0, 0, 1, 0]
    assert open_source(table, coarse=True, classes="bird").manifest.ids == ("pets.parquet#0", "pets.parquet#4")


def test_classes_that_are_none(pets, tmp_path):
    for options, message in (
        ({"classes": ["cats"]}, "names 'cats', which is none of the 3 classes of pets; the nearest are cat"),
        ({"exclude_classes": ["zebra"]}, r"they are cat, dog, emu\.$"),
        ({"classes": ["cat,dog"]}, "each class is named by itself, on the command line by repeating the option"),
        ({"classes": [3]}, "names 3"),
        ({"classes": [-1]}, "names -1"),
        ({"coarse": True}, "has no coarse labels"),
        ({"limit": 0}, "limit is 0"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(pets, **options)
    with pytest.raises(InputError, match="has no labels"):
        open_source(PIXELS, classes=[0])
    with pytest.raises(DataError, match="No image of"):
        open_source(pets, exclude_classes=["cat", "dog", "emu"])


def test_a_limit_goes_through_all_classes(pets):
    assert open_source(pets, limit=3).manifest.labels.tolist() == [0, 0, 1]
    assert open_source(pets, limit=2).manifest.ids == ("cat/a.png", "dog/a.png")
    assert len(open_source(pets, limit=99)) == 5


def test_select(pets, png):
    source = open_source(pets)
    some = source.select([4, 0])
    assert some.manifest.ids == ("emu/é.png", "cat/a.png")
    assert some.manifest.labels.tolist() == [2, 0]
    assert some.manifest.class_names == source.manifest.class_names
    assert some.read(0) == png(4)
    assert some.select(np.array([False, True])).read(0) == png(0)
    assert source.select(np.arange(5)).manifest.fingerprint == source.manifest.fingerprint
    assert source.select(np.arange(5)[::-1]).manifest.fingerprint != source.manifest.fingerprint
    for wrong in ([5], [-1], [0, 0], [0.5], [[0]], np.array([True])):
        with pytest.raises(InputError):
            source.select(wrong)
    with pytest.raises(DataError, match="Nothing is left"):
        source.select([])
    with pytest.raises(InputError, match="position is 5"):
        source.read(5)


def test_sources_are_pickled_without_their_images(pets, tmp_path, write_table):
    image = np.random.default_rng(0).bytes(10**6)
    table = write_table(tmp_path / "x.parquet", [image])
    for source in (open_source(pets), open_source(table), open_source(PIXELS)):
        back = pickle.loads(pickle.dumps(source))
        assert back.manifest.fingerprint == source.manifest.fingerprint
        assert (
            np.array_equal(back.read(0), source.read(0)) if source.name == "memory" else back.read(0) == source.read(0)
        )
    assert len(pickle.dumps(open_source(table))) < 5000


def test_everything_that_identifies_a_source_is_in_its_fingerprint(pets, png):
    prints = [open_source(pets).manifest.fingerprint]
    (pets / "cat" / "a.png").rename(pets / "cat" / "a1.png")
    prints.append(open_source(pets).manifest.fingerprint)
    (pets / "cat" / "a1.png").write_bytes(png(77))
    prints.append(open_source(pets).manifest.fingerprint)
    (pets / "emu").rename(pets / "emus")
    prints.append(open_source(pets).manifest.fingerprint)
    assert len(set(prints)) == 4


def test_naming_the_room_costs_no_heavy_import():
    code = "import sys, mood.data; assert not {'torch', 'torchvision', 'timm', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
