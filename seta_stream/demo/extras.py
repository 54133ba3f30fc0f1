"""Which optional packages are there.

Takes module names; raises with the pip command where one is missing. No effects.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from seta_stream.errors import MissingExtraError

PACKAGES: Final = {"PIL": "pillow", "torch": "torch", "matplotlib": "matplotlib"}
"""What pip calls the modules that the demo imports."""


def require(purpose: str, *modules: str) -> None:
    """Return where every module can be imported.

    Args:
        purpose: what needs them, as the subject of a sentence: "`seta-stream demo`".
        modules: names as `import` takes them.

    Raises:
        MissingExtraError: one is missing; the message holds the pip command.
    """
    missing = [PACKAGES.get(module, module) for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(
            f"{purpose} needs {' and '.join(missing)}, which this Python does not have. "
            "Install them: pip install 'seta-stream[demo]'",
            expected=modules,
            found=missing,
        )
