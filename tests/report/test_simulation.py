"""What policies would have read: figures that can be checked by hand or by law."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from seta_stream.errors import ArgumentError, MissingExtraError, PolicyError, StateError
from seta_stream.policies import (
    RS2,
    DynamicRandom,
    Full,
    InfoBatch,
    Kakurenbo,
    PerGroup,
    Rule,
    SeTa,
    StaticRandom,
    as_policy,
)
from seta_stream.report.comparison import draw_simulation
from seta_stream.report.losscurves import LossCurve, synthetic_curves
from seta_stream.report.prices import STORES, Price
from seta_stream.report.readcosts import CorpusShape, ReadModel
from seta_stream.report.simulation import Scenario, nominal_saved, simulate

BUCKET = ReadModel(0.05, 8 << 20, None, 32 << 20, 256)
SAMPLES = 40_000


def steps(*losses):
    """Return the curve of so many samples with these losses, rank by rank."""
    edges = np.array([*losses, losses[-1]], np.float64)
    return LossCurve(np.linspace(0, 1, len(edges)), edges, np.zeros(len(losses)))


def scenario(epochs, *, curves=None, samples=SAMPLES, correlation=0.9, price=STORES["none"], **options):
    return Scenario(
        corpus=CorpusShape.synthetic(samples, 10_000, 4096.0),
        curves=synthetic_curves("exponential", epochs) if curves is None else curves,
        epochs=epochs,
        correlation=correlation,
        model=BUCKET,
        price=price,
        **options,
    )


def run(policy, epochs=10, **options):
    """Return the figures of one policy."""
    return simulate(scenario(epochs, **options), [("it", policy)]).policies[0]


def margin(share, samples=SAMPLES):
    """Return four standard deviations of a share."""
    return 4 * np.sqrt(share * (1 - share) / samples)


def test_full_saves_nothing():
    """It covers all in epoch 0, nothing is ever stale, and it costs what reading everything does."""
    found = simulate(scenario(4, price=Price(1.0, 1.0, "x")), [("full", Full())])
    full = found.policies[0]
    assert (full.saved, full.nominal_saved, full.staleness, full.oldest) == (0.0, 0.0, 0.0, 0)
    assert [one.unique_share for one in full.epochs] == [1.0] * 4
    for name in ("bytes", "requests", "money"):
        assert found.saved_of(full, name) == 0
        assert full.total(name) == found.whole_of(full, name) > 0
    assert full.total("bytes") == pytest.approx(4 * SAMPLES * 4096)


def test_dynamic_random_follows_the_geometric_law():
    """After epoch e the share 1 − q^(e+1) was seen, and age k has the probability p·q^k among the samples seen."""
    q = 0.5
    for one in run(DynamicRandom(q)).epochs:
        power = q ** (one.epoch + 1)
        assert one.share == pytest.approx(0.5, abs=margin(0.5))
        assert one.unique_share == pytest.approx(1 - power, abs=margin(power) + 1e-12)
        stale = q / (1 - q) - (one.epoch + 1) * power / (1 - power)
        assert one.staleness == pytest.approx(stale, abs=4 * np.sqrt(2 / SAMPLES))
        assert one.oldest == one.epoch


def test_static_random_never_sees_more():
    """The same half in every epoch, and never stale."""
    found = run(StaticRandom(0.5))
    assert {one.unique_share for one in found.epochs} == {found.epochs[0].share}
    assert found.unique_share == pytest.approx(0.5, abs=margin(0.5))
    assert (found.staleness, found.oldest) == (0.0, 0)


def test_turns_cover_everything_in_two_epochs():
    """RS2 at a half: each sample every other epoch, so half of them waited one."""
    found = run(RS2(0.5))
    assert [one.unique_share for one in found.epochs[1:]] == [1.0] * 9
    assert found.epochs[5].staleness == pytest.approx(0.5, abs=margin(0.5))
    assert found.oldest == 1


@pytest.mark.parametrize("shape", ["exponential", "lognormal", "gamma", "late"])
@pytest.mark.parametrize("epochs", [5, 20])
def test_a_target_is_held(shape, epochs):
    """SeTa saves the half that was asked for within one point, on every shape."""
    found = run(SeTa(epochs, target=0.5), epochs, curves=synthetic_curves(shape, epochs))
    assert found.nominal_saved == 0.5
    assert found.saved == pytest.approx(0.5, abs=0.01)


def test_what_is_saved_differs_from_what_is_promised():
    """InfoBatch at a half saves half of those below the mean: of exponential losses 0.5 · (1 − 1/e) in an epoch."""
    found = run(InfoBatch(1000), 3, correlation=1.0)
    assert found.nominal_saved == 0.5
    assert [one.share for one in found.epochs[:2]] == [1.0, pytest.approx(1 - 0.5 * (1 - np.exp(-1)), abs=0.01)]


def test_only_what_is_selected_gets_a_new_loss():
    """Four samples by hand: the easier two of epoch 1 are seen again, the others keep the loss of epoch 0."""
    met = []

    def policy(histogram, epoch):
        met.append(histogram.values().tolist())
        return Rule([], [1.0]) if epoch == 0 else Rule([2.5], [1.0, 0.0])

    curves = (steps(1, 2, 3, 4), steps(10, 20, 30, 40), steps(7, 8, 9, 10))
    found = run(as_policy(policy), 3, curves=curves, samples=4, correlation=1.0)
    assert met == [[], [1, 2, 3, 4], [3, 4, 10, 20]]
    # Nothing lies below 2.5 in epoch 2, where the run would end.
    assert [one.share for one in found.epochs] == [1.0, 0.5]
    assert [(one.staleness, one.oldest) for one in found.epochs] == [(0.0, 0), (0.5, 1)]
    assert found.stopped == "epoch 2: selects nothing"


def test_the_last_recorded_losses_hold():
    """Epochs beyond them, and losses from before epoch 0, which epoch 0 decides by."""
    met = []

    def policy(histogram, epoch):
        met.append(histogram.values().tolist())
        return Rule([], [1.0])

    run(as_policy(policy), 4, curves=(steps(1, 2), steps(3, 4)), samples=2, correlation=1.0, warm=steps(8, 9))
    assert met == [[8, 9], [1, 2], [3, 4], [3, 4]]


def test_a_policy_that_fails_stops_alone():
    """The others come to the end, and the figures of what it did stay."""

    def policy(_, epoch):
        if epoch == 2:
            raise PolicyError("no more")
        return Rule([], [1.0])

    found = simulate(scenario(4), [("bad", as_policy(policy)), ("good", Full())])
    bad, good = found.policies
    assert (bad.stopped, len(bad.epochs), good.stopped, len(good.epochs)) == ("epoch 2: no more", 2, None, 4)
    assert found.saved_of(bad, "bytes") == 0


def test_policies_meet_the_same_losses():
    """A policy's figures do not depend on which others are simulated beside it."""
    alone = run(SeTa(5, target=0.5), 5)
    beside = simulate(scenario(5), [("a", DynamicRandom(0.3)), ("it", SeTa(5, target=0.5))]).policies[1]
    assert alone == beside


