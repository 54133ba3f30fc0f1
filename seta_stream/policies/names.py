"""Policies by name: for the command line, configs and checkpoints.

Takes texts as "infobatch" or "SeTa(num_epochs=90, target=0.5)", and mappings as `describe` tells them; gives policies.
Nothing is ever evaluated: values are literals, and calls are looked up in a table. Pure.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, Final

from seta_stream.errors import PolicyError
from seta_stream.policies.full import Full
from seta_stream.policies.greedy import UCB, EpsilonGreedy
from seta_stream.policies.importance import LossProportional, SelectiveBackprop
from seta_stream.policies.infobatch import InfoBatch, InfoBatchQuantile
from seta_stream.policies.kakurenbo import Kakurenbo
from seta_stream.policies.orderdp import OrderDP
from seta_stream.policies.per_group import PerGroup
from seta_stream.policies.policy import Policy
from seta_stream.policies.random import RS2, DynamicRandom, StaticRandom
from seta_stream.policies.repb import RePB
from seta_stream.policies.seta import SeTa
from seta_stream.policies.smoothing import BLS

POLICIES: Final[tuple[type[Any], ...]] = (
    DynamicRandom,
    EpsilonGreedy,
    Full,
    InfoBatch,
    InfoBatchQuantile,
    Kakurenbo,
    LossProportional,
    OrderDP,
    PerGroup,
    RS2,
    RePB,
    SeTa,
    SelectiveBackprop,
    StaticRandom,
    UCB,
)
"""Every policy, by name."""

_PARTS: Final[tuple[type[Any], ...]] = (BLS,)
_NAME: Final = "name"
_TEXT: Final = re.compile(r"([A-Za-z][\w\s-]*)(\(.*\))?", re.DOTALL)
_ADVICE: Final = 'Write it as "SeTa(num_epochs=90, target=0.5)": settings by name, values as numbers, texts or lists.'


def policy_from(
    spec: str | Mapping[str, Any], *, num_epochs: int | None = None, prune_ratio: float | None = None
) -> Policy:
    """Return the policy of a name or a config.

    Case, dashes, underscores and spaces in names do not matter: "selective-backprop" is SelectiveBackprop. Policies
    within a policy and `smooth=BLS(alpha=0.9)` are named alike. `policy_from(describe(policy)) == policy` for every
    policy that comes with the package, but for callables in it.

    Args:
        spec: a name; a name with settings, "seta(num_epochs=90, target=0.5)"; or a mapping,
            {"name": "SeTa", "num_epochs": 90}.
        num_epochs, prune_ratio: for the policies that take them and are not told; no `prune_ratio` beside a `target`.

    Raises:
        PolicyError: it cannot be read; the name or a setting is unknown, or a required setting missing; each with
            what is possible.
    """
    given: object = spec  # what comes from a config can be anything
    defaults = {"num_epochs": num_epochs, "prune_ratio": prune_ratio}
    told = {name: value for name, value in defaults.items() if value is not None}
    if isinstance(given, str):
        plain: Mapping[str, Any] = _read(given)
    elif isinstance(given, Mapping):
        plain = given
    else:
        raise PolicyError(f"Cannot make a policy from {given!r}: give its name or a mapping. {_ADVICE}", found=given)
    policy: Policy = _made(plain, POLICIES, told)
    return policy


def _read(text: str) -> dict[str, Any]:
    """Return a text as the mapping that says the same."""
    found = _TEXT.fullmatch(text.strip())
    if found is None:
        raise PolicyError(f"Cannot read the policy {text!r}. {_ADVICE}", found=text)
    name, settings = found.groups()
    try:
        tree = ast.parse(f"policy{settings or '()'}", mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise ValueError(f"{settings} is not one list of settings")  # noqa: TRY301, TRY004  (one place to tell it)
        return {_NAME: name.strip(), **_settings(tree)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PolicyError(f"Cannot read the policy {text!r}: {error}. {_ADVICE}", found=text) from error


def _settings(call: ast.Call) -> dict[str, Any]:
    """Return the keyword arguments of a call as plain values; calls among them as mappings.

    Raises:
        ValueError: something else stands there; to be told with the whole text.
    """
    settings: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in settings or keyword.arg == _NAME:
            raise ValueError(f"{ast.unparse(keyword)} cannot be a setting, or comes twice")
        settings[keyword.arg] = _value(keyword.value)
    if call.args:
        raise ValueError(f"{ast.unparse(call.args[0])} has no name")
    return settings


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return {_NAME: node.func.id, **_settings(node)}
    if isinstance(node, ast.Name):
        return {_NAME: node.id}
    return ast.literal_eval(node)


def _made(plain: Mapping[str, Any], kinds: Iterable[type[Any]], defaults: Mapping[str, Any]) -> Any:
    """Return the value of one of these kinds that a mapping describes."""
    settings = {key: value for key, value in plain.items() if key != _NAME}
    kind = _kind(plain.get(_NAME), kinds)
    known = {one.name: one for one in fields(kind)}
    for name in settings:
        if name not in known:
            raise PolicyError(
                f"{kind.__name__} has no setting {name!r}{_suggested(name, known)} {_possible(kind, known)}",
                expected=tuple(known),
                found=name,
            )
    for name, value in defaults.items():
        if name in known and not (name == "prune_ratio" and settings.get("target") is not None):
            settings.setdefault(name, value)
    missing = [name for name, one in known.items() if one.default is MISSING and name not in settings]
    if missing:
        raise PolicyError(
            f"{kind.__name__} needs {' and '.join(missing)}: write {kind.__name__}({missing[0]}=…). "
            f"{_possible(kind, known)}",
            expected=tuple(known),
            found=tuple(settings),
        )
    inside = (*POLICIES, *_PARTS)
    values = {
        name: _made(value, inside, defaults) if isinstance(value, Mapping) else value
        for name, value in settings.items()
    }
    return kind(**values)


def _kind(name: Any, kinds: Iterable[type[Any]]) -> type[Any]:
    by_name = {_key(kind.__name__): kind for kind in kinds}
    if not isinstance(name, str) or _key(name) not in by_name:
        names = {key: kind.__name__ for key, kind in by_name.items()}
        hint = _suggested(_key(name), names) if isinstance(name, str) else "."
        raise PolicyError(
            f"There is no policy called {name!r}{hint} There are {', '.join(sorted(names.values()))}.",
            expected=tuple(sorted(names.values())),
            found=name,
        )
    return by_name[_key(name)]


def _key(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()


def _suggested(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(str(name), list(known), n=1)
    if not near:
        return "."
    meant = known[near[0]]
    return f": did you mean {meant if isinstance(meant, str) else near[0]}?"


def _possible(kind: type[Any], known: Iterable[str]) -> str:
    return f"{kind.__name__} takes {', '.join(known)}." if known else f"{kind.__name__} takes no settings."
