"""Train on the samples that still teach, and pay, in bytes, decodes and steps, only for those.

urls → Corpus → LossTable → Histogram → Policy → Rule → Selection → EpochPlan → fetch → decode → samples, and back by
record(ids, losses): shards and offsets; one loss per sample; what to keep, as steps over the loss axis; a mask and a
weight per sample; who reads what, when; spans of bytes; values. Each room imports only those before it.
"""

from seta_stream.errors import SetaStreamError, SetaStreamWarning
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
    Rule,
    SelectiveBackprop,
    SeTa,
    StaticRandom,
)
from seta_stream.read.curriculum import EfficientTrain
from seta_stream.read.options import Cache, Reading
from seta_stream.stats import Stats
from seta_stream.stream import SetaStream

__all__ = [
    "BLS",
    "RS2",
    "UCB",
    "Cache",
    "DynamicRandom",
    "EfficientTrain",
    "EpsilonGreedy",
    "Full",
    "InfoBatch",
    "InfoBatchQuantile",
    "Kakurenbo",
    "LossProportional",
    "OrderDP",
    "PerGroup",
    "RePB",
    "Reading",
    "Rule",
    "SeTa",
    "SelectiveBackprop",
    "SetaStream",
    "SetaStreamError",
    "SetaStreamWarning",
    "StaticRandom",
    "Stats",
]
