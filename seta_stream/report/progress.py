"""How far a run is, and how long the rest will take: an estimate from the epochs behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from seta_stream.report.runfigures import RunFigures, number

LATEST: Final = 3
"""Epochs whose speed tells that of the next ones."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        done: epochs that were committed.
        planned: epochs that the policy plans; None where it does not say.
        next_epoch: the one that runs, or would run.
        next_share: of the samples that it keeps, in expectation.
        next_seconds: how long it takes, at the speed of the latest ones.
        left_seconds: how long that and all that follow take; None where no end is planned or no speed known.
    """

    done: int
    planned: int | None
    next_epoch: int
    next_share: float | None
    next_seconds: float | None
    left_seconds: float | None

    @property
    def is_over(self) -> bool:
        """Whether the last planned epoch was committed."""
        return self.planned is not None and self.next_epoch >= self.planned

    def to_plain(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self) | {"is_over": self.is_over}


def progress_of(run: RunFigures, lines: Sequence[Mapping[str, Any]]) -> Progress:
    """Return how far a run is.

    Args:
        run: its numbers.
        lines: of its history, oldest first.
    """
    last = lines[-1] if lines else {}
    next_epoch = last["epoch"] + 1 if lines else 0
    share = number(last.get("expected_share"))
    known = [one for one in run.epochs if one.seconds is not None and one.kept]
    per_share = [(one.seconds or 0.0) / (one.kept or 1.0) for one in known[-LATEST:]]
    speed = sum(per_share) / len(per_share) if per_share else None
    usual = [one.kept for one in run.epochs[-LATEST:] if one.kept is not None]
    usual_share = sum(usual) / len(usual) if usual else 1.0
    next_seconds = None if speed is None else speed * (usual_share if share is None else share)
    left = None
    if run.planned is not None and next_seconds is not None and speed is not None:
        behind = max(run.planned - next_epoch - 1, 0)
        left = next_seconds + behind * speed * usual_share if next_epoch < run.planned else 0.0
    return Progress(len(run.epochs), run.planned, next_epoch, share, next_seconds, left)
