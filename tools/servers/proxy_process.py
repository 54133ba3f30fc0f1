"""What every proxy of ours is: a process between a client and a server.

Takes: a module to run, its settings and the server's URL. Gives: the proxy's URL, and answers to questions.
Effects: a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from servers.child import Child, running_module


class ProxyProcess:
    """A proxy's process.

    Args:
        module: what it runs.
        name: what it is called in errors.
        target_url: the server; a path in it is kept in `url`.
        config: its settings, beside the target.
    """

    def __init__(self, module: str, name: str, target_url: str, config: Mapping[str, Any]) -> None:
        self._module = module
        self._name = name
        self._target = urlsplit(str(target_url))
        self._config = {"target": (self._target.hostname, self._target.port or 80), **config}
        self._stack = ExitStack()
        self._child: Child | None = None
        self.url = ""

    def start(self) -> None:
        """Run it; its address is in `url` from then on."""
        self._child, ready = self._stack.enter_context(
            running_module(self._module, self._config, name=f"the {self._name}")
        )
        self.url = f"http://127.0.0.1:{ready['port']}{self._target.path}"

    def stop(self) -> None:
        """End it."""
        self._stack.close()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Return what it answers."""
        if self._child is None:
            raise RuntimeError(f"ask a {self._name}: it is not running; use it in a `with` block")
        return self._child.ask(question)
