"""The page in Chromium: by axe, by keyboard, without scripts, and with hostile values."""

import csv
import io
import re
from html import unescape
from urllib.parse import urljoin, urlsplit

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
        visit.open_details()

        assert visit.inaccessible() == []
        assert visit.overflow() == []
        assert visit.violations() == []
        assert visit.complaints == _status_is_an_error(view)
        assert {urlsplit(address).netloc for address in visit.requests} == {
            urlsplit(api.url).netloc
        }


# The dark theme has other colours, and the same kinds of elements.
IN_THEMES = [*(("light", view) for view in VIEWS), ("dark", "start"), ("dark", "token of a ring")]


@pytest.mark.parametrize(("theme", "view"), IN_THEMES)
def test_keyboard_reaches_everything(chromium: Browser, api: Api, theme: str, view: str) -> None:
    # A transition would move elements while they are looked at.
    calm = {"color_scheme": theme, "reduced_motion": "reduce", **SCREENS["wide"]}
    with browser.visiting(chromium, **calm) as visit:
        visit.open(api.url + VIEWS[view])
        expected = visit.focusable()

        stops = visit.tab_through()

        # Chromium also stops at an area that scrolls.
        reached = [stop["index"] for stop in stops]
        assert [index for index in reached if index in expected] == expected
        assert [stop["html"] for stop in stops if not stop["in_view"]] == []
        kinds = {stop["kind"]: stop for stop in stops}
        assert [stop["html"] for stop in kinds.values() if not visit.shows_focus(stop)] == []


def test_keyboard_alone_searches_and_opens(chromium: Browser, api: Api) -> None:
    with browser.visiting(chromium) as visit:
        visit.open(api.url)
        page, press = visit.page, visit.page.keyboard.press
        page.get_by_label("Search by").focus()
        press("ArrowDown")
        press("Tab")
        page.keyboard.type(sample.RING_USERS[1])
        press("Enter")
        page.wait_for_url("**/search")
        tokens = page.get_by_role("rowheader").all_inner_texts()
        page.get_by_role("rowheader").get_by_role("link").first.focus()
        press("Enter")
        page.wait_for_url("**/tokens/*")

        shown = {sample.device("ring 1"), sample.device("ring 2"), sample.address("ring")}
        assert set(tokens) == shown
        assert page.url.rpartition("/")[2] in shown


def test_page_works_without_scripts(chromium: Browser, api: Api) -> None:
    with browser.visiting(chromium, java_script_enabled=False) as visit:
        visit.open(api.url)
        page = visit.page
        page.get_by_role("navigation").get_by_role("link", name="Rings").click()
        page.get_by_role("rowheader").get_by_role("link").first.click()
        ring = page.url.rpartition("/")[2]
        button = page.get_by_role("rowheader").get_by_role("button").first
        chosen = button.inner_text()
        button.click()
        shown = page.locator("main bdi").inner_text()
        page.get_by_label("Token or user id").fill(sample.HUB_DEVICE)
        page.get_by_label("Search by").select_option("Token")
        page.get_by_role("button", name="Search").click()

        assert ring == sample.CROWDED_DEVICE
        assert shown == chosen
        assert page.url == f"{api.url}/tokens/{sample.HUB_DEVICE}"


HOSTILE_VIEWS = ["ring of hostile users", "token of hostile users", "start"]


@pytest.mark.parametrize("view", HOSTILE_VIEWS)
def test_hostile_values_are_only_text(chromium: Browser, api: Api, view: str) -> None:
    with browser.visiting(chromium) as visit:
        visit.open(api.url + VIEWS[view])
        visit.open_details()

        active = "script, img, iframe, object, embed, style, base, [style], [onload], [onerror]"
        assert visit.page.locator(active).count() == 0
        assert visit.page.title() != sample.SCRIPT_RAN
        assert visit.violations() == []
        assert visit.complaints == []
        assert {urlsplit(address).netloc for address in visit.requests} == {
            urlsplit(api.url).netloc
        }


@pytest.mark.parametrize("user", [user for user in sample.HOSTILE_USERS if user.isprintable()])
def test_hostile_user_id_is_found(chromium: Browser, api: Api, user: str) -> None:
    with browser.visiting(chromium) as visit:
        visit.open(api.url)
        visit.page.get_by_label("Search by").select_option("User id")
        visit.page.get_by_label("Token or user id").fill(user)
        visit.page.get_by_role("button", name="Search").click()
        visit.open_details()

        assert visit.page.locator("main bdi").inner_text() == user
        tokens = visit.page.get_by_role("rowheader").all_inner_texts()
        assert set(tokens) == {sample.HOSTILE_DEVICE, sample.HOSTILE_ADDRESS}
        assert visit.inaccessible() == []
        assert visit.overflow() == []
        # A user id is personal data, so it is in no address.
        assert visit.page.url == f"{api.url}/search"
        assert visit.complaints == []


FORMULA_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"


def test_csv_holds_no_formula(api: Api) -> None:
    paths = [
        f"/v1/rings/{sample.HOSTILE_DEVICE}/members?limit=200",
        f"/v1/tokens/{sample.HOSTILE_DEVICE}/users?limit=200",
        f"/v1/tokens/{sample.HOSTILE_DEVICE}/logins?days=31&limit=200",
        "/v1/daily?by=locale&limit=1000",
        "/v1/daily?by=device_type&limit=1000",
    ]
    escaped = 0
    for path in paths:
        rows = api.get(path).json["rows"]
        [columns, *lines] = csv.reader(io.StringIO(api.get(f"{path}&format=csv").body.decode(), ""))

        values = ["" if row[name] is None else str(row[name]) for row in rows for name in columns]
        cells = [cell for line in lines for cell in line]
        formulas = [value.startswith(tuple(FORMULA_STARTS)) for value in values]
        expected = [
            f"'{value}" if formula else value
            for value, formula in zip(values, formulas, strict=True)
        ]
        assert cells == expected
        escaped += sum(formulas)
    assert escaped > 20


POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


@pytest.mark.parametrize("view", VIEWS)
def test_view_is_small_and_its_links_answer(api: Api, view: str) -> None:
    answer = api.get(VIEWS[view])

    html = answer.body.decode()
    links = {unescape(link) for link in re.findall(r'(?:href|action)="([^"#]+)"', html)}
    targets = {urlsplit(urljoin(api.url + VIEWS[view], link)) for link in links}
    assert len(answer.body) <= 60_000
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert {target.netloc for target in targets} == {urlsplit(api.url).netloc}
    paths = {f"{each.path}?{each.query}" for each in targets if each.path != "/search"}
    assert {path: status for path in paths if (status := api.get(path).status) != 200} == {}
    assert paths


def _status_is_an_error(view: str) -> list[str]:
    """Return what Chromium logs of a page whose status is an error."""
    status = {"unknown token": "404 (Not Found)", "unknown path": "404 (Not Found)"}
    status |= {"malformed token": "400 (Bad Request)"}
    if view not in status:
        return []
    return [f"Failed to load resource: the server responded with a status of {status[view]}"]
