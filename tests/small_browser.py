"""A real Chromium without a window, for tests of the pages that sri makes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = (1280, 800), (375, 740)
# The least contrast of text with what lies behind it, over all that shows, and whose it is.
CONTRAST = """
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parts(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
let least = [99, ""];
for (const element of document.querySelectorAll("body *")) {
  const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!words || !element.checkVisibility()) continue;
  const [a, b] = [parts(getComputedStyle(element).color), behind(element)].map(light);
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < least[0]) least = [contrast, element.outerHTML.slice(0, 120)];
}
return least;
"""
ENOUGH = 4.5  # WCAG AA, of text of this size
TOO_SMALL = """
return [...document.querySelectorAll("button, summary, label, a")]
  .filter((element) => element.checkVisibility())
  .map((element) => [element.getBoundingClientRect(), element.textContent])
  .filter(([box]) => box.width < 44 || box.height < 44)
  .map(([box, words]) => `${words.trim()} ${box.width}x${box.height}`);
"""


def programs() -> tuple[str, str]:
    """Chromium and its driver; the test is skipped where there is none, or fails when
    SRI_REQUIRE_BROWSER is 1."""
    browser = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    missing = "no chromium and chromedriver here (Debian: apt install chromium chromium-driver)"
    if os.environ.get("SRI_REQUIRE_BROWSER") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def chromium() -> Iterator[Any]:
    """A selenium driver."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, driver = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # a container's root has none
        "--disable-dev-shm-usage",
        "--disable-gpu",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


class Page:
    """One tab, read while nothing is being saved or loaded."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.tab = driver.current_window_handle

    def open(self, url: str, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Page:
        """Go to `url` at this size and colour scheme."""
        self.look(size, dark)
        self.driver.get(url)
        return self

    def look(self, size: tuple[int, int] = DESKTOP, dark: bool = False) -> None:
        """Change size and colour scheme, and wait until the page is drawn anew."""
        width, height = size
        metrics = {"width": width, "height": height, "mobile": width < 600}
        metrics["deviceScaleFactor"] = 2 if width < 600 else 1
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        # Observers of sizes run in the frame after the change.
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))"
        )

    def another(self, url: str) -> Page:
        """A second tab of the same browser."""
        self.driver.switch_to.new_window("tab")
        return Page(self.driver).open(url)

    def js(self, code: str, *values: Any) -> Any:
        """What `code` returns in this tab."""
        if self.driver.current_window_handle != self.tab:
            self.driver.switch_to.window(self.tab)
        return self.driver.execute_script(code, *values)

    def until(self, what: Callable[[], Any]) -> Any:
        """Wait for `what` to be true while the page is not busy."""
        from selenium.webdriver.support.ui import WebDriverWait

        def ready(_: Any) -> Any:
            return self.js("return !document.body.hasAttribute('aria-busy')") and what()

        return WebDriverWait(self.driver, 15, 0.02).until(ready, self.text("body"))

    def press(self, *keys: str) -> None:
        """Press keys, each once the page has dealt with the one before."""
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            self.js("return 0")
            ActionChains(self.driver).send_keys(key).perform()
            self.until(lambda: True)

    def click(self, selector: str) -> None:
        """Click what shows there."""
        self.js("return 0")
        self.driver.find_element("css selector", selector).click()
        self.until(lambda: True)

    def text(self, selector: str) -> str:
        """The text that shows there."""
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def shown(self, selector: str) -> bool:
        """Does it show?"""
        code = "return document.querySelector(arguments[0])?.checkVisibility() ?? false"
        return self.js(code, selector)

    def complaints(self) -> list[str]:
        """What went to the console since the last call, such as violations of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]