def test_progress_is_told():
    """Once per epoch and policy, and for reading everything."""
    told = []
    simulate(scenario(3), [("a", Full()), ("b", Full())], progress=lambda: told.append(1))
    assert len(told) == 9


def test_groups_and_columns_are_simulated():
    """Groups by shard, and a policy that remembers flags, of which none are set: it hides its 30 %."""
    found = simulate(scenario(3), [("a", PerGroup(InfoBatch(3), by="shard")), ("b", Kakurenbo(90))])
    assert [one.stopped for one in found.policies] == [None, None]
    assert found.policies[1].epochs[1].share == pytest.approx(0.7, abs=0.01)


def test_groups_by_key_cannot_be_simulated():
    """A history knows no keys."""
    with pytest.raises(PolicyError, match="within groups by='folder' cannot be simulated: a history knows no keys"):
        run(PerGroup(InfoBatch(3), by="folder"))


@pytest.mark.parametrize(
    ("policy", "epochs", "nominal"),
    [
        (Full(), 5, 0.0),
        (DynamicRandom(0.3), 5, 0.3),
        (SeTa(90, target=0.4), 5, 0.4),
        (SeTa(90, prune_ratio=0.2), 5, None),
        (InfoBatch(90, prune_ratio=0.6), 5, 0.6),
        (as_policy(lambda *_: Rule([], [1.0])), 5, None),
    ],
)
def test_nominal_shares(policy, epochs, nominal):
    """What settings promise: a target, shares fixed ahead, or the prune_ratio of the papers; no promise of windows."""
    assert nominal_saved(policy, epochs) == pytest.approx(nominal)


