"""Take the README's screens from a running stack, by driving a real browser through its pages.

    apt-get install chromium chromium-driver
    python3 image/screens.py            # needs `requests`; writes image/*.png

It opens a day in the NameNode's file browser, reads the head of a file there and downloads it, and compares both with
what WebHDFS says: the redirect to the DataNode must work for a browser on this host, not only for our own client.
METEO_PORT_OFFSET is that of the stack.
"""

# ruff: noqa: T201

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

HERE = Path(__file__).resolve().parent
OFFSET = int(os.environ.get("METEO_PORT_OFFSET") or 0)
NAMENODE = f"http://127.0.0.1:{9870 + OFFSET}"
RESOURCEMANAGER = f"http://127.0.0.1:{8088 + OFFSET}"
HBASE = f"http://127.0.0.1:{16010 + OFFSET}"
PAGE = f"http://127.0.0.1:{8000 + OFFSET}"
PROMETHEUS = f"http://127.0.0.1:{9090 + OFFSET}"
BASE_PATH = "/user/hdfs/weather"
DAY = "dt=2013-07-01"
FILE = "aggregates.jsonl"
TABLE = "weather"
DRIVER_PORT = 9515
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PATIENCE = 30.0


class Browser:
    """A headless Chromium behind chromedriver, spoken to by the WebDriver protocol."""

    def __init__(self, downloads: Path, profile: Path) -> None:
        self._base = f"http://127.0.0.1:{DRIVER_PORT}"
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
            *(f"--user-data-dir={profile}", "--window-size=1280,820"),
        ]
        preferences = {"download.default_directory": str(downloads), "download.prompt_for_download": False}
        options = {"args": arguments, "prefs": preferences}
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self._session = self._base
        self._session += "/session/" + self._call("POST", "/session", {"capabilities": capabilities})["sessionId"]

    def open(self, url: str) -> None:
        """Open a page; a fresh one also where only the part after the # differs."""
        self._call("POST", "/url", {"url": "about:blank"})
        self._call("POST", "/url", {"url": url})

    def size(self, width: int, height: int) -> None:
        """Set the size of what is seen."""
        self._call("POST", "/window/rect", {"width": width, "height": height + 139})

    def emulate(self, width: int, height: int) -> None:
        """Be a phone from here on: a window cannot be as narrow."""
        device = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": device}
        self._call("POST", "/goog/cdp/execute", command)

    def find(self, xpath: str) -> str:
        """Wait until an element is there and shown; return its id."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = self._call("POST", "/elements", {"using": "xpath", "value": xpath})
            for element in found:
                if self._call("GET", f"/element/{element[ELEMENT]}/displayed"):
                    return str(element[ELEMENT])
            time.sleep(0.2)
        sys.exit(f"There is no {xpath} on the page after {PATIENCE:.0f} s.")

    def click(self, xpath: str) -> None:
        """Click an element, as a person does."""
        print(f"click {xpath}")
        self._call("POST", f"/element/{self.find(xpath)}/click", {})

    def type(self, xpath: str, text: str) -> None:
        """Type into an element, as a person does."""
        print(f"type {text} into {xpath}")
        self._call("POST", f"/element/{self.find(xpath)}/value", {"text": text})

    def run(self, script: str) -> Any:
        """Return what a script of the page returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def shoot(self, name: str) -> None:
        """Write what is seen as image/<name>.png, once animations are over."""
        time.sleep(1.5)
        path = HERE / f"{name}.png"
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))
        print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size // 1000} KB")

    def close(self) -> None:
        """End the browser."""
        requests.delete(self._session, timeout=PATIENCE)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(method, f"{self._session}{path}", json=body, timeout=PATIENCE * 2)
        value = answer.json()["value"]
        if not answer.ok:
            sys.exit(f"{method} {path}: {value['message'].splitlines()[0]}")
        return value


def own_page(browser: Browser) -> None:
    """The platform's own page, at a desk and on a phone."""
    browser.size(1280, 1180)
    browser.open(f"{PAGE}/")
    browser.find("//h1[contains(text(), 'The weather is fresh')]")
    browser.find("//figure//*[local-name() = 'path']")
    browser.shoot("page")
    browser.emulate(390, 844)
    browser.open(f"{PAGE}/")
    browser.find("//h1[contains(text(), 'The weather is fresh')]")
    browser.shoot("page-phone")


