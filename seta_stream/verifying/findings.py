"""What `verify` can find: the kinds, how grave each is, and what to do. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

Severity = Literal["error", "warning", "hint"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "hint")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding.

    Args:
        severity: "error": samples or losses cannot be used; "warning": they can, and something is wrong or will cost
            time; "hint": it may be meant.
        advice: what to do.
        is_mendable: whether `--repair` builds it anew, or removes what is left over.
    """

    severity: Severity
    advice: str
    is_mendable: bool = False


_RESTORE: Final = "Restore the shard from where it came, or write it again."
_INDEX: Final = "Run `seta-stream verify --repair`, or `seta-stream index`."
_STATE: Final = "Run `seta-stream verify --repair` while no run writes the state."
_LOSSES: Final = "Restore the file from a backup; else its samples count as unseen until they are recorded again."

KINDS: Final[dict[str, Kind]] = {
    "shard-unreadable": Kind("error", "Check the URL, the credentials and the file's mode."),
    "shard-damaged": Kind("error", _RESTORE),
    "shard-cut": Kind("warning", "Compare its samples with those of its source: restore it if some are missing."),
    "shard-empty": Kind("warning", "Members must be named key.field; leave the shard out if it is meant to be empty."),
    "index-missing": Kind("warning", _INDEX, is_mendable=True),
    "index-stale": Kind("warning", _INDEX, is_mendable=True),
    "index-damaged": Kind("warning", _INDEX, is_mendable=True),
    "index-wrong": Kind("error", _INDEX, is_mendable=True),
    "key-twice": Kind("warning", "Rename one of the samples, or remove it if it is a copy."),
    "key-elsewhere": Kind("warning", "If the samples are copies, one is trained on twice as often: remove it."),
    "fields-differ": Kind("warning", "Write the samples again with all fields, or decode them so that it is allowed."),
    "sample-empty": Kind("warning", "Remove the sample, or write it again with its content."),
    "decode-failed": Kind("error", "Write the sample again, or train with on_error='skip'."),
    "corpus-missing": Kind("warning", _STATE, is_mendable=True),
    "corpus-damaged": Kind("warning", _STATE, is_mendable=True),
    "shard-touched": Kind("hint", "Nothing is lost: the next run, or `--repair`, notes the new version.", True),
    "samples-moved": Kind(
        "warning", "Its losses no longer fit: restore the shard, or let its samples start anew.", True
    ),
    "shard-unknown": Kind(
        "hint",
        "The next run notes it. Losses follow the content: of samples that moved they are found, new ones have none.",
    ),
    "shard-gone": Kind("hint", "Name all shards of the run, if they should be there."),
    "generation-half": Kind("warning", _STATE, is_mendable=True),
    "manifest-damaged": Kind("error", "Restore the generation's folder from a backup, or remove it."),
    "sidecar-missing": Kind("error", _LOSSES),
    "sidecar-damaged": Kind("error", _LOSSES),
    "losses-missing": Kind("warning", "Restore the shard that the losses belong to, or let its samples start anew."),
    "losses-unused": Kind("hint", "Name all shards of the run, if theirs should be used."),
    "losses-unseen": Kind("warning", "Record losses for it, or check that its ids reach record()."),
    "losses-unlike": Kind("hint", "Look at its samples: another source, or damaged labels, make such losses."),
    "pending-orphaned": Kind("warning", _STATE, is_mendable=True),
    "pending-damaged": Kind("error", "Resume from another checkpoint, and remove the file."),
    "history-torn": Kind("warning", _STATE, is_mendable=True),
    "history-damaged": Kind("warning", _STATE, is_mendable=True),
    "history-gap": Kind("warning", _STATE, is_mendable=True),
}
"""Every kind, by name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Args:
        kind: one of KINDS.
        what: what was found, in a sentence.
        shard: URL of the shard concerned.
        key: of the sample.
        offset: byte offset in the shard's tar.
        file: URL of the index or state file concerned.
        count: how many samples or files it is about.
    """

    kind: str
    what: str
    shard: str | None = None
    key: str | None = None
    offset: int | None = None
    file: str | None = None
    count: int = 1

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return KINDS[self.kind].severity

    @property
    def advice(self) -> str:
        """What to do."""
        return KINDS[self.kind].advice

    @property
    def is_mendable(self) -> bool:
        """Whether `--repair` mends it."""
        return KINDS[self.kind].is_mendable

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as plain values; keys that are no UTF-8 with their bytes escaped."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "shard": _text(self.shard),
            "key": _text(self.key),
            "offset": self.offset,
            "file": _text(self.file),
            "count": self.count,
            "what": _text(self.what),
            "advice": self.advice,
            "mendable": self.is_mendable,
        }


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, the gravest first, then by shard, kind and place."""
    place = {severity: number for number, severity in enumerate(SEVERITIES)}
    return sorted(
        findings,
        key=lambda one: (place[one.severity], one.shard or "", one.file or "", one.kind, one.offset or 0, one.what),
    )


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings of each severity there are."""
    counts = Counter(one.severity for one in findings)
    return {severity: counts[severity] for severity in SEVERITIES}


def _text(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
