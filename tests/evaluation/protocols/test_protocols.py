"""Each protocol on numbers small enough to be counted by hand, and each guard tripped."""

import numpy as np
import pytest
import torch

from mood.core.errors import InputError
from mood.evaluation import auroc, evaluate, evaluate_sets
from mood.evaluation.protocols import (
    OPENOOD,
    accepted_confusion,
    expose,
    full_spectrum,
    largest_cells,
    linear_probe,
    members,
    one_class,
)


def test_a_mean_is_only_of_groups_that_were_measured_whole() -> None:
    by_group = {"near": ("a",), "far": ("b", "c")}
    assert members(by_group) == {"mean, near": ("a",), "mean, far": ("b", "c"), "mean": ("a", "b", "c")}
    assert members(by_group, {"a": 0.9, "b": 0.6}) == {"mean, near": ("a",)}
    assert members({"near": ("a", "b")}, ["b", "a"]) == {"mean": ("a", "b")}


@pytest.mark.parametrize("by_group", [{}, {"near": ()}, {"near": ("a",), "far": ("a",)}])
def test_groups_are_checked(by_group) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        members(by_group)


def test_one_class_is_the_unweighted_mean_over_the_other_classes_and_beside_it_all_of_them_pooled() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [10, 20, 5])
    scores = rng.normal(size=(3, 35)) + (labels[None, :] != np.arange(3)[:, None]) * np.array([1.0, 0.2, 2.0])[:, None]
    found = one_class(scores, labels)
    for known in range(3):
        inside = scores[known, labels == known]
        others = [auroc(inside, scores[known, labels == other]) for other in range(3) if other != known]
        assert found.per_class[known] == pytest.approx(np.mean(others), abs=1e-14)
        assert found.pooled[known] == pytest.approx(auroc(inside, scores[known, labels != known]), abs=1e-14)
    assert found.mean == pytest.approx(found.per_class.mean())
    assert np.isnan(found.pairs.diagonal()).all()
    assert abs(found.per_class - found.pooled).max() > 1e-4, "unequal classes: the two are different figures"


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((1, 3)), [0, 0, 0], "another one"),
        (np.zeros((2, 3)), [0, 0, 0], "at least once"),
        (np.zeros((2, 3)), [0, 1, 2], "0 to 1"),
        (np.zeros((2, 3)), [0, 1], "expected"),
        (np.full((2, 2), np.nan), [0, 1], "nan"),
    ],
)
def test_one_class_is_checked(scores, labels, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        one_class(scores, labels)


def test_confusion_counts_what_is_accepted_at_95_percent() -> None:
    known = np.arange(100.0)  # the threshold is 94
    unknown = np.array([0.0, 94.0, 94.5, 10.0, 10.0])
    found = accepted_confusion(known, unknown, np.array([0, 0, 0, 1, 1]), np.array([2, 1, 1, 0, 0]), shape=(2, 3))
    assert found.tolist() == [[0, 1, 1], [2, 0, 0]]
    assert largest_cells(found, 2) == ((1, 0), (0, 1))
    assert len(largest_cells(found, 12)) == 3, "an empty cell is no confusion"


@pytest.mark.parametrize("n", [1, 7, 20, 100, 140])
def test_the_threshold_of_the_confusion_is_that_of_the_fpr(n: int) -> None:
    rng = np.random.default_rng(n)
    known, unknown = rng.normal(size=n), rng.normal(size=50)
    zeros = np.zeros(50, int)
    accepted = accepted_confusion(known, unknown, zeros, zeros, shape=(1, 1)).sum() / 50
    assert accepted == evaluate(known, unknown, replicates=1).fpr95_id_positive.value


@pytest.mark.parametrize(
    "changes", [{"tpr": 0.0}, {"id_scores": []}, {"ood_labels": [0, 2]}, {"predicted": [0]}, {"predicted": [-1, 0]}]
)
def test_confusion_is_checked(changes) -> None:  # type: ignore[no-untyped-def]
    given = {"id_scores": [1.0], "ood_scores": [1.0, 2.0], "ood_labels": [0, 1], "predicted": [0, 0], "tpr": 0.95}
    given |= changes
    with pytest.raises(InputError):
        accepted_confusion(
            given["id_scores"],
            given["ood_scores"],
            np.array(given["ood_labels"]),
            np.array(given["predicted"]),
            shape=(2, 1),
            tpr=given["tpr"],
        )


def test_shown_images_are_so_many_of_each_class_and_more_shots_show_the_same_and_more() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 200)
    two, three = expose(labels, 2, trial=1), expose(labels, 3, trial=1)
    assert [int(two[labels == label].sum()) for label in range(5)] == [2] * 5
    assert (two <= three).all()
    assert (two != expose(labels, 2, trial=2)).any()
    for shots, trial in ((0, 0), (1, -1), (200, 0)):
        with pytest.raises(InputError):
            expose(labels, shots, trial=trial)


