"""The sections of the bucket benchmarks: which readers run, and what is to hold of them.

Takes a server under a profile; prints a table for each corpus and notes the checks. Effects: those of the readers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from _common import CORPORA, corpus, warm
from bucket_cases import (
    FULL,
    HALF,
    Corpus,
    Spec,
    bare,
    in_order,
    index_over,
    mosaic,
    mosaic_works,
    ours,
    over_s3,
    webdataset,
)
from bucket_results import Checks, Results, median, ratio, run_cases, show_results
from bucket_server import PROFILES, Bucket
from servers import FaultProxy

QUICK_SHARDS = 6
WASTE = 1.053
HALF_WALL = {"latency": 0.80, "limited": 0.56}
MEMORY_BYTES = 150_000_000
PREFETCH_BYTES = 64 << 20
MOST_IN_FLIGHT = 256
METADATA_REQUESTS = 16
"""Looks at versions and indexes are no part of the engine's count."""


@dataclass(frozen=True)
class Session:
    """A server, the command line, and where checks are noted."""

    bucket: Bucket
    profile: str
    arguments: argparse.Namespace
    checks: Checks

    @property
    def is_timed(self) -> bool:
        """Whether walls are to hold under this profile."""
        return self.profile in HALF_WALL

    def corpora(self, *names: str) -> list[Corpus]:
        """Return corpora as the server shows them, made on first use, and warm in the page cache."""
        return [self._corpus(name) for name in self.arguments.corpus if name in names]

    def _corpus(self, name: str) -> Corpus:
        shards = corpus(name)
        samples, per_shard = CORPORA[name]
        if self.arguments.quick:
            shards = shards[:QUICK_SHARDS]
            samples = min(samples, per_shard * len(shards))
        warm(shards)
        found = Corpus(name, shards, samples, self.bucket.url)
        index_over(found)
        return found

    def run(self, title: str, cases: dict[str, Spec], bucket: Bucket | None = None) -> Results:
        """Run cases and print their table."""
        words = self.arguments.case
        chosen = {name: spec for name, spec in cases.items() if not words or any(word in name for word in words)}
        results = run_cases(chosen, bucket or self.bucket, self.arguments.runs, self.checks)
        show_results(f"{title}; {self.profile}: {PROFILES[self.profile]}; medians of {self.arguments.runs}", results)
        return results

    def peers(self, found: Corpus) -> dict[str, Spec]:
        """Return the other loaders' cases."""
        cases = {
            "webdataset": webdataset(found),
            "webdataset, 2 workers": webdataset(found, workers=2),
            "webdataset, fsspec files": webdataset(found, opener="fsspec"),
            "webdataset, half": webdataset(found, half=True),
        }
        python = self.arguments.mosaic_python
        why = mosaic_works(python)
        if why is not None:
            print(
                f"MosaicML Streaming is left out: {python} does not run it ({why}); see tools/bench/bucket_mosaic.py."
            )
            return cases
        ahead = {"predownload": found.samples}
        return cases | {
            "Mosaic": mosaic(found, python),
            "Mosaic, 2 workers": mosaic(found, python, workers=2),
            "Mosaic, 8 workers, predownload all": mosaic(found, python, workers=8, options=ahead),
            "Mosaic, half by epoch_size": mosaic(found, python, options={"epoch_size": found.samples // 2}),
        }


def bare_cases(found: Corpus) -> dict[str, Spec]:
    """Return the bare client's cases: full epochs in the memory that ours may use, then as wide as it goes."""
    cases = {f"bare, full, 8 MiB × {number}": bare(found, number, 8 << 20) for number in (8, 32)}
    cases["bare, full, 1 MiB × 64"] = bare(found, 64, 1 << 20)
    cases["bare, full, 256 KiB × 256"] = bare(found, 256, 256 << 10)
    for number in (32, 128, 256):
        cases[f"bare, half × {number}"] = bare(found, number, 8 << 20, half=True)
    return cases


def epochs(session: Session) -> None:
    """Photos: full and half epochs of every reader, and the bare client's bound on both."""
    for found in session.corpora("photos"):
        cases: dict[str, Spec] = {
            "ours, full": ours(found, FULL),
            "ours, half": ours(found, HALF),
            "ours, full, in order": in_order(ours(found, FULL)),
            "ours, half, in order": in_order(ours(found, HALF)),
            "ours, full, second epoch": ours(found, FULL, epochs=[1, 2]),
            "ours, half, second epoch": ours(found, HALF, epochs=[1, 2]),
            "ours, full, s3": over_s3(ours(found, FULL), found),
            "ours, half, s3": over_s3(ours(found, HALF), found),
        }
        for waste in (0.0, 0.2, 1.0):
            cases[f"ours, half, max_waste={waste:g}"] = ours(found, HALF, read={"max_waste": waste})
        for workers in (1, 2):
            cases[f"ours, full, {workers} workers"] = ours(found, FULL, workers=workers)
            cases[f"ours, half, {workers} workers"] = ours(found, HALF, workers=workers)
        results = session.run(f"photos, {found.samples:,} samples", cases | session.peers(found) | bare_cases(found))
        _check_photos(session, results)


def _check_photos(session: Session, results: Results) -> None:
    checks, profile = session.checks, session.profile
    for suffix in ("", ", s3", ", 2 workers"):
        if half := results.get(f"ours, half{suffix}"):
            waste = median(half, lambda r: r.count.shard_bytes / r.watched.told["epochs"][-1]["bytes_needed"])
            checks.at_most(f"photos, {profile}{suffix}: bytes fetched by needed", waste, WASTE)
    for suffix in ("", ", second epoch", ", 2 workers", ", s3"):
        over, under = f"ours, half{suffix}", f"ours, full{suffix}"
        if over in results and under in results and profile in HALF_WALL:
            found = ratio(results, over, under)
            checks.at_most(f"photos, {profile}{suffix}: half epoch by full", found, HALF_WALL[profile])
    for over in ("bare, half × 32", "bare, half × 128", "bare, half × 256"):
        for under in ("bare, full, 8 MiB × 8", "bare, full, 1 MiB × 64", "bare, full, 8 MiB × 32"):
            if over in results and under in results:
                checks.told(f"photos, {profile}: “{over}” by “{under}”", ratio(results, over, under))
    for under in ("ours, full", "ours, full, s3"):
        if profile == "latency" and "webdataset" in results and under in results:
            checks.at_least(f"photos, latency: webdataset by “{under}”", ratio(results, "webdataset", under), 3)


def memory(session: Session) -> None:
    """Anonymous memory of one process, whatever the consumer and the store do."""
    for found in session.corpora("photos", "words"):
        small, slow_s = 16 << 20, 4.0 / found.samples
        cases = {
            "ours, full": ours(found, FULL),
            "ours, half": ours(found, HALF),
            "ours, full, prefetch 16 MiB": ours(found, FULL, read={"prefetch_bytes": small}),
            "ours, full, slow consumer": ours(found, FULL, slow_s=slow_s),
            "ours, half, slow consumer": ours(found, HALF, slow_s=slow_s),
        }
        title = f"memory, {found.name}, {found.samples:,} samples"
        results = dict(session.run(title, cases))
        stalling = {"read": {"patience_s": 60.0}}
        with FaultProxy(session.bucket.url, faults={"stalled": 0.02, "slow": 0.2}, slow_s=1.0) as proxy:
            behind = replace(found, url=proxy.url)
            stalled = {
                "ours, full, stalling store": ours(behind, FULL, **stalling),
                "ours, half, stalling store": ours(behind, HALF, **stalling),
            }
            if found.name == "words":  # tens of thousands of small requests, of which hundreds stall, are no news
                del stalled["ours, half, stalling store"]
            results |= session.run(f"{title}, 2 % of bodies stall", stalled, session.bucket.behind(proxy.url))
        for name, runs in results.items():
            bound = (small if "16 MiB" in name else PREFETCH_BYTES) + MEMORY_BYTES
            peak = max(result.watched.anonymous_bytes for result in runs)
            session.checks.at_most(f"{found.name}, {name}: anonymous MB", peak / 1e6, round(bound / 1e6))


def flight(session: Session) -> None:
    """Requests under way of eight workers together, counted by a proxy that changes nothing."""
    for found in session.corpora("photos", "words"):
        eight: dict[str, Any] = {"workers": 8}
        for name in ("ours, half, 8 workers", "ours, half, 8 workers, s3", "ours, full, 8 workers"):
            with FaultProxy(session.bucket.url) as proxy:
                behind = replace(found, url=proxy.url)
                spec = ours(behind, HALF if "half" in name else FULL, **eight)
                cases = {name: over_s3(spec, behind) if "s3" in name else spec}
                runs = session.run(f"in flight, {found.name}", cases, session.bucket.behind(proxy.url)).get(name)
                if runs:
                    bound = MOST_IN_FLIGHT + METADATA_REQUESTS
                    session.checks.at_most(f"{found.name}, {name}: requests in flight", proxy.in_flight_max, bound)
                    most = max(result.watched.connections for result in runs)
                    session.checks.told(f"{found.name}, {name}: connections at once", most)


def _small(session: Session) -> None:
    from bucket_small import small

    small(session)


SECTIONS: dict[str, Callable[[Any], None]] = {"epochs": epochs, "small": _small, "memory": memory, "flight": flight}
