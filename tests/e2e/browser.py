"""A headless Chromium, and a person who looks at pages with it.

Skips the tests of who imports it where none is installed. With GRAFLOW_TEST_SCREENSHOTS=DIRECTORY it leaves pictures
there, to be looked at.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graflow_celery.testing import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
#: Where CI has a browser, what else is missing is a mistake there.
REQUIRED = os.environ.get("CI") == "true" and CHROMIUM is not None
DESK = (1400, 1100)

if not REQUIRED and (CHROMIUM is None or DRIVER is None):
    pytest.skip("no browser here: install Debian's chromium and chromium-driver", allow_module_level=True)


def _needed(name: str) -> Any:
    return importlib.import_module(name) if REQUIRED else pytest.importorskip(name)


_needed("flower")
webdriver = _needed("selenium.webdriver")
Service = _needed("selenium.webdriver.chrome.service").Service
By = _needed("selenium.webdriver.common.by").By
Keys = _needed("selenium.webdriver.common.keys").Keys
NoAlertPresentException = _needed("selenium.common.exceptions").NoAlertPresentException


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """The driver of a browser that keeps its files in a directory."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    assert DRIVER is not None, "Chromium is installed without its driver: install Debian's chromium-driver"
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Reader:
    """A person at a browser."""

    def __init__(self, driver: Any, base: str) -> None:
        self.driver = driver
        self.base = base
        self.look(DESK)

    def look(self, size: tuple[int, int], scheme: str = "light") -> None:
        """Has a window of a size, and the system's light or dark."""
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def open(self, path: str) -> None:
        self.driver.get("about:blank")
        self.driver.get(self.base + path)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def find(self, selector: str, text: str = "") -> Any:
        """Waits for an element that is shown and has a text, and returns it."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].find(one => one.getClientRects().length && "
            "(one.textContent + (one.getAttribute('aria-label') || '')).includes(arguments[1])) || null"
        )

        def found() -> Any:
            return self.driver.execute_script(script, selector, text)

        wait_until(lambda: found() is not None, timeout=20, description=f"'{selector}' with '{text}'")
        return found()

    def click(self, selector: str, text: str = "") -> None:
        script = (
            "arguments[0].scrollIntoView({block: 'center', inline: 'center'}); arguments[0].dispatchEvent(new "
            "MouseEvent('click', {bubbles: true, cancelable: true}))"
        )
        self.driver.execute_script(script, self.find(selector, text))

    def js(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def picture(self, name: str) -> None:
        directory = os.environ.get("GRAFLOW_TEST_SCREENSHOTS")
        if directory:
            Path(directory).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(directory) / f"{name}.png"))

    def complaints(self) -> list[str]:
        """What the browser's console says that is wrong, a script or a page that is refused for one."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def alert(reader: Reader) -> bool:
    try:
        return bool(reader.driver.switch_to.alert.text)
    except NoAlertPresentException:
        return False
