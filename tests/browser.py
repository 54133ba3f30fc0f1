"""A headless Chromium, driven over a pipe by its own DevTools protocol: no port, no driver, no package.

Source: chromedevtools.github.io/devtools-protocol; --remote-debugging-pipe reads JSON messages, each ended by a NUL,
from file descriptor 3 and writes them to 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers.child import INSTALL, ServerError, server_folder

PROGRAM = Path("usr/lib/chromium/chromium-headless-shell")
LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
ANSWER_S = 60.0
STOP_S = 10.0
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}


def chromium() -> tuple[Path, dict[str, str]]:
    """Return the program, and the environment that it needs: the system's, or the one that was unpacked."""
    for root in (Path("/"), server_folder() / "chromium"):
        if (root / PROGRAM).exists():
            libraries = root / LIBRARIES
            paths = [] if root == Path("/") else [f"{libraries}:{libraries / 'pulseaudio'}"]
            paths += [os.environ["LD_LIBRARY_PATH"]] if "LD_LIBRARY_PATH" in os.environ else []
            return root / PROGRAM, {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)}
    raise ServerError(f"Chromium is neither in /{PROGRAM} nor in {server_folder()}. Install it: {INSTALL}")


class Browser:
    """A running browser.

    Args:
        process: of the browser.
        messages: what it reads from.
        answers: what it writes to.
    """

    def __init__(self, process: subprocess.Popen[bytes], messages: int, answers: int) -> None:
        self._process = process
        self._messages = messages
        self._answers = answers
        self._waiting = b""
        self._last = 0
        self.pages: dict[str, Page] = {}

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """Open a page in a window of some size, and wait until it is loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        page.resize(width, height)
        page.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        page.ask("Page.navigate", url=url)
        self.listen(lambda: "Page.loadEventFired" in page.events)
        return page

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._messages, data) :]
        found: list[dict[str, Any]] = []
        self.listen(lambda: bool(found), number, found)
        if "error" in found[0]:
            raise ServerError(f"{method}: {found[0]['error']['message']}")
        return dict(found[0]["result"])

    def listen(self, is_enough: Any, number: int = 0, found: list[dict[str, Any]] | None = None) -> None:
        """Take messages until something is there; a message that answers a call goes to `found`, others to pages."""
        until = time.monotonic() + ANSWER_S
        while not is_enough():
            while b"\0" not in self._waiting:
                ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
                more = os.read(self._answers, 1 << 20) if ready else b""
                if not more:
                    ended = self._process.poll()
                    raise ServerError(f"Chromium gave no answer within {ANSWER_S} s, or ended ({ended}).")
                self._waiting += more
            raw, _, self._waiting = self._waiting.partition(b"\0")
            message = json.loads(raw)
            if number and message.get("id") == number and found is not None:
                found.append(message)
            elif message.get("sessionId") in self.pages:
                self.pages[message["sessionId"]].take(message)


class Page:
    """An open page.

    Attributes:
        events: names of what happened.
        complaints: errors and warnings of its console, its policy included, and exceptions.
        refused: URLs that its policy kept it from asking for.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.events: list[str] = []
        self.complaints: list[str] = []
        self.refused: list[str] = []
        self._requests: dict[str, str] = {}

    @property
    def requests(self) -> list[str]:
        """URLs that were asked for, without those that the page's own policy refused before they left."""
        return list(self._requests.values())

    def take(self, message: dict[str, Any]) -> None:
        """Note an event."""
        name, told = message.get("method", ""), message.get("params", {})
        self.events.append(name)
        if name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif name == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(told["entry"]["text"])
        elif name == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.complaints.append(json.dumps(told["args"]))
        elif name == "Network.requestWillBeSent":
            self._requests[told["requestId"]] = told["request"]["url"]
        elif name == "Network.loadingFailed" and told.get("blockedReason") == "csp":
            self.refused.append(self._requests.pop(told["requestId"]))

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this page."""
        return self._browser.ask(method, self._session, **parameters)

    def resize(self, width: int, height: int) -> None:
        """Give the page a window of another size."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def evaluate(self, script: str) -> Any:
        """Return what an expression of JavaScript gives, as plain values; a promise is waited for."""
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def point(self, x: float, y: float) -> None:
        """Move the mouse to a place in the window."""
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def pdf(self) -> bytes:
        """Return the page as it is printed."""
        return base64.b64decode(self.ask("Page.printToPDF")["data"])

    def screenshot(self, path: str | Path, *, whole: bool = True) -> None:
        """Write what the page looks like as a PNG."""
        told = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole=whole))
        Path(path).write_bytes(base64.b64decode(told["data"]))

    def _clip(self, *, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def close(self) -> None:
        """Close it."""
        self.ask("Page.close")
        del self._browser.pages[self._session]


@contextmanager
def browsing() -> Iterator[Browser]:
    """Run a browser; it ends with the block."""
    program, environment = chromium()
    shell = shutil.which("bash")
    assert shell is not None
    theirs, messages = os.pipe()
    answers, ours = os.pipe()
    with tempfile.TemporaryDirectory(prefix="seta-browser-", ignore_cleanup_errors=True) as profile:
        # Tests run as root in containers, where Chromium has no sandbox; pages are our own, and ask for nothing.
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
                   "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        process = subprocess.Popen(
            [shell, "-c", f'exec "$@" 3<&{theirs} 4>&{ours}', "bash", str(program), *options],
            pass_fds=(theirs, ours),
            env={**environment, "HOME": profile},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        try:
            yield Browser(process, messages, answers)
        finally:
            os.close(messages)  # the browser ends when nobody can tell it anything any more
            os.close(answers)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
