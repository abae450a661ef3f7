"""Chromium, and a record of what a page does in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

# The names of Chromium in Debian, Fedora, Ubuntu and GitHub's images, then Google's own build.
PROGRAMS = ["chromium", "chromium-browser", "google-chrome"]
# Names are not resolved, and Chromium sends nothing of its own.
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
# Installed with the document: a violation may come before the page is loaded.
LISTEN_FOR_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
    violations.push(event.violatedDirective + " " + event.blockedURI));
"""
AXE_OPTIONS = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]"
# The element that has the focus. Elements of one `kind` look alike.
FOCUS = """() => {
    const element = document.activeElement;
    if (!element || element === document.body) return null;
    const box = element.getBoundingClientRect();
    const kind = [element.parentElement, element]
        .map((each) => each.tagName + each.getAttribute("class")).join(">");
    return {
        index: [...document.querySelectorAll("*")].indexOf(element),
        html: element.outerHTML.slice(0, 200),
        kind,
        x: box.x, y: box.y, width: box.width, height: box.height,
        in_view: box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth,
    };
}"""
EXPECTED_FOCUS = """(selector) => {
    const all = [...document.querySelectorAll("*")];
    return [...document.querySelectorAll(selector)]
        .filter((each) => each.checkVisibility() && !each.disabled && each.tabIndex >= 0
            && each.type !== "hidden")
        .map((each) => all.indexOf(each));
}"""


@dataclass
class Visit:
    """A page in a browser, and everything that it requested or complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        """Load a page."""
        self.page.goto(address)

    def open_details(self) -> None:
        """Show what the page shows only on request."""
        self.page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")

    def violations(self) -> list[str]:
        """Return the violations of the content security policy."""
        return self.page.evaluate("() => window.violations")

    def inaccessible(self) -> list[str]:
        """Run axe; return one line for each violation."""
        # Not by add_script_tag, which the page's policy forbids.
        self.page.evaluate(AXE_SCRIPT)
        found = self.page.evaluate("(options) => axe.run(options)", AXE_OPTIONS)
        return [
            f"{violation['id']}: {node['html']} {node['failureSummary']}"
            for violation in found["violations"]
            for node in violation["nodes"]
        ]

    def overflow(self) -> list[str]:
        """Return the elements that make the page scroll sideways."""
        return self.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
                [...document.querySelectorAll("body *")]
                    .filter((each) => each.getBoundingClientRect().right > innerWidth)
                    .map((each) => each.outerHTML.slice(0, 200))"""
        )

    def focusable(self) -> list[int]:
        """Return the elements that a keyboard must reach, in the order of the document."""
        return self.page.evaluate(EXPECTED_FOCUS, FOCUSABLE)

    def tab_through(self) -> list[dict[str, Any]]:
        """Press Tab until the focus leaves the page; return the elements that had the focus."""
        stops = []
        for _ in range(2000):
            self.page.keyboard.press("Tab")
            focus = self.page.evaluate(FOCUS)
            if focus is None or focus["index"] in {stop["index"] for stop in stops}:
                break
            stops.append(focus)
        return stops

    def shows_focus(self, stop: dict[str, Any]) -> bool:
        """Return whether the pixels of an element, and around it, change when it has the focus."""
        element = self.page.evaluate_handle(
            "(index) => document.querySelectorAll('*')[index]", stop["index"]
        )
        # After a key, a script's focus is shown like that of a key.
        element.evaluate("(each) => each.focus()")
        box = self.page.evaluate(FOCUS)
        clip = {
            "x": max(0, box["x"] - 6),
            "y": max(0, box["y"] - 6),
            "width": box["width"] + 12,
            "height": box["height"] + 12,
        }
        focused = self.page.screenshot(clip=clip)
        element.evaluate("(each) => each.blur()")
        return focused != self.page.screenshot(clip=clip)


@contextmanager
def running() -> Iterator[Browser]:
    """Start the Chromium of this machine, and stop it at the end."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit(
            "Chromium was not found on PATH. Install it (Debian: apt-get install chromium; "
            "Fedora: dnf install chromium), or install Google Chrome."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Visit]:  # noqa: ANN401
    """Open a new window without cookies; options are those of Playwright's contexts."""
    context: BrowserContext = browser.new_context(**options)
    context.add_init_script(LISTEN_FOR_VIOLATIONS)
    visit = Visit(context.new_page())
    context.on("request", lambda request: visit.requests.append(request.url))
    context.on(
        "console",
        lambda message: (
            visit.complaints.append(message.text) if message.type in {"error", "warning"} else None
        ),
    )
    context.on("weberror", lambda error: visit.complaints.append(str(error.error)))
    context.on("dialog", lambda dialog: (visit.complaints.append(dialog.message), dialog.dismiss()))
    try:
        yield visit
    finally:
        context.close()
