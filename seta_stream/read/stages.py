"""Which decoder makes which step of a reader's share.

Takes the decoder that the stream was given, the plan, the share, and where the epoch lies in the run; gives decoders by
step and by sample. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from seta_stream.plan.epoch import EpochPlan
from seta_stream.plan.walk import Share
from seta_stream.read.decode import Decode, FieldDecode, Seeded, Staged


class Course(NamedTuple):
    """Where an epoch lies in its run.

    Attributes:
        consumed: samples consumed before the epoch.
        planned: samples of the whole run; 0 where nobody asks for it.
        global_batch: samples per step.
    """

    consumed: int
    planned: int
    global_batch: int

    def progress(self, step: int) -> float:
        """Return samples consumed before a step over samples planned for the run, 0 … 1."""
        if self.planned <= 0:
            return 1.0
        return min((self.consumed + step * self.global_batch) / self.planned, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class StepDecoders:
    """The decoder of each step: a whole step has one, whoever reads it.

    Args:
        decode: what the stream was given; None for bytes.
        course: where the epoch lies in the run.
        plan: of the epoch.
        share: the steps that are read, and which part of each.
    """

    decode: Decode | None
    course: Course
    plan: EpochPlan
    share: Share
    _staged: Staged | None = field(init=False)  # asked once: a protocol's check takes as long as ten samples
    _fixed: FieldDecode | Seeded | None = field(init=False)
    _steps: range = field(init=False)
    _per_step: int = field(init=False)

    def __post_init__(self) -> None:
        staged, fixed = (self.decode, None) if isinstance(self.decode, Staged) else (None, self.decode)
        object.__setattr__(self, "_staged", staged)
        object.__setattr__(self, "_fixed", fixed)
        lanes = self.plan.lanes
        object.__setattr__(self, "_steps", self.share.steps(lanes.steps))
        object.__setattr__(self, "_per_step", lanes.global_batch // self.share.world)

    def place(self, number: int) -> tuple[int, int]:
        """Return (step, element 0 … G − 1) of the share's sample `number`, counted from 0 in the order of reading."""
        step, within = divmod(number, self._per_step)
        return self._steps[step], self.share.rank * self._per_step + within

    @property
    def is_staged(self) -> bool:
        """Whether steps may have decoders of their own."""
        return self._staged is not None

    def of_step(self, step: int) -> FieldDecode | Seeded | None:
        """Return a step's decoder."""
        return self._fixed if self._staged is None else self._staged.at(self.course.progress(step))

    def stretches(self, first: int, count: int) -> Iterator[tuple[FieldDecode | Seeded | None, int]]:
        """Cut the share's samples first … first + count − 1 where the decoder changes: yields (decoder, samples)."""
        stop = first + count
        steps = self._steps[first // self._per_step : -(-stop // self._per_step)]
        begin, end = first, first - first % self._per_step
        for decode, alike in groupby(steps, self.of_step):
            end += self._per_step * sum(1 for _ in alike)
            yield decode, min(end, stop) - begin
            begin = end