def test_the_probe_is_at_the_minimum_of_its_loss() -> None:
    """Against scikit-learn, which finds the same minimum by another way."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    known = torch.from_numpy(rng.normal(size=(80, 4)) + np.repeat([[0.0], [1.5]], 40, 0))
    shown = torch.from_numpy(rng.normal(size=(6, 4)) - 1.0)
    labels, theirs = torch.tensor([0, 1]).repeat_interleave(40), torch.tensor([7, 7, 7, 9, 9, 9])
    decay = 1e-2
    probe = linear_probe(known, labels, shown, theirs, decay=decay)
    rows = (torch.cat([known, shown]) - known.mean(0)) / known.std(0, correction=0)
    targets = torch.cat([labels, theirs - 5]).unique(return_inverse=True)[1].numpy()
    weights = 1 / (np.bincount(targets)[targets] * 4)
    reference = LogisticRegression(C=1 / decay, tol=1e-10, max_iter=5000)
    reference.fit(rows.numpy(), targets, sample_weight=weights)
    p = reference.predict_proba(rows.numpy())
    expected = np.log(p[:, 2:].sum(1)) - np.log(p[:, :2].sum(1))
    assert probe(torch.cat([known, shown])) == pytest.approx(expected, abs=2e-3)


def test_the_probe_finds_what_it_was_shown() -> None:
    rng = np.random.default_rng(1)
    known, labels = torch.from_numpy(rng.normal(size=(200, 8))), torch.arange(200) % 2
    unknown = torch.from_numpy(rng.normal(size=(60, 8)) + 4)
    probe = linear_probe(known, labels, unknown[:3], torch.zeros(3, dtype=torch.int64))
    assert auroc(probe(known), probe(unknown[3:])) > 0.99


@pytest.mark.parametrize(("shown", "decay"), [(0, 1e-3), (2, 0.0)])
def test_the_probe_is_checked(shown: int, decay: float) -> None:
    with pytest.raises(InputError):
        linear_probe(torch.ones(4, 2), torch.arange(4), torch.ones(shown, 2), torch.zeros(shown).long(), decay=decay)


def test_shifted_known_images_count_as_known() -> None:
    rng = np.random.default_rng(0)
    plain, moved, unknown = rng.normal(size=50), rng.normal(0.5, 1, 50), {"far": rng.normal(1, 1, 40)}
    found = full_spectrum(plain, {"blur=1": moved}, unknown, {"mean": ("far",)}, replicates=5)
    assert found.sets["far"].auroc.value == auroc(np.concatenate((plain, moved)), unknown["far"])
    assert (found.sets["far"].n_id, found.sets["far"].n_ood) == (100, 40)
    assert found.means["mean"]["auroc"] == found.sets["far"].auroc
    alone = evaluate_sets(plain, unknown, {}).sets["far"].auroc
    twice = full_spectrum(plain, {"blur=1": plain}, unknown, {}).sets["far"].auroc
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high)), "the same image twice is one image"
    with pytest.raises(InputError, match="of the same images"):
        full_spectrum(plain, {"blur=1": moved[1:]}, unknown, {})
    with pytest.raises(InputError, match="shift"):
        full_spectrum(plain, {}, unknown, {})


def test_shifted_images_of_their_own_are_so_many_more_known_ones() -> None:
    rng = np.random.default_rng(0)
    plain, moved, unknown = rng.normal(size=50), rng.normal(0.5, 1, 20), {"far": rng.normal(1, 1, 40)}
    found = full_spectrum(plain, {"ImageNet-R": moved}, unknown, {}, same_images=False)
    assert found == evaluate_sets(np.concatenate((plain, moved)), unknown, {})
    assert (found.sets["far"].n_id, found.sets["far"].n_ood) == (70, 40)
    with pytest.raises(InputError, match="ImageNet-R"):
        full_spectrum(plain, {"ImageNet-R": [np.nan]}, unknown, {}, same_images=False)


def test_openood_is_what_its_paper_and_its_configs_say() -> None:
    cifar10, cifar100, imagenet200, imagenet = OPENOOD.values()
    assert [*OPENOOD] == ["CIFAR-10", "CIFAR-100", "ImageNet-200", "ImageNet-1k"]
    assert cifar10.test == "benchmark_imglist/cifar10/test_cifar10.txt"
    assert cifar10.near == {
        "CIFAR-100": "benchmark_imglist/cifar10/test_cifar100.txt",
        "TinyImageNet": "benchmark_imglist/cifar10/test_tin.txt",
    }
    assert [*cifar100.near] == ["CIFAR-10", "TinyImageNet"]
    assert [*cifar10.far] == [*cifar100.far] == ["MNIST", "SVHN", "Textures", "Places365"]
    assert cifar100.far["Textures"] == "benchmark_imglist/cifar100/test_texture.txt"
    assert not cifar10.shifted
    assert not cifar100.shifted
    assert [*imagenet.near, *imagenet.far] == ["SSB-hard", "NINCO", "iNaturalist", "Textures", "OpenImage-O"]
    assert (imagenet.near, imagenet.far) == (imagenet200.near, imagenet200.far)
    assert imagenet.far["Textures"] == "benchmark_imglist/imagenet/test_textures.txt"
    assert imagenet200.fit == "benchmark_imglist/imagenet200/train_imagenet200.txt"
    assert imagenet200.shifted["ImageNet-V2"] == "benchmark_imglist/imagenet200/test_imagenet200_v2.txt"
    assert imagenet.shifted["ImageNet-R"] == "benchmark_imglist/imagenet/test_imagenet_r.txt"
