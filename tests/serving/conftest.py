"""A small shop behind an API: 200 days of sales and mailings, six champion models, and an API key for every role."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

ZONE = ZoneInfo("America/New_York")
OPENED = datetime(2025, 1, 6, tzinfo=ZONE)
HISTORY_DAYS = 200
HORIZON_DAYS = 28
CURVE_DAYS = 60
CATEGORIES = ("bread", "milk", "fruit", "paper")
#: Personal data that must appear only in a profile shown to an admin or an agent.
GIVEN, FAMILY, EMAIL = "Wilhelmina", "Canarybird", "w.canarybird@example.com"


def _sales(customers: int, seed: int = 5) -> pd.DataFrame:
    """Sales of customers with a mean gap of 2 to 30 days each; some stop buying; each buys six favourite products."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(customers):
        gap = float(np.exp(rng.uniform(np.log(2), np.log(30))))
        stops_on = HISTORY_DAYS if rng.random() < 0.6 else rng.uniform(20, HISTORY_DAYS)
        favourites = rng.choice(40, 6, replace=False)
        day = rng.uniform(0, gap)
        while day < stops_on:
            for product in rng.choice(favourites, 3, replace=False):
                rows.append((f"c{number:03d}", int(day), int(product)))
            day += rng.gamma(4, gap / 4) + 0.6
    sales = pd.DataFrame(rows, columns=["customer_id", "day", "product"])
    sold_at = [(OPENED + timedelta(days=int(day), hours=12)).isoformat() for day in sales["day"]]
    return pd.DataFrame(
        {
            "order_id": sales["customer_id"] + "-" + sales["day"].astype(str),
            "line_id": sales.groupby(["customer_id", "day"]).cumcount().astype(str),
            "customer_id": sales["customer_id"],
            "product_id": "p" + sales["product"].astype(str).str.zfill(2),
            "sold_at": sold_at,
            "quantity": 1,
            "amount": (2 + sales["product"] % 7).astype(str),
        }
    ).drop_duplicates(["order_id", "line_id"])


#: The day on which each mailing was sent, with a coupon for each category; the last one has not ended yet.
MAILINGS = {"winter": 80, "easter": 120, "may": 150, "summer": 190}
MAILING_DAYS = 21
TENTH = {"value": 10, "value_kind": "percent"}


