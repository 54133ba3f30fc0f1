"""An adapter without its framework says which extra brings it."""

from __future__ import annotations

import importlib
import sys

import pytest

from seta_stream.errors import MissingExtraError


@pytest.mark.parametrize(
    ("adapter", "framework", "what", "extra"),
    [
        ("torch", "torch", "SetaDataset", "torch"),
        ("webdataset", "webdataset", "SetaWebDataset", "webdataset"),
        ("jax", "jax", "JaxStream", "jax"),
        ("mpi", "mpi4py", "MPICollective", "mpi"),
        ("lightning", "torch", "SetaDataModule", "lightning"),
        ("huggingface", "transformers", "seta_stream.adapters.huggingface", "huggingface"),
        ("accelerate", "accelerate", "seta_stream.adapters.accelerate", "huggingface"),
    ],
)
def test_a_missing_framework_is_named_with_its_extra(
    adapter: str, framework: str, what: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an ImportError, so that callers may try another, and its message holds the pip command."""
    module = f"seta_stream.adapters.{adapter}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, framework, None)
    with pytest.raises(
        ImportError, match=rf"^{what} needs .*{framework}.*pip install 'seta-stream\[{extra}\]'$"
    ) as told:
        importlib.import_module(module)
    assert isinstance(told.value, MissingExtraError)
    assert (told.value.expected, isinstance(told.value.__cause__, ImportError)) == (extra, True)
