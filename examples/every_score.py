"""Every score on the same features: the network runs once for each set, whatever the number of scores.

Run it: `python examples/every_score.py`. Clothes are the known world here, hats and shoes are left out of it, and blood
cells are far from it. The network is the small one that comes with mood.
"""

from dataclasses import replace

import numpy as np

import mood
from mood.data import held_out, open_source
from mood.models import open_model

UNKNOWN = ("hat", "shoes")


def main() -> None:
    """Print AUROC and FPR95 of every score."""
    clothes = open_source("clothing", exclude_classes=UNKNOWN)
    # No score may be fitted on the images that it is measured on.
    is_test = held_out(clothes.manifest.hashes, fraction=0.3)
    # Some scores look at the head, so the embedding is what the head sees: the last layer alone.
    network = replace(open_model("embedded"), layer="last")
    fit, test = (mood.extract(clothes.select(part), model=network) for part in (~is_test, is_test))
    unknown = {
        "hats and shoes": mood.extract(open_source("clothing", classes=UNKNOWN), model=network),
        "blood cells": mood.extract("bccd", model=network),
    }
    for name, info in mood.scores.available().items():
        if {"layers", "tokens", "reconstruction"} & set(info.needs):
            continue  # wants more of the network than this one pass: `mood fit --score NAME`
        if mood.scores.compares(name):
            continue  # compares labels with outputs, and clothes are none of this network's classes
        score = mood.scores.fit(name, fit, head=network.head())
        on_known = score(test).numpy()
        for title, shown in unknown.items():
            on_unknown = score(shown).numpy()
            assert np.isfinite(on_unknown).all()
            auroc = mood.evaluation.auroc(on_known, on_unknown)
            fpr95 = mood.evaluation.fpr_at_tpr(on_known, on_unknown)
            print(f"{name:24} {title:16} AUROC {auroc:6.1%}   FPR95 {fpr95:6.1%}")


if __name__ == "__main__":
    main()
