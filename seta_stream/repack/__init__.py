"""Shards written anew so that fewer, longer reads fetch what a policy selects: `seta-stream repack`.

Takes a corpus and the losses of a run; gives new shards with their indexes, and the losses for them.
"""

from __future__ import annotations

from seta_stream.repack.forecasting import Forecast
from seta_stream.repack.preparing import Choice
from seta_stream.repack.running import Progress, Report, forecast, repack, run

__all__ = ["Choice", "Forecast", "Progress", "Report", "forecast", "repack", "run"]
