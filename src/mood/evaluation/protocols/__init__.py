"""Protocols: which scores are compared with which, as the paper and OpenOOD do it; pure maths, one idea a file.

They get scores, labels and embeddings that somebody else made, and give figures. `mood bench` runs them on images.
"""

from mood.evaluation.protocols.confusion import accepted_confusion, largest_cells
from mood.evaluation.protocols.few_shot import Probe, expose, linear_probe
from mood.evaluation.protocols.full_spectrum import full_spectrum
from mood.evaluation.protocols.multi_class import members
from mood.evaluation.protocols.one_class import OneClass, one_class
from mood.evaluation.protocols.openood import OPENOOD, Benchmark
from mood.evaluation.protocols.pairs import TABLE_8

__all__ = [
    "OPENOOD",
    "TABLE_8",
    "Benchmark",
    "OneClass",
    "Probe",
    "accepted_confusion",
    "expose",
    "full_spectrum",
    "largest_cells",
    "linear_probe",
    "members",
    "one_class",
]
