"""The page in Chromium: by axe, by keyboard, without scripts, and with hostile values."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from analysts import browser, sample
from analysts.server import Api

VIEWS = {
    "start": "/",
    "devices": "/duplicates?field=device_id&period=28d",
    "addresses of all time": "/duplicates?field=ip&period=all&min_users=3",
    "rings": "/rings",
    "ring of hostile users": f"/rings/{sample.HOSTILE_DEVICE}",
    "token of a ring": f"/tokens/{sample.RING[0]}",
    "token of hostile users": f"/tokens/{sample.HOSTILE_DEVICE}",
    "hub": f"/tokens/{sample.HUB_DEVICE}",
    "crowded neighbourhood": f"/tokens/{sample.CROWDED_DEVICE}?depth=3",
    "unknown token": f"/tokens/{'0' * 64}",
    "malformed token": "/tokens/203.0.113.77",
    "unknown path": "/nothing",
}
# 200 % zoom halves the width that a page has, and doubles the pixels of each of its pixels.
SCREENS = {
    "wide": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2},
    "200 % zoom": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_view_is_accessible(
    chromium: Browser, api: Api, theme: str, screen: str, view: str
) -> None:
    with browser.visiting(chromium, color_scheme=theme, **SCREENS[screen]) as visit:
        visit.open(api.url + VIEWS[view])

        assert visit.inaccessible() == []
        assert visit.overflow() == []
        assert visit.violations() == []
        assert visit.complaints == _status_is_an_error(view)
        assert {urlsplit(address).netloc for address in visit.requests} == {
            urlsplit(api.url).netloc
        }


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_keyboard_reaches_everything(chromium: Browser, api: Api, theme: str, view: str) -> None:
    with browser.visiting(chromium, color_scheme=theme, **SCREENS["wide"]) as visit:
        visit.open(api.url + VIEWS[view])
        expected = visit.focusable()

        stops = visit.tab_through()

        # Chromium also stops at an area that scrolls.
        reached = [stop["index"] for stop in stops]
        assert [index for index in reached if index in expected] == expected
        assert [stop["html"] for stop in stops if not stop["in_view"]] == []
        kinds = {stop["kind"]: stop for stop in stops}
        assert [stop["html"] for stop in kinds.values() if not visit.shows_focus(stop)] == []


def _status_is_an_error(view: str) -> list[str]:
    """Return what Chromium logs of a page whose status is an error."""
    status = {"unknown token": "404 (Not Found)", "unknown path": "404 (Not Found)"}
    status |= {"malformed token": "400 (Bad Request)"}
    if view not in status:
        return []
    return [f"Failed to load resource: the server responded with a status of {status[view]}"]
