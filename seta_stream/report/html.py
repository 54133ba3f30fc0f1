"""The page of a run: one HTML file that needs nothing else.

Takes a RunReport; gives the page as text. Pure. Styles, shapes, script and pictures stand inside; a content security
policy forbids everything else, so the page asks no server for anything, whatever a corpus holds.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Final

from seta_stream.report import html_reading, html_sections
from seta_stream.report.html_style import SCRIPT, STYLE
from seta_stream.report.html_text import NOTHING, attribute, count, duration, energy, money, share, size, text
from seta_stream.report.html_values import RunReport

SECTIONS: Final[tuple[tuple[str, str, Callable[[RunReport], str]], ...]] = (
    ("losses", "Losses", html_sections.losses),
    ("kept", "Kept per epoch", html_sections.kept),
    ("sources", "Groups, sources and classes", html_sections.sources),
    ("coverage", "Coverage", html_sections.coverage),
    ("reading", "Reading", html_reading.reading),
    ("costs", "Money and energy", html_reading.costs),
    ("samples", "Hardest and easiest samples", html_reading.samples),
)


def page(report: RunReport) -> str:
    """Return the page, whole."""
    body = "".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{make(report)}</section>'
        for name, title, make in SECTIONS
    )
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in SECTIONS)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>seta-stream report: {attribute(report.state, 120)}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#main">Skip to the report</a>'
        f'<header><h1>Run report</h1><p class="mono">{text(report.state)}</p>{_head(report)}'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
        f'<main id="main" tabindex="-1">{_facts(report)}{_notes(report)}{body}</main>'
        f"<footer><p>Made {attribute(report.made)} by seta-stream {attribute(report.version)} from "
        f"{text(report.summary.generation)}. The page needs no network.</p></footer>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _policy() -> str:
    """Return what the page may do: its own script, styles, and pictures that stand in it."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _head(report: RunReport) -> str:
    summary, run = report.summary, report.run
    planned = f" of {count(run.planned)}" if run.planned is not None else ""
    parts = [
        f"{count(len(run.epochs))}{planned} epochs",
        f"{count(summary.samples)} samples in {count(summary.shards)} shard{'s' * (summary.shards != 1)}",
    ]
    policy = f'<p class="mono">{text(run.policy, 400)}</p>' if run.policy is not None else ""
    return f"<p>{', '.join(parts)}</p>{policy}"


def _facts(report: RunReport) -> str:
    run, summary = report.run, report.summary
    saved, total, fetched = run.saved_share, run.total("bytes_total"), run.total("bytes_fetched")
    spent, used = run.total("money"), run.total("kwh")
    nominal = None if run.nominal_kept is None else 1 - run.nominal_kept
    rows = [
        ("Visits saved", share(saved), "" if nominal is None else f"nominal {share(nominal)} of the run"),
        ("Next epoch keeps", *_next(report)),
        ("Samples seen", share(summary.seen / max(summary.samples, 1)), f"{count(summary.seen)} at least once"),
        ("Bytes fetched", size(fetched), f"of {size(total)} in full epochs"),
        ("Requests", count(run.total("requests")), f"{count(run.total('retries'))} tried again"),
        ("Waited for data", duration(run.total("wait_s")), "summed over workers"),
        ("Money", money(spent), f"{money(run.full_money)} with everything" if report.costs.price else "no price given"),
        ("Energy, estimated", energy(used), f"{energy(run.full_kwh)} with everything"),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>" for name, value, more in rows)
    return f'<dl class="facts">{items}</dl>'


def _next(report: RunReport) -> tuple[str, str]:
    summary, planned = report.summary, report.run.planned
    if planned is not None and summary.next_epoch >= planned:
        return NOTHING, "the last planned epoch is done"
    return share(summary.next_share), f"epoch {summary.next_epoch}"


def _notes(report: RunReport) -> str:
    if not report.notes:
        return ""
    items = "".join(f"<li>{text(one, 600)}</li>" for one in report.notes)
    return (
        f'<div class="notes" role="note" aria-label="Notes"><p>Not everything could be read:</p><ul>{items}</ul></div>'
    )
