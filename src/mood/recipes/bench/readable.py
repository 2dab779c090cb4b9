"""Which sets of a run can be read: what cannot is left out alone, and its images are counted."""

from dataclasses import replace
from typing import TYPE_CHECKING

from mood.core.errors import DataError, MoodError
from mood.recipes.bench.networks import OWN, Network
from mood.recipes.bench.sets import Opened

if TYPE_CHECKING:
    from mood.data import Source


def readable(opened: Opened, network: Network) -> tuple[Opened, dict[str, str]]:
    """The sets without those that have no two readable images, and why: one would end every score's run.

    Raises:
        MoodError: that is so of shifted known images, without which a figure would be of something else.
    """
    for name, source in opened.shifted.items():
        if why := _unreadable(source, network, 2):
            raise DataError(f"shifted set {name}: {why}")
    unknown = {name: why for name, source in opened.unknown.items() if (why := _unreadable(source, network, 2))}
    exposed = {name: why for name, source in opened.exposed.items() if (why := _unreadable(source, network, 1))}
    kept = replace(
        opened,
        unknown={name: source for name, source in opened.unknown.items() if name not in unknown},
        exposed={name: source for name, source in opened.exposed.items() if name not in exposed},
        unshown={**opened.unshown, **{name: f"of what is to be shown, {why}" for name, why in exposed.items()}},
    )
    return kept, unknown


def unread(run: str, opened: Opened, network: Network) -> list[str]:
    """A word on each measured set of which some images cannot be read: its figures are of the others."""
    return [
        f"{run}: {count} of the {len(source)} images of {name} cannot be read; the figures are of the others."
        for name, source in {"test": opened.test, **opened.shifted, **opened.unknown}.items()
        if (count := len(network.extracted(source, OWN).rejections))
    ]


def _unreadable(source: "Source", network: Network, fewest: int) -> str:
    """Why a set has not the images that are needed (an interval needs two), or ""."""
    try:
        count = len(network.extracted(source, OWN).positions)
    except MoodError as error:
        return str(error)
    return "" if count >= fewest else f"{count} of its {len(source)} images can be read; at least {fewest} must be"
