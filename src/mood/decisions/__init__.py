"""Decisions: from scores of ID calibration images to p-values, thresholds and what they promise.

Pure arithmetic on numpy float64: it never sees how a score was made. Everywhere a score is higher = more OOD, and a
p-value is small = OOD.
"""

from mood.decisions.conformal import Conformal, check_alpha, false_alarm_range
from mood.decisions.drift import Usual
from mood.decisions.martingale import Jumper, linear_bets, power_bets
from mood.decisions.monitor import Monitor, Window
from mood.decisions.online import OnlineReference
from mood.decisions.stream import StreamFdr

__all__ = [
    "Conformal",
    "Jumper",
    "Monitor",
    "OnlineReference",
    "StreamFdr",
    "Usual",
    "Window",
    "check_alpha",
    "false_alarm_range",
    "linear_bets",
    "power_bets",
]
