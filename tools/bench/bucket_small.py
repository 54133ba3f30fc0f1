"""Small samples from a bucket: one by one, in runs, repacked, and through the local cache.

Takes a server under a profile; prints a table for words and captions and notes the checks. Effects: those of the
readers; a repacked copy of each corpus, made once; a cache, filled anew in each call.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

from _common import WORK, warm
from bucket_cases import FULL, HALF, Corpus, Spec, command_of, index_over, ours
from bucket_child import ReaderError, run_reader
from bucket_reader import losses_of
from bucket_results import Result, Results, fetched_bytes, median, ratio

from seta_stream import SetaStream

if TYPE_CHECKING:
    from bucket_sections import Session

RUN_BYTES = 256 << 10
WARM = [1, 2, 3, 4]
"""What is compared where no request is waited for; the first of them imports, and looks at versions."""
SHARE, WALL = 0.55, 0.65
AS_LOCAL = 1.2
CACHE_BYTES = 8 << 30
CACHED = {share: (f"ours, {share}, cached", f"local, {share}") for share in ("full", "half")}
BY_FULL = {
    "ours, half": False,
    "ours, half, max_waste=1": False,
    "ours, half, run_bytes": True,
    "ours, SeTa, run": True,
    "ours, SeTa, sample, repacked": False,
    "ours, SeTa, run, repacked": True,
}
"""Ways of reading half, and whether their bytes and walls by those of a full epoch are to hold."""
# Epoch 0 takes all samples, later ones half of them.
SETA = ("SeTa", {"num_epochs": 11, "target": 5 / 11})


def small(session: Session) -> None:
    """Words and captions: what each way of reading half of them costs, beside the peers."""
    for found in session.corpora("words", "captions"):
        by_window = {"epochs": [0, 1], "record": True}
        cases = {
            "local, full": local(found, FULL, epochs=WARM),
            "local, half": local(found, HALF, epochs=WARM),
            "ours, full": ours(found, FULL),
            "ours, half": ours(found, HALF),
            "ours, half, max_waste=1": ours(found, HALF, read={"max_waste": 1.0}),
            "ours, half, run_bytes": ours(found, HALF, read={"run_bytes": RUN_BYTES}),
            "ours, SeTa, run": by_run(ours(found, SETA, **by_window)),
        }
        try:
            laid = repacked(found)
        except subprocess.CalledProcessError as error:
            session.checks.missing(f"{found.name}: repack", str(error.stderr.strip().splitlines()[-1]))
        else:
            cases["ours, SeTa, sample, repacked"] = ours(laid, SETA, **by_window)
            cases["ours, SeTa, run, repacked"] = by_run(ours(laid, SETA, **by_window))
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            cases |= cached(session, found, folder)
            title = f"{found.name}, {found.samples:,} samples"
            results = session.run(title, cases | session.peers(found))
        _check(session, found.name, results)


def local(corpus: Corpus, policy: tuple[str, dict[str, float]], epochs: list[int]) -> Spec:
    """Return epochs of our stream over the files themselves."""
    return ours(corpus, policy, epochs=epochs) | {"urls": list(corpus.shards), "options": {}}


def by_run(spec: Spec) -> Spec:
    """Return the same with the window decided for runs by their mean loss."""
    return spec | {"options": spec["options"] | {"unit": "run"}, "read": {"run_bytes": RUN_BYTES}}


def repacked(corpus: Corpus) -> Corpus:
    """Return the corpus with samples of similar loss side by side, by the losses that the readers record too."""
    name = f"{corpus.name}-repacked-{corpus.samples}"
    folder, state = WORK / name, WORK / f"{name}-state"
    if not (folder / "done").exists():
        shutil.rmtree(state, ignore_errors=True)
        with SetaStream(list(corpus.shards), state=str(state), policy="seta(num_epochs=11)") as stream:
            stream.set_epoch(0)
            stream.record(*losses_of(stream))
        command = [sys.executable, "-m", "seta_stream.cli", "repack", *corpus.shards]
        command += ["--to", str(folder), "--state", str(state)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (folder / "done").touch()
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    warm(shards)
    laid = replace(corpus, shards=shards)
    index_over(laid)
    return laid


def cached(session: Session, corpus: Corpus, folder: str) -> dict[str, Spec]:
    """Return cases of a cache that is filled as it is read, and of one that was filled before."""
    cache = {"cache_bytes": CACHE_BYTES, "scratch": str(WORK)}
    fill = ours(corpus, FULL, **cache)
    try:
        run_reader(command_of(fill), fill | {"cache_folder": folder}, session.bucket.port)
    except ReaderError as error:
        session.checks.missing(f"{corpus.name}: cache", str(error).strip().splitlines()[-1])
        return {}
    return {
        "ours, full, filling the cache": fill,
        "ours, full, cached": fill | {"cache_folder": folder, "epochs": WARM},
        "ours, half, cached": ours(corpus, HALF, epochs=WARM, **cache) | {"cache_folder": folder},
    }


def _check(session: Session, corpus: str, results: Results) -> None:
    checks, what = session.checks, f"{corpus}, {session.profile}"
    for share in ("full", "half"):
        if cache := results.get(f"ours, {share}, cached"):
            found = max(result.count.shard_bytes for result in cache)
            checks.at_most(f"{what}, {share}, cached: bytes of shards from the bucket", found, 0)
        pair = CACHED[share]
        if pair[0] in results and pair[1] in results:
            found = ratio(results, *pair, seconds=Result.fastest_s)
            _check_wall(session, f"{what}, {share}, cached by local: wall", found, AS_LOCAL)
    for name, is_bound in BY_FULL.items():
        if name not in results or "ours, full" not in results:
            continue
        found = median(results[name], fetched_bytes) / median(results["ours, full"], fetched_bytes)
        if is_bound:
            checks.at_most(f"{what}, {name[6:]}: bytes by full", found, SHARE)
        else:
            checks.told(f"{what}, {name[6:]}: bytes by full", found)
        bound = WALL if is_bound and session.profile == "limited" else None
        _check_wall(session, f"{what}, {name[6:]}: wall by full", ratio(results, name, "ours, full"), bound)


def _check_wall(session: Session, what: str, found: float, bound: float | None) -> None:
    """Note a ratio of two walls; under a profile without clocks it bounds nothing."""
    if bound is None or not session.is_timed:
        session.checks.told(what, found)
    else:
        session.checks.at_most(what, found, bound)
