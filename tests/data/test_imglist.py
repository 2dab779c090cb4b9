"""Lists of files, as OpenOOD v1.5 gives its splits: what they may say, and where their images are looked for."""

import numpy as np
import pytest

from mood.core.errors import DataError
from mood.data import imglist, open_source


@pytest.fixture
def write(tmp_path):
    """`write(path, *lines)`: a text file below the test's folder."""

    def write(path, *lines):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))
        return file

    return write


@pytest.fixture
def put(tmp_path, png):
    """`put(*paths)`: a picture of its own at each path below the test's folder."""

    def put(*paths):
        for number, path in enumerate(paths):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(png(number))

    return put


def test_a_list_has_its_own_order_and_its_labels(write, put, png, tmp_path):
    put("test/ship/1.png", "test/cat/1.png", "test/cat/2.png")
    file = write("chosen.txt", "test/cat/2.png 0", "test/ship/1.png 1", "./test/cat/1.png 0")
    source = open_source(file)
    assert source.manifest.ids == ("test/cat/2.png", "test/ship/1.png", "test/cat/1.png")
    assert source.manifest.labels.tolist() == [0, 1, 0]
    assert source.manifest.labels.dtype == np.int64
    assert source.manifest.class_names == ("cat", "ship")
    assert [source.read(position) for position in range(3)] == [png(2), png(0), png(1)]
    assert source.name == "chosen"
    assert source.description == f"list {file}, images in {tmp_path}"
    assert open_source(str(file), classes="ship").manifest.ids == ("test/ship/1.png",)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["val/1.png 1", "val/2.png 0"], ("0", "1")),  # one folder for all
        (["a/1.png 0", "b/2.png 0", "c/3.png 1"], ("0", "1")),  # two for one class
        (["a/1.png 0", "a/2.png 1", "b/3.png 1"], ("0", "1")),  # one for two classes
        (["a/1.png 0", "b/2.png 2"], ("0", "1", "2")),  # nobody says what class 1 is
        (["1.png 0"], ("0",)),
        (["x/a/1.png 1", "y/b/2.png 0"], ("b", "a")),
    ],
)
def test_classes_are_called_by_their_folders_where_each_has_its_own(write, put, lines, names):
    put(*(line.split()[0] for line in lines))
    source = open_source(write("x.txt", *lines))
    assert source.manifest.class_names == names
    assert source.manifest.labels.tolist() == [int(line.split()[1]) for line in lines]


def test_images_without_labels(write, put):
    put("tin/1.png", "tin/2.png")
    source = open_source(write("x.txt", "tin/2.png -1", "tin/1.png -1"))
    assert source.manifest.labels is None
    assert source.manifest.class_names is None


def test_spaces_blank_lines_and_the_ends_of_other_systems(write, put, tmp_path):
    put("a b/c  d.png", "é.png")
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfa b/c  d.png 0\r\n\r\n  \t\n" + " é.png\t1  ".encode())
    source = open_source(tmp_path / "x.txt")
    assert source.manifest.ids == ("a b/c  d.png", "é.png")
    assert source.manifest.labels.tolist() == [0, 1]


def test_an_image_that_is_not_there_is_rejected_with_its_reason(write, put, tmp_path):
    put("a/1.png", "elsewhere.png")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path.parent / "outside.png")
    source = open_source(write("x.txt", "a/0.png -1", "a/1.png -1", "a/2.png -1", "a -1", f"{'n' * 300}.png -1"))
    assert len(source) == 5
    for position, reason in ((0, "No such file"), (2, "outside of the folder"), (3, "not a regular"), (4, "too long")):
        with pytest.raises(DataError, match=reason):
            source.read(position)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png 0", "", "a.png"], r"Line 3 of .*x\.txt is 'a\.png'; expected PATH LABEL"),
        (["a.png 0", "7"], "Line 2 of .* is '7'; expected PATH LABEL"),
        (["a.png cat"], "Line 1 of .* a whole number from 0 to 999999, or -1"),
        (["a.png 0.5"], "expected PATH LABEL"),
        (["a.png -2"], "expected PATH LABEL"),
        (["a.png 1_0"], "expected PATH LABEL"),
        (["a.png 1000000"], "expected PATH LABEL"),
        (["a.png " + "9" * 5000], "expected PATH LABEL"),
        (["a.png -1", "a.png -1", "a.png 3"], "Line 3 of .* has the label 3, and the first has -1"),
        (["a.png 3", "a.png -1"], "Line 2 of .* has the label -1, and the first has 3"),
        (["/etc/a.png 0"], "Line 1 of .* leads out of the folder of its images: '/etc/a.png'"),
        (["a/../../b.png 0"], "Line 1 of .* leads out"),
        (["", " "], "names no image"),
        ([], "names no image"),
    ],
)
def test_lines_that_do_not_serve(write, put, lines, message):
    put("a.png")
    with pytest.raises(DataError, match=message):
        open_source(write("x.txt", *lines))


