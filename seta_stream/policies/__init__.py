"""Policies: from the histogram of the losses to the rule of an epoch, and from the rule to masks. Pure."""

from seta_stream.policies.full import Full
from seta_stream.policies.kmeans import Groups, kmeans
from seta_stream.policies.policy import Policy, as_policy, describe
from seta_stream.policies.random import DynamicRandom, StaticRandom
from seta_stream.policies.rule import Rule, select
from seta_stream.policies.seta import SeTa

__all__ = [
    "DynamicRandom",
    "Full",
    "Groups",
    "Policy",
    "Rule",
    "SeTa",
    "StaticRandom",
    "as_policy",
    "describe",
    "kmeans",
    "select",
]
