"""A real browser for tests: Chromium without a window, driven by its own protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-extensions", "--remote-debugging-port=0"),
)


class Page:
    """One page. `complaints` are what it wrote to the console, uncaught errors and breaches of its policy."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.loop, self.socket, self.number = loop, socket, 0
        self.events: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        return self.loop.run_until_complete(asyncio.wait_for(self._call(method, values), 60))

    async def _call(self, method: str, values: dict[str, Any]) -> dict[str, Any]:
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": values})
        while True:
            said = json.loads((await self.socket.receive()).data)
            if said.get("id") == self.number:
                assert "error" not in said, said
                return dict(said["result"])
            self._hear(said)

    def _hear(self, said: dict[str, Any]) -> None:
        self.events.append(said)
        if said["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(said["params"]))

    def open(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Show a file, as on a screen of that size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        while self.run("document.readyState") != "complete":
            time.sleep(0.02)

    def run(self, script: str) -> Any:
        """The value of an expression. The protocol may do what the page's own policy forbids."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key."""
        code = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, x: float, y: float) -> None:
        """The mouse, at a place of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, *, whole: bool = True) -> bytes:
        """PNG of the page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """An empty page of a browser of its own, which keeps its files in `folder`."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    session = loop.run_until_complete(_session())
    try:
        socket = loop.run_until_complete(_connected(session, folder / "DevToolsActivePort"))
        yield Page(loop, socket)
    finally:
        loop.run_until_complete(session.close())
        loop.close()
        process.terminate()
        process.wait(20)


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(trust_env=False)


async def _connected(session: aiohttp.ClientSession, said: Path) -> aiohttp.ClientWebSocketResponse:
    until = time.monotonic() + 240
    while not said.exists() or len(said.read_text().splitlines()) < 2:
        assert time.monotonic() < until, "the browser does not start"
        await asyncio.sleep(0.05)
    port = said.read_text().splitlines()[0]
    async with session.get(f"http://127.0.0.1:{port}/json") as answer:
        pages = [one for one in await answer.json() if one["type"] == "page"]
    return await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
