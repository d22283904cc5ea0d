"""Pictures of rankings and of models, for notebooks and reports.

`ranking_html` draws one ranking; a `Ranking` that is the last line of a notebook's cell is
drawn by it. The plots need matplotlib: ``pip install 'rerank-plugins[display]'``.
"""

from __future__ import annotations

from rerank_plugins.display.plots import (
    calibration_error,
    plot_calibration,
    plot_quality_latency,
    plot_score_length,
)
from rerank_plugins.display.ranking import ranking_html

__all__ = [
    "calibration_error",
    "plot_calibration",
    "plot_quality_latency",
    "plot_score_length",
    "ranking_html",
]
