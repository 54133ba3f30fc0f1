"""The bucket benchmarks run from end to end at toy size, against nginx, and say what fails."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
OWN = ("_common", "bucket", "bucket_cases", "bucket_child", "bucket_reader", "bucket_results", "bucket_sections",
       "bucket_server", "bucket_small")  # fmt: skip


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, with corpora of a few samples in a folder of their own; gone afterwards."""
    monkeypatch.setenv("SETA_BENCH_FOLDER", str(tmp_path))
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    for name in OWN:
        sys.modules.pop(name, None)
    modules = {name: importlib.import_module(name) for name in OWN}
    monkeypatch.setitem(modules["_common"].CORPORA, "photos", (64, 16))
    monkeypatch.setitem(modules["_common"].CORPORA, "words", (600, 200))
    monkeypatch.setattr(modules["bucket_cases"], "BATCH", 8)
    yield modules
    for name in OWN:
        sys.modules.pop(name, None)


def run(bench: dict[str, ModuleType], corpus: str, section: str, *cases: str) -> int:
    fixed = ["--profile", "plain", "--runs", "1", "--corpus", corpus, "--section", section]
    code: int = bench["bucket"].main([*fixed, "--mosaic-python", "/no/such/python", "--case", *cases])
    return code


def test_readers_are_measured(bench: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    """Ours, webdataset and the bare client read the same photos, and each has its line."""
    code = run(bench, "photos", "epochs", "half, s3", "half, 2 workers", "webdataset, half", "bare, half × 32")
    out = capsys.readouterr().out
    assert code == 0, out
    for reader in ("ours, half, s3", "ours, half, 2 workers", "webdataset, half", "bare, half × 32"):
        assert f"│ {reader} " in out
    for suffix in (", s3", ", 2 workers"):
        assert f"photos, plain{suffix}: bytes fetched by needed" in out
    assert "FAIL" not in out


def test_mosaic_is_left_out_aloud(bench: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    """Without an interpreter that has MosaicML Streaming, the reason and the way out are printed."""
    assert bench["bucket_cases"].mosaic_works("/no/such/python") == (
        "[Errno 2] No such file or directory: '/no/such/python'"
    )
    assert "No module named 'streaming'" in bench["bucket_cases"].mosaic_works(sys.executable)
    run(bench, "photos", "epochs", "bare, half × 32")
    out = capsys.readouterr().out
    assert "MosaicML Streaming is left out: /no/such/python does not run it" in out
    assert "tools/bench/bucket_mosaic.py" in out


def test_small_samples_repacked_and_from_the_cache(
    bench: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """Words are repacked and read, and come from a filled cache without a byte of a shard from the server."""
    code = run(bench, "words", "small", "ours, full", "half, cached", "sample, repacked")
    out = capsys.readouterr().out
    assert code == 0, out
    assert "words, plain, half, cached: bytes of shards from the bucket" in out
    assert "│ ours, half, cached " in out
    assert "SeTa, sample, repacked: bytes by full" in out


def test_memory_and_connections(bench: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    """Anonymous memory and connections are watched while a reader runs."""
    assert run(bench, "photos", "memory", "full, slow consumer") == 0
    out = capsys.readouterr().out
    found = next(line for line in out.splitlines() if "photos, ours, full, slow consumer: anonymous MB" in line)
    assert 10 < float(found.split("│")[2]) < 217
    assert "PASS" in found


def test_a_reader_that_fails_is_a_failure(
    bench: dict[str, ModuleType], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A reader's error is noted with its last line, fails the call, and leaves no row behind."""
    results, server = bench["bucket_results"], bench["bucket_server"]
    checks = results.Checks()
    with server.serving(tmp_path, server.PROFILES["plain"]) as bucket:
        spec = {"reader": "ours", "urls": [f"{bucket.url}/none.tar"], "policy": ["Full", {}], "batch": 8}
        assert results.run_cases({"broken": spec}, bucket, 2, checks) == {}
    assert checks.failed == 1
    assert checks.rows[0][0] == "broken"
    assert "none.tar" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "found", "bound", "verdict"),
    [
        ("at_most", 0.8, 0.8, "PASS"),
        ("at_most", 0.81, 0.8, "FAIL"),
        ("at_least", 3.0, 3, "PASS"),
        ("at_least", 2.9, 3, "FAIL"),
    ],
)
def test_checks_judge(bench: dict[str, ModuleType], method: str, found: float, bound: float, verdict: str) -> None:
    """A bound is met or missed, and what is missed counts."""
    checks = bench["bucket_results"].Checks()
    getattr(checks, method)("a figure", found, bound)
    assert checks.rows[0][-1] == verdict
    assert checks.failed == (verdict == "FAIL")


def test_the_server_has_the_last_word(bench: dict[str, ModuleType]) -> None:
    """Bytes that a stream does not tell of are a failure; those of a store that made it try again are not."""
    results, server = bench["bucket_results"], bench["bucket_server"]
    spec = {"reader": "ours", "urls": ["http://127.0.0.1/x.tar"]}
    count = server.Count(requests=2, bytes=30, shard_requests=2, shard_bytes=30)
    for told, retries, failed in ((30, 0, 0), (20, 0, 1), (20, 3, 0)):
        epochs = [{"bytes_fetched": told, "retries": retries}]
        result = results.Result(bench["bucket_child"].Watched({"epochs": epochs}), count)
        checks = results.Checks()
        results._agree("ours", spec, result, checks)
        assert checks.failed == failed
