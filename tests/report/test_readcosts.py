"""Bytes and requests of a simulation, held against streams that really read."""

from __future__ import annotations

import fsspec
import numpy as np
import pytest
from small_corpora import text_members, write_tar

from seta_stream import DynamicRandom, Full, SetaStream
from seta_stream.cli.scenario import Options, task_of
from seta_stream.corpus.indexing import open_corpus
from seta_stream.errors import ArgumentError
from seta_stream.report import readcosts
from seta_stream.report.losscurves import synthetic_curves
from seta_stream.report.prices import STORES
from seta_stream.report.readcosts import CorpusShape, ReadCosts, ReadModel
from seta_stream.report.simulation import Scenario, simulate

BUCKET = ReadModel(0.05, 8 << 20, None, 32 << 20, 256)


def shape_of(urls, index=None):
    table = open_corpus(urls, index=index).table
    return CorpusShape(table.samples, table.extent_bytes, table.sizes, table.seekable)


def model_of(*, reading):
    """Return the model that the command uses."""
    left_out = ("state", "samples_per_shard", "epochs", "correlation", "price_per_gb", "price_per_1000_requests")
    options = Options(
        **dict.fromkeys(left_out), synthetic="gamma", samples=10, sample_bytes=100.0, policy=("full",), simulated=10,
        seed=0, store="none", reading=reading, max_waste=0.05, batch_size=16,
    )  # fmt: skip
    return task_of(options).scenario.model


def simulated(shape, model, policy):
    scenario = Scenario(shape, synthetic_curves("gamma", 2), 2, 0.9, model, STORES["none"])
    return simulate(scenario, [("policy", policy)]).policies[0].epochs


def really_read(urls, policy):
    found = []
    with SetaStream(urls, policy=policy, batch_size=16) as stream:
        for epoch in range(2):
            stream.set_epoch(epoch)
            assert sum(1 for _ in stream) == len(stream)
            found.append(stream.stats)
    return found


@pytest.mark.parametrize("length", [60, 3000, 40_000], ids=["captions", "words", "photos"])
@pytest.mark.parametrize("policy", [Full(), DynamicRandom(0.5)], ids=repr)
def test_local_reading_costs_what_a_stream_says(make_corpus, length, policy):
    """The same selection by the same draws; bytes within 1.5 % and requests within 2 % of a real stream's."""
    urls = make_corpus(4, 800 if length < 10_000 else 150, length=length)
    real = really_read(urls, policy)
    for told, stats in zip(simulated(shape_of(urls), model_of(reading="local"), policy), real, strict=True):
        assert told.share == stats.selected / stats.total
        part = stats.samples / stats.selected  # the real stream leaves out what fills no step
        # Of photos the bytes between members are estimated; of what is read in spans only the sizes are.
        assert told.bytes * part == pytest.approx(stats.bytes_fetched, rel=0.015 if length > 10_000 else 0.002)
        assert told.requests * part == pytest.approx(stats.requests, rel=0.02)


@pytest.mark.parametrize("length", [60, 3000])
@pytest.mark.parametrize("policy", [Full(), DynamicRandom(0.5)], ids=repr)
def test_reading_a_bucket_costs_what_a_stream_says(tmp_path, length, policy):
    """Likewise, with spans merged under the waste budget."""
    memory = fsspec.filesystem("memory")
    urls = [f"memory://readcosts-{length}/{number}.tar" for number in range(4)]
    for number, url in enumerate(urls):
        memory.pipe(url, write_tar(tmp_path / "x.tar", text_members(number * 800, 800, length=length)).read_bytes())
    real = really_read(urls, policy)
    for told, stats in zip(simulated(shape_of(urls), model_of(reading="bucket"), policy), real, strict=True):
        part = stats.samples / stats.selected
        assert told.bytes * part == pytest.approx(stats.bytes_fetched, rel=0.01)
        assert told.requests * part == pytest.approx(stats.requests, rel=0.03)


def test_samples_of_many_sizes_cost_nearly_the_same(tmp_path):
    """Each counts the mean size of its shard: bytes within 2 % and requests within 10 % for lognormal sizes."""
    rng = np.random.default_rng(0)
    urls = []
    for shard in range(4):
        sizes = rng.lognormal(7.5, 0.5, 800).astype(int)
        members = [(f"{shard}{at:06d}.bin", bytes(size)) for at, size in enumerate(sizes.tolist())]
        urls.append(str(write_tar(tmp_path / f"{shard}.tar", members)))
    policy = DynamicRandom(0.5)
    real = really_read(urls, policy)
    for told, stats in zip(simulated(shape_of(urls), model_of(reading="local"), policy), real, strict=True):
        part = stats.samples / stats.selected
        assert told.bytes * part == pytest.approx(stats.bytes_fetched, rel=0.02)
        assert told.requests * part == pytest.approx(stats.requests, rel=0.1)


