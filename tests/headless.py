"""A headless Chromium, driven over a pair of pipes: what tests of pages need, and no package."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 300.0
"""Seconds that a browser is open at most."""


def browser() -> str | None:
    """The first browser on the path."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One open page; what it asked for and complained of is kept in `events`."""

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive = send, receive
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path: Path) -> None:
        """Load a file and wait until it has loaded."""
        seen = len(self.events)
        self.call("Page.navigate", url=path.as_uri())
        while not any(one.get("method") == "Page.loadEventFired" for one in self.events[seen:]):
            self.events.append(self._next())

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def view(self, width: int, height: int, *, dark: bool = False, paper: bool = False) -> None:
        """Look at the page on a screen of this size, or on paper of this width."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        media = "print" if paper else ""
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for."""
        sent = (e for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """What the console shows: messages, warnings, errors."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in kinds]

    def _next(self) -> dict[str, Any]:
        parts = []
        while (byte := self._receive.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser closed its pipe")
            parts.append(byte)
        return json.loads(b"".join(parts))


@contextmanager
def open_page(program: str, folder: Path) -> Iterator[Page]:
    """A page in a new browser, which is ended with the block."""
    to_read, send = os.pipe()
    receive, to_write = os.pipe()
    # The browser reads commands from descriptor 3 and writes answers to 4.
    quoted = f'exec "$@" 3<&{to_read} 4>&{to_write}'
    process = subprocess.Popen(
        [
            "bash", "-c", quoted, "browser", program, "--headless=new", "--no-sandbox",
            "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ],
        pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_read)
    os.close(to_write)
    # A browser that hangs is ended, and its pipe with it.
    patience = Timer(_PATIENCE, process.kill)
    patience.start()
    try:
        with os.fdopen(send, "wb") as out, os.fdopen(receive, "rb") as back:
            yield Page(out, back)
    finally:
        patience.cancel()
        process.kill()
        process.wait()
