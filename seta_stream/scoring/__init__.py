"""Losses ahead of training: a model scores every sample, so that the first epoch can already be pruned.

model.py loads what the user names; shard.py scores one shard, in any process; folder.py keeps what is done; running.py
puts it together and commits the generation of epoch −1.
"""

from seta_stream.scoring.running import Choice, Progress, Report, score

__all__ = ["Choice", "Progress", "Report", "score"]
