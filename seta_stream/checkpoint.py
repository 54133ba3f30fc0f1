"""A checkpoint: the position of a run as plain values, and whether it fits this stream. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from seta_stream.errors import CheckpointError
from seta_stream.plan.epoch import Geometry
from seta_stream.plan.lanes import divisors
from seta_stream.policies.groups import AnyRule, rule_from_plain
from seta_stream.policies.runs import EACH, Runs

VERSION: Final = 1
_MOST: Final = 1 << 40
_MOST_LANES: Final = 1 << 22
_MOST_WRITERS: Final = 1 << 16
"""A checkpoint that says more is damaged, or made to take memory and time."""
MOST_NAMED: Final = 64
"""Numbers of ranks that a message lists."""
_FILE: Final = re.compile(r"\w[\w.-]{0,254}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything that a run needs to go on where it was, besides the state folder.

    Args:
        epoch, step: the next step to deliver.
        geometry: fixed at the run's first start.
        fingerprint: of the shard table, in hex.
        policy: its name and settings.
        selected: how many samples the rule selects, to tell that it still does.
        rule: of the epoch; applied again to the same losses it gives the same selection.
        generation: name of the generation that the epoch started from; None for no losses at all.
        pending: name of the losses recorded since then; None where there are none or no state.
        consumed: samples delivered in earlier epochs, for schedules.
        run_samples: of the whole run, as its epoch began, where a staged decoder goes by them.
        runs: how samples are decided together, fixed at the run's first start.
        writers: how many processes the run had; each wrote its own pending losses.
    """

    epoch: int
    step: int
    geometry: Geometry
    fingerprint: str
    policy: dict[str, Any]
    selected: int
    rule: AnyRule
    generation: str | None
    pending: str | None
    consumed: int
    run_samples: int | None = None
    runs: Runs = EACH
    writers: int = 1

    def to_plain(self) -> dict[str, Any]:
        """Return dicts, lists, strings and numbers only."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain |= {"geometry": asdict(self.geometry), "rule": self.rule.to_plain(), "runs": self.runs.to_plain()}
        return {"version": VERSION, **plain}

    def digest(self) -> str:
        """Return a text that tells checkpoints apart: the same on every process that loads the same one."""
        return hashlib.blake2b(json.dumps(self.to_plain(), sort_keys=True).encode(), digest_size=8).hexdigest()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Checkpoint:
        """Read what `to_plain` gave.

        Raises:
            CheckpointError: for a foreign, damaged or future value.
        """
        if not isinstance(plain, Mapping) or "version" not in plain:
            raise CheckpointError("This is no seta_stream checkpoint: give load_state_dict what state_dict returned.")
        if plain["version"] != VERSION:
            raise CheckpointError(
                f"The checkpoint has version {plain['version']} and this release reads version {VERSION}: use the "
                "release that wrote it, or a newer one.",
                expected=VERSION,
                found=plain["version"],
            )
        values = {name: value for name, value in plain.items() if name != "version"}
        try:
            values["geometry"] = Geometry(**values["geometry"])
            values["rule"] = rule_from_plain(values["rule"])
            values["runs"] = Runs.from_plain(values.get("runs", {}))
            saved = cls(**values)
            saved.check_kinds()
            saved.digest()  # what JSON cannot say is of another's making
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise CheckpointError(f"The checkpoint is damaged: {error}. Use an older one.") from error
        return saved

    def check_kinds(self) -> None:
        """Refuse values of other kinds than `to_plain` gives.

        Raises:
            TypeError, ValueError: naming the value.
        """
        g = self.geometry
        numbers = (
            self.epoch,
            self.step,
            self.consumed,
            self.selected,
            g.rows,
            g.width,
            g.batch,
            g.block,
            g.groups,
            self.writers,
        )
        if not all(type(number) is int and 0 <= number < _MOST for number in numbers) or min(numbers[4:]) < 1:
            raise ValueError(f"its numbers are {numbers}")
        if g.rows * g.width > _MOST_LANES or self.writers > _MOST_WRITERS or g.global_batch >= _MOST:
            raise ValueError(f"its geometry is {g}, of {self.writers} processes")
        if self.run_samples is not None and (type(self.run_samples) is not int or self.run_samples < 0):
            raise ValueError(f"its run has {self.run_samples!r} samples")
        if g.block % g.batch or g.order not in {"corpus", "shards", "blocks"} or type(g.seed) is not int:
            raise ValueError(f"its geometry is {g}")
        if not all(name is None or _is_file_name(name) for name in (self.generation, self.pending)):
            raise TypeError(f"it names {self.generation!r} and {self.pending!r}")
        if type(self.fingerprint) is not str or not isinstance(self.policy, Mapping):
            raise TypeError(f"its corpus is {self.fingerprint!r} and its policy {self.policy!r}")

    def check_selected(self, selected: int) -> None:
        """Refuse losses that are no longer those that the epoch was selected from.

        Raises:
            CheckpointError: another number of samples is selected.
        """
        if selected != self.selected:
            raise CheckpointError(
                f"The checkpoint's epoch had {self.selected} selected samples and its losses now select {selected}: "
                "the generation is not the one it was. Use another checkpoint, or restore the state folder.",
                expected=self.selected,
                found=selected,
            )

    def check(self, *, fingerprint: str, policy: dict[str, Any], geometry: Geometry, runs: Runs) -> None:
        """Refuse a checkpoint of another run.

        Raises:
            CheckpointError: naming each difference.
        """
        ranks = ", ".join(map(str, divisors(self.geometry.global_batch)[:MOST_NAMED]))
        rows = [
            ("corpus fingerprint", self.fingerprint, fingerprint, "give the same shards in the same order"),
            ("policy", self.policy, _settings_of(policy, self.policy), "give the policy that the run began with"),
            (
                "global batch",
                self.geometry.global_batch,
                geometry.global_batch,
                f"choose batch_size × ranks to match; ranks may be {ranks}",
            ),
            ("seed", self.geometry.seed, geometry.seed, "give the same seed"),
            ("shuffle", self.geometry.order != "corpus", geometry.order != "corpus", "give the same"),
            ("drop_last", self.geometry.drop_last, geometry.drop_last, "give the same"),
            ("unit", self.runs.unit, runs.unit, "give the same"),
            ("run_bytes", self.runs.run_bytes, runs.run_bytes, "give the same in read=Reading(run_bytes=…)"),
        ]
        wrong = [row for row in rows if row[1] != row[2]]
        if wrong:
            told = "; ".join(f"{what} was {then} and is {now} ({advice})" for what, then, now, advice in wrong)
            raise CheckpointError(
                f"The checkpoint does not fit this stream: {told}.",
                expected={what: then for what, then, _, _ in wrong},
                found={what: now for what, _, now, _ in wrong},
            )


def _is_file_name(name: Any) -> bool:
    """Say whether a value names a file of the state's own folders, and nothing outside them."""
    return type(name) is str and _FILE.fullmatch(name) is not None


def _settings_of(policy: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Return a policy's settings without those that were unknown when the checkpoint was written."""
    return {name: value for name, value in policy.items() if name in then}
