"""SeTa: groups, windows, annealing, targets, and the published code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies import Rule, SeTa

NAN = float("nan")
# Five distinct losses are five groups: 10, 20, 30, 40 and 50 samples, 150 in all.
FIVE = Histogram.of(np.repeat(np.array([1, 2, 3, 4, 5], np.float32), [10, 20, 30, 40, 50]))
FIVE_AND_UNSEEN = FIVE + Histogram.of(np.full(50, NAN, np.float32))
NOTHING_SEEN = Histogram.of(np.full(9, NAN, np.float32))


def keeps(rule: Rule, values=(1, 2, 3, 4, 5)):
    """The keep probability of each group."""
    return [round(float(keep), 9) for keep in rule.keep[np.searchsorted(rule.edges, values, side="right")]]


@pytest.mark.parametrize(
    ("epoch", "taken"),
    [
        (0, [1, 1, 1, 1, 1]),
        (1, [0, 1, 1, 1, 0]),
        (2, [0, 0, 1, 1, 1]),
        (3, [1, 1, 1, 0, 0]),
        (4, [0, 1, 1, 1, 0]),
        (5, [0, 0, 1, 1, 1]),
        (6, [1, 1, 1, 0, 0]),
        (7, [1, 1, 1, 1, 1]),
        (50, [1, 1, 1, 1, 1]),
    ],
)
def test_windows_slide_from_easy_to_hard(epoch, taken):
    """ceil(0.6 * 5) = 3 groups, 3 places; after delta * 8 = 7 epochs everything; each taken with 1 - 0.25."""
    rule = SeTa(8, prune_ratio=0.25, num_group=5, window_scale=0.6).rule(FIVE, epoch)
    assert keeps(rule) == [0.75 * one for one in taken]
    assert rule.unseen_keep == 0.75
    assert rule.draw == "epoch"
    assert set(rule.weight.tolist()) == {1.0}


@pytest.mark.parametrize(
    ("scale", "num_group", "width"),
    [(0.6, 5, 3), (0.9, 5, 5), (0.5, 5, 3), (0.2, 5, 1), (0.01, 5, 1), (1.0, 5, 5), (2, 5, 2), (5, 5, 5), (0.3, 10, 3)],
)
def test_the_window_is_a_ceiling_of_groups_or_their_number(scale, num_group, width):
    """0.3 * 10 is 3, not the 4 that binary fractions would make of it."""
    assert len(SeTa(9, num_group=num_group, window_scale=scale).window(num_group, 1)) == width


@pytest.mark.parametrize(
    ("num_epochs", "delta", "first"), [(90, 0.875, 78), (10, 0.9, 9), (8, 1.0, 8), (8, 0.0, 0), (10, 0.7, 7)]
)
def test_annealing_begins_when_the_share_of_epochs_is_over(num_epochs, delta, first):
    """The first epoch n with n + 1 > delta * num_epochs."""
    policy = SeTa(num_epochs, delta=delta, warm=True)
    windowed = [len(policy.rule(FIVE, epoch).edges) > 0 for epoch in range(num_epochs)]
    assert windowed == [epoch < first for epoch in range(num_epochs)]


def test_fewer_losses_than_groups():
    """Two distinct losses are two groups: a window of ceil(0.6 * 2) = 2, and an int window as many as there are."""
    two = Histogram.of(np.array([1, 1, 2], np.float32))
    assert keeps(SeTa(8).rule(two, 1), [1, 2]) == [0.9, 0.9]
    assert keeps(SeTa(8, window_scale=1).rule(two, 1), [1, 2]) == [0.0, 0.9]
    assert keeps(SeTa(8, window_scale=1).rule(two, 2), [1, 2]) == [0.9, 0.0]
    assert keeps(SeTa(8, window_scale=4).rule(two, 2), [1, 2]) == [0.9, 0.9]


@pytest.mark.parametrize("policy", [SeTa(8), SeTa(8, target=0.3), SeTa.as_published_code(8)])
def test_without_any_loss_everything_is_taken_alike(policy):
    """Nothing recorded yet, in any epoch."""
    for epoch in (0, 1, 7):
        rule = policy.rule(NOTHING_SEEN, epoch)
        assert rule.unseen_keep in {0.9, 1.0}
        assert rule.is_loss_free


def test_a_warm_table_is_windowed_from_epoch_0():
    """The window of epoch 0 is the easiest one."""
    assert keeps(SeTa(8, warm=True).rule(FIVE, 0)) == [0.9, 0.9, 0.9, 0, 0]


@pytest.mark.parametrize(
    ("target", "epoch", "wanted"),
    [
        # 8 epochs: each later one saves target * 8/7
        (0.35, 0, [1, 1, 1, 1, 1]),
        # keeps 0.6 * 150 = 90 = the window's 20 + 30 + 40
        (0.35, 1, [0, 1, 1, 1, 0]),
        # the window holds 120
        (0.35, 2, [0, 0, 0.75, 0.75, 0.75]),
        # the window holds 60, its nearest group 40, of which 30 are needed
        (0.35, 3, [1, 1, 1, 0.75, 0]),
        # annealing saves as much
        (0.35, 7, [0.6, 0.6, 0.6, 0.6, 0.6]),
        # keeps 0.8 * 150 = 120: window 90, then of the two nearest the easier first: 10, then 20 of 50
        (0.175, 1, [1, 1, 1, 1, 0.4]),
        (0.0, 5, [1, 1, 1, 1, 1]),
    ],
)
def test_a_target_by_hand(target, epoch, wanted):
    """The window is never thinned to make room; what it lacks comes from its nearest groups."""
    rule = SeTa(8, target=target).rule(FIVE, epoch)
    assert keeps(rule) == pytest.approx(wanted)
    assert rule.unseen_keep == 1.0


def test_unseen_samples_count_first():
    """Of 200 samples 50 are unseen; 0.6 * 200 = 120 are wanted, 70 of them seen."""
    rule = SeTa(8, target=0.35).rule(FIVE_AND_UNSEEN, 1)
    assert keeps(rule) == pytest.approx([0, 70 / 90, 70 / 90, 70 / 90, 0])
    assert rule.expected_kept(FIVE_AND_UNSEEN) == pytest.approx(120)
    annealed = SeTa(8, target=0.35).rule(FIVE_AND_UNSEEN, 7)
    assert keeps(annealed) == pytest.approx([70 / 150] * 5)
    few_seen = FIVE + Histogram.of(np.full(1000, NAN, np.float32))
    assert keeps(SeTa(8, target=0.8).rule(few_seen, 1)) == [0] * 5


def test_a_warm_target_saves_the_same_in_every_epoch():
    """Epoch 0 included."""
    policy = SeTa(8, target=0.5, warm=True)
    shares = [policy.rule(FIVE, epoch).expected_kept(FIVE) / FIVE.total for epoch in range(8)]
    assert shares == pytest.approx([0.5] * 8)
    assert [policy.expected_share(epoch) for epoch in range(8)] == shares


@st.composite
def histograms(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    shape = draw(st.sampled_from(["gamma", "lognormal", "few", "late"]))
    n = draw(st.integers(1, 3000))
    losses = {
        "gamma": rng.gamma(2, 1, n),
        "lognormal": rng.lognormal(0, 2, n),
        "few": rng.integers(0, 4, n).astype(float),
        "late": np.where(rng.random(n) < 0.6, 0.01, rng.exponential(size=n)),
    }[shape]
    losses[rng.random(n) < draw(st.sampled_from([0.0, 0.1, 0.5]))] = NAN
    return Histogram.of(losses.astype(np.float32))


SCALES = st.sampled_from(["loss", "log", "rank"])


@given(
    histograms(),
    st.floats(0, 0.8),
    st.integers(4, 12),
    st.integers(1, 9),
    st.floats(0.05, 1),
    st.integers(0, 12),
    SCALES,
)
@settings(max_examples=120, deadline=None)
def test_the_share_kept_is_the_target_where_that_can_be(histogram, target, num_epochs, num_group, scale, epoch, groups):
    """Exactly, in expectation, unless more than that is unseen; and the run saves the target."""
    least = 0.0001
    if 1 - target * num_epochs / (num_epochs - 1) < least:
        return
    settings_ = {"num_group": num_group, "window_scale": scale, "min_share": least, "group_scale": groups}
    policy = SeTa(num_epochs, target=target, **settings_)
    kept = policy.rule(histogram, epoch).expected_kept(histogram) / histogram.total
    wanted = 1.0 if epoch == 0 else 1 - target * num_epochs / (num_epochs - 1)
    assert kept == pytest.approx(max(wanted, histogram.unseen / histogram.total), abs=1e-6)
    assert policy.expected_share(epoch) == pytest.approx(wanted)
    saved = sum(1 - policy.expected_share(one) for one in range(num_epochs)) / num_epochs
    assert saved == pytest.approx(target)


@given(histograms(), st.integers(1, 9), st.floats(0.05, 1), st.floats(0.05, 0.8))
@settings(max_examples=60, deadline=None)
def test_a_target_never_keeps_others_before_the_window_is_whole(histogram, num_group, scale, target):
    """And thins at most one part: the window, or the last group that fills up."""
    policy = SeTa(20, target=target, num_group=num_group, window_scale=scale, min_share=0.01, warm=True)
    groups = policy.groups(histogram)
    if not len(groups):
        return
    rule = policy.rule(histogram, 3)
    kept = rule.keep[np.searchsorted(rule.edges, groups.centres.astype(np.float32), side="right")]
    window = policy.window(len(groups), 3)
    outside = [kept[group] for group in range(len(groups)) if group not in window]
    assert len({kept[group] for group in window}) == 1
    if any(outside):
        assert kept[window.start] == 1
    assert sum(0 < keep < 1 for keep in outside) <= 1


@pytest.mark.parametrize(
    ("group_scale", "counts"),
    [("loss", [970, 10, 10, 10]), ("log", [320, 330, 320, 30]), ("rank", [250, 250, 250, 250])],
)
def test_groups_by_loss_by_its_logarithm_or_by_rank(group_scale, counts):
    """Three clusters of small losses and a few large ones, in four groups: only by loss are the clusters one group."""
    small = [np.linspace(c, 1.1 * c, n) for c, n in ((0.01, 320), (0.1, 330), (1, 320))]
    histogram = Histogram.of(np.concatenate([*small, np.repeat([300, 600, 900], 10)]).astype(np.float32))
    groups = SeTa(8, num_group=4, group_scale=group_scale).groups(histogram)
    assert groups.counts.tolist() == pytest.approx(counts, abs=4)


def test_the_published_code_groups_by_loss():
    """Whatever the default is."""
    assert SeTa.as_published_code(8).group_scale == "loss"


def test_groups_are_found_once_per_histogram():
    """Planning asks for many epochs' rules with one histogram; another histogram has groups of its own."""
    policy = SeTa(8)
    assert policy.groups(FIVE) is policy.groups(FIVE)
    assert policy.groups(FIVE_AND_UNSEEN) is not policy.groups(FIVE)
    assert len(SeTa(8, num_group=2).groups(FIVE)) == 2


