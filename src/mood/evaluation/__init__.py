"""Evaluation: scores and truth → metrics with intervals. It never sees what made the scores.

Everywhere a score is higher = more OOD, and every metric is a share in [0, 1].
"""

from mood.evaluation.comparing import (
    Comparison,
    auroc_interval,
    compare_auroc,
    compare_mean_auroc,
    mean_auroc_interval,
    paired_bootstrap,
)
from mood.evaluation.intervals import Estimate, Metrics, MetricsOfSets, evaluate, evaluate_sets, flagged_share
from mood.evaluation.metrics import aupr, auroc, detection_error, fpr_at_tpr, roc_curve
from mood.evaluation.selective import (
    accuracy,
    aurc,
    aurc_interval,
    excess_aurc,
    mean_oscr_interval,
    oscr,
    oscr_interval,
)
from mood.evaluation.trials import Spread, over_trials

__all__ = [
    "Comparison",
    "Estimate",
    "Metrics",
    "MetricsOfSets",
    "Spread",
    "accuracy",
    "aupr",
    "aurc",
    "aurc_interval",
    "auroc",
    "auroc_interval",
    "compare_auroc",
    "compare_mean_auroc",
    "detection_error",
    "evaluate",
    "evaluate_sets",
    "excess_aurc",
    "flagged_share",
    "fpr_at_tpr",
    "mean_auroc_interval",
    "mean_oscr_interval",
    "oscr",
    "oscr_interval",
    "over_trials",
    "paired_bootstrap",
    "roc_curve",
]