def test_what_is_no_list(write, put, png, tmp_path, monkeypatch):
    (tmp_path / "picture.txt").write_bytes(png())
    with pytest.raises(DataError, match="no UTF-8 text. A single .txt file is taken for a list"):
        open_source(tmp_path / "picture.txt")
    put("a.png")
    file = write("x.txt", "a.png 0")
    monkeypatch.setattr(imglist, "_MAX_BYTES", 7)
    with pytest.raises(DataError, match="has 8 bytes; more than 7"):
        open_source(file)
    monkeypatch.undo()

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(file), "open", refused)
    with pytest.raises(DataError, match=r"The list .* cannot be opened: Permission denied"):
        open_source(file)


def test_text_beside_images_stays_an_image_that_cannot_be_read(write, put, tmp_path):
    """Only a single file that is named is a list."""
    put("photos/a.png")
    write("photos/notes.txt", "a.png 0")
    for data in (
        tmp_path / "photos",
        f"{tmp_path}/photos/*",
        [tmp_path / "photos/a.png", tmp_path / "photos/notes.txt"],
    ):
        source = open_source(data)
        assert len(source) == 2
        assert source.manifest.labels is None
        assert source.read(1) == b"a.png 0\n"
    assert len(open_source(f"{tmp_path}/photos/*.txt")) == 1
    assert open_source(f"{tmp_path}/photos/n*.txt").read(0) == b"a.png 0\n"


# --- where the images are -------------------------------------------------------------------------------------------

IN_CLASSIC = "data/images_classic/tin/val/1.png"
IN_LARGESCALE = "data/images_largescale/tin/val/1.png"


def test_openoods_own_layout(write, put, png, roots, monkeypatch, tmp_path):
    file = write("data/benchmark_imglist/cifar10/test_tin.txt", "tin/val/0.png -1", "tin/val/1.png -1")
    put(IN_LARGESCALE)
    source = open_source(file, roots=[roots])
    assert source.description == f"list {file}, images in {tmp_path}/data/images_largescale"
    put("other", IN_CLASSIC)
    assert open_source(file).read(1) == png(1)
    # From wherever one stands, by its path below a data root or below here.
    for place, given in ((tmp_path, [tmp_path / "data"]), (tmp_path / "data", []), (file.parent, [tmp_path / "data"])):
        monkeypatch.chdir(place)
        found = open_source("benchmark_imglist/cifar10/test_tin.txt", roots=given)
        assert found.manifest.fingerprint == open_source(file).manifest.fingerprint
    monkeypatch.chdir(file.parent)
    assert open_source("test_tin.txt").read(1) == png(1)


def test_the_folders_in_their_order(write, put, png, roots, monkeypatch, tmp_path):
    """Data roots first here, so that each folder that is filled takes the place of those before it."""
    file = write("data/benchmark_imglist/cifar10/x.txt", "tin/val/1.png -1")
    folders = ["later", "root", "data/images_largescale", "data/images_classic", "data/benchmark_imglist/cifar10"]
    monkeypatch.setenv("MOOD_DATA", str(tmp_path / "later"))
    for number, folder in enumerate(folders):
        path = tmp_path / folder / "tin" / "val" / "1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png(number))
        assert open_source(file, roots=[roots]).read(0) == png(number)


def test_images_stand_beside_a_list_or_below_a_root_and_nowhere_else(write, put, roots, png):
    file = write("lists/mine/x.txt", "tin/val/1.png -1")
    put("images_classic/tin/val/1.png", "lists/images_classic/tin/val/1.png")
    with pytest.raises(DataError, match=r"None of the 1 images of the list .*: searched for tin/val/1.png .*roots="):
        open_source(file, roots=[roots])
    put("root/tin/val/1.png")
    assert open_source(file, roots=[roots]).read(0) == png(0)


def test_a_folder_that_is_linked_is_followed(write, put, png, tmp_path):
    file = write("data/benchmark_imglist/imagenet/x.txt", "imagenet_1k/val/1.png 0")
    put("disk/val/1.png")
    (tmp_path / "data" / "images_largescale").mkdir()
    (tmp_path / "data" / "images_largescale" / "imagenet_1k").symlink_to(tmp_path / "disk")
    assert open_source(file).read(0) == png(0)


def test_what_is_missing_is_told_with_where_to_get_it(write, roots):
    with pytest.raises(
        DataError, match=rf"no file benchmark_imglist/.*{roots}.*github.com/Jingkang50/OpenOOD.*--data-"
    ):
        open_source("benchmark_imglist/cifar10/test_tin.txt", roots=[roots])
    with pytest.raises(DataError, match=r"no file lists/mine.txt, neither here nor under [^O]*--data-root"):
        open_source("lists/mine.txt", roots=[roots])
    file = write("data/benchmark_imglist/cifar10/test_tin.txt", "tin/val/1.png -1")
    with pytest.raises(
        DataError, match=r"images_classic \(absent\), .*images_largescale \(absent\), .*OpenOOD are those"
    ):
        open_source(file, roots=[roots])
