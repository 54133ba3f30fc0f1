"""Policies by name and by config."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seta_stream.errors import PolicyError
from seta_stream.policies import (
    BLS,
    RS2,
    UCB,
    DynamicRandom,
    EpsilonGreedy,
    Full,
    InfoBatch,
    InfoBatchQuantile,
    Kakurenbo,
    LossProportional,
    OrderDP,
    PerGroup,
    RePB,
    SelectiveBackprop,
    SeTa,
    StaticRandom,
    as_policy,
    describe,
    policy_from,
)
from seta_stream.policies.names import POLICIES

RATIOS = st.floats(0, 0.9)
EPOCHS = st.integers(1, 400)
SMOOTH = st.one_of(st.none(), st.builds(BLS, alpha=st.floats(0, 0.99)))
PLAIN = {
    Full: st.builds(Full),
    StaticRandom: st.builds(StaticRandom, prune_ratio=RATIOS),
    DynamicRandom: st.builds(DynamicRandom, prune_ratio=RATIOS),
    RS2: st.builds(RS2, prune_ratio=RATIOS),
    EpsilonGreedy: st.builds(EpsilonGreedy, prune_ratio=RATIOS, epsilon=RATIOS, smooth=SMOOTH),
    UCB: st.builds(UCB, prune_ratio=RATIOS, c=st.floats(0, 9), smooth=SMOOTH),
    InfoBatch: st.builds(InfoBatch, num_epochs=EPOCHS, prune_ratio=RATIOS, smooth=SMOOTH),
    InfoBatchQuantile: st.builds(InfoBatchQuantile.at, num_epochs=EPOCHS, prune_ratio=RATIOS, smooth=SMOOTH),
    SeTa: st.one_of(
        st.builds(SeTa, num_epochs=EPOCHS, prune_ratio=st.one_of(st.none(), RATIOS), window_scale=st.integers(1, 5)),
        st.builds(SeTa, num_epochs=st.integers(10, 99), target=st.floats(0, 0.5), warm=st.booleans()),
        st.builds(SeTa.as_published_code, num_epochs=EPOCHS),
    ),
    Kakurenbo: st.one_of(
        st.builds(Kakurenbo, num_epochs=EPOCHS, fraction=RATIOS, smooth=SMOOTH),
        st.just(Kakurenbo(9, stages=(1, 0.5), stage_epochs=(0, 4))),
    ),
    SelectiveBackprop: st.builds(SelectiveBackprop, beta=st.floats(0, 9), smooth=SMOOTH),
    LossProportional: st.builds(LossProportional, prune_ratio=RATIOS, smooth=SMOOTH),
    OrderDP: st.builds(OrderDP, random_len_ratio=st.floats(0.1, 1), smooth=SMOOTH),
    RePB: st.builds(RePB, prune_ratio=RATIOS, max_weight=st.one_of(st.none(), st.floats(1, 9))),
}
EVERY = {
    **PLAIN,
    PerGroup: st.builds(
        PerGroup, st.one_of(*PLAIN.values()), st.sampled_from(["folder", "shard", "fields", "recorded"]), RATIOS
    ),
}


def test_every_policy_has_a_name():
    """And a strategy in this test."""
    assert set(POLICIES) == set(EVERY)


@pytest.mark.parametrize("kind", POLICIES)
@given(st.data())
def test_what_a_policy_is_described_as_makes_it_again(kind, data):
    """Directly, through JSON and through msgpack, and written as text."""
    policy = data.draw(EVERY[kind])
    told = describe(policy)
    assert policy_from(told) == policy
    assert policy_from(json.loads(json.dumps(told))) == policy
    assert policy_from(msgpack.unpackb(msgpack.packb(told))) == policy
    assert policy_from(repr(policy)) == policy


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("full", Full()),
        (" Full ( ) ", Full()),
        ("UCB", UCB()),
        ("selective-backprop", SelectiveBackprop()),
        ("Selective_Backprop(beta=2)", SelectiveBackprop(2)),
        ("info batch quantile(num_epochs=9)", InfoBatchQuantile(9)),
        ("seta(num_epochs=90, target=0.5)", SeTa(90, target=0.5)),
        ("seta(num_epochs=90,\n  warm=True, target=.5)", SeTa(90, target=0.5, warm=True)),
        ("infobatch(num_epochs=9, smooth=BLS(alpha=0.5))", InfoBatch(9, smooth=BLS(0.5))),
        ("infobatch(num_epochs=9, smooth=bls)", InfoBatch(9, smooth=BLS())),
        ("infobatch(num_epochs=9, smooth=None)", InfoBatch(9)),
        ("kakurenbo(num_epochs=9, stages=[1, .5], stage_epochs=(0, 3))", Kakurenbo(9, 0.3, (1, 0.5), (0, 3))),
        ("per-group(policy=ucb, by='folder')", PerGroup(UCB(), "folder")),
        ("PerGroup(policy=infobatch(num_epochs=9), by='shard', floor=.1)", PerGroup(InfoBatch(9), "shard", 0.1)),
        ({"name": "rs2", "prune_ratio": 0.5}, RS2(0.5)),
        ({"name": "PerGroup", "policy": {"name": "UCB"}, "by": "folder"}, PerGroup(UCB(), "folder")),
        ({"name": "UCB", "smooth": {"name": "BLS", "alpha": 0.5}}, UCB(smooth=BLS(0.5))),
        ({"name": "UCB", "smooth": BLS(0.5)}, UCB(smooth=BLS(0.5))),
    ],
)
def test_names_and_configs(spec, policy):
    """Case, dashes and underscores do not matter; parts are named alike."""
    assert policy_from(spec) == policy
    assert as_policy(spec) == policy


def test_defaults_are_filled_in_where_they_are_taken():
    """The caller's number of epochs and ratio, also inside PerGroup; what is told stays, and so does a target."""
    assert policy_from("infobatch", num_epochs=90) == InfoBatch(90)
    assert policy_from("infobatch", num_epochs=90, prune_ratio=0.3) == InfoBatch(90, 0.3)
    assert policy_from("infobatch(num_epochs=5)", num_epochs=90) == InfoBatch(5)
    assert policy_from("full", num_epochs=90, prune_ratio=0.3) == Full()
    assert policy_from("seta(target=0.5)", num_epochs=90, prune_ratio=0.3) == SeTa(90, target=0.5)
    assert policy_from("seta", num_epochs=90, prune_ratio=0.3) == SeTa(90, prune_ratio=0.3)
    assert policy_from("pergroup(policy=infobatch, by='shard')", num_epochs=7) == PerGroup(InfoBatch(7), "shard")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("infobach", r"no policy called 'infobach': did you mean InfoBatch\? There are DynamicRandom, EpsilonGreedy"),
        ("frobnicate", r"no policy called 'frobnicate'\. There are "),
        ("BLS", r"no policy called 'BLS'\. "),
        ({"num_epochs": 9}, "no policy called None"),
        (
            "infobatch",
            r"InfoBatch needs num_epochs: write InfoBatch\(num_epochs=…\)\. InfoBatch takes num_epochs, prune",
        ),
        ("pergroup", "PerGroup needs policy and by: "),
        ("infobatch(num_epoch=9)", r"has no setting 'num_epoch': did you mean num_epochs\? InfoBatch takes num_epochs"),
        ("full(xyz=9)", r"Full has no setting 'xyz'\. Full takes no settings"),
        ("ucb(smooth=frob)", r"no policy called 'frob'\. There are BLS, "),
        ("ucb(smooth=BLS(beta=1))", r"BLS has no setting 'beta'\. BLS takes alpha"),
        ("ucb(smooth=full)", r"smooth=Full\(\): give BLS"),
        ("ucb(0.5)", r"Cannot read the policy 'ucb\(0.5\)': 0.5 has no name\. Write it as"),
        ("ucb(**{'c': 1})", "Cannot read the policy .* cannot be a setting, or comes twice"),
        ("ucb(c=1, c=2)", "Cannot read the policy .*c=2 cannot be a setting, or comes twice|keyword argument repeated"),
        ("ucb(name='full')", "name='full' cannot be a setting"),
        ("ucb(c=1+1)", "Cannot read the policy"),
        ("ucb(c=__import__('os').getpid())", "Cannot read the policy"),
        ("ucb(c=__import__(x=1))", "no policy called '__import__'"),
        ("ucb(c=[x for x in y])", "Cannot read the policy"),
        ("ucb(c=1)(c=2)", r"Cannot read the policy .* is not one list of settings"),
        ("ucb(c=1) + full()", r"Cannot read the policy .* is not one list of settings"),
        ("ucb(c=", r"Cannot read the policy 'ucb\(c='\. Write it as"),
        ("ucb(c=)", "Cannot read the policy .*(invalid syntax|expected argument value)"),  # Python 3.13 says the latter
        ("ucb(c='\0')", "Cannot read the policy"),
        ("", r"Cannot read the policy ''\. "),
        ("seta.rule", r"Cannot read the policy 'seta\.rule'"),
        (f"ucb(c={'[' * 5000}{']' * 5000})", "Cannot read the policy"),
        (7, "Cannot make a policy from 7: give its name or a mapping"),
        ({"name": "UCB", "c": "1"}, "c='1': give a finite number"),
    ],
)
def test_what_cannot_be_read_says_what_can(spec, told):
    """Names, settings and syntax."""
    with pytest.raises(PolicyError, match=told):
        policy_from(spec)


def test_smoothing_is_the_last_setting_of_those_that_take_it():
    """So that it may be left out of positional calls."""
    for kind in set(POLICIES) - {SeTa}:
        names = [one.name for one in fields(kind)]
        assert "smooth" not in names or names[-1] == "smooth"
        assert all(one.default is not MISSING for one in fields(kind) if one.name == "smooth")