@pytest.mark.parametrize(
    ("num_group", "scale", "width"), [(5, 0.9, 4), (10, 0.5, 5), (10, 0.25, 2), (10, 0.35, 4), (5, 0.5, 2), (5, 0.3, 2)]
)
def test_the_published_window_rounds_half_to_even(num_group, scale, width):
    """5 * 0.9 = 4.5 gives 4; the paper's formula gives 5, no window at all."""
    assert len(SeTa.as_published_code(9, num_group=num_group, window_scale=scale).window(num_group, 1)) == width


@pytest.mark.parametrize(
    ("prune_ratio", "epoch", "wanted", "unseen"),
    [
        (0.0, 0, [1, 1, 1, 1, 1], 1),
        # window 2 of 5, 4 places; unseen losses are 3.0
        (0.0, 1, [0, 1, 1, 0, 0], 1),
        (0.0, 2, [0, 0, 1, 1, 0], 1),
        (0.0, 3, [0, 0, 0, 1, 1], 0),
        (0.0, 4, [1, 1, 0, 0, 0], 0),
        (0.3, 4, [0.7, 0.7, 0, 0, 0], 0),
        (0.95, 0, [0.1, 0.1, 0.1, 0.1, 0.1], 0.1),
        (0.0, 7, [1, 1, 1, 1, 1], 1),
    ],
)
def test_the_published_code_by_hand(prune_ratio, epoch, wanted, unseen):
    """First all groups, then from group 1 on; keep never below a tenth; unseen samples go with the loss 3.0."""
    policy = SeTa.as_published_code(8, prune_ratio, num_group=5, window_scale=0.5)
    rule = policy.rule(FIVE_AND_UNSEEN, epoch)
    assert keeps(rule) == pytest.approx(wanted)
    assert rule.unseen_keep == pytest.approx(unseen)


