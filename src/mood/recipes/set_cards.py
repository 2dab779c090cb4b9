"""A card for each set of a page: what its images say of themselves, and what is known of a set of this name."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mood.core.features import Features
    from mood.data import Source
    from mood.detector import Detector
    from mood.report import Card

SHOWN = 16
"""Digits of a hash that are shown."""


def set_card(data: "Source | Features", *, name: str, role: str, warning: str = "") -> "Card":
    """The card of images, or of features that stand for them.

    Args:
        data: opened.
        name: what the page calls the set.
        role: what it is there for.
        warning: a sentence that a reader of its figures must see, or "".
    """
    from mood.core.features import Features
    from mood.recipes.inputs import fingerprint_of
    from mood.report import Card

    images, about = f"{len(data):,}", {"role": role, "hash": fingerprint_of(data)[:SHOWN]}
    if isinstance(data, Features):
        return Card(name, {"from": "features", "images": images, **about}, warning)
    classes = data.manifest.class_names
    labels = f"{len(classes):,}" if classes else "no labels"
    facts = {"from": data.description, "images": images, "classes": labels, **about, **_known(data.name)}
    return Card(name, facts, warning)


def card_of_fit(detector: "Detector") -> "Card":
    """The card of the images that a detector was made of, by what it says of them."""
    from mood.report import Card

    about = detector.card
    name, manifest = str(about.get("data", "unnamed")), about.get("manifest")
    role = f"known: {about.get('fit_images', 0):,} images fitted the score"
    facts = {"role": role, **({"hash": str(manifest)[:SHOWN]} if manifest else {}), **_known(name)}
    return Card(name, facts)


def _known(name: str) -> dict[str, str]:
    """What the card of a named set says that its images do not."""
    from mood.data import cards

    known = cards().get(name.partition(":")[0])
    if known is None:
        return {}
    return {"licence": known.licence, "cite": known.citation, "overlap": known.overlap, "mind": known.mind}
