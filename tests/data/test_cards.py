"""The cards of the sets, and where the sets are."""

import pytest

from mood.core.errors import DataError, InputError
from mood.data import card, cards, find
from mood.data.named import SETS


def test_a_card_is_whole():
    for name, shown in cards().items():
        assert shown.name == name
        texts = (shown.title, shown.pixels, shown.licence, shown.citation, shown.overlap, shown.mind)
        assert all(text and text == text.strip() for text in texts), name
        assert shown.citation.rstrip(" )(ODIN").endswith(tuple(f"{year}" for year in range(2004, 2026))), name
        assert all(count > 0 for count in shown.images.values())
        assert (shown.url is None) == (name not in SETS)


def test_a_card_knows_the_splits_of_its_set():
    for name, shown in cards().items():
        assert set(shown.images) == set(shown.splits or ("all",)), name


def test_a_split_has_the_card_of_its_set():
    assert card("cifar10:test") is card("cifar10")


def test_an_unknown_card_names_the_nearest():
    with pytest.raises(InputError, match="no card of a set 'cifar1'; known: cifar10"):
        card("cifar1")


def test_a_card_is_read_by_people():
    told = dict(card("stanford-dogs").lines())
    assert told["images"].startswith("12,000 (train), 8,580 (test)")
    assert told["ask for"] == "stanford-dogs:train, stanford-dogs:test"
    assert "ImageNetDogs" in told["from"]
    assert "downloads" not in told["from"]
    assert "torchvision downloads it" in dict(card("pets").lines())["from"]
    assert "from" not in dict(card("clothing").lines())
    assert dict(card("lsun-fix").lines())["classes"] == "none here"


def test_where_a_set_is(roots, png, write_table):
    assert find("cifar10", roots=[roots]) == {"train": None, "test": None}
    table = write_table(roots / "cifar10-test.parquet", [png(0)])
    (roots / "cifar-10-batches-py").mkdir()
    assert find("cifar10", roots=[roots]) == {"train": roots / "cifar-10-batches-py", "test": table}
    assert find("lsun-fix", roots=[roots]) == {"": None}
    write_table(roots / "lsun-fix.parquet", [png(0)])
    assert find("lsun-fix", roots=[roots]) == {"": roots / "lsun-fix.parquet"}
    # lsun-fix is a set of its own and no split of lsun.
    assert set(find("lsun", roots=[roots])) == {"train", "val", "test"}
    write_table(roots / "own-part.parquet", [png(0)])
    assert find("own", roots=[roots]) == {"part": roots / "own-part.parquet"}
    assert find("clothing", roots=[roots])[""].name == "clothing.parquet"
    with pytest.raises(DataError, match="is not a folder"):
        find("own", roots=[roots / "absent"])
