"""What a policy is, and how a callable, a name or a config becomes one.

Takes callables, frozen values, texts and mappings; gives policies, and their settings as plain values. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from inspect import ismethod
from typing import Any, Protocol, runtime_checkable

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule


@runtime_checkable
class Policy(Protocol):
    """Decides, from the histogram of the losses, what an epoch keeps. A small frozen value.

    Besides `rule` a policy may have any of these; `seta_stream.policies.deciding` fills in what is left out:

    - `expected_share(epoch) -> float | None`: the share of samples that an epoch keeps in expectation; None (or no
      such method) where it depends on the losses;
    - `needs_losses`: False where it does not look at them;
    - `columns`: tuple of `Column`, what it wants remembered of each sample beside the loss;
    - `score(values) -> float32 [n]`: the number by which samples are judged; the histogram is of it;
    - `weight(values, epoch) -> float32 [n] | None`: multiplies the rule's weight of a kept sample;
    - `smooth`: a `BLS`, whose moving average then stands for the loss;
    - `group`: a `Grouping`, together with `rules(histograms, epoch) -> GroupRules`;
    - `num_epochs`: the length of the run.
    """

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return the rule for an epoch, counted from 0."""
        ...


RuleOf = Callable[[Histogram, int], Rule]


@dataclass(frozen=True)
class CallablePolicy:
    """A callable as a policy.

    Args:
        function: (histogram, epoch) -> Rule.
    """

    function: RuleOf

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return what the callable gives."""
        return self.function(histogram, epoch)


def as_policy(given: Policy | RuleOf | str | Mapping[str, Any] | Any) -> Policy:
    """Return the policy that was meant.

    Args:
        given: a policy, which is anything with `rule(histogram, epoch)`; a callable of that shape; a text as
            "infobatch(num_epochs=90)"; or a mapping as {"name": "InfoBatch", "num_epochs": 90}.

    Raises:
        PolicyError: it is none of them.
    """
    if isinstance(given, (str, Mapping)):
        from seta_stream.policies.names import policy_from  # noqa: PLC0415  (names knows all policies, and they this)

        return policy_from(given)
    if isinstance(given, type):
        raise PolicyError(f"{given.__name__} is a class: give a policy made from it, as {given.__name__}(…).")
    if isinstance(given, Policy):
        return given
    if not callable(given):
        raise PolicyError(
            f"{given!r} is no policy: give Full(), SeTa(…), another policy, its name, or a callable "
            "(histogram, epoch) -> Rule.",
            found=type(given).__name__,
        )
    return CallablePolicy(given)


def rule_of(policy: Policy, histogram: Histogram, epoch: int) -> Rule:
    """Return the policy's rule for an epoch.

    Raises:
        PolicyError: it returned something else.
    """
    rule: Any = policy.rule(histogram, epoch)
    if not isinstance(rule, Rule):
        raise PolicyError(
            f"The policy {describe(policy)['name']} returned a {type(rule).__name__} for epoch {epoch}: a policy "
            "returns a seta_stream.policies.Rule(edges, keep, …).",
            expected="Rule",
            found=type(rule).__name__,
        )
    return rule


def expected_share_of(policy: Policy, epoch: int) -> float | None:
    """Return the share of samples that an epoch keeps in expectation; None where it depends on the losses."""
    expected = getattr(policy, "expected_share", None)
    share: float | None = None if expected is None else expected(epoch)
    return share


def describe(policy: Policy) -> dict[str, Any]:
    """Return the policy's name and settings as plain values: what a checkpoint compares and the history keeps."""
    if isinstance(policy, CallablePolicy):
        return {"name": _name(policy.function)}
    described: dict[str, Any] = _plain(policy) if is_dataclass(policy) else {"name": type(policy).__name__}
    return described


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        settings = {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
        return {"name": type(value).__name__, **settings}
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return _name(value) if callable(value) else value


def _name(function: Callable[..., Any]) -> str:
    if ismethod(function):
        return type(function.__self__).__qualname__
    return getattr(function, "__qualname__", type(function).__qualname__)
