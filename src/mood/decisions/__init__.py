"""Decisions: from scores of ID calibration images to p-values, thresholds and what they promise.

Pure arithmetic on numpy float64: it never sees how a score was made. Everywhere a score is higher = more OOD, and a
p-value is small = OOD.
"""

from mood.decisions.conformal import Conformal, check_alpha, false_alarm_range

__all__ = ["Conformal", "check_alpha", "false_alarm_range"]
