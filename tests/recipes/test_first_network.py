"""What a run keeps of its first network: what one of two networks could not read moves no image of the other."""

import numpy as np

from mood.recipes.bench.first_network import FirstNetwork
from mood.recipes.bench.scoring import Scored

PLACES = {"torn": np.array([5, 6]), "id": np.array([0, 1, 3, 4]), "noise": np.array([0, 2])}
OTHERS = {"id": np.array([1, 2, 3]), "noise": np.array([0, 1, 2]), "grain": np.array([0])}


def scored(places, of):
    return Scored(values={name: of + rows.astype(np.float64) for name, rows in places.items()}, kind="stored")


def test_images_are_matched_by_their_place_in_the_manifest(tmp_path):
    first = FirstNetwork(tmp_path / "kept")
    assert first.keep("a", 0, {"knn": scored(PLACES, 0), "mood": scored(PLACES, 10)}, PLACES)
    assert not first.keep("b", 0, {"knn": scored(OTHERS, 100)}, OTHERS)
    others = {"mood": scored(OTHERS, 100), "msp": scored(OTHERS, 200), "knn": scored(OTHERS, 300)}
    found = dict(first.beside(0, others, OTHERS))
    assert [*found] == ["mood", "knn"], "scores that both have"
    for text, of_first, of_this in (("mood", 10, 100), ("knn", 0, 300)):
        both = found[text]
        assert {name: [*values] for name, values in both.first.values.items()} == {
            "id": [of_first + 1, of_first + 3],
            "noise": [of_first, of_first + 2],
        }
        assert {name: [*values] for name, values in both.this.values.items()} == {
            "id": [of_this + 1, of_this + 3],
            "noise": [of_this, of_this + 2],
        }
        assert {name: [*rows] for name, rows in both.rows.items()} == {"id": [0, 2], "noise": [0, 2]}


def test_trials_are_compared_by_their_number(tmp_path):
    first = FirstNetwork(tmp_path)
    assert first.keep("a", 1, {"knn": scored(PLACES, 7)}, PLACES)
    assert not [*first.beside(0, {"knn": scored(OTHERS, 0)}, OTHERS)]
    ((_, both),) = first.beside(1, {"knn": scored(OTHERS, 0)}, OTHERS)
    assert [*both.first.values["id"]] == [8, 10]


def test_a_network_without_a_score_is_not_the_first(tmp_path):
    first = FirstNetwork(tmp_path / "kept")
    assert not first.keep("a", 0, {}, {})
    assert not (tmp_path / "kept").exists()
    assert first.keep("b", 0, {"knn": scored(PLACES, 0)}, PLACES)
    assert first.name == "b"
