"""Every parser, given bytes of all kinds: a value or an error of the package, in bounded memory and time.

The parsers and what must hold of them are those of tools/fuzz, where coverage guides them for longer.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
from fuzz import FAMILIES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import MIB, within

EXAMPLES = {"pages": 6, "checkpoints": 40, "fields": 60}
HUGE = (b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x80" + b"\0" * 7, b"\xdd\xff\xff\xff\xff", b"77777777777", b"9" * 19)
"""Numbers that no file has room for, as the formats spell them."""

# What an input is warned of is not what is looked for.
pytestmark = pytest.mark.filterwarnings("ignore::seta_stream.errors.SetaStreamWarning")


def family(name: str) -> ModuleType:
    """Return a module of tools/fuzz."""
    return importlib.import_module(f"fuzz.{name}")


@st.composite
def mutated(draw: Callable[..., object], seeds: list[bytes]) -> bytes:
    """Give a valid input with a few changes: bits flipped, cut, spliced with another, a huge number put somewhere."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "splice", "huge", "repeat"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 600))]
        elif kind == "splice":
            other = draw(st.sampled_from(seeds))
            begin = draw(st.integers(0, len(other)))
            data[at:] = other[begin:]
        elif kind == "huge":
            number = draw(st.sampled_from(HUGE))
            data[at : at + len(number)] = number
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 40))
    return bytes(data[: 64 << 10])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_seeds_hold(name: str) -> None:
    """What mutations begin with, unchanged, is no finding."""
    tested = family(name)
    for seed in tested.seeds():
        tested.one(seed)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_bytes(name: str) -> None:
    """Bytes of no kind at all."""
    tested = family(name)
    first = sorted({seed[:1] for seed in tested.seeds()})

    @settings(max_examples=EXAMPLES.get(name, 80), suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(first), st.binary(max_size=600))
    def check(which: bytes, data: bytes) -> None:
        tested.one(which + data)

    with within(64 * MIB, 30, traced=False):
        check()


@pytest.mark.parametrize("name", FAMILIES)
def test_changed_files(name: str) -> None:
    """Files that were right, and were changed by accident or on purpose."""
    tested = family(name)
    seeds = list(tested.seeds())

    @settings(max_examples=EXAMPLES.get(name, 80), suppress_health_check=list(HealthCheck))
    @given(mutated(seeds))
    def check(data: bytes) -> None:
        tested.one(data)

    with within(64 * MIB, 30, traced=False):
        check()
