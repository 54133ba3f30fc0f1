"""What the user names, as "package.module:function": the model that gives the losses, or a decoder.

Takes names; gives callables. Acts: imports and calls the user's code: made once per process, called by one thread at a
time, and what it prints goes to stderr. torch is never imported here: a model that needs it has.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

from seta_stream.errors import ArgumentError

Model = Callable[[dict[str, Any]], Any]
"""A batch, as `stream.batches` gives it, → one loss per sample, as `stream.record` takes them."""

_ALONE: Final = threading.Lock()
_NAME: Final = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def check_name(option: str, name: str) -> tuple[str, str]:
    """Return the module and the attribute of a name.

    Raises:
        ArgumentError: it is not written as package.module:function.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ArgumentError(
            f"{option} {name} names nothing that can be imported: write package.module:function.",
            expected="package.module:function",
            found=name,
        )
    return match[1], match[2]


def check_there(option: str, name: str) -> None:
    """Look for the module of a name, without running it, before work is begun that would need it.

    Raises:
        ArgumentError: this Python cannot find it.
    """
    module, _ = check_name(option, name)
    _see_working_folder()
    try:
        is_there = importlib.util.find_spec(module.partition(".")[0]) is not None
    except ValueError:  # a module without a spec, as __main__
        is_there = True
    if not is_there:
        raise ArgumentError(
            f"Cannot load {option} {name}: there is no module {module} here. Run the command in the folder that holds "
            "it, set PYTHONPATH, or install the package.",
            expected=module,
        )


def named(option: str, name: str) -> Any:
    """Return what a name stands for.

    Raises:
        ArgumentError: the module cannot be imported, or has no such attribute.
    """
    module, attribute = check_name(option, name)
    _see_working_folder()
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (Exception, SystemExit) as error:  # a script that reads its own command line ends so
        raise _failed(option, name, error) from error
    return value


@lru_cache(maxsize=1)
def load_model(name: str, device: str | None) -> Model:
    """Return the model that a name stands for, made at the first call in this process.

    A function or class that can be called without arguments, or with a `device` alone, is a factory, and what it
    returns is the model; anything else is the model itself. A factory with a parameter `device` is given it. A torch
    module is set to evaluate, and moved to the device.

    Raises:
        ArgumentError: it cannot be loaded or made, is not callable, has no use for a device, or needs one.
    """
    model, is_placed = named("--model", name), device is None
    if _takes(model) or _takes(model, device=device):
        takes_device = _takes(model, device=device)
        if device is None and not _takes(model):
            raise _refused(name, "makes a model on a device, and none is given: name one by --device, as cpu")
        try:
            model = model(device=device) if device is not None and takes_device else model()
        except (Exception, SystemExit) as error:
            how = "It can be called without a batch, so it was called to make the model. "
            raise _failed("--model", name, error, how) from error
        is_placed = is_placed or takes_device
    elif inspect.isclass(model):
        raise _refused(name, "is a class that needs arguments: name a function without any that returns one made")
    if not callable(model):
        raise _refused(name, f"gives a {type(model).__name__}, which cannot be called with a batch")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        model.eval()
        model = model if device is None else model.to(device)
        is_placed = True
    if not is_placed:
        raise _refused(
            name, f"has no use for --device {device}: give its factory a parameter `device`, or leave it out"
        )
    return model  # type: ignore[no-any-return]


def without_gradients() -> AbstractContextManager[Any]:
    """Return a context in which torch, where it is loaded, keeps nothing for a backward pass."""
    torch = sys.modules.get("torch")
    return nullcontext() if torch is None else torch.no_grad()


@contextmanager
def alone() -> Iterator[None]:
    """Be the only thread of this process that runs the user's model: a Dask worker has several, and models have state.

    What the model prints goes to stderr: stdout is the command's.
    """
    with _ALONE, redirect_stdout(sys.stderr):
        yield


def _takes(value: Any, **arguments: Any) -> bool:
    """Say whether something that can be called takes just these arguments."""
    if not (inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, partial)):
        return False
    try:
        inspect.signature(value).bind(**arguments)
    except (TypeError, ValueError):
        return False
    return True


def _see_working_folder() -> None:
    """Let modules of the working folder be found, as `python -m` does and a console script does not."""
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)


def _failed(option: str, name: str, error: BaseException, how: str = "") -> ArgumentError:
    return ArgumentError(
        f"Cannot load {option} {name}: {type(error).__name__}: {error}. {how}Check the name, and that "
        f'`python -c "import {name.partition(":")[0]}"` works where this runs.',
        expected=name,
        found=str(error),
    )


def _refused(name: str, why: str) -> ArgumentError:
    return ArgumentError(f"--model {name} {why}.", found=name)
