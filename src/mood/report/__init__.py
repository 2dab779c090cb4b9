"""Report: plain results in, one self-contained HTML page, figures and tables out. It never sees how they were computed.

Everywhere a score is higher = more OOD, a p-value is small = OOD, and metrics are shares in [0, 1] that are shown in
percent.
"""

from mood.report.comparison import Comparison, Drawn, Ends, render_comparison
from mood.report.grid import Grid
from mood.report.monitor import monitor_page
from mood.report.page import render
from mood.report.results import Card, Measured, Promise, Report, ScoredSet, Thumbnail
from mood.report.table import Table, metrics_table
from mood.report.thumbnails import extremes

__all__ = [
    "Card",
    "Comparison",
    "Drawn",
    "Ends",
    "Grid",
    "Measured",
    "Promise",
    "Report",
    "ScoredSet",
    "Table",
    "Thumbnail",
    "extremes",
    "metrics_table",
    "monitor_page",
    "render",
    "render_comparison",
]
