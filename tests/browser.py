"""Debian's Chromium without a window, driven through its DevTools protocol."""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp  # Ray brings it

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


def find_chromium() -> str | None:
    """Where it is; None where it is not installed (``apt-get install chromium``)."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Page:
    """One page; calls wait for the browser's answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._loop = loop
        self._socket = socket
        self._number = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, params), 120))

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            answer = json.loads((await self._socket.receive()).data)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def goto(self, url: str) -> None:
        """Opens an address."""
        self.call("Page.navigate", url=url)

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Sets the window's size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def run(self, script: str) -> Any:
        """The value of an expression in JavaScript."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 120) -> Any:
        """Waits until an expression is true, and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script}\n{self.text()[:3000]}"
            time.sleep(0.2)
        return value

    def wait_for_text(self, text: str) -> None:
        """Waits until the page shows a text."""
        self.wait(f"(document.body?.innerText || '').includes({json.dumps(text)})")

    def click(self, script: str) -> None:
        """Clicks the element that an expression finds, when it is there."""
        self.wait(f"(() => {{ const e = {script}; if (e) e.click(); return !!e; }})()")

    def click_text(self, text: str, tag: str = "*") -> None:
        """Clicks the innermost element whose whole text this is."""
        self.click(
            f"[...document.querySelectorAll({json.dumps(tag)})].reverse()"
            f".find(e => e.textContent.trim() === {json.dumps(text)} && e.offsetParent)"
        )

    def text(self) -> str:
        """All that the page shows."""
        return self.run("document.body ? document.body.innerText : ''")

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """Writes what is seen as PNG; the whole page, or its upper part."""
        clip = None
        if height:
            width = self.run("window.innerWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        found = self.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=bool(clip),
            **({"clip": clip} if clip else {}),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def open_page(width: int = 1280, height: int = 800, scale: float = 1) -> Iterator[Page]:
    """A page in a browser of its own, which ends with the block."""
    chromium = find_chromium()
    assert chromium, "no Chromium; on Debian: apt-get install chromium"
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            address = _page_address(Path(profile, "DevToolsActivePort"), browser)
            session = loop.run_until_complete(_session())
            try:
                socket = loop.run_until_complete(session.ws_connect(address, max_msg_size=0))
                page = Page(loop, socket)
                page.resize(width, height, scale)
                yield page
            finally:
                loop.run_until_complete(session.close())
        finally:
            loop.close()
            browser.terminate()
            browser.wait(timeout=30)


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


def _page_address(file: Path, browser: subprocess.Popen, seconds: float = 120) -> str:
    """The address at which the first page listens, once the browser is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert browser.poll() is None, "Chromium ended"
        lines = file.read_text().split() if file.exists() else []
        if lines:
            with urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=30) as answer:
                pages = [t for t in json.load(answer) if t["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.2)
    raise AssertionError("Chromium does not answer")
