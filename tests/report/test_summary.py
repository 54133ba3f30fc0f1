"""What a state holds, as numbers and as a picture."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from seta_stream.errors import MissingExtraError, StateError
from seta_stream.losses.history import Judged, history_line
from seta_stream.losses.table import LossTable
from seta_stream.policies import Rule, SeTa, describe
from seta_stream.report.picture import draw_history
from seta_stream.report.summary import epoch_shares, lineage_lines, summarise


def filled():
    table = LossTable([4, 4])
    table.record([0, 1, 2, 3], [1.0, 1.0, 2.0, 5.0])
    table.advance()
    table.record([4, 5], [2.0, 9.0])
    return table


def line(epoch, name, parent, rule=None, facts=None):
    return history_line(name, epoch, parent, Judged(filled().histogram(), rule), facts or {})


def test_a_summary_by_hand():
    """Eight samples, six of them seen, four distinct losses."""
    rule = Rule([2.0], [0.0, 0.5], unseen_keep=0.25)
    history = [
        line(0, "a", None, rule, {"selected": 8, "total": 8}),
        line(1, "x", "a", rule),  # a way not taken
        line(1, "b", "a", rule),
    ]
    found = summarise(filled(), history, generation="b", epoch=1, rule=rule, num_group=4, unmatched_shards=1)
    assert (found.samples, found.shards, found.seen, found.unmatched_shards) == (8, 2, 6, 1)
    assert found.ages == ((0, 2), (1, 4))
    assert found.quantiles[0] == (0.0, 1.0)
    assert found.quantiles[-1] == (1.0, 9.0)
    assert [(group.centre, group.samples, group.next_keep) for group in found.groups] == [
        (1.0, 2, 0.0),
        (2.0, 2, 0.5),
        (5.0, 1, 0.5),
        (9.0, 1, 0.5),
    ]
    assert found.groups[1].share == 0.25
    # 4 of the seen by half, 2 unseen by a quarter
    assert found.next_share == pytest.approx(2.5 / 8)
    assert [(one.epoch, one.generation, one.share) for one in found.epochs] == [(0, "a", 1.0), (1, "b", 2.5 / 8)]
    assert found.saved_share == pytest.approx(1 - (1 + 2.5 / 8) / 2)
    assert found.to_plain()["groups"][0]["centre"] == 1.0


def test_a_group_that_is_cut_keeps_its_mean_share():
    """Half of the two losses 1 and 2 in one group, by a cut between them."""
    table = LossTable([4])
    table.record(range(4), [1.0, 2.0, 50.0, 50.0])
    found = summarise(table, [], generation="a", epoch=0, rule=Rule([2.0], [0.0, 1.0]), num_group=2)
    assert [group.next_keep for group in found.groups] == [0.5, 1.0]


def test_nothing_seen_is_summarised_too():
    """No groups, no quantiles, no rule."""
    found = summarise(LossTable([3]), [], generation="a", epoch=0, rule=None)
    assert (found.seen, found.groups, found.quantiles, found.ages, found.mean_loss) == (0, (), (), (), None)
    assert (found.next_share, found.saved_share, found.epochs) == (None, None, ())


@pytest.mark.parametrize(
    "damage",
    [
        {"samples": None, "seen": "many", "mean": "low", "histogram": None, "rule": 3, "facts": None, "groups": None},
        {"samples": 10**400, "facts": {"selected": 10**400, "total": 3}},
        {"groups": {"a": [1, 2, 3], "": [5, 1], "b": ["x", 1]}, "expected_share": "half"},
        {"facts": {"selected": "3", "total": 0}},
    ],
)
def test_lines_of_another_release_are_summarised_too(damage):
    """What they do not tell, or tell in another way, is not known; what is no line of a run is left out."""
    good = line(0, "a", None)
    lines = [
        {"generation": None, "epoch": 0},
        {},
        {**good, **damage},
        {**line(1, "b", "a"), "epoch": 10**30},
        line(1, "b", "a"),
    ]
    table = LossTable([4])
    table.record(range(4), [1.0, 2.0, 50.0, 50.0])
    found = summarise(table, lines, generation="b", epoch=1, rule=None)
    assert [one.epoch for one in found.epochs] == [0, 1]
    json.dumps(found.to_plain(), allow_nan=False)
    assert summarise(table, [{**good, **damage}], generation="a", epoch=0, rule=None).next_share in {None, 1.0}


def test_a_lineage_leaves_out_the_ways_not_taken():
    """From the last line back, or from a generation that is named."""
    history = [line(0, "a", None), line(1, "b", "a"), line(2, "c", "b"), line(1, "d", "a")]
    assert [one["generation"] for one in lineage_lines(history)] == ["a", "d"]
    assert [one["generation"] for one in lineage_lines(history, "c")] == ["a", "b", "c"]
    assert lineage_lines([]) == []


def test_shares_are_counted_or_else_expected():
    """Facts come first; the rule before tells the rest."""
    rule = Rule([], [0.5], unseen_keep=0.5)
    lines = [line(0, "a", None, rule), line(1, "b", "a", rule), line(2, "c", "b", rule, {"selected": 6})]
    assert epoch_shares(lines) == [None, 0.5, 0.75]


def run_of(epochs, scale):
    policy, table, history, parent = SeTa(epochs, target=0.5 if epochs > 2 else None), LossTable([3000]), [], None
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        table.record(np.arange(3000), scale(rng.gamma(2, 1, 3000)) * (0.5 + 0.5 * np.exp(-epoch / 5)))
        rule = policy.rule(table.histogram(), epoch + 1)
        facts = {"policy": describe(policy)} if epoch % 2 else {}
        history.append(history_line(str(epoch), epoch, parent, Judged(table.histogram(), rule), facts))
        parent = str(epoch)
    return history


@pytest.mark.parametrize(
    ("epochs", "scale"),
    [(1, lambda x: x), (3, lambda x: x * 0 + 2.5), (4, lambda x: x - 5), (20, lambda x: x**6)],
    ids=["one", "all equal", "negative", "many, over decades"],
)
def test_any_run_can_be_drawn(tmp_path, epochs, scale):
    """One epoch, equal losses, negative losses, and losses over decades."""
    draw_history(run_of(epochs, scale), tmp_path / "run.png")
    data = (tmp_path / "run.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000


def test_a_line_without_a_rule_is_drawn(tmp_path):
    """As losses that were scored ahead have."""
    draw_history([line(-1, "a", None)], tmp_path / "run.png")
    assert (tmp_path / "run.png").exists()


def test_nothing_to_draw_is_told(tmp_path):
    """No committed epoch, or none with losses."""
    unseen = history_line("a", 0, None, Judged(LossTable([2]).histogram(), None), {})
    for history in ([], [unseen]):
        with pytest.raises(StateError, match="the history holds no losses yet"):
            draw_history(history, tmp_path / "run.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    """It is an optional package."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'seta-stream\[plot\]'"):
        draw_history([line(0, "a", None)], tmp_path / "run.png")
