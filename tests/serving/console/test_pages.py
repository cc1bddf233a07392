"""The console: signing in, pages that agree with the API, and nothing on a page that runs script or leaks data."""

import re
from datetime import date, datetime, time, timedelta
from html import unescape
from typing import Any

import pytest

from serving.console import charts, formatting
from serving.console.visit_history import ShopVisit, VisitHistory
from serving.http import session_cookie

TODAY = date(2025, 7, 25)
FORM = {"Sec-Fetch-Site": "same-origin"}
PAGES = ("/", "/?band=lapsed", "/customers/c000", "/sign-in", "/customers/nobody-here")


class Browser:
    """A browser with its cookies."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.cookies: dict[str, str] = {}

    def sign_in(self, role: str = "agent", to: str = "/", key: str | None = None) -> Any:
        return self.send("/sign-in", {"key": key or self.api.keys[role], "to": to})

    def open(self, path: str) -> Any:
        return self._store_cookies(self.api.client.get(path, headers=self._cookie(), follow_redirects=False))

    def send(self, path: str, form: dict[str, str], **headers: str) -> Any:
        headers = {**FORM, **headers, **self._cookie()}
        return self._store_cookies(self.api.client.post(path, data=form, headers=headers, follow_redirects=False))

    def read(self, path: str) -> str:
        """The text of a page, without tags."""
        response = self.open(path)
        assert response.status_code == 200, response.text
        return visible_text(response.text)

    def _cookie(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def _store_cookies(self, response: Any) -> Any:
        for name, value in response.cookies.items():
            self.cookies[name] = value
        self.api.client.cookies.clear()
        return response


def visible_text(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


@pytest.fixture
def browser(api: Any) -> Browser:
    """A browser in which an agent is signed in."""
    browser = Browser(api)
    assert browser.sign_in().status_code == 303
    return browser


# Signing in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/customers/c000"])
def test_without_signing_in_the_sign_in_page_is_shown(api: Any, path: str) -> None:
    response = Browser(api).open(path)
    assert response.status_code == 401
    assert f'name="to" value="{path}"' in response.text
    assert "Your key" in visible_text(response.text)


def test_signing_in_opens_the_requested_page_and_the_cookie_has_no_key(api: Any) -> None:
    browser = Browser(api)
    response = browser.sign_in("agent", to="/customers/c000")
    assert response.headers["location"] == "/customers/c000"
    cookie = response.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert api.keys["agent"].split("_", 2)[2] not in cookie
    assert browser.open("/customers/c000").status_code == 200


def test_behind_https_the_cookie_is_secure(api: Any) -> None:
    form = {"key": api.keys["agent"]}
    assert "; Secure" not in Browser(api).send("/sign-in", form).headers["set-cookie"]
    secure = Browser(api).send("/sign-in", form, **{"X-Forwarded-Proto": "https"})
    assert "; Secure" in secure.headers["set-cookie"]


def test_a_wrong_key_is_refused_and_not_repeated(api: Any) -> None:
    response = Browser(api).sign_in(key="rg_0123456789ab_canary")
    assert response.status_code == 401
    assert "No key of this shop" in visible_text(response.text)
    assert "canary" not in response.text
    assert "set-cookie" not in response.headers


def test_a_till_may_not_sign_in(api: Any) -> None:
    response = Browser(api).sign_in("till")
    assert response.status_code == 403
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "to", ["https://example.com", "//example.com", "/\\example.com", "/v1/at-risk", "javascript:1"]
)
def test_signing_in_redirects_only_to_console_pages(api: Any, to: str) -> None:
    assert Browser(api).sign_in(to=to).headers["location"] == "/"


def test_a_cookie_opens_pages_and_not_the_api(browser: Browser) -> None:
    assert browser.open("/v1/at-risk").status_code == 401
    assert browser.open("/v1/customers/c000").status_code == 401


def test_a_key_in_a_header_opens_no_page(api: Any) -> None:
    assert api.read("/").status_code == 401


def test_a_forged_cookie_is_refused(browser: Browser) -> None:
    (name, value), *_ = browser.cookies.items()
    prefix, until, seal = value.split(".")
    for forged in ("", "x", f"{prefix}.{int(until) + 1}.{seal}", f"{'0' * 12}.{until}.{seal}", f"{prefix}.{until}."):
        browser.cookies = {name: forged}
        assert browser.open("/").status_code == 401


def test_a_session_expires(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    later = session_cookie.time.time() + session_cookie.LIFETIME_SECONDS + 1
    monkeypatch.setattr(session_cookie.time, "time", lambda: later)
    assert browser.open("/").status_code == 401


def test_two_shops_on_one_machine_do_not_share_a_cookie(api: Any, tmp_path: Any) -> None:
    from customers import setup

    other = setup.init_home(tmp_path / "other")
    assert session_cookie._cookie_name(other) != session_cookie._cookie_name(api.shop)


def test_signing_out_deletes_the_cookie(browser: Browser) -> None:
    response = browser.send("/sign-out", {"leave": "now"})
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    assert "Max-Age=0" in response.headers["set-cookie"]


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://example.com"},
     {"Origin": "null"}],
)  # fmt: skip
def test_a_form_sent_from_another_site_is_refused(api: Any, headers: dict[str, str]) -> None:
    form = {"key": api.keys["agent"]}
    response = api.client.post("/sign-in", data=form, headers=headers, follow_redirects=False)
    assert response.status_code == 403
    assert "set-cookie" not in response.headers


def test_a_form_with_only_the_same_origin_header_is_accepted(api: Any) -> None:
    form, headers = {"key": api.keys["agent"]}, {"Origin": "http://testserver"}
    assert api.client.post("/sign-in", data=form, headers=headers, follow_redirects=False).status_code == 303
    api.client.cookies.clear()


def test_signing_in_accepts_form_data_only(api: Any) -> None:
    response = api.client.post("/sign-in", json={"key": api.keys["agent"]}, headers=FORM)
    assert response.status_code == 415


# Content security -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_script_and_loads_nothing_from_other_sites(browser: Browser, path: str) -> None:
    response = browser.open(path)
    policy = response.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = response.text
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|https?://", page)
    assert set(re.findall(r'(?:src|<link [^>]*href)="([^"]*)"', page)) <= {"/style.css", "/icon.svg"}


@pytest.mark.parametrize(("path", "content_type"), [("/style.css", "text/css"), ("/icon.svg", "image/svg+xml")])
def test_style_sheet_and_icon_are_served_and_load_nothing_else(api: Any, path: str, content_type: str) -> None:
    response = api.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(content_type)
    assert "url(" not in response.text
    assert "@import" not in response.text


def test_a_refusal_is_an_html_page(browser: Browser) -> None:
    for path, status in (("/customers/canary", 404), ("/?band=canary", 422), ("/?cursor=canary", 422),
                         ("/?min_value=canary", 422), ("/customers/canary%07", 422)):  # fmt: skip
        response = browser.open(path)
        assert response.status_code == status, path
        assert response.headers["content-type"].startswith("text/html")
        assert "canary" not in response.text


def test_page_requests_are_counted_by_route_template(browser: Browser) -> None:
    browser.open("/customers/c001")
    metrics = browser.api.client.get("/metrics").text
    assert 'route="/customers/{customer_id}",status="200"' in metrics
    assert "c001" not in metrics


# The at-risk list -----------------------------------------------------------------------------------------


def test_the_list_shows_the_customers_of_the_api(browser: Browser) -> None:
    listed = browser.api.read("/v1/at-risk?limit=25").json()["items"]
    page = browser.open("/").text
    assert re.findall(r'<td class="who"><a href="/customers/([^"]+)"', page) == [
        entry["customer_id"] for entry in listed
    ]
    assert [formatting.format_percent(entry["churn_probability"]) for entry in listed] == re.findall(
        r'<span class="share">([^<]+)</span>', unescape(page)
    )
    for entry in listed:
        assert all(reason in visible_text(page) for reason in entry["reasons"][:2])


def test_the_sort_order_of_the_list_holds_on_the_next_page(browser: Browser) -> None:
    listed = browser.api.read("/v1/at-risk?limit=50&order=value_at_risk").json()["items"]
    page = browser.open("/?order=value_at_risk").text
    assert "Most at stake first, as of" in page
    assert "Most to save first" not in page  # uplift has not been measured
    shown = re.findall(r'<td class="who"><a href="/customers/([^"]+)"', page)
    assert shown == [entry["customer_id"] for entry in listed[:25]]
    if follow := re.search(r'<a class="next" href="([^"]+)"', page):
        second = browser.open(unescape(follow[1])).text
        shown = re.findall(r'<td class="who"><a href="/customers/([^"]+)"', second)
        assert shown == [entry["customer_id"] for entry in listed[25:50]]


def test_paging_shows_every_customer_once(browser: Browser) -> None:
    whole = browser.api.read("/v1/at-risk?limit=1000&band=low").json()["items"]
    shown, path = [], "/?band=low"
    while path:
        page = browser.open(path).text
        shown += re.findall(r'<td class="who"><a href="/customers/([^"]+)"', page)
        follow = re.search(r'<a class="next" href="([^"]+)"', page)
        path = unescape(follow[1]) if follow else ""
    assert shown == [entry["customer_id"] for entry in whole]
    assert len(shown) > 25


def test_the_page_shows_the_number_of_customers_of_each_band(browser: Browser) -> None:
    page = browser.read("/")
    sizes = {}
    for band in ("high", "medium", "lapsed", "low"):
        sizes[band] = len(browser.api.read(f"/v1/at-risk?limit=1000&band={band}").json()["items"])
        assert f"{band.capitalize()} {sizes[band]}" in page
    assert f"At risk {sizes['high'] + sizes['medium']}" in page


def test_before_the_first_nightly_run_the_page_names_the_command(isolated_api: Any) -> None:
    browser = Browser(isolated_api)
    browser.sign_in()
    response = browser.open("/")
    assert response.status_code == 503
    assert "regulars run" in visible_text(response.text)


# One customer ---------------------------------------------------------------------------------------------


def test_a_customer_page_agrees_with_the_api(browser: Browser) -> None:
    name = browser.api.read("/v1/at-risk?limit=1").json()["items"][0]["customer_id"]
    page = browser.read(f"/customers/{name}")
    api_path = f"/v1/customers/{name}"
    churn = browser.api.read(f"{api_path}/churn").json()["results"][0]
    assert (
        f"{formatting.format_percent(churn['probability'])} likely to buy nothing in the next {churn['horizon_days']}"
        in page
    )
    assert churn["band"] in page
    assert all(reason in page for reason in churn["reasons"])
    next_purchase = browser.api.read(f"{api_path}/next-purchase").json()["results"][0]
    for within, p in next_purchase["p"].items():
        assert p is None or f"within {within} days {formatting.format_percent(p)}" in page
    value = browser.api.read(f"{api_path}/value").json()["results"][0]
    assert (
        f"about {formatting.format_whole_money(value['expected'], 'USD')} expected in {value['horizon_days']} days"
        in page
    )
    restock = browser.api.read(f"{api_path}/restock?within_days=14").json()["results"][0]["items"]
    shown = [f"{formatting.format_product_name(item['category'])} by" for item in restock if item["p"] >= 0.1][:8]
    assert all(category in page for category in shown)
    items = browser.api.read(f"{api_path}/recommendations?n=8").json()["results"][0]["items"]
    assert all(item["product_id"] in page and item["reason"] in page for item in items)
    newest = browser.api.read(api_path).json()["orders"][0]
    assert all(line["amount"] in page for line in newest["lines"])


def test_visits_are_counted_as_the_features_count_them(browser: Browser) -> None:
    from customers.parquet import mirror
    from customers.people import lookup
    from features.snapshots import snapshot
    from serving import runtime
    from serving.console import customer_page

    shop = browser.api.shop
    server_runtime = runtime.open_runtime(shop)
    mirror.refresh(shop)
    days = snapshot.load_purchases(shop.home / "ledger", as_of=server_runtime.now(), timezone=shop.timezone)
    for key in lookup.find_keys(shop, ["c000", "c001", "c002", "c003"]).values():
        shown = customer_page.load_visits(server_runtime, key, None)
        own_days = days[days["customer_key"] == key]
        assert shown is not None
        assert [visit.day for visit in shown.history.visits] == own_days["day"].dt.date.tolist()
        assert [visit.spent for visit in shown.history.visits] == pytest.approx(own_days["spend"].tolist())


def test_offers_and_ineligible_offers_are_listed(browser: Browser) -> None:
    result = browser.api.read("/v1/customers/c000/offers").json()["results"][0]
    page = browser.read("/customers/c000")
    assert result["items"]
    for offer in result["items"]:
        assert f"{offer['offer_id']} until" in page
        assert f"{offer['reason']} {formatting.format_percent(offer['score'])}" in page
    assert f"{result['dropped_count']} not offered, and why" in page
    assert all(f"{offer['offer_id']} {offer['reason']}" in page for offer in result["dropped"][:12])


def test_a_sale_shows_on_the_page_at_once(isolated_api: Any, score_customers: Any) -> None:
    score_customers(isolated_api.shop)
    name = isolated_api.read("/v1/at-risk?band=high").json()["items"][0]["customer_id"]
    agent = Browser(isolated_api)
    agent.sign_in("agent")
    before = agent.read(f"/customers/{name}")
    line = {"order_id": "till-1", "line_id": "1", "customer_id": name, "product_id": "p04", "quantity": 1}
    sold_at = (datetime.combine(TODAY, time(9), isolated_api.shop.zone) + timedelta(days=1)).isoformat()
    assert (
        isolated_api.post("/v1/transactions", {**line, "amount": "5.05", "sold_at": sold_at}, "till").status_code == 200
    )
    after = agent.read(f"/customers/{name}")
    assert "Silent for 1 day " in after
    assert "$5.05" in after
    assert "Silent for 1 day " not in before
    percentages = [int(re.search(r"(\d+) % likely to buy nothing", page)[1]) for page in (before, after)]  # type: ignore[index]
    assert percentages[1] < percentages[0] - 10


def test_without_a_champion_there_is_a_page_without_scores(untrained: Any) -> None:
    browser = Browser(untrained)
    browser.sign_in()
    page = browser.read("/customers/c000")
    assert "Purchase frequency" in page
    assert "<h2>Churn" not in page


def test_a_customer_who_denies_profiling_has_a_page_without_scores(api_without_profiling: Any) -> None:
    browser = Browser(api_without_profiling)
    browser.sign_in()
    page = browser.read("/customers/c000")
    assert "does not allow profiling" in page
    assert "What sells in the shop" in page
    assert not re.search("Purchase frequency|<h2>Churn|Coming back|expected", page)


def ingest(shop: Any, record_kind: str, /, **record: Any) -> None:
    from customers.loading.load import ingest_records

    assert ingest_records(shop, record_kind, [record]).rejected == 0


def test_personal_data_is_escaped_and_shown_only_to_roles_that_serve_customers(
    isolated_api: Any, score_customers: Any
) -> None:
    ingest(
        isolated_api.shop,
        "customers",
        customer_id="c000",
        given_name="小明",
        family_name="王",
        email="wang@example.com",
    )
    ingest(isolated_api.shop, "customers", customer_id="c001", given_name="<script>alert(1)</script>", city='"><b>Bath')
    score_customers(isolated_api.shop)
    agent, analyst = Browser(isolated_api), Browser(isolated_api)
    agent.sign_in("agent")
    analyst.sign_in("analyst")
    assert "王小明 low" in re.sub(r"(medium|high|lapsed)", "low", agent.read("/customers/c000"))
    page = agent.open("/customers/c001").text
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<b>" not in page
    for path in ("/customers/c000", "/customers/c001"):
        assert not re.search("王|wang@|alert|Bath", analyst.open(path).text)


def test_an_open_complaint_comes_first(isolated_api: Any, score_customers: Any) -> None:
    complaint = {"customer_id": "c000", "happened_at": "2025-07-20T10:00:00Z", "kind": "complaint", "channel": "email"}
    ingest(isolated_api.shop, "interactions", interaction_id="i1", text="Stale bread", status="open", **complaint)
    ingest(isolated_api.shop, "interactions", interaction_id="i2", text="Long queue", status="closed", **complaint)
    agent, analyst = Browser(isolated_api), Browser(isolated_api)
    agent.sign_in("agent")
    analyst.sign_in("analyst")
    page = agent.read("/customers/c000")
    assert page.count("Open complaint since 20 Jul 2025, by email") == 1
    assert page.index("Stale bread") < page.index("Purchase frequency") < page.index("Long queue")
    page = analyst.read("/customers/c000")
    assert "Open complaint since 20 Jul 2025" in page
    assert "Stale" not in page


def test_customers_are_searched_by_id_email_phone_and_name(isolated_api: Any) -> None:
    ingest(
        isolated_api.shop, "customers", customer_id="c000", given_name="Zoë", family_name="Ng", email="zoe@example.com"
    )
    ingest(isolated_api.shop, "customers", customer_id="c001", given_name="Zoë", family_name="Ng", phone="+1 555 0100")
    agent, analyst = Browser(isolated_api), Browser(isolated_api)
    agent.sign_in("agent")
    analyst.sign_in("analyst")
    for query in ("c000", " ZOE@example.com "):
        assert agent.send("/find", {"asked": query}).headers["location"] == "/customers/c000"
    assert agent.send("/find", {"asked": "+1 (555) 0100"}).headers["location"] == "/customers/c001"
    both = visible_text(agent.send("/find", {"asked": "zoe ng"}).text)
    assert "2 customers" in both
    assert analyst.send("/find", {"asked": "c000"}).headers["location"] == "/customers/c000"
    for query in ("zoe@example.com", "zoe ng", ""):
        assert "Nobody found" in visible_text(analyst.send("/find", {"asked": query}).text)


# Formatting and charts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.004, "< 1 %"), (0.123, "12 %"), (0.994, "99 %"), (0.996, "> 99 %"), (1, "100 %")],
)
def test_percentages_are_not_rounded_to_0_or_100(share: float, text: str) -> None:
    assert formatting.format_percent(share) == text


def test_money_has_a_currency_sign_and_thousands_separators() -> None:
    assert formatting.format_money("1234.50", "USD") == "$1,234.50"
    assert formatting.format_money("-3.00", "SEK") == "−SEK 3.00"
    assert formatting.format_whole_money("1234.50", "CNY") == "¥1,234"


@pytest.mark.parametrize(
    ("profile", "full_name"),
    [({"given_name": "Ana", "family_name": "Silva"}, "Ana Silva"), ({"given_name": "伟", "family_name": "张"}, "张伟"),
     ({"given_name": "Ana"}, "Ana"), ({}, None), (None, None)],
)  # fmt: skip
def test_chinese_names_have_the_family_name_first(profile: dict[str, str] | None, full_name: str | None) -> None:
    assert formatting.format_full_name(profile) == full_name


def visit_history(*days_ago: int) -> VisitHistory:
    return VisitHistory([ShopVisit(TODAY - timedelta(days=days), 10.0) for days in days_ago], TODAY)


def test_a_visit_history_compares_the_current_gap_with_the_usual_one() -> None:
    history = visit_history(38, 31, 24, 10)
    assert history.gap_days == [7, 7, 14]
    assert (history.median_gap_days, history.longest_gap_days, history.silent_days) == (7, 14, 10)
    assert history.gap_status == "longer"
    assert visit_history(38, 31, 24, 5).gap_status == "usual"
    assert visit_history(54, 47, 40, 21).gap_status == "longest"
    assert (visit_history(3).median_gap_days, visit_history(3).gap_status) == (None, "usual")


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]


def test_gap_arcs_connect_visits_and_the_last_visit_with_today() -> None:
    timeline = charts.draw_visit_timeline(visit_history(100, 60, 50), width=420, expected_day=TODAY + timedelta(days=5))
    # 400 units of width between the margins show 107 days before today and 30 after it.
    unit = 400 / (107 + charts.AHEAD_DAYS)
    x_at = {ago: 10 + (107 - ago) * unit for ago in (100, 60, 50, 0, -5)}
    assert [dot.x for dot in timeline.dots] == pytest.approx([x_at[100], x_at[60], x_at[50]])
    first, second = timeline.gap_arcs.split("M")[1:]
    assert (numbers(first)[0], numbers(first)[-2]) == pytest.approx((x_at[100], x_at[60]), abs=0.06)
    assert (numbers(second)[0], numbers(second)[-2]) == pytest.approx((x_at[60], x_at[50]), abs=0.06)
    open_gap = numbers(timeline.open_gap_arc)
    assert (open_gap[0], open_gap[-2]) == pytest.approx((x_at[50], x_at[0]), abs=0.06)
    # The longest gap has the full height; the height of any other grows with its days.
    height = timeline.baseline_y - 14
    assert open_gap[3] == pytest.approx(height, abs=0.06)
    assert numbers(first)[3] == pytest.approx(height * (40 / 50) ** 0.8, abs=0.06)
    assert timeline.expected_dot is not None
    assert timeline.expected_dot.x == pytest.approx(x_at[-5])


@pytest.mark.parametrize("days_ago", [(3,), (0,), (900, 500), tuple(range(800, 0, -1))])
@pytest.mark.parametrize("width", [340, 1040])
def test_every_visit_history_is_drawn_inside_its_frame(days_ago: tuple[int, ...], width: int) -> None:
    timeline = charts.draw_visit_timeline(
        visit_history(*days_ago), width=width, expected_day=TODAY + timedelta(days=200)
    )
    assert timeline.expected_arc is None
    assert all(0 <= x <= width for x in [dot.x for dot in timeline.dots] + [month.x for month in timeline.months])
    assert 0 <= timeline.today_x <= width
    assert all(-1 <= number <= width + 1 for number in numbers(timeline.gap_arcs + timeline.open_gap_arc))


def test_the_purchase_curve_is_marked_at_its_quantiles() -> None:
    # 20 % buy on each of five days: 10 % are reached after half a day, 50 % after two and a half.
    cdf = [0.2, 0.4, 0.6, 0.8, 1.0, *[1.0] * 175]
    curve = charts.draw_purchase_curve(cdf, {"p10": 1, "p50": 3, "p90": 5}, first=TODAY, width=500)
    unit = (curve.right - curve.left) / 14
    assert [mark.x for mark in curve.marks] == pytest.approx([curve.left + days * unit for days in (0.5, 2.5, 4.5)])
    assert [rail.y for rail in curve.gridlines] == pytest.approx([mark.y for mark in curve.marks])
    assert [label.text for label in curve.labels] == ["1 in 10 by 25 Jul", "half by 27 Jul", "9 in 10 by 29 Jul"]


def test_a_purchase_curve_below_its_first_quantile_is_labelled() -> None:
    curve = charts.draw_purchase_curve([0.0001] * 60, {"p10": None, "p50": None, "p90": None}, first=TODAY, width=340)
    assert not curve.marks
    assert [label.text for label in curve.labels] == ["fewer than 1 in 10 within 60 days"]
