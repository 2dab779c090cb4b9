"""The detector: transform, network, score and calibration as one thing, and how its score looks at images."""

from mood.detector.detector import COLUMNS, Detector, Promise, in_order, predicted_classes
from mood.detector.files import load, write
from mood.detector.view import LiveFeatures, View, embed, seen_by

__all__ = [
    "COLUMNS",
    "Detector",
    "LiveFeatures",
    "Promise",
    "View",
    "embed",
    "in_order",
    "load",
    "predicted_classes",
    "seen_by",
    "write",
]
