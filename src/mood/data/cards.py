"""What one should know of a named set before using it: a card for each, from `cards.toml`."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from os import PathLike
from pathlib import Path
from types import MappingProxyType

from mood.core.errors import InputError
from mood.data.named import SETS, data_roots, locate


@dataclass(frozen=True, slots=True)
class Card:
    """A set in short.

    Attributes:
        name: what `open_source` calls it.
        title: what papers call it.
        images: split → how many; under "all" where there are no splits.
        splits: as they are asked for, NAME:SPLIT; none where the set is one.
        classes: how many, or None where its images have no labels here.
        pixels: how large the images are.
        licence: as far as its source states one.
        citation: the paper to cite.
        overlap: what it shares with the sets that networks are usually trained on: ImageNet-1k, ImageNet-22k, CIFAR.
        mind: what else to mind.
        url: where to get it; None where it comes with mood.
        place: below which path of a data root its files belong; None likewise.
        downloads: whether torchvision fetches it.
    """

    name: str
    title: str
    images: Mapping[str, int]
    splits: tuple[str, ...]
    classes: int | None
    pixels: str
    licence: str
    citation: str
    overlap: str
    mind: str
    url: str | None
    place: str | None
    downloads: bool

    def lines(self) -> list[tuple[str, str]]:
        """What a person reads, as headings and texts."""
        count = ", ".join(
            f"{number:,} ({split})" if split != "all" else f"{number:,}" for split, number in self.images.items()
        )
        rows = [
            ("set", f"{self.title} (`{self.name}`)"),
            ("images", f"{count}; {self.pixels}"),
            ("classes", "none here" if self.classes is None else str(self.classes)),
            ("ask for", ", ".join(f"{self.name}:{split}" for split in self.splits) or self.name),
            ("licence", self.licence),
            ("cite", self.citation),
            ("overlap", self.overlap),
            ("mind", self.mind),
        ]
        if self.url and self.place:
            rows += [("from", f"{self.url}{'; torchvision downloads it' if self.downloads else ''}")]
            rows += [("belongs to", f"{self.place}, below a data root")]
        return rows


def cards() -> Mapping[str, Card]:
    """Every card by the name of its set."""
    return MappingProxyType(_cards())


def card(name: str) -> Card:
    """The card of a set.

    Args:
        name: NAME, or NAME:SPLIT, whose card is that of NAME.

    Raises:
        InputError: there is no card of that name; the message names the nearest.
    """
    known, asked = _cards(), name.partition(":")[0]
    if asked not in known:
        near = get_close_matches(asked, known, n=3, cutoff=0.5) or sorted(known)
        raise InputError(f"there is no card of a set {asked!r}; known: {', '.join(near)}")
    return known[asked]


def find(name: str, *, roots: Sequence[str | PathLike[str]] = ()) -> dict[str, Path | None]:
    """Where the splits of a set are, if they are here; nothing is read or downloaded.

    Args:
        name: of a set, without a split.
        roots: folders to search before those of `MOOD_DATA` and the cache.

    Returns:
        Split ("" where the set is one) → its Parquet file, or the path that shows that its layout is there, or None.

    Raises:
        DataError: where a root is no folder.
    """
    return locate(name, data_roots(roots))


@cache
def _cards() -> dict[str, Card]:
    content = tomllib.loads(Path(__file__).with_name("cards.toml").read_text(encoding="utf-8"))
    made = {}
    for name, told in sorted(content.items()):
        layout = SETS.get(name)
        made[name] = Card(
            name=name,
            splits=layout.splits if layout else (),
            classes=told.pop("classes", None),
            images=MappingProxyType(told.pop("images")),
            url=layout.url.replace("{split}", "SPLIT") if layout else None,
            place=layout.archive.replace("{split}", "SPLIT") if layout else None,
            downloads=bool(layout and layout.downloads),
            **told,
        )
    return made
