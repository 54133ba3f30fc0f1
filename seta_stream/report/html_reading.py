"""The sections of the page about bytes, waiting, money and energy, and the cards of single samples. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

from seta_stream.report.html_charts import Bars, bars, figure, legend_of
from seta_stream.report.html_text import (
    NOTHING,
    attribute,
    count,
    duration,
    energy,
    loss,
    money,
    share,
    size,
    table,
    text,
)
from seta_stream.report.html_values import RunReport, SampleCard
from seta_stream.report.runfigures import FULL_SPAN_BYTES, EpochRow


def reading(report: RunReport) -> str:
    """Return the bytes needed, fetched and saved, the requests, the cache, and the seconds waited."""
    if report.run.total("bytes_fetched") is None:
        return "<p>The history does not say what was read.</p>"
    return _bytes(report) + _waiting(report) + _cache(report)


def _bytes(report: RunReport) -> str:
    run = report.run
    total, needed, fetched = (run.total(f"bytes_{name}") for name in ("total", "needed", "fetched"))
    says = (
        f"{size(fetched)} were asked for in {count(run.total('requests'))} requests, for samples of {size(needed)}; "
        f"all shards in each epoch are {size(total)}. {_saved(total, fetched)}"
    )
    epochs = run.epochs
    chart = Bars(
        [str(one.epoch) for one in epochs], [one.bytes_fetched for one in epochs],
        _top([one.bytes_total for one in epochs], [one.bytes_fetched for one in epochs]), size,
        backs=[one.bytes_total for one in epochs], marks=[one.bytes_needed for one in epochs],
    )  # fmt: skip
    rows = [
        (str(one.epoch), size(one.bytes_total), size(one.bytes_needed), size(one.bytes_fetched),
         _saved_share(one), count(one.requests), count(one.retries))
        for one in epochs
    ]  # fmt: skip
    heads = ("epoch", "all shards", "needed", "fetched", "saved", "requests", "tried again")
    return figure(
        "bytes", "Bytes that each epoch read", bars(chart, says=says), says=says,
        legend=legend_of(("kept", "fetched"), ("back", "all shards"), ("line", "needed")),
        table=table(heads, rows, label="Bytes and requests per epoch"),
    )  # fmt: skip


def _saved(total: float | None, fetched: float | None) -> str:
    if total is None or fetched is None or total <= 0:
        return ""
    if fetched > total:
        return f"That is {size(fetched - total)} more than all."
    return f"{size(total - fetched)} ({share(1 - fetched / total)}) were saved."


def _saved_share(one: EpochRow) -> str:
    return share(1 - one.bytes_fetched / one.bytes_total) if one.bytes_total and one.bytes_fetched is not None else "–"


def _top(*columns: Sequence[float | None]) -> float:
    return max((value for column in columns for value in column if value is not None), default=1.0)


def _waiting(report: RunReport) -> str:
    run = report.run
    waited, seconds = run.total("wait_s"), run.total("seconds")
    if waited is None:
        return ""
    says = (
        f"Training waited {duration(waited)} for data, summed over its workers and processes, in epochs of "
        f"{duration(seconds)} altogether."
    )
    epochs = run.epochs
    chart = Bars(
        [str(one.epoch) for one in epochs], [one.wait_s for one in epochs],
        _top([one.wait_s for one in epochs], [one.seconds for one in epochs]), duration,
        backs=[one.seconds for one in epochs],
    )  # fmt: skip
    rows = [(str(one.epoch), duration(one.wait_s), duration(one.seconds), count(one.skipped), count(one.bad_losses))
            for one in epochs]  # fmt: skip
    heads = ("epoch", "waited for data", "epoch took", "samples not decoded", "losses refused")
    return figure(
        "waiting", "Seconds waited for data", bars(chart, says=says), says=says,
        legend=legend_of(("kept", "waited for data, summed over workers"), ("back", "the epoch took")),
        table=table(heads, rows, label="Seconds waited per epoch"),
    )  # fmt: skip


def _cache(report: RunReport) -> str:
    run = report.run
    hits, misses = run.total("cache_hits") or 0.0, run.total("cache_misses") or 0.0
    if not hits + misses:
        return "<h3>Cache</h3><p>No local cache was used.</p>"
    held, lacked = run.total("cache_hit_bytes") or 0.0, run.total("cache_miss_bytes") or 0.0
    rate = held / (held + lacked) if held + lacked else None
    rows = [
        (str(one.epoch), count(one.cache_hits), size(one.cache_hit_bytes), count(one.cache_misses),
         size(one.cache_miss_bytes))
        for one in run.epochs
    ]  # fmt: skip
    heads = ("epoch", "hits", "bytes of hits", "misses", "bytes of misses")
    return (
        f"<h3>Cache</h3><p>The local cache held {share(rate)} of the bytes that it was asked for: {count(hits)} hits "
        f"of {size(held)}, {count(misses)} misses of {size(lacked)}.</p>" + table(heads, rows, label="Cache per epoch")
    )


def costs(report: RunReport) -> str:
    """Return money and energy, beside those of reading everything, with every assumption."""
    run, given = report.run, report.costs
    spent, used = run.total("money"), run.total("kwh")
    rows = [
        ("money", money(spent), money(run.full_money), _less(run.full_money, spent, money)),
        ("energy", energy(used), energy(run.full_kwh), _less(run.full_kwh, used, energy)),
        ("time", duration(run.total("seconds")), duration(run.full_seconds),
         _less(run.full_seconds, run.total("seconds"), duration)),
    ]  # fmt: skip
    price = given.price
    per_unit = f": ${price.per_gb:g} per GB of 2^30 bytes, ${price.per_1000_requests:g} per 1,000 requests."
    computing = f"${given.per_hour:g} per hour of all machines together" if given.per_hour else "none"
    everything = f"all shards whole in each epoch, by requests of {size(FULL_SPAN_BYTES)}, without a cache"
    assumed = (
        f"Price of reading: {attribute(price.source)}{per_unit if price else '; --store or --price-per-gb sets one.'}",
        f"Price of computing: {computing}{'.' if given.per_hour else '; --price-per-hour sets one.'}",
        f"Power while an epoch runs: {given.watts:g} W. {_sentence(attribute(given.watts_source))}",
        f"Everything, for comparison: {everything}; computing at the time per sample of each epoch.",
        "Not counted: storage, writing, evaluation between epochs, and what the network and the store themselves take.",
    )
    items = "".join(f"<li>{one}</li>" for one in assumed)
    return (
        table(("estimate", "this run so far", "with everything", "saved"), rows, label="Money and energy")
        + f"<h3>Assumed</h3><ul>{items}</ul>"
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _less(full: float | None, spent: float | None, tell: Callable[[float | None], str]) -> str:
    if full is None or spent is None:
        return NOTHING
    told = f" ({share(1 - spent / full)})" if full > 0 else ""
    return f"{tell(full - spent)}{told}"


def samples(report: RunReport) -> str:
    """Return the hardest and the easiest samples as cards."""
    if not report.hardest and not report.easiest:
        return "<p>No samples are shown: none has a loss, or --samples 0 was given.</p>"
    told = f"By their last losses, as of the end of epoch {report.summary.epoch}."
    return (
        f"<p>{told} Very high losses are often wrong labels or broken files: look at them first.</p>"
        + _cards("Hardest", report.hardest)
        + _cards("Easiest", report.easiest)
    )


def _cards(title: str, cards: Sequence[SampleCard]) -> str:
    return f'<h3>{title}</h3><ol class="cards">{"".join(map(_card, cards))}</ol>'


def _card(card: SampleCard) -> str:
    parts = []
    if card.image is not None:
        width, height = card.image_size
        named = f" {card.key}" if card.key is not None else ""
        parts.append(
            f'<img src="data:image/{attribute(card.image_kind)};base64,{base64.b64encode(card.image).decode("ascii")}" '
            f'width="{width:d}" height="{height:d}" alt="{attribute(f"Sample{named}, loss {card.loss:.4g}", 160)}">'
        )
    parts.append(f"<strong>loss {loss(card.loss)}</strong>")
    parts += [f"<p>{text(field, 40)}: <q>{text(told)}</q></p>" for field, told in card.texts]
    if card.key is not None:
        parts.append(f'<p class="mono"><span class="hidden">key </span>{text(card.key, 120)}</p>')
    if card.shard is not None:
        parts.append(f'<p class="mono muted">{text(card.shard.rpartition("/")[2], 80)}</p>')
    seen = f", seen {card.age} epoch{'s' * (card.age > 1)} ago" if card.age else ""
    parts.append(f'<p class="muted">id {card.number}{seen}</p>')
    if card.lacking is not None:
        parts.append(f'<p class="muted">{text(card.lacking, 300)}</p>')
    return f"<li>{''.join(parts)}</li>"