def file_browser(browser: Browser, downloads: Path) -> None:
    """The days, and a file of one opened and downloaded from there."""
    browser.size(1280, 760)
    browser.open(f"{NAMENODE}/explorer.html#{BASE_PATH}")
    browser.find("//a[starts-with(text(), 'dt=')]")
    browser.shoot("hdfs-days")

    browser.size(1280, 790)
    browser.type("//input[@type='search']", DAY)
    browser.click(f"//a[text()='{DAY}']")
    browser.click(f"//a[text()='{FILE}']")
    browser.click("//a[@id='file-info-preview-head']")
    truth = requests.get(f"{NAMENODE}/webhdfs/v1{BASE_PATH}/{DAY}/{FILE}?op=OPEN", timeout=PATIENCE).text
    end = time.monotonic() + PATIENCE
    while (shown := browser.run("return document.querySelector('#file-info-preview-body').value || ''")) != truth:
        if time.monotonic() > end:
            sys.exit(f"The head of {FILE} on the page is not the file: {shown[:200]!r}")
        time.sleep(0.2)
    print(f"head of {FILE}: {len(shown)} characters, equal to the file")
    browser.shoot("hdfs-file")

    browser.click("//a[@id='file-info-download']")
    target = downloads / FILE
    while not target.exists() or target.read_text("utf-8") != truth:
        if time.monotonic() > end + PATIENCE:
            sys.exit(f"{FILE} was not downloaded: {list(downloads.iterdir())}")
        time.sleep(0.2)
    print(f"download of {FILE}: {target.stat().st_size} bytes, equal to the file")


def other_pages(browser: Browser) -> None:
    """The applications of YARN, and HBase's table."""
    browser.size(1880, 540)
    browser.open(f"{RESOURCEMANAGER}/cluster")
    browser.find("//a[starts-with(text(), 'application_')]")
    browser.shoot("yarn")
    browser.size(1640, 520)
    browser.open(f"{HBASE}/master-status")
    browser.find("//a[text()='weather']")
    browser.run("document.querySelector('[href=\"#tab_userTables\"]').scrollIntoView(true); scrollBy(0, -110)")
    browser.shoot("hbase-tables")
    browser.size(1640, 520)
    browser.open(f"{HBASE}/table.jsp?name={TABLE}")
    browser.find("//h2[contains(text(), 'Table Regions')]")
    browser.run("[...document.querySelectorAll('h2')].find(h => /Regions/.test(h.innerText)).scrollIntoView(true)")
    browser.run("scrollBy(0, -120)")
    browser.shoot("hbase-table")


def monitoring(browser: Browser) -> None:
    """What Prometheus scrapes, and the rules by which it raises alerts; Debian's has its older pages only."""
    pages = (
        f"{PROMETHEUS}/classic" if requests.get(f"{PROMETHEUS}/classic/targets", timeout=PATIENCE).ok else PROMETHEUS
    )
    browser.size(1280, 1000)
    browser.open(f"{pages}/targets")
    browser.find("//*[contains(text(), 'hbase-master')]")
    browser.shoot("prometheus-targets")
    browser.open(f"{pages}/alerts")
    browser.find("//*[contains(text(), 'MeteoServerDown')]")
    browser.shoot("prometheus-alerts")


def main() -> None:
    """Take all screens."""
    with tempfile.TemporaryDirectory(prefix="screens-") as folder:
        downloads, profile = Path(folder, "downloads"), Path(folder, "profile")
        downloads.mkdir()
        command = ["chromedriver", f"--port={DRIVER_PORT}", "--silent"]
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            time.sleep(1.5)
            browser = Browser(downloads, profile)
            try:
                file_browser(browser, downloads)
                other_pages(browser)
                monitoring(browser)
                own_page(browser)
            finally:
                browser.close()
        finally:
            driver.terminate()
            driver.wait()


if __name__ == "__main__":
    main()
