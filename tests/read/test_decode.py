"""decode.py: what is refused, and what comes through unchanged (equality with webdataset: adapters/test_webdataset)."""

from __future__ import annotations

import builtins
import gzip
import pickle
from typing import Any

import msgpack
import pytest

from seta_stream.errors import DecodeError, MissingExtraError, UnsupportedError
from seta_stream.read import decode as room
from seta_stream.read.decode import decode_sample, decoder


def test_basic_values() -> None:
    """Text, numbers, json, msgpack, gzipped fields and unknown ones."""
    basic = decoder("basic")
    assert basic is not None
    assert basic("a.b.txt", "é".encode()) == "é"
    assert basic("cls", b"12") == 12
    assert basic("json", b"[1]") == [1]
    assert basic("mp", msgpack.packb({"a": 1})) == {"a": 1}
    assert basic("json.gz", gzip.compress(b"[1]")) == [1]
    assert basic("xyz", b"\0") == b"\0"
    assert decoder(None) is None


@pytest.mark.parametrize("field", ["pkl", "pickle", "pyd", "pth", "x.pkl"])
def test_pickles_are_never_loaded(field: str) -> None:
    """A field that only pickle can read is refused by name, and nothing in it runs."""
    basic = decoder("basic")
    assert basic is not None
    with pytest.raises(UnsupportedError, match="is a pickle, which runs code"):
        basic(field, pickle.dumps([1]))


def test_arrays_with_objects_are_refused() -> None:
    """An npy that holds pickled objects is not loaded."""
    import io

    import numpy as np

    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    basic = decoder("basic")
    assert basic is not None
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        basic("npy", stream.getvalue())


def test_a_missing_pillow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow the error names the extra to install, and is no sample's: on_error="skip" passes over none."""
    real = builtins.__import__

    def no_pillow(name: str, *rest: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *rest)

    room._by_field.cache_clear()
    monkeypatch.setattr(builtins, "__import__", no_pillow)
    with pytest.raises(MissingExtraError, match=r"pip install 'seta-stream\[image\]'") as caught:
        decode_sample({"__key__": "a", "__url__": "b", "jpg": b""}, decoder("pil") or str)
    assert not isinstance(caught.value, DecodeError)
    room._by_field.cache_clear()


def test_a_message_names_no_address() -> None:
    """Pillow tells which object it read from, which is nothing to a user."""
    with pytest.raises(DecodeError, match=r"UnidentifiedImageError: cannot identify image file\. Mend the sample"):
        decode_sample({"__key__": "a", "__url__": "b", "jpg": b"no picture"}, decoder("pil") or str)