@pytest.mark.parametrize("sample_bytes", [2048, 4096, 100_000])
@pytest.mark.parametrize("keep", [0.3, 0.5, 1.0])
def test_the_probe_stands_for_the_whole(monkeypatch, sample_bytes, keep):
    """A plan of 32,768 of 160,000 samples tells bytes within 1 % and requests within 5 % of the whole plan."""
    corpus = CorpusShape.synthetic(160_000, 10_000, sample_bytes)
    sketch = corpus.sketch(1 << 30)
    mask = np.random.default_rng(0).random(sketch.total) < keep
    probed = ReadCosts(corpus, sketch, BUCKET, 0).of(mask, 1)
    monkeypatch.setattr(readcosts, "PROBE_SAMPLES", 1 << 30)
    whole = ReadCosts(corpus, sketch, BUCKET, 0).of(mask, 1)
    assert probed.bytes == pytest.approx(whole.bytes, rel=0.01)
    assert probed.requests == pytest.approx(whole.requests, rel=0.05)


def test_a_sketch_is_cut_evenly_from_the_corpus():
    """Whole shards where they fit, at least as many as there are lanes, empty ones apart."""
    corpus = CorpusShape.even([0, *[1000] * 100], 100.0)
    sketch = corpus.sketch(20_000)
    assert (sketch.total, len(sketch.shards), sketch.samples.tolist()) == (20_000, 20, [1000] * 20)
    assert (sketch.shards[0], sketch.shards[-1]) == (1, 100)
    assert np.diff(sketch.shards).max() <= 6
    assert CorpusShape.even([10**9] * 20, 100.0).sketch(80_000).samples.tolist() == [10_000] * 8
    assert CorpusShape.even([5, 7], 100.0).sketch(80_000).samples.tolist() == [5, 7]


def test_a_synthetic_corpus_has_its_samples():
    """The last shard holds the rest."""
    corpus = CorpusShape.synthetic(25_000, 10_000, 100.0)
    assert corpus.samples.tolist() == [10_000, 10_000, 5000]
    assert (corpus.total, corpus.mean_bytes) == (25_000, 100.0)


def test_a_corpus_without_samples_is_refused():
    """There is nothing to simulate in it."""
    with pytest.raises(ArgumentError, match="nothing to simulate: the corpus has no samples"):
        CorpusShape.even([0, 0], 100.0).sketch(100)


def test_compressed_shards_are_read_whole():
    """Every byte of them in every epoch, whatever is selected; the others by range."""
    samples = np.array([1000, 1000], np.int64)
    corpus = CorpusShape(samples, samples * 4096, np.array([4_096_000, 1_000_000]), np.array([True, False]))
    sketch = corpus.sketch(10_000)
    full = ReadCosts(corpus, sketch, BUCKET, 0).of(np.ones(2000, np.bool_), 0)
    assert full.bytes == 4_096_000 + 1_000_000
    half = ReadCosts(corpus, sketch, BUCKET, 0).of(np.arange(2000) % 2 == 0, 0)
    assert half.bytes == pytest.approx(4_096_000 / 2 / 0.95 + 1_000_000, rel=0.01)
    nothing_by_range = CorpusShape(samples, samples * 4096, samples * 1000, np.zeros(2, np.bool_))
    told = ReadCosts(nothing_by_range, nothing_by_range.sketch(9000), BUCKET, 0).of(np.arange(2000) < 10, 0)
    assert (told.bytes, told.requests) == (2_000_000, 2)


def test_large_local_members_are_counted_one_by_one():
    """As many requests per sample as told, and the bytes of the members: without their headers, or as measured."""
    corpus = CorpusShape.even([100] * 8, 50_000.0)
    mask = np.arange(800) % 2 == 0
    model = ReadModel(0.05, 256 << 10, 4096, 32 << 20, 16, late_bytes=32 << 10)
    told = ReadCosts(corpus, corpus.sketch(800), model, 0).of(mask, 0)
    assert (told.bytes, told.requests) == (400 * (50_000 - 2 * 768), 800)
    measured = ReadModel(0.05, 256 << 10, 4096, 32 << 20, 16, late_bytes=32 << 10, late_members=3.0, late_share=0.9)
    told = ReadCosts(corpus, corpus.sketch(800), measured, 0).of(mask, 0)
    assert (told.bytes, told.requests) == (pytest.approx(400 * 45_000), 1200)


def test_a_selection_outside_the_probe_counts_a_request_each(monkeypatch):
    """Where the probe holds none of it, there is nothing to merge."""
    monkeypatch.setattr(readcosts, "PROBE_SAMPLES", 800)
    corpus = CorpusShape.even([1000] * 8, 4096.0)
    told = ReadCosts(corpus, corpus.sketch(8000), BUCKET, 0).of(np.arange(8000) % 1000 >= 990, 0)
    assert (told.bytes, told.requests) == (pytest.approx(80 * 4096), pytest.approx(80))
