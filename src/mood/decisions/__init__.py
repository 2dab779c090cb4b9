"""Decisions: from scores of ID calibration images to p-values, thresholds and what they promise.

Pure arithmetic on numpy float64: it never sees how a score was made. Everywhere a score is higher = more OOD, and a
p-value is small = OOD.
"""

from mood.decisions.conditional import Conditional
from mood.decisions.conformal import Conformal, check_alpha, false_alarm_range
from mood.decisions.cross import Cross, deal, proven_rate
from mood.decisions.drift import Usual
from mood.decisions.fdr import discoveries, fewest_discoveries, id_share
from mood.decisions.guarantee import Calibration, Guarantee
from mood.decisions.kinds import kind_of, restore, state
from mood.decisions.martingale import Jumper, linear_bets, power_bets
from mood.decisions.mondrian import Mondrian
from mood.decisions.monitor import Monitor, Window
from mood.decisions.online import OnlineReference
from mood.decisions.stream import StreamFdr

__all__ = [
    "Calibration",
    "Conditional",
    "Conformal",
    "Cross",
    "Guarantee",
    "Jumper",
    "Mondrian",
    "Monitor",
    "OnlineReference",
    "StreamFdr",
    "Usual",
    "Window",
    "check_alpha",
    "deal",
    "discoveries",
    "false_alarm_range",
    "fewest_discoveries",
    "id_share",
    "kind_of",
    "linear_bets",
    "power_bets",
    "proven_rate",
    "restore",
    "state",
]
