"""Isolation forest: Liu, Ting, Zhou: Isolation Forest, ICDM 2008."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mood.core.features import Features
from mood.scores._registry import between, fitted
from mood.scores._round import Round
from mood.scores._rows import l2_normalised, of_width, row_by_row
from mood.scores._sklearn import bank_fitted


@dataclass(frozen=True, slots=True, eq=False)
class IsolationForest:
    """2^(−mean path length / expected path length) of h̃; in (0, 1).

    Attributes:
        feature: (T, nodes) int64, which value a node asks for; 0 at leaves.
        threshold: (T, nodes) float64: up to it to the left.
        left: (T, nodes) int64; a leaf leads to itself.
        right: (T, nodes) int64.
        path: (T, nodes) float64, at leaves the length of the path with that of the rows that were left together.
        width: D.
        depth: the longest path.
        expected: path length in a random tree of as many rows.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    path: Tensor
    width: int
    depth: int
    expected: float

    def __call__(self, features: Features) -> Tensor:
        """(N,) float64, higher = more OOD.

        Raises:
            InputError: embeddings of another width than in the fit.
        """
        embedding = of_width(features.embedding, self.width, "embedding")
        return row_by_row(self._isolation, embedding, width=max(self.width, 4 * len(self.feature)))

    def _isolation(self, rows: Tensor) -> Tensor:
        # The trees were grown on float32 values.
        values = l2_normalised(rows).float().double()
        tree = torch.arange(len(self.feature))
        node = torch.zeros(len(rows), len(self.feature), dtype=torch.int64)
        for _ in range(self.depth):
            asked = values.gather(1, self.feature[tree, node])
            node = torch.where(asked <= self.threshold[tree, node], self.left[tree, node], self.right[tree, node])
        return torch.exp2(-self.path[tree, node].mean(1) / self.expected)


def expected_path(rows: float) -> float:
    """Mean path length of an unsuccessful search in a binary search tree of so many rows: equation 1 of the paper."""
    if rows <= 1:
        return 0.0
    if rows == 2:
        return 1.0
    return 2 * (math.log(rows - 1) + 0.5772156649015329) - 2 * (rows - 1) / rows


@fitted(
    "isolation_forest", IsolationForest, needs=("embedding",), source="Liu et al., ICDM 2008; fitted by scikit-learn"
)
def isolation_forest(
    *, trees: int = 100, rows: int = 256, bank: int = 50_000, seed: int = 0
) -> tuple[Round[Any, Any, Any], ...]:
    """How few random cuts isolate the L2-normalised embedding; no labels.

    scikit-learn grows the trees. For 1M images of 768 values: 900 MB while fitting, the bank in float64 and what
    scikit-learn makes of it; then 2 MB of trees.

    Args:
        trees: how many, 100 in the paper.
        rows: ID rows that each tree is grown on, 256 in the paper; all where there are fewer.
        bank: drawn from at most this many ID rows, those with the smallest hash of (seed, id).
        seed: of that hash and of the trees.

    Raises:
        InputError: an option out of range, or too few rows.
        MissingExtraError: scikit-learn is not installed.
    """
    count, size = between("trees", trees, 1, 100_000), between("rows", rows, 2, 2**20)

    def build(ensemble: Any, known: Any) -> IsolationForest:
        used = min(size, len(known))
        forest = ensemble.IsolationForest(n_estimators=count, max_samples=used, random_state=seed % 2**32).fit(known)
        grown = [estimator.tree_ for estimator in forest.estimators_]
        nodes = max(tree.node_count for tree in grown)
        itself = torch.arange(nodes).repeat(count, 1)
        feature, left, right = torch.zeros_like(itself), itself.clone(), itself.clone()
        threshold, path = torch.zeros(2, count, nodes, dtype=torch.float64)
        for index, tree in enumerate(grown):
            depth = [0] * tree.node_count
            for node in range(tree.node_count):
                children = (int(tree.children_left[node]), int(tree.children_right[node]))
                if children[0] < 0:
                    path[index, node] = depth[node] + expected_path(int(tree.n_node_samples[node]))
                    continue
                left[index, node], right[index, node] = children
                feature[index, node] = int(tree.feature[node])
                threshold[index, node] = float(tree.threshold[node])
                # A child's number is larger than its parent's.
                depth[children[0]] = depth[children[1]] = depth[node] + 1
        longest = max(int(tree.max_depth) for tree in grown)
        return IsolationForest(
            feature, threshold, left, right, path, known.shape[1], longest, max(expected_path(used), 1.0)
        )

    return bank_fitted(build, "ensemble", size=bank, seed=seed, fewest=2)