@pytest.mark.parametrize("wrong", [{"curves": ()}, {"epochs": 0}, {"simulated": 0}])
def test_an_empty_scenario_is_refused(wrong):
    """No losses, no epochs, no samples."""
    options = {"epochs": 2, "curves": synthetic_curves("gamma", 2), **wrong}
    with pytest.raises(ArgumentError, match="There is nothing to simulate: "):
        scenario(**options)


def test_figures_are_scaled_up_to_the_corpus():
    """A tenth of the samples tells the same shares, bytes and requests of the whole within 2 %."""
    whole = run(DynamicRandom(0.5), 3, samples=400_000, simulated=400_000)
    part = run(DynamicRandom(0.5), 3, samples=400_000, simulated=40_000)
    for name in ("bytes", "requests"):
        assert part.total(name) == pytest.approx(whole.total(name), rel=0.02)
    assert part.saved == pytest.approx(whole.saved, abs=0.01)


def test_plain_values_hold_everything():
    """Through JSON and back: totals, and every epoch."""
    found = simulate(scenario(3, price=STORES["gcs"]), [("half", DynamicRandom(0.5))])
    plain = json.loads(json.dumps(found.to_plain()))
    assert (plain["samples"], plain["simulated"], plain["shards"], plain["epochs"]) == (SAMPLES, SAMPLES, 4, 3)
    half = plain["policies"][0]
    assert half["settings"] == {"name": "DynamicRandom", "prune_ratio": 0.5}
    assert half["totals"]["money_saved"] == found.saved_of(found.policies[0], "money")
    assert [one["epoch"] for one in half["epochs"]] == [0, 1, 2]
    assert sum(one["bytes"] for one in half["epochs"]) == half["totals"]["bytes"]
    assert plain["full"]["totals"]["saved"] == 0.0


def test_money_by_hand():
    """Two GB of 2^30 bytes and 5,000 requests, at 10 cents and at 4 cents a thousand."""
    assert Price(0.1, 0.04, "x").of(2 << 30, 5000) == pytest.approx(0.2 + 0.2)
    assert STORES["s3"].of(1 << 40, 1_000_000) == pytest.approx(1024 * 0.09 + 0.4)
    assert bool(STORES["azure"])
    assert not STORES["none"]


@pytest.mark.parametrize("name", ["per_gb", "per_1000_requests"])
def test_a_negative_price_is_refused(name):
    """Naming it."""
    with pytest.raises(ArgumentError, match=f"A price {name}=-1 cannot be: give dollars, 0 or more"):
        Price(**{"per_gb": 0, "per_1000_requests": 0, name: -1, "source": "x"})


@pytest.mark.parametrize("price", ["s3", "none"])
@pytest.mark.parametrize("epochs", [1, 12])
def test_any_simulation_can_be_drawn(tmp_path, price, epochs):
    """One epoch or many, with money or without, one of the policies stopped, labels too long."""
    stops = as_policy(lambda _, epoch: Rule([], [float(epoch < 3)], unseen_keep=float(epoch < 3)))
    policies = [("x" * 90, DynamicRandom(0.5)), ("stops", stops), *((str(at), Full()) for at in range(9))]
    draw_simulation(simulate(scenario(epochs, samples=2000, price=STORES[price]), policies), tmp_path / "it.png")
    data = (tmp_path / "it.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000


def test_nothing_to_draw_is_told(tmp_path):
    """Where no policy came through an epoch."""
    nothing = as_policy(lambda *_: Rule([], [0.0], unseen_keep=0.0))
    with pytest.raises(StateError, match="no policy came through an epoch"):
        draw_simulation(simulate(scenario(1), [("nothing", nothing)]), tmp_path / "it.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    """It is an optional package."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'seta-stream\[plot\]'"):
        draw_simulation(simulate(scenario(1), [("full", Full())]), tmp_path / "it.png")
