"""Policies: from the histogram of the losses to the rule of an epoch, and from the rule to masks. Pure."""

from seta_stream.policies.full import Full
from seta_stream.policies.greedy import UCB, EpsilonGreedy
from seta_stream.policies.importance import LossProportional, SelectiveBackprop
from seta_stream.policies.infobatch import InfoBatch, InfoBatchQuantile
from seta_stream.policies.kakurenbo import Kakurenbo
from seta_stream.policies.kmeans import Groups, kmeans
from seta_stream.policies.names import policy_from
from seta_stream.policies.orderdp import OrderDP
from seta_stream.policies.per_group import PerGroup
from seta_stream.policies.policy import Policy, as_policy, describe
from seta_stream.policies.random import RS2, DynamicRandom, StaticRandom
from seta_stream.policies.repb import RePB
from seta_stream.policies.rule import Rule, select
from seta_stream.policies.seta import SeTa
from seta_stream.policies.smoothing import BLS

__all__ = [
    "BLS",
    "RS2",
    "UCB",
    "DynamicRandom",
    "EpsilonGreedy",
    "Full",
    "Groups",
    "InfoBatch",
    "InfoBatchQuantile",
    "Kakurenbo",
    "LossProportional",
    "OrderDP",
    "PerGroup",
    "Policy",
    "RePB",
    "Rule",
    "SeTa",
    "SelectiveBackprop",
    "StaticRandom",
    "as_policy",
    "describe",
    "kmeans",
    "policy_from",
    "select",
]
