"""Runs in a simulation: requests by the real plan, and the settings of the run that is replayed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from seta_stream import DynamicRandom, Reading, SeTa, SetaStream
from seta_stream.cli import main
from seta_stream.policies.runs import EACH, Runs
from seta_stream.report.losscurves import Population, synthetic_curves
from seta_stream.report.prices import STORES
from seta_stream.report.readcosts import PROBE_SAMPLES, CorpusShape, ReadModel
from seta_stream.report.simulation import Scenario, simulate

EPOCHS = 8
LENGTH = 64


def scenario(**options):
    given = {"correlation": 0.9, "samples": 40_000} | options
    return Scenario(
        corpus=CorpusShape.synthetic(given.pop("samples"), 4000, 3000.0),
        curves=synthetic_curves("exponential", EPOCHS),
        epochs=EPOCHS,
        model=ReadModel(0.05, 8 << 20, None, 32 << 20, 256),
        price=STORES["none"],
        **given,
    )


def figures(policy, **options):
    return simulate(scenario(**options), [("it", policy)]).policies[0]


def test_a_draw_for_runs_takes_the_samples_of_a_draw_for_each_in_fewer_requests():
    """A random half in runs of 64: as many samples and bytes within the draws' deviation, a thirtieth of requests."""
    each = figures(DynamicRandom(0.5))
    runs = figures(DynamicRandom(0.5), runs=Runs("sample", 1, LENGTH))
    assert runs.total("requests") < each.total("requests") / 30
    deviation = np.sqrt(0.25 * LENGTH / (EPOCHS * 40_000))
    assert runs.saved == pytest.approx(each.saved, abs=5 * deviation)
    assert runs.total("bytes") < 1.02 * each.total("bytes")


def test_a_window_needs_decisions_for_runs():
    """SeTa's window picks samples one by one, whatever is drawn together; judged by runs it reads whole ones."""
    policy = SeTa(EPOCHS, target=0.5)
    each, draws, runs = (figures(policy, runs=how) for how in (EACH, Runs("sample", 1, LENGTH), Runs("run", 1, LENGTH)))
    assert draws.total("requests") > 0.3 * each.total("requests")
    assert runs.total("requests") < each.total("requests") / 30
    assert runs.saved == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("correlation", [0.7, 0.9])
def test_repacked_shards_hold_the_losses_in_order(correlation):
    """Those of before epoch 0; a later epoch's follow them with the correlation, whole shards staying a random part."""
    asked = scenario(correlation=correlation, repacked=True)
    sketch = asked.sketch()
    assert sketch.total <= PROBE_SAMPLES < scenario().sketch().total
    population = Population(sketch.total, correlation, 0)
    losses = asked.losses(population, sketch)
    before, later = losses(asked.curves[0], -1), losses(asked.curves[5], 5)
    assert sorted(before) == sorted(population.losses(asked.curves[0], -1))
    ranks = []
    for begin, stop in zip(sketch.first_id[:-1].tolist(), sketch.first_id[1:].tolist(), strict=True):
        assert (np.diff(before[begin:stop]) >= 0).all()
        places = np.argsort(np.argsort(later[begin:stop]))
        ranks.append(np.corrcoef(np.arange(stop - begin), places)[0, 1])
    assert np.mean(ranks) == pytest.approx(correlation, abs=0.03)
    unrepacked = scenario(correlation=correlation).losses(population, sketch)
    assert np.array_equal(unrepacked(asked.curves[5], 5), population.losses(asked.curves[5], 5))


def test_repacking_makes_runs_longer():
    """Neighbours are alike, so windows take stretches of runs: fewer requests than runs of a random order."""
    policy = SeTa(EPOCHS, target=0.5)
    shuffled, repacked = (figures(policy, runs=Runs("run", 1, 16), repacked=way) for way in (False, True))
    assert repacked.total("requests") < 0.8 * shuffled.total("requests")


def simulated(*arguments):
    done = CliRunner().invoke(main, ["simulate", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_settings_of_the_run_are_replayed(make_corpus, tmp_path):
    """A run that decided for runs is simulated so: shares and requests as it counted them; options ask otherwise."""
    urls, state = make_corpus(8, 500, length=2000), str(tmp_path / "s")
    counted = []
    options = {"policy": SeTa(4, target=0.5), "unit": "run", "read": Reading(run_bytes=20 * 4096), "batch_size": 16}
    with SetaStream(urls, state=state, **options) as stream:
        difficulty = np.exp(np.random.default_rng(0).standard_normal(stream.stats.total))
        for epoch in range(4):
            stream.set_epoch(epoch)
            ids = np.array([sample["__index__"] for sample in stream])
            stream.record(ids, difficulty[ids])
            counted.append(stream.stats)
    found = simulated(state)
    told = f"Decided in runs of {stream.session.memory.runs.length} neighbouring samples, judged by their mean."
    assert told in found["assumptions"]
    own = found["policies"][0]
    assert [one["share"] for one in own["epochs"]] == pytest.approx([one.share_kept for one in counted], abs=0.07)
    assert own["totals"]["requests"] == pytest.approx(sum(one.requests for one in counted), rel=0.15)
    each = simulated(state, "--unit", "sample", "--run-bytes", 0)
    assert not any("runs of" in one for one in each["assumptions"])
    assert each["policies"][0]["totals"]["requests"] > 3 * own["totals"]["requests"]
    drawn = simulated(state, "--unit", "sample", "--run-bytes", 4096 * 5)
    assert any("each judged by itself, by one draw" in one for one in drawn["assumptions"])


def test_repacking_is_told(tmp_path):
    """With how many samples stand for the corpus."""
    small = ("--synthetic", "exponential", "--samples", 4000, "--samples-per-shard", 500, "--epochs", 4)
    found = simulated(*small, "--repacked", "--unit", "run", "--sample-bytes", 3000)
    told = [one for one in found["assumptions"] if "as seta-stream repack puts them" in one]
    assert len(told) == 1
    assert "4,000 samples are simulated" in told[0]
    assert "Decided in runs of 87 neighbouring samples" in " ".join(found["assumptions"])
