"""Two scores on the same images, and whether the difference between them is one.

Run it: `python examples/compare_scores.py`. Clothes are the known world, written characters the unknown one. What
`mood bench` does from a recipe, for one pair.
"""

import mood
from mood.data import held_out, open_source


def main() -> None:
    """Choose options on known images, score, and compare."""
    clothes = open_source("clothing")
    is_test = held_out(clothes.manifest.hashes, fraction=0.3)
    fit, test = (mood.extract(clothes.select(part)) for part in (~is_test, is_test))
    unknown = mood.extract(open_source("omniglot", limit=300))

    choice = mood.scores.select("mahalanobis", fit)
    print(f"chosen on known images: {choice.name} with {dict(choice.options)}")
    chosen = mood.scores.fit(choice.name, fit, **choice.options)
    neighbours = mood.scores.fit("knn", fit, k=20)

    first, second = ((score(test), score(unknown)) for score in (chosen, neighbours))
    for name, scored in ((choice.name, first), ("knn", second)):
        found = mood.evaluation.auroc_interval(*scored)
        print(f"{name}: AUROC {found.value:.1%} ({found.low:.1%} to {found.high:.1%})")
    compared = mood.evaluation.compare_auroc(first, second)
    low, high = compared.low, compared.high
    print(f"difference {compared.difference:+.1%} ({low:+.1%} to {high:+.1%}), p = {compared.p_value:.2g}")


if __name__ == "__main__":
    main()