def _coupons() -> pd.DataFrame:
    """One coupon for each mailing and category, for its recipients only; and three discounts for all customers."""
    rows = [
        {"offer_id": f"{mailing}-{category}", "campaign_id": mailing, "starts_at": _day(day), "kind": "coupon",
         "ends_at": _day(day + MAILING_DAYS), "audience": "received", "channels": "post", "categories": category,
         "value": 1, "value_kind": "amount"}
        for mailing, day in MAILINGS.items() for category in CATEGORIES
    ]  # fmt: skip
    always = {"starts_at": _day(0), "ends_at": _day(400), "kind": "discount"}
    rows += [
        always | {"offer_id": "milk-day", "categories": "milk", "channels": "store"} | TENTH,
        always | {"offer_id": "by-text", "categories": "bread", "channels": "sms"},
        always | {"offer_id": "big-basket", "product_ids": "p00;p01", "min_spend": 1000},
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _contacts(sales: pd.DataFrame) -> pd.DataFrame:
    """All customers received each mailing, the last one 100 of them; frequent buyers redeem more coupons."""
    rng = np.random.default_rng(7)
    rows = []
    for mailing, day in MAILINGS.items():
        for customer_id in sorted(sales["customer_id"].unique())[: 100 if mailing == "summer" else None]:
            rows.append((customer_id, "received", mailing, None, day))
            for category in CATEGORIES if mailing != "summer" else ():
                if rng.random() < _redemption_probability(sales, customer_id, category, day):
                    rows.append((customer_id, "redeemed", mailing, f"{mailing}-{category}", day + 5))
    contacts = pd.DataFrame(rows, columns=["customer_id", "kind", "campaign_id", "offer_id", "day"])
    ids = [f"i{number}" for number in range(len(contacts))]
    return contacts.assign(interaction_id=ids, happened_at=contacts["day"].map(_day), channel="post").drop(
        columns="day"
    )


def _redemption_probability(sales: pd.DataFrame, customer_id: str, category: str, day: int) -> float:
    """P(the customer redeems the coupon): rises with their earlier purchases in its category."""
    remainder = CATEGORIES.index(category)
    purchases = sales[(sales["customer_id"] == customer_id) & (sales["sold_at"] < _day(day))]
    return min(0.6, 0.02 + 0.03 * (purchases["product_id"].str[1:].astype(int) % 4 == remainder).sum())


def _day(day: int) -> str:
    return (OPENED + timedelta(days=day)).isoformat()


def _load_shop(shop, folder: Path, customers: int) -> None:
    from customers.loading.load import load_files
    from customers.parquet import mirror

    people = pd.DataFrame({"customer_id": [f"c{n:03d}" for n in range(customers)]})
    people = people.assign(given_name=GIVEN, family_name=FAMILY, email=EMAIL)
    people.loc[len(people)] = ["quiet", GIVEN, FAMILY, EMAIL]
    products = pd.DataFrame({"product_id": [f"p{n:02d}" for n in range(40)]})
    products = products.assign(name=products["product_id"], category=[CATEGORIES[n % 4] for n in range(40)])
    sales = _sales(customers)
    consents = pd.DataFrame({"customer_id": people["customer_id"][:customers], "purpose": "marketing_post"})
    consents = consents.assign(state="granted", at=_day(0), source="membership")
    frames = {"customers": people, "products": products, "transactions": sales, "offers": _coupons()}
    for kind, frame in (frames | {"interactions": _contacts(sales), "consents": consents}).items():
        path = folder / f"{kind}.csv"
        frame.to_csv(path, index=False)
        load_files(shop, kind, [path])
    mirror.refresh(shop)


def _publish_champions(shop, features, now: datetime) -> None:
    """Fit six small models on the observed outcomes, and publish each as champion of version 1."""
    from features.snapshots import snapshot
    from models.churn.model import ChurnModel
    from models.recommender.decayed_frequency import DecayedFrequency
    from models.timing.baselines import BgNbdTiming
    from models.value.baselines import RateValue
    from training import calendar as training_calendar
    from training import labels

    ledger = shop.home / "ledger"
    calendar = training_calendar.TrainingCalendar(
        snapshot.first_sale_day(ledger, now, shop.timezone), now, shop.timezone
    )
    purchases = snapshot.load_purchases(ledger, as_of=now, timezone=shop.timezone)
    rows = load_history(features, "churn_v1")
    churned = labels.churned(rows, purchases, days=HORIZON_DAYS, calendar=calendar)
    durations = labels.time_to_next_purchase(rows, purchases, calendar=calendar)
    spent = labels.spend_within(rows, purchases, days=HORIZON_DAYS, calendar=calendar)
    has_follow_up = durations["duration_days"] > 0
    has_value = np.isfinite(spent)
    fitted = {
        "churn": ChurnModel.fit(rows, churned, horizon_days=HORIZON_DAYS),
        "timing": BgNbdTiming.fit(rows[has_follow_up], durations[has_follow_up], days=CURVE_DAYS),
        "recommender": DecayedFrequency.fit(load_history(features, "recommender_v1"), None),
        "value": RateValue.fit(rows[has_value], spent[has_value], horizon_days=HORIZON_DAYS),
        "offers": _offers_model(shop, features, calendar),
        "restock": _restock_model(shop, features, calendar),
    }
    for name, model in fitted.items():
        publish_champion(shop.home, name, "1", model)


def _offers_model(shop, features, calendar) -> Any:
    """The offer model, fitted on which recipients redeemed a coupon."""
    from customers.ledger import interactions
    from customers.marketing import offers
    from features.offers import affinity, category_affinity
    from features.snapshots import snapshot
    from models.offers.model import OfferModel
    from training import labels

    mailings = load_deliveries(shop)
    offer_catalogue = offers.load_catalogue(shop)
    feature_rows = features.historical_features("offers_v1", mailings).rename(columns={"event_timestamp": "as_of"})
    offered_pairs = mailings.rename(columns={"event_timestamp": "as_of"}).merge(
        offer_catalogue.offers.loc[offer_catalogue.offers["audience"] == "received", ["offer_key", "starts_at"]],
        left_on="as_of", right_on="starts_at",
    )  # fmt: skip
    prices = pd.read_parquet(features.folder / "prices" / "part.parquet")
    product_categories = category_affinity.ProductCategoryCodes.from_catalogue(
        snapshot.load_products(shop.home / "ledger")
    )
    pairs = affinity.build_affinity_features(
        feature_rows,
        offered_pairs,
        offer_catalogue.covered_products,
        offer_catalogue.offers,
        prices,
        product_categories,
    )
    redeemed = labels.redeemed(pairs, interactions.load_redemptions(shop), offer_catalogue.offers, calendar=calendar)
    return OfferModel.fit(pairs, redeemed)


def _restock_model(shop, features, calendar) -> Any:
    """The restock model, fitted on when customers bought in each category again."""
    from features.families import category_history
    from features.snapshots import snapshot
    from models.restock.model import RestockModel
    from training import labels

    pairs = category_history.explode_lists(load_history(features, "restock_v1"))
    days = snapshot.load_category_days(
        shop.home / "ledger", as_of=calendar.as_of, timezone=shop.timezone, start=OPENED.astimezone(UTC)
    )
    return RestockModel.fit(pairs, labels.repurchased_within(pairs, days, horizons=(7, 14, 28), calendar=calendar))


def load_deliveries(shop) -> pd.DataFrame:
    """The recipients of all mailings, one row per delivery: columns customer_key, event_timestamp."""
    from customers.ledger import interactions

    contacts = interactions.load_by_kind(shop, ["received"])
    return contacts[["customer_key", "happened_at"]].set_axis(["customer_key", "event_timestamp"], axis=1)


def load_history(features, service: str) -> pd.DataFrame:
    """The features of a service, one row per customer and cutoff; the cutoff is the column as_of."""
    family = "rhythm" if service == "churn_v1" else "needs"
    entities = pd.read_parquet(features.folder / family / "part.parquet", columns=["customer_key", "event_timestamp"])
    return features.historical_features(service, entities).rename(columns={"event_timestamp": "as_of"})


def publish_champion(home: Path, name: str, version: str, model, **facts: Any) -> None:
    """Publish a model as champion, as promotion does; `facts` are added to the manifest of its bundle."""
    from models.registry import bundle

    folder = home / "work" / f"{name}-{version}"
    bundle.write(model, folder, facts={"trained_at": "2025-07-25T00:00:00Z", **facts})
    bundle.publish(folder, home / "champions", name, version)


@pytest.fixture(scope="session")
def trained_home(build_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A home with features as of its current time and six champions of version 1; copy it before changing it."""
    return build_once("trained_home", _build) / "home"


@pytest.fixture(scope="session")
def home_with_scores(trained_home: Path, build_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The same home after its champions have scored all customers; copy it before changing it."""
    from customers.database import engine
    from customers.shop import settings

    def build(folder: Path) -> None:
        shop = settings.open_shop(shutil.copytree(trained_home, folder / "home"))
        score_home(shop)
        engine.get_engine(shop).dispose()

    return build_once("home_with_scores", build) / "home"


def _build(folder: Path) -> None:
    from customers import clock, setup
    from customers.database import engine
    from features.products import co_purchases
    from features.snapshots import snapshot
    from serving import runtime

    shop = setup.init_home(folder / "home", timezone=str(ZONE), currency="USD", now="last-sale")
    _load_shop(shop, folder, customers=150)
    now = clock.now(shop)
    cutoffs = [now - timedelta(days=days) for days in (0, 30, 58, 86, 114)]
    snapshot.write_snapshot(
        shop.home / "ledger", shop.home / "features", as_of=now, cutoffs=cutoffs, timezone=shop.timezone,
        customer_cutoffs=load_deliveries(shop),
    )  # fmt: skip
    pairs = co_purchases.count_co_purchases(shop.home / "ledger", as_of=now, timezone=shop.timezone)
    co_purchases.save_co_purchases(pairs, shop.home / "features")
    features = runtime.open_runtime(shop).features
    features.apply()
    features.materialise(now)
    _publish_champions(shop, features, now)
    engine.get_engine(shop).dispose()  # so that the database is complete in one file when the home is copied


ROLES = ("admin", "agent", "campaign", "analyst", "till")


def open_api(home: Path) -> Iterator[SimpleNamespace]:
    """The API of a home, served in process, with a key for every role."""
    from starlette.testclient import TestClient

    from customers.security import api_keys
    from customers.shop import settings
    from serving import service

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_HOME", str(home))
        shop = settings.open_shop()
        keys = {role: api_keys.create_key(shop, role) for role in ROLES}
        with TestClient(service.build_app(), raise_server_exceptions=False) as client:
            yield ApiClient(shop=shop, keys=keys, client=client)


def score_home(shop) -> tuple[int, int]:
    """Score all customers with the champions, as the nightly run does at its end: number of customers, of scores."""
    from serving import runtime
    from serving.scoring import batch, fallback

    server_runtime = runtime.open_runtime(shop)
    server_runtime.features.apply()  # the home was copied, and Feast knows where its files lay
    champions = {name: champion for name in runtime.MODEL_NAMES if (champion := server_runtime.champions.get(name))}
    served_models = {name: (champion.version, champion.model) for name, champion in champions.items()}
    fallbacks = {name for name, champion in champions.items() if fallback.uses_fallback(champion)}
    return batch.score_all_customers(
        shop, server_runtime.features, served_models, server_runtime.now(), fallback_names=fallbacks
    )


class ApiClient(SimpleNamespace):
    """A client of the API: `post` sends JSON and `read` gets, each with the key of a role."""

    def post(self, path: str, body: object, role: str = "admin"):
        return self.client.post(path, json=body, headers=self.key(role))

    def read(self, path: str, role: str = "admin", **headers: str):
        return self.client.get(path, headers={**self.key(role), **headers})

    def key(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[role]}"}


@pytest.fixture(scope="module")
def api(home_with_scores: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiClient]:
    """An API whose customers are scored, one for each test file."""
    from serving import runtime

    home = tmp_path_factory.mktemp("api") / "home"
    shutil.copytree(home_with_scores, home)
    for api in open_api(home):
        runtime.open_runtime(api.shop).features.apply()  # the home was copied, and Feast knows where its files lay
        yield api


@pytest.fixture
def isolated_api(trained_home: Path, tmp_path: Path) -> Iterator[ApiClient]:
    """An API whose home no other test changes."""
    shutil.copytree(trained_home, tmp_path / "home")
    yield from open_api(tmp_path / "home")


@pytest.fixture
def untrained(trained_home: Path, tmp_path: Path) -> Iterator[ApiClient]:
    """The API of a shop that has sales and features, and no champion yet."""
    shutil.copytree(trained_home, tmp_path / "home", ignore=shutil.ignore_patterns("champions"))
    yield from open_api(tmp_path / "home")


@pytest.fixture
def api_before_first_run(trained_home: Path, tmp_path: Path) -> Iterator[ApiClient]:
    """The API of a shop that has sales, before its first nightly run."""
    shutil.copytree(trained_home, tmp_path / "home", ignore=shutil.ignore_patterns("champions", "features"))
    yield from open_api(tmp_path / "home")


@pytest.fixture
def without_churn(trained_home: Path, tmp_path: Path) -> Iterator[ApiClient]:
    """The API of a shop that has no champion for churn yet."""
    shutil.copytree(trained_home, tmp_path / "home", ignore=shutil.ignore_patterns("churn", "churn.json"))
    yield from open_api(tmp_path / "home")


@pytest.fixture
def api_without_profiling(trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiClient]:
    """The API of a shop that profiles only customers who have consented."""
    monkeypatch.setenv("REGULARS_CONSENT_DEFAULT", "profiling=denied")
    shutil.copytree(trained_home, tmp_path / "home")
    yield from open_api(tmp_path / "home")


@pytest.fixture(scope="session")
def api_for() -> Any:
    """Opens the API of a home: for api in api_for(home)."""
    return open_api


@pytest.fixture(scope="session")
def score_customers() -> Any:
    """Scores all customers of a shop: score_customers(shop) -> number of customers, of scores."""
    return score_home


@pytest.fixture(scope="session")
def make_champion() -> Any:
    """Publishes a model as promotion does: make_champion(home, name, version, model)."""
    return publish_champion
