"""The sections of the page about losses and samples: how they lie, what was kept, from where, how often seen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from seta_stream.report.distributions import LossAxis
from seta_stream.report.html_charts import Bars, bars, fan, figure, legend_of, meter, ridges
from seta_stream.report.html_text import NOTHING, attribute, count, loss, percent, share, table, text
from seta_stream.report.html_values import RunReport
from seta_stream.report.runfigures import quantiles_of

AGES_SHOWN: Final = 12


def losses(report: RunReport) -> str:
    """Return the distribution of the losses per epoch with the kept window, and how it spreads over the run."""
    if not report.lines:
        return "<p>The history holds no losses yet: finish an epoch with recorded losses first.</p>"
    says = (
        "Each row is the distribution of the losses that an epoch started from; what that epoch kept of them is filled "
        "in, with a line below it."
    )
    by_group = any(isinstance(line.get("rule"), dict) and "groups" in line["rule"] for line in report.lines)
    if by_group:
        says += " The policy decides within groups of samples, so no loss has one chance to be kept: all is filled in."
    if any(line.get("judged_by", "loss") != "loss" for line in report.lines):
        says += " What is shown is the score that the policy judges by, which it makes of the losses."
    legend = legend_of(("kept", "kept"), ("half", "kept in part, by chance"), ("back", "left out"))
    rows = [
        (str(line["epoch"]), *(loss(value) for value in quantiles_of(line)), *_rule_cells(line.get("rule")))
        for line in report.lines
    ]
    heads = ("losses at the end of epoch", "5 % below", "25 %", "median", "75 %", "95 %", "next epoch keeps losses")
    first = figure(
        "ridges", "Losses before each epoch, and the window of them that it kept", ridges(report.lines, says=says),
        says=says, legend=legend, table=table(heads, rows, label="Losses per epoch and the kept window"),
    )  # fmt: skip
    return first + _spread(report)


def _rule_cells(rule: object) -> tuple[str]:
    """Return the steps of a rule in words: which losses it keeps, and how much of them."""
    if not isinstance(rule, dict):
        return (NOTHING,)
    if "groups" in rule:
        return ("by group",)
    bounds = ["lowest", *(loss(edge) for edge in rule["edges"]), "highest"]
    told = [
        f"{low} to {high}{'' if chance >= 1 else f' ({share(chance)})'}"
        for low, high, chance in zip(bounds, bounds[1:], rule["keep"], strict=False)
        if chance > 0
    ]
    return ("; ".join(told[:6]) + (" …" if len(told) > 6 else "") or "none",)


def _spread(report: RunReport) -> str:
    told = [(line, quantiles_of(line)) for line in report.lines if line["epoch"] >= 0]
    if not told:
        return ""
    labels, levels = [str(line["epoch"]) for line, _ in told], [found for _, found in told]
    first, last = levels[0], levels[-1]
    says = (
        f"The median loss went from {loss(first[2])} at the end of epoch {labels[0]} to {loss(last[2])} at the end of "
        f"epoch {labels[-1]}; the highest twentieth begins at {loss(last[4])}."
    )
    chart = fan(labels, levels, LossAxis([line for line, _ in told]), says=says)
    legend = legend_of(("line", "median"), ("inner", "middle half"), ("outer", "all but the outer twentieths"))
    rows = [(label, *(loss(value) for value in found)) for label, found in zip(labels, levels, strict=True)]
    heads = ("epoch", "5 % below", "25 % below", "median", "75 % below", "95 % below")
    return figure(
        "spread", "Losses over the epochs", chart, says=says, legend=legend,
        table=table(heads, rows, label="Quantiles of the losses per epoch"),
    )  # fmt: skip


def kept(report: RunReport) -> str:
    """Return the share that each epoch kept, beside what its rule expected and what the settings promise."""
    run = report.run
    if not run.epochs:
        return "<p>No epoch is told.</p>"
    saved = run.saved_share
    says = "The history does not say what was kept."
    if saved is not None:
        says = f"So far {share(1 - saved)} of all visits to samples were kept and {share(saved)} saved."
    if run.nominal_kept is not None:
        says += f" The settings of the policy promise to keep {share(run.nominal_kept)} over the run."
    labels = [str(one.epoch) for one in run.epochs]
    chart = Bars(
        labels, [one.kept for one in run.epochs], 1.0, percent,
        backs=[None if one.kept is None else 1.0 for one in run.epochs],  # what is not known was not left out
        marks=[one.expected for one in run.epochs], level=run.nominal_kept,
    )  # fmt: skip
    marks = [("kept", "really kept"), ("back", "left out"), ("line", "expected by the rule")]
    if run.nominal_kept is not None:
        marks.append(("dashed", "nominal, over the run"))
    rows = [
        (str(one.epoch), share(one.kept), share(one.expected), share(run.nominal_kept), count(one.selected),
         count(one.samples))
        for one in run.epochs
    ]  # fmt: skip
    heads = ("epoch", "really kept", "expected", "nominal", "samples kept", "of")
    return figure(
        "kept-chart", "Share of the samples that each epoch kept", bars(chart, says=says), says=says,
        legend=legend_of(*marks), table=table(heads, rows, label="Kept share per epoch"),
    )  # fmt: skip


def sources(report: RunReport) -> str:
    """Return what was kept of each source, and of each group that the policy decides within."""
    parts = [_groups(report), _parts(report)]
    if report.sources:
        rows = [
            (text(one.name, 120), count(one.samples), share(one.samples / max(report.summary.samples, 1)),
             share(one.seen / max(one.samples, 1)), loss(one.mean), loss(one.median),
             meter(one.read_last, share(one.read_last)), meter(one.next_keep, share(one.next_keep)))
            for one in report.sources
        ]  # fmt: skip
        heads = ("source", "samples", "of all", "seen", "mean loss", "median", "in the last epoch", "in the next")
        parts.append(
            f"<h3>By source</h3><p>Told apart by {attribute(report.sources_by)}. “In the last epoch” is the share "
            f"whose loss is of epoch {report.summary.epoch}; “in the next” is what the rule keeps in expectation.</p>"
            + table(heads, rows, label="By source")
        )
    else:
        parts.append("<h3>By source</h3><p>The state does not name its shards, so sources cannot be told apart.</p>")
    return "".join(parts)


def _parts(report: RunReport) -> str:
    if not report.summary.parts:
        return ""
    rows = [
        (text(one.name, 120), count(one.samples), meter(one.next_keep, share(one.next_keep)))
        for one in report.summary.parts[:200]
    ]
    more = len(report.summary.parts) - len(rows)
    told = f" The largest {len(rows)} are shown; {more:,} more are in the numbers of --json." if more else ""
    return (
        f"<h3>By the groups that the policy decides within</h3><p>Classes or sources, as the run names them.{told}</p>"
        + table(("group", "samples", "in the next epoch"), rows, label="By group of the policy")
    )


def _groups(report: RunReport) -> str:
    summary = report.summary
    rows = [
        (f"{at + 1}", loss(one.centre), loss(one.lowest), count(one.samples), share(one.share),
         meter(one.next_keep, share(one.next_keep)))
        for at, one in enumerate(summary.groups)
    ]  # fmt: skip
    unseen = summary.samples - summary.seen
    if unseen:
        rows.append(
            ("never seen", NOTHING, NOTHING, count(unseen), share(unseen / max(summary.samples, 1)),
             meter(summary.unseen_keep, share(summary.unseen_keep)))
        )  # fmt: skip
    heads = ("group, easy to hard", "mean loss", "from", "samples", "of all", "in the next epoch")
    return "<h3>By loss</h3><p>Groups of similar losses, by k-means.</p>" + table(heads, rows, label="By loss")


def coverage(report: RunReport) -> str:
    """Return how many samples were seen at least once, and how long ago each was."""
    return _unique(report) + _ages(report)


def _unique(report: RunReport) -> str:
    rows_of = report.run.epochs
    if not rows_of:
        return ""
    shares = [one.seen / one.samples if one.samples else None for one in rows_of]
    labels = [str(one.epoch) for one in rows_of]
    summary = report.summary
    says = (
        f"{count(summary.seen)} of {count(summary.samples)} samples ({share(summary.seen / max(summary.samples, 1))}) "
        "have a loss: they were seen at least once."
    )
    chart = Bars(labels, shares, 1.0, percent, backs=[1.0] * len(labels))
    rows = [
        (label, share(known), count(one.seen), count(one.samples))
        for label, known, one in zip(labels, shares, rows_of, strict=True)
    ]
    return figure(
        "unique", "Unique samples seen so far", bars(chart, says=says), says=says,
        legend=legend_of(("kept", "seen at least once"), ("back", "never")),
        table=table(("epoch", "seen so far", "samples", "of"), rows, label="Unique samples seen"),
    )  # fmt: skip


def _ages(report: RunReport) -> str:
    summary = report.summary
    if not summary.ages:
        return ""
    mean = sum(age * number for age, number in summary.ages) / max(summary.seen, 1)
    rows = [
        (_age(age), count(number), meter(number / max(summary.samples, 1), share(number / max(summary.samples, 1))))
        for age, number in _folded(summary.ages)
    ]
    unseen = summary.samples - summary.seen
    if unseen:
        never = unseen / max(summary.samples, 1)
        rows.append(("never", count(unseen), meter(never, share(never))))
    return (
        f"<h3>Staleness: when each sample was last seen</h3><p>At the end of epoch {summary.epoch}; {mean:.2f} epochs "
        f"ago in the mean, {max(age for age, _ in summary.ages)} at the longest.</p>"
        + table(("last seen", "samples", "of all"), rows, label="Staleness")
    )


def _folded(ages: Sequence[tuple[int, int]]) -> list[tuple[int | str, int]]:
    """Return the ages one by one, and the oldest ones together where there are many."""
    if len(ages) <= AGES_SHOWN:
        return list(ages)
    rest = ages[AGES_SHOWN - 1 :]
    return [*ages[: AGES_SHOWN - 1], (f"{rest[0][0]} to {rest[-1][0]} epochs ago", sum(number for _, number in rest))]


def _age(age: int | str) -> str:
    if isinstance(age, str):
        return age
    return "in this epoch" if age == 0 else f"{age} epoch{'s' if age > 1 else ''} ago"
