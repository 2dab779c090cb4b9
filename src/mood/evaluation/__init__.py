"""Evaluation: scores and truth → metrics with intervals. It never sees what made the scores.

Everywhere a score is higher = more OOD, and every metric is a share in [0, 1].
"""

from mood.evaluation.intervals import Estimate, Metrics, evaluate, flagged_share
from mood.evaluation.metrics import aupr, auroc, fpr_at_tpr, roc_curve

__all__ = ["Estimate", "Metrics", "aupr", "auroc", "evaluate", "flagged_share", "fpr_at_tpr", "roc_curve"]
