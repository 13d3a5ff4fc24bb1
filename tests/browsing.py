"""A headless Chromium for tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait
from selenium_axe_python import Axe

SECONDS = 30


class Browser:
    """One window."""

    def __init__(self, profile: Path, *, dark: bool = False, phone: bool = False) -> None:
        options = Options()
        options.binary_location = shutil.which("chromium") or "chromium"
        for argument in (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
            f"--user-data-dir={profile}",
            "--window-size=1280,1000",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver") or "chromedriver"))
        self.tell("Emulation.setEmulatedMedia", features=[_scheme(dark)])
        if phone:
            self.tell("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)

    def tell(self, command: str, **parameters: Any) -> Any:
        """Give the browser a command of its own protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def open(self, url: str) -> None:
        """Open the page, and wait until it has shown its first answers."""
        self.driver.get(url)
        self.wait("return Number(document.body.dataset.shown || 0) > 0")

    def wait(self, script: str, seconds: float = SECONDS) -> Any:
        """Return what a script returns once that is true."""
        return WebDriverWait(self.driver, seconds, 0.1).until(lambda driver: driver.execute_script(script))

    def run(self, script: str) -> Any:
        """Return what a script returns."""
        return self.driver.execute_script(script)

    def text(self, selector: str) -> str:
        """Return what is written in an element."""
        found = self.run(f"return document.querySelector({selector!r}).innerText")
        assert isinstance(found, str)
        return found

    def errors(self) -> list[str]:
        """Return what the console complains of since the last time, but for answers of 503, which the page tells.

        The browser's own pages, such as that of a new tab, complain there too.
        """
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")  # type: ignore[no-untyped-call]
            if "status of 503" not in entry["message"] and not entry["message"].startswith("chrome://")
        ]

    def violations(self) -> list[str]:
        """Return what axe-core finds wrong, a line each."""
        axe = Axe(self.driver)
        axe.inject()
        found = axe.run()
        assert found["passes"], "axe-core has looked at something"
        return [
            f"{rule['id']}: {rule['help']}: {node['target']} {node['failureSummary']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]


def _scheme(dark: bool) -> dict[str, str]:
    return {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}


@contextmanager
def browser(profile: Path, *, dark: bool = False, phone: bool = False) -> Iterator[Browser]:
    """A browser that is ended afterwards; `profile` is a fresh directory."""
    opened = Browser(profile, dark=dark, phone=phone)
    try:
        yield opened
    finally:
        opened.driver.quit()
