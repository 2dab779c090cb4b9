"""Tar shards as data: what they give, and what becomes of those that are damaged or mean harm."""

import io
import tarfile

import pytest

from mood.core.errors import DataError
from mood.core.transform import Transform
from mood.data import batches, open_source


def pack(path, members, **kinds):
    """A shard of (name, bytes) members."""
    with tarfile.open(path, "w", **kinds) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def shard(tmp_path, png):
    def shard(name="shard-000.tar", numbers=range(4), **kinds):
        members = []
        for number in numbers:
            members += [(f"some/{number:03}.png", png(number)), (f"some/{number:03}.cls", str(number % 3).encode())]
        return pack(tmp_path / name, members, **kinds)

    return shard


def test_gives_the_bytes_names_and_labels_of_every_sample(shard, png):
    source = open_source(str(shard()))
    assert source.manifest.ids == tuple(f"shard-000.tar/some/{number:03}.png" for number in range(4))
    assert [source.read(number) for number in range(4)] == [png(number) for number in range(4)]
    assert source.manifest.labels.tolist() == [0, 1, 2, 0]
    assert source.manifest.class_names == ("0", "1", "2")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_every_format_of_tar(tmp_path, png, kind):
    name = "é" * 20 + "/" + "x" * 90 + ".jpg"
    source = open_source(str(pack(tmp_path / "a.tar", [(name, png(1))], format=kind)))
    assert source.manifest.ids == (f"a.tar/{name}",)
    assert source.read(0) == png(1)


def test_several_shards_by_glob_braces_or_list(shard, tmp_path):
    paths = [shard("shard-000.tar", range(3)), shard("shard-001.tar", range(3, 5))]
    by = [str(tmp_path / "shard-*.tar"), str(tmp_path / "shard-{000..001}.tar"), [str(path) for path in paths]]
    prints = {open_source(data).manifest.fingerprint for data in by}
    assert len(prints) == 1
    assert len(open_source(by[0])) == 5
    with pytest.raises(DataError, match=r"names 3 files, and there is no file .*shard-002.tar"):
        open_source(str(tmp_path / "shard-{000..002}.tar"))
    (tmp_path / "shard-x.png").touch()
    with pytest.raises(DataError, match="both tar shards"):
        open_source(str(tmp_path / "shard-*"))


def test_labels_as_json_and_as_names(tmp_path, png):
    members = [("a.jpg", png(0)), ("a.json", b'{"label": "dog"}'), ("b.jpg", png(1)), ("b.json", b'"cat"')]
    source = open_source(str(pack(tmp_path / "a.tar", members)))
    assert (source.manifest.labels.tolist(), source.manifest.class_names) == ([1, 0], ("cat", "dog"))
    plain = [("a.jpg", png(0)), ("a.json", b'{"caption": "a dog"}')]
    assert open_source(str(pack(tmp_path / "b.tar", plain))).manifest.labels is None


def test_what_is_no_image_is_rejected_and_keeps_its_row(tmp_path, png):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in [
            ("a.png", png(0)),
            ("b.cls", b"0"),
            ("c.png", b"no image"),
            ("d.png", png(1)),
            ("d.jpg", png(2)),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("e.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match="4 of the 5 samples of .* have no label, the first is a.png"):
        open_source(str(path))
    labelled = [("b.cls", b"0"), ("a.png", png(0)), ("a.cls", b"0"), ("c.png", b"no"), ("c.cls", b"0")]
    source = open_source(str(pack(tmp_path / "b.tar", labelled)))
    (batch,) = batches(source, Transform((8, 8), (8, 8)), batch_size=8)
    assert batch.ids == ("b.tar/a.png",)
    assert [(item.id, item.reason[:20]) for item in batch.rejections] == [
        ("b.tar/b", "There is no image be"),
        ("b.tar/c.png", "It is not an image, "),
    ]


def test_links_doubles_and_huge_members_are_not_read(tmp_path, png, monkeypatch):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE), ("c.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "../../secret.png"
            archive.addfile(member)
        for name in ("d.png", "d.jpg", "../../e.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png(0))
            archive.addfile(member, io.BytesIO(png(0)))
    monkeypatch.setattr("mood.data.tar._MAX_IMAGE", len(png(0)) - 1)
    source = open_source(str(path))
    for row, reason in enumerate(["regular member"] * 3 + ["2 images", "more than"]):
        with pytest.raises(DataError, match=reason):
            source.read(row)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [100, 600, 1500, 2048 + 700])
def test_a_shard_that_was_cut_short_is_told(shard, keep):
    path = shard()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="cut short"):
        open_source(str(path))


def test_a_damaged_header_in_the_middle_hides_nothing(shard):
    path = shard()
    content = bytearray(path.read_bytes())
    content[1024:1030] = b"\xff" * 6
    with tarfile.open(path) as archive:
        second = archive.getmembers()[2].offset
    content = bytearray(path.read_bytes())
    content[second : second + 6] = b"\xff" * 6
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"at byte {second}"):
        open_source(str(path))


def test_compressed_empty_and_unlabelled_ones(tmp_path, shard, png):
    squeezed = tmp_path / "z.tar"
    with tarfile.open(squeezed, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(DataError, match="compressed"):
        open_source(str(squeezed))
    with pytest.raises(DataError, match="no samples"):
        open_source(str(pack(tmp_path / "empty.tar", [("readme.txt", b"hello")])))
    for content, reason in (
        (b"-1", "whole number"),
        (b"", "whole number"),
        # One class for each number below it.
        (b"999999999", "whole number from 0 to 999999"),
        (b"\xff", "cannot be read"),
    ):
        bad = pack(tmp_path / "bad.tar", [("a.png", png(0)), ("a.cls", content)])
        if content == b"-1":
            bad = pack(tmp_path / "bad.tar", [("a.png", png(0)), ("a.json", content)])
        with pytest.raises(DataError, match=reason):
            open_source(str(bad))


def test_a_shard_that_shrinks_after_it_was_listed(shard):
    path = shard()
    source = open_source(str(path))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match="ends after"):
        source.read(0)
