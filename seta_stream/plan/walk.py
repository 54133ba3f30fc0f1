"""A reader's way through an epoch: the ids of its steps, in order, a round of blocks at a time.

Takes a plan and a reader's share of it (rank, worker); gives arrays of ids. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seta_stream.plan.epoch import EpochPlan

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every step, and which of the steps, one reader yields.

    Args:
        rank, world: this process's equal part of each step.
        worker, workers: steps origin + worker, origin + worker + workers, …
        origin: the step at which this start of the run began.
        begin: the first step still wanted, at least `origin`; a worker that resumes by itself begins later.
    """

    rank: int = 0
    world: int = 1
    worker: int = 0
    workers: int = 1
    origin: int = 0
    begin: int = 0

    def steps(self, total: int) -> range:
        """Return the steps to yield, of `total`."""
        first = self.origin + self.worker
        late = max(0, -(-(self.begin - first) // self.workers))
        return range(first + late * self.workers, total, self.workers)


def rounds(plan: EpochPlan, share: Share) -> Iterator[tuple[range, Int64s]]:
    """Yield (steps, ids): a round of every lane's next block, ids in the order of the steps.

    Each yielded array holds whole steps of this rank's part: int64 [samples], step after step.
    """
    per_round = plan.geometry.block // plan.geometry.batch * plan.geometry.width
    steps = share.steps(plan.lanes.steps)
    while steps:
        number = steps[0] // per_round
        inside = -(-((number + 1) * per_round - steps[0]) // steps.step)
        yield steps[:inside], _ids(plan, share, steps[:inside], number)
        steps = steps[inside:]


def _ids(plan: EpochPlan, share: Share, steps: range, number: int) -> Int64s:
    """Return the ids of steps that lie in the round `number`, for this rank's part of each."""
    g = plan.geometry
    per_rank = g.per_rank(share.world)
    elements = np.arange(share.rank * per_rank, (share.rank + 1) * per_rank)
    wanted = np.asarray(steps, np.int64)
    # axes: step × element of this rank's part
    lane = (elements // g.batch * g.width)[None, :] + (wanted % g.width)[:, None]
    place = ((wanted // g.width) * g.batch - number * g.block)[:, None] + (elements % g.batch)[None, :]
    if steps[-1] == plan.lanes.steps - 1 and plan.lanes.size_of(steps[-1]) < g.batch:
        keep = np.ones(lane.shape, bool)
        keep[-1, plan.lanes.size_of(steps[-1]) :] = False  # a short last step, of one rank
        lane, place = lane[keep], place[keep]
    used = np.unique(lane)
    blocks = [plan.block(int(each), number) for each in used]
    base = np.zeros(g.rows * g.width, np.int64)
    base[used] = np.cumsum([0, *map(len, blocks[:-1])])
    ids: Int64s = np.concatenate(blocks)[(base[lane] + place).reshape(-1)]
    return ids
