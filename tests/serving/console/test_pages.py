"""The desk's pages: who gets in, that they show what the answers say, and that nothing on them runs or leaks."""

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


class Reader:
    """Somebody at a browser."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.cookies: dict[str, str] = {}

    def sign_in(self, role: str = "agent", to: str = "/", key: str | None = None) -> Any:
        return self.send("/sign-in", {"key": key or self.api.keys[role], "to": to})

    def open(self, path: str) -> Any:
        return self._kept(self.api.client.get(path, headers=self._cookie(), follow_redirects=False))

    def send(self, path: str, form: dict[str, str], **headers: str) -> Any:
        headers = {**FORM, **headers, **self._cookie()}
        return self._kept(self.api.client.post(path, data=form, headers=headers, follow_redirects=False))

    def read(self, path: str) -> str:
        """What a page says, without its marks."""
        response = self.open(path)
        assert response.status_code == 200, response.text
        return words(response.text)

    def _cookie(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def _kept(self, response: Any) -> Any:
        for name, value in response.cookies.items():
            self.cookies[name] = value
        self.api.client.cookies.clear()
        return response


def words(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


@pytest.fixture
def reader(api: Any) -> Reader:
    """An agent who is signed in."""
    reader = Reader(api)
    assert reader.sign_in().status_code == 303
    return reader


# Who gets in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/customers/c000"])
def test_whoever_is_not_signed_in_is_asked_for_a_key(api: Any, path: str) -> None:
    response = Reader(api).open(path)
    assert response.status_code == 401
    assert f'name="to" value="{path}"' in response.text
    assert "Your key" in words(response.text)


def test_a_key_opens_the_page_that_was_wanted_and_stays_out_of_sight(api: Any) -> None:
    reader = Reader(api)
    response = reader.sign_in("agent", to="/customers/c000")
    assert response.headers["location"] == "/customers/c000"
    said = response.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(said.split("; "))
    assert api.keys["agent"].split("_", 2)[2] not in said
    assert reader.open("/customers/c000").status_code == 200


def test_behind_https_the_cookie_travels_nowhere_else(api: Any) -> None:
    form = {"key": api.keys["agent"]}
    assert "; Secure" not in Reader(api).send("/sign-in", form).headers["set-cookie"]
    secure = Reader(api).send("/sign-in", form, **{"X-Forwarded-Proto": "https"})
    assert "; Secure" in secure.headers["set-cookie"]


def test_a_wrong_key_is_turned_down_and_not_repeated(api: Any) -> None:
    response = Reader(api).sign_in(key="rg_0123456789ab_canary")
    assert response.status_code == 401
    assert "No key of this shop" in words(response.text)
    assert "canary" not in response.text
    assert "set-cookie" not in response.headers


def test_a_till_has_no_desk(api: Any) -> None:
    response = Reader(api).sign_in("till")
    assert response.status_code == 403
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "to", ["https://example.com", "//example.com", "/\\example.com", "/v1/at-risk", "javascript:1"]
)
def test_from_the_sign_in_nobody_is_sent_elsewhere(api: Any, to: str) -> None:
    assert Reader(api).sign_in(to=to).headers["location"] == "/"


def test_a_cookie_opens_pages_and_no_programs_answers(reader: Reader) -> None:
    assert reader.open("/v1/at-risk").status_code == 401
    assert reader.open("/v1/customers/c000").status_code == 401


def test_a_key_in_a_header_is_for_programs(api: Any) -> None:
    assert api.read("/").status_code == 401


def test_a_changed_cookie_is_nobodys(reader: Reader) -> None:
    (name, value), *_ = reader.cookies.items()
    prefix, until, seal = value.split(".")
    for forged in ("", "x", f"{prefix}.{int(until) + 1}.{seal}", f"{'0' * 12}.{until}.{seal}", f"{prefix}.{until}."):
        reader.cookies = {name: forged}
        assert reader.open("/").status_code == 401


def test_a_working_day_ends(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    later = session_cookie.time.time() + session_cookie.LIFETIME_SECONDS + 1
    monkeypatch.setattr(session_cookie.time, "time", lambda: later)
    assert reader.open("/").status_code == 401


def test_two_shops_on_one_machine_do_not_share_a_cookie(api: Any, tmp_path: Any) -> None:
    from customers import setup

    other = setup.init_home(tmp_path / "other")
    assert session_cookie._cookie_name(other) != session_cookie._cookie_name(api.shop)


def test_signing_out_ends_it(reader: Reader) -> None:
    response = reader.send("/sign-out", {"leave": "now"})
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    assert "Max-Age=0" in response.headers["set-cookie"]


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://example.com"},
     {"Origin": "null"}],
)  # fmt: skip
def test_another_sites_form_does_nothing(api: Any, headers: dict[str, str]) -> None:
    form = {"key": api.keys["agent"]}
    response = api.client.post("/sign-in", data=form, headers=headers, follow_redirects=False)
    assert response.status_code == 403
    assert "set-cookie" not in response.headers


def test_a_browser_that_says_only_where_it_comes_from_gets_in(api: Any) -> None:
    form, headers = {"key": api.keys["agent"]}, {"Origin": "http://testserver"}
    assert api.client.post("/sign-in", data=form, headers=headers, follow_redirects=False).status_code == 303
    api.client.cookies.clear()


def test_a_page_takes_its_own_form_only(api: Any) -> None:
    response = api.client.post("/sign-in", json={"key": api.keys["agent"]}, headers=FORM)
    assert response.status_code == 415


# What a page may do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_a_page_runs_nothing_and_fetches_nothing_from_elsewhere(reader: Reader, path: str) -> None:
    response = reader.open(path)
    policy = response.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = response.text
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|https?://", page)
    assert set(re.findall(r'(?:src|<link [^>]*href)="([^"]*)"', page)) <= {"/style.css", "/icon.svg"}


@pytest.mark.parametrize(("path", "kind"), [("/style.css", "text/css"), ("/icon.svg", "image/svg+xml")])
def test_what_a_page_needs_lies_beside_it(api: Any, path: str, kind: str) -> None:
    response = api.client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(kind)
    assert "url(" not in response.text
    assert "@import" not in response.text


def test_a_refusal_is_a_page_too(reader: Reader) -> None:
    for path, status in (("/customers/canary", 404), ("/?band=canary", 422), ("/?cursor=canary", 422),
                         ("/?min_value=canary", 422), ("/customers/canary%07", 422)):  # fmt: skip
        response = reader.open(path)
        assert response.status_code == status, path
        assert response.headers["content-type"].startswith("text/html")
        assert "canary" not in response.text


def test_pages_are_counted_by_their_kind(reader: Reader) -> None:
    reader.open("/customers/c001")
    told = reader.api.client.get("/metrics").text
    assert 'route="/customers/{customer_id}",status="200"' in told
    assert "c001" not in told


# Who is slipping away -------------------------------------------------------------------------------------


def test_the_list_names_whom_the_answer_names(reader: Reader) -> None:
    told = reader.api.read("/v1/at-risk?limit=25").json()["items"]
    page = reader.open("/").text
    assert re.findall(r'<td class="who"><a href="/customers/([^"]+)"', page) == [one["customer_id"] for one in told]
    assert [formatting.format_percent(one["churn_probability"]) for one in told] == re.findall(
        r'<span class="share">([^<]+)</span>', unescape(page)
    )
    for one in told:
        assert all(reason in words(page) for reason in one["reasons"][:2])


def test_the_list_begins_with_what_is_asked_for_and_keeps_to_it(reader: Reader) -> None:
    told = reader.api.read("/v1/at-risk?limit=50&order=value_at_risk").json()["items"]
    page = reader.open("/?order=value_at_risk").text
    assert "Most at stake first, as of" in page
    assert "Most to save first" not in page  # nobody knows what a contact saves
    shown = re.findall(r'<td class="who"><a href="/customers/([^"]+)"', page)
    assert shown == [one["customer_id"] for one in told[:25]]
    if follow := re.search(r'<a class="next" href="([^"]+)"', page):
        second = reader.open(unescape(follow[1])).text
        shown = re.findall(r'<td class="who"><a href="/customers/([^"]+)"', second)
        assert shown == [one["customer_id"] for one in told[25:50]]


def test_turning_pages_shows_everybody_once(reader: Reader) -> None:
    whole = reader.api.read("/v1/at-risk?limit=1000&band=low").json()["items"]
    shown, path = [], "/?band=low"
    while path:
        page = reader.open(path).text
        shown += re.findall(r'<td class="who"><a href="/customers/([^"]+)"', page)
        follow = re.search(r'<a class="next" href="([^"]+)"', page)
        path = unescape(follow[1]) if follow else ""
    assert shown == [one["customer_id"] for one in whole]
    assert len(shown) > 25


def test_bands_are_counted(reader: Reader) -> None:
    page = reader.read("/")
    sizes = {}
    for band in ("high", "medium", "lapsed", "low"):
        sizes[band] = len(reader.api.read(f"/v1/at-risk?limit=1000&band={band}").json()["items"])
        assert f"{band.capitalize()} {sizes[band]}" in page
    assert f"At risk {sizes['high'] + sizes['medium']}" in page


def test_before_the_first_night_the_page_says_what_to_do(isolated_api: Any) -> None:
    reader = Reader(isolated_api)
    reader.sign_in()
    response = reader.open("/")
    assert response.status_code == 503
    assert "regulars run" in words(response.text)


# One customer ---------------------------------------------------------------------------------------------


def test_a_customers_page_says_what_the_answers_say(reader: Reader) -> None:
    name = reader.api.read("/v1/at-risk?limit=1").json()["items"][0]["customer_id"]
    page = reader.read(f"/customers/{name}")
    asked = f"/v1/customers/{name}"
    churn = reader.api.read(f"{asked}/churn").json()["results"][0]
    assert (
        f"{formatting.format_percent(churn['probability'])} likely to buy nothing in the next {churn['horizon_days']}"
        in page
    )
    assert churn["band"] in page
    assert all(reason in page for reason in churn["reasons"])
    back = reader.api.read(f"{asked}/next-purchase").json()["results"][0]
    for within, p in back["p"].items():
        assert p is None or f"within {within} days {formatting.format_percent(p)}" in page
    worth = reader.api.read(f"{asked}/value").json()["results"][0]
    assert (
        f"about {formatting.format_whole_money(worth['expected'], 'USD')} expected in {worth['horizon_days']} days"
        in page
    )
    needs = reader.api.read(f"{asked}/restock?within_days=14").json()["results"][0]["items"]
    shown = [f"{formatting.format_product_name(one['category'])} by" for one in needs if one["p"] >= 0.1][:8]
    assert all(category in page for category in shown)
    items = reader.api.read(f"{asked}/recommendations?n=8").json()["results"][0]["items"]
    assert all(item["product_id"] in page and item["reason"] in page for item in items)
    newest = reader.api.read(asked).json()["orders"][0]
    assert all(line["amount"] in page for line in newest["lines"])


def test_visits_are_counted_as_the_features_count_them(reader: Reader) -> None:
    from customers.parquet import mirror
    from customers.people import lookup
    from features.snapshots import snapshot
    from serving import runtime
    from serving.console import customer_page

    shop = reader.api.shop
    here = runtime.open_runtime(shop)
    mirror.refresh(shop)
    days = snapshot.load_purchases(shop.home / "ledger", as_of=here.now(), timezone=shop.timezone)
    for key in lookup.find_keys(shop, ["c000", "c001", "c002", "c003"]).values():
        shown = customer_page.load_visits(here, key, None)
        mine = days[days["customer_key"] == key]
        assert shown is not None
        assert [visit.day for visit in shown.history.visits] == mine["day"].dt.date.tolist()
        assert [visit.spent for visit in shown.history.visits] == pytest.approx(mine["spend"].tolist())


def test_offers_are_named_and_so_are_those_that_may_not_be_made(reader: Reader) -> None:
    told = reader.api.read("/v1/customers/c000/offers").json()["results"][0]
    page = reader.read("/customers/c000")
    assert told["items"]
    for offer in told["items"]:
        assert f"{offer['offer_id']} until" in page
        assert f"{offer['reason']} {formatting.format_percent(offer['score'])}" in page
    assert f"{told['dropped_count']} not offered, and why" in page
    assert all(f"{offer['offer_id']} {offer['reason']}" in page for offer in told["dropped"][:12])


def test_a_sale_shows_on_the_page_at_once(isolated_api: Any, score_customers: Any) -> None:
    score_customers(isolated_api.shop)
    name = isolated_api.read("/v1/at-risk?band=high").json()["items"][0]["customer_id"]
    agent = Reader(isolated_api)
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
    chances = [int(re.search(r"(\d+) % likely to buy nothing", page)[1]) for page in (before, after)]  # type: ignore[index]
    assert chances[1] < chances[0] - 10


def test_without_a_champion_there_is_a_page_without_scores(untrained: Any) -> None:
    reader = Reader(untrained)
    reader.sign_in()
    page = reader.read("/customers/c000")
    assert "Rhythm" in page
    assert "Staying away" not in page


def test_who_does_not_allow_profiling_is_not_profiled(private: Any) -> None:
    reader = Reader(private)
    reader.sign_in()
    page = reader.read("/customers/c000")
    assert "does not allow profiling" in page
    assert "What sells in the shop" in page
    assert not re.search("Rhythm|Staying away|Coming back|expected", page)


def tell(shop: Any, records: str, /, **record: Any) -> None:
    from customers.loading import load as loading_load

    assert loading_load.ingest_records(shop, records, [record]).rejected == 0


def test_names_are_for_those_who_serve_customers_and_run_nothing(isolated_api: Any, score_customers: Any) -> None:
    tell(
        isolated_api.shop,
        "customers",
        customer_id="c000",
        given_name="小明",
        family_name="王",
        email="wang@example.com",
    )
    tell(isolated_api.shop, "customers", customer_id="c001", given_name="<script>alert(1)</script>", city='"><b>Bath')
    score_customers(isolated_api.shop)
    agent, analyst = Reader(isolated_api), Reader(isolated_api)
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
    said = {"customer_id": "c000", "happened_at": "2025-07-20T10:00:00Z", "kind": "complaint", "channel": "email"}
    tell(isolated_api.shop, "interactions", interaction_id="i1", text="Stale bread", status="open", **said)
    tell(isolated_api.shop, "interactions", interaction_id="i2", text="Long queue", status="closed", **said)
    agent, analyst = Reader(isolated_api), Reader(isolated_api)
    agent.sign_in("agent")
    analyst.sign_in("analyst")
    page = agent.read("/customers/c000")
    assert page.count("Open complaint since 20 Jul 2025, by email") == 1
    assert page.index("Stale bread") < page.index("Rhythm") < page.index("Long queue")
    page = analyst.read("/customers/c000")
    assert "Open complaint since 20 Jul 2025" in page
    assert "Stale" not in page


def test_people_are_found_by_what_they_say(isolated_api: Any) -> None:
    tell(
        isolated_api.shop, "customers", customer_id="c000", given_name="Zoë", family_name="Ng", email="zoe@example.com"
    )
    tell(isolated_api.shop, "customers", customer_id="c001", given_name="Zoë", family_name="Ng", phone="+1 555 0100")
    agent, analyst = Reader(isolated_api), Reader(isolated_api)
    agent.sign_in("agent")
    analyst.sign_in("analyst")
    for asked in ("c000", " ZOE@example.com "):
        assert agent.send("/find", {"asked": asked}).headers["location"] == "/customers/c000"
    assert agent.send("/find", {"asked": "+1 (555) 0100"}).headers["location"] == "/customers/c001"
    both = words(agent.send("/find", {"asked": "zoe ng"}).text)
    assert "2 customers" in both
    assert analyst.send("/find", {"asked": "c000"}).headers["location"] == "/customers/c000"
    for asked in ("zoe@example.com", "zoe ng", ""):
        assert "Nobody found" in words(analyst.send("/find", {"asked": asked}).text)


# Wording and pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (0.004, "< 1 %"), (0.123, "12 %"), (0.994, "99 %"), (0.996, "> 99 %"), (1, "100 %")],
)
def test_nothing_is_rounded_to_certainty(share: float, said: str) -> None:
    assert formatting.format_percent(share) == said


def test_money_has_its_sign_and_its_thousands() -> None:
    assert formatting.format_money("1234.50", "USD") == "$1,234.50"
    assert formatting.format_money("-3.00", "SEK") == "−SEK 3.00"
    assert formatting.format_whole_money("1234.50", "CNY") == "¥1,234"


@pytest.mark.parametrize(
    ("profile", "said"),
    [({"given_name": "Ana", "family_name": "Silva"}, "Ana Silva"), ({"given_name": "伟", "family_name": "张"}, "张伟"),
     ({"given_name": "Ana"}, "Ana"), ({}, None), (None, None)],
)  # fmt: skip
def test_names_are_written_as_their_bearers_write_them(profile: dict[str, str] | None, said: str | None) -> None:
    assert formatting.format_full_name(profile) == said


def rhythm(*days_ago: int) -> VisitHistory:
    return VisitHistory([ShopVisit(TODAY - timedelta(days=days), 10.0) for days in days_ago], TODAY)


def test_a_rhythm_knows_its_usual_gap_and_how_today_compares() -> None:
    weekly = rhythm(38, 31, 24, 10)
    assert weekly.gap_days == [7, 7, 14]
    assert (weekly.median_gap_days, weekly.longest_gap_days, weekly.silent_days) == (7, 14, 10)
    assert weekly.gap_status == "longer"
    assert rhythm(38, 31, 24, 5).gap_status == "usual"
    assert rhythm(54, 47, 40, 21).gap_status == "longest"
    assert (rhythm(3).median_gap_days, rhythm(3).gap_status) == (None, "usual")


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]


def test_hops_go_from_visit_to_visit_and_the_last_one_to_today() -> None:
    picture = charts.draw_visit_timeline(rhythm(100, 60, 50), width=420, expected_day=TODAY + timedelta(days=5))
    # 107 days back and 30 ahead on 400 units between the margins.
    unit = 400 / (107 + charts.AHEAD_DAYS)
    at = {ago: 10 + (107 - ago) * unit for ago in (100, 60, 50, 0, -5)}
    assert [dot.x for dot in picture.dots] == pytest.approx([at[100], at[60], at[50]])
    first, second = picture.gap_arcs.split("M")[1:]
    assert (numbers(first)[0], numbers(first)[-2]) == pytest.approx((at[100], at[60]), abs=0.06)
    assert (numbers(second)[0], numbers(second)[-2]) == pytest.approx((at[60], at[50]), abs=0.06)
    silence = numbers(picture.open_gap_arc)
    assert (silence[0], silence[-2]) == pytest.approx((at[50], at[0]), abs=0.06)
    # The longest gap reaches the ceiling, and others stay below in step with their days.
    height = picture.baseline_y - 14
    assert silence[3] == pytest.approx(height, abs=0.06)
    assert numbers(first)[3] == pytest.approx(height * (40 / 50) ** 0.8, abs=0.06)
    assert picture.expected_dot is not None
    assert picture.expected_dot.x == pytest.approx(at[-5])


@pytest.mark.parametrize("days_ago", [(3,), (0,), (900, 500), tuple(range(800, 0, -1))])
@pytest.mark.parametrize("width", [340, 1040])
def test_every_rhythm_can_be_drawn_inside_its_frame(days_ago: tuple[int, ...], width: int) -> None:
    picture = charts.draw_visit_timeline(rhythm(*days_ago), width=width, expected_day=TODAY + timedelta(days=200))
    assert picture.expected_arc is None
    assert all(0 <= x <= width for x in [dot.x for dot in picture.dots] + [month.x for month in picture.months])
    assert 0 <= picture.today_x <= width
    assert all(-1 <= number <= width + 1 for number in numbers(picture.gap_arcs + picture.open_gap_arc))


def test_the_curve_is_marked_where_it_crosses() -> None:
    # One in five comes on each of five days: 10 % after half a day, half after two and a half.
    cdf = [0.2, 0.4, 0.6, 0.8, 1.0, *[1.0] * 175]
    drawn = charts.draw_purchase_curve(cdf, {"p10": 1, "p50": 3, "p90": 5}, first=TODAY, width=500)
    unit = (drawn.right - drawn.left) / 14
    assert [mark.x for mark in drawn.marks] == pytest.approx([drawn.left + days * unit for days in (0.5, 2.5, 4.5)])
    assert [rail.y for rail in drawn.gridlines] == pytest.approx([mark.y for mark in drawn.marks])
    assert [label.text for label in drawn.labels] == ["1 in 10 by 25 Jul", "half by 27 Jul", "9 in 10 by 29 Jul"]


def test_a_curve_that_goes_nowhere_says_so() -> None:
    drawn = charts.draw_purchase_curve([0.0001] * 60, {"p10": None, "p50": None, "p90": None}, first=TODAY, width=340)
    assert not drawn.marks
    assert [label.text for label in drawn.labels] == ["fewer than 1 in 10 within 60 days"]