def test_published_groups_count_the_unseen_at_three():
    """Two losses and many unseen: three groups, of which the unseen are the middle one."""
    histogram = Histogram.of(np.array([1, 5] + [NAN] * 8, np.float32))
    rule = SeTa.as_published_code(20, num_group=3, window_scale=1 / 3).rule(histogram, 1)
    assert keeps(rule, [1, 3, 5]) == [0, 1, 0]
    assert rule.unseen_keep == 1


def test_published_windows_never_vanish():
    """One distinct loss where five groups were asked for: round(0.4) is 0, and the one group is taken."""
    one = Histogram.of(np.array([2, 2], np.float32))
    assert keeps(SeTa.as_published_code(20, num_group=5, window_scale=0.4).rule(one, 1), [2]) == [1]


def test_the_share_to_come_is_known_where_losses_do_not_matter():
    """Everything but windows."""
    policy = SeTa(8, prune_ratio=0.25)
    assert [policy.expected_share(epoch) for epoch in (0, 1, 6, 7)] == [0.75, None, None, 0.75]


@pytest.mark.parametrize(
    ("settings_", "told"),
    [
        ({"num_epochs": 0}, "num_epochs=0: give a whole number"),
        ({"num_epochs": 2.5}, "num_epochs=2.5"),
        ({"num_epochs": True}, "num_epochs=True"),
        ({"num_group": 0}, "num_group=0"),
        ({"prune_ratio": 1.0}, "prune_ratio=1.0: give the share of samples to leave out"),
        ({"prune_ratio": -0.1}, "prune_ratio=-0.1"),
        ({"prune_ratio": "half"}, "prune_ratio='half'"),
        ({"window_scale": 0.0}, "window_scale=0.0: give a float in"),
        ({"window_scale": 1.5}, "window_scale=1.5"),
        ({"window_scale": 6}, "an int from 1 to num_group=5"),
        ({"window_scale": True}, "window_scale=True"),
        ({"window_scale": NAN}, "window_scale=nan"),
        ({"delta": 1.1}, r"delta=1.1: give a number in \[0, 1\]"),
        ({"group_scale": "linear"}, "group_scale='linear': choose one of 'loss', 'log', 'rank'"),
        ({"min_share": 0.0}, r"min_share=0.0: give a number in \(0, 1\]"),
        ({"target": 1.0}, "target=1.0: give the share"),
        ({"target": NAN}, "target=nan"),
        ({"target": 0.5, "prune_ratio": 0.1}, "target=0.5 says how much the run saves, and so does prune_ratio=0.1"),
        ({"target": 0.5, "published": True}, "and so does prune_ratio"),
        (
            {"target": 0.5, "num_epochs": 2},
            "cannot be saved in 2 epochs: .* warm=True.* keep 0 of the samples",
        ),
        ({"target": 0.5, "num_epochs": 1}, "cannot be saved in 1 epochs: .*and there is no other"),
        ({"target": 0.5, "min_share": 0.5}, "min_share=0.5 is the least. Lower target or min_share"),
        ({"target": 0.96, "warm": True}, "target=0.96 cannot be saved"),
        ({"published": True, "num_group": 5, "window_scale": 0.1}, "rounds to no group at all"),
        ({"published": True, "prune_ratio": 2}, "prune_ratio=2"),
    ],
)
def test_impossible_settings_are_refused(settings_, told):
    """When the policy is made, with what to change."""
    with pytest.raises(PolicyError, match=told):
        SeTa(**{"num_epochs": 90} | settings_)


@pytest.mark.parametrize(
    "possible", [{"num_epochs": 3}, {"num_epochs": 1, "warm": True}, {"num_epochs": 2, "warm": True}]
)
def test_a_target_of_a_half_needs_three_epochs_or_a_warm_table(possible):
    """As the design says."""
    assert SeTa(**possible, target=0.5).expected_share(1) is not None
    assert SeTa(1, target=0.0).rule(FIVE, 3).keep.tolist() == [1.0]


def test_there_is_no_negative_epoch():
    """Epochs count from 0."""
    with pytest.raises(PolicyError, match="SeTa has no rule for epoch -1"):
        SeTa(8).rule(FIVE, -1)
