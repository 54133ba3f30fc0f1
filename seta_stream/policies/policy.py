"""What a policy is, and how a bare callable becomes one.

Takes callables and frozen values; gives policies, and their settings as plain values. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from inspect import ismethod
from typing import Any, Protocol, runtime_checkable

from seta_stream.errors import PolicyError
from seta_stream.losses.histogram import Histogram
from seta_stream.policies.rule import Rule


@runtime_checkable
class Policy(Protocol):
    """Decides, from the histogram of the losses, what an epoch keeps. A small frozen value."""

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return the rule for an epoch, counted from 0."""
        ...

    def expected_share(self, epoch: int) -> float | None:
        """Return the share of samples that an epoch keeps in expectation; None where it depends on the losses."""
        ...


RuleOf = Callable[[Histogram, int], Rule]


@dataclass(frozen=True)
class CallablePolicy:
    """A callable, or an object that has only `rule`, as a policy.

    Args:
        function: (histogram, epoch) -> Rule.
    """

    function: RuleOf

    def rule(self, histogram: Histogram, epoch: int) -> Rule:
        """Return what the callable gives.

        Raises:
            PolicyError: it is not a Rule.
        """
        rule = self.function(histogram, epoch)
        if not isinstance(rule, Rule):
            raise PolicyError(
                f"The policy {_name(self.function)} returned a {type(rule).__name__} for epoch {epoch}: a policy "
                "returns a seta_stream.policies.Rule(edges, keep, …).",
                expected="Rule",
                found=type(rule).__name__,
            )
        return rule

    def expected_share(self, epoch: int) -> float | None:  # noqa: ARG002  (the protocol's signature)
        """Return None: a callable is asked for its rule alone."""
        return None


def as_policy(given: Policy | RuleOf | Any) -> Policy:
    """Return the policy that was meant.

    Args:
        given: a policy; an object with `rule(histogram, epoch)`; or a callable of that shape.

    Raises:
        PolicyError: it is none of them.
    """
    if isinstance(given, type):
        raise PolicyError(f"{given.__name__} is a class: give a policy made from it, as {given.__name__}(…).")
    if isinstance(given, Policy):
        return given
    function = getattr(given, "rule", given)
    if not callable(function):
        raise PolicyError(
            f"{given!r} is no policy: give Full(), SeTa(…), another policy, or a callable (histogram, epoch) -> Rule.",
            found=type(given).__name__,
        )
    return CallablePolicy(function)


def describe(policy: Policy) -> dict[str, Any]:
    """Return the policy's name and settings as plain values: what a checkpoint compares and the history keeps."""
    if isinstance(policy, CallablePolicy):
        return {"name": _name(policy.function)}
    value: Any = policy
    settings = {one.name: getattr(value, one.name) for one in fields(value)} if is_dataclass(value) else {}
    return {"name": type(policy).__name__, **settings}


def _name(function: RuleOf) -> str:
    if ismethod(function):
        return type(function.__self__).__qualname__
    return getattr(function, "__qualname__", type(function).__qualname__)
