"""Whoever asks to be forgotten is forgotten, stays forgotten, and can see before what the shop holds."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from customers import setup
from customers.database import engine
from customers.database.schema import erased, erasures, metadata, person_keys, personal
from customers.loading import load as loading_load
from customers.loading import load_transactions, validation
from customers.loading.connectors import files
from customers.loading.connectors.files import Records
from customers.loading.load import LoadResult
from customers.parquet import mirror
from customers.people import lookup
from customers.privacy import data_export, erasure
from customers.reports import customer_view, exports
from customers.scores import score_store
from customers.security import encryption
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]
Rows = Callable[..., list[tuple]]
Copy = Callable[[Path, Path], Shop]

PEOPLE = (
    "customer_id,given_name,family_name,email,phone,joined_at,referred_by,age_band\n"
    "anna,Anna,Müller,anna@example.com,+49 30 1234,2017-01-01,,25-34\n"
    "ben,Ben,Weiß,ben@example.com,,2017-02-01,anna,45-54\n"
)
# Bread twice in one order and without line ids, several times over: such lines are counted by what they say.
LINES = "".join(
    f"o{order},{who},{product},2017-{month:02d}-03T10:00Z,1,{amount}\n"
    for order, who, month in ((1, "anna", 10), (2, "anna", 11), (3, "anna", 11), (4, "ben", 11), (5, "", 11))
    for product, amount in (("bread", order), ("bread", order + 0.5), ("bread", order + 0.25), ("milk", 1))
)
INTERACTIONS = (
    "interaction_id,customer_id,happened_at,kind,channel,status,text\n"
    "i1,anna,2017-11-05T09:00Z,complaint,email,open,the bread was stale\n"
    "i2,ben,2017-11-05T09:00Z,visited,web,,\n"
)
CONSENTS = "customer_id,purpose,state,at,wording\nanna,marketing_email,granted,2017-01-01T00:00Z,yes please\n"
AS_OF = datetime(2017, 12, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def peopled_home(
    copy_shop: Copy, new_home: Path, tmp_path_factory: pytest.TempPathFactory, load_text: Load, load_lines: Load
) -> Path:
    """Anna and Ben, their sales, one of them corrected since, and what was said."""
    here = copy_shop(new_home, tmp_path_factory.mktemp("peopled") / "shop")
    load_text(here, "customers", PEOPLE)
    load_lines(here, LINES.replace("o3,anna,milk,2017-11-03T10:00Z,1,1", "o3,anna,milk,2017-11-03T10:00Z,1,9"))
    load_lines(here, LINES)
    load_text(here, "interactions", INTERACTIONS)
    load_text(here, "consents", CONSENTS)
    key = lookup.find_keys(here, ["anna"])["anna"]
    run = score_store.begin_run(here, "churn", 1, AS_OF)
    score_store.write_scores(here, run, [(key, 0.5, '{"band": "high"}')])
    score_store.finish_run(here, run)
    mirror.refresh(here)
    return here.home


@pytest.fixture
def peopled(copy_shop: Copy, peopled_home: Path, tmp_path: Path) -> Iterator[Shop]:
    """A copy of theirs."""
    here = copy_shop(peopled_home, tmp_path / "shop")
    yield here
    engine.get_engine(here).dispose()


def everything(where: Shop) -> dict[str, list[tuple]]:
    with engine.read_transaction(where) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(table.select())] for table in metadata.sorted_tables
        }


def ledger(where: Shop, rows: Rows) -> list[tuple]:
    said = "order_id, line_id, customer_key, sold_at, amount_minor, content"
    return sorted(rows(where, f"select {said} from transactions"), key=str)


def test_nothing_in_any_table_names_the_erased(peopled: Shop) -> None:
    key = lookup.find_keys(peopled, ["anna"])["anna"]
    done = erasure.erase_customer(peopled, "anna")
    assert done is not None
    assert (done.customer_key, done.lines) == (key, 3 * 4 + 1)
    gone = {name: count for name, count in done.removed.items() if count}
    assert gone == {
        "identities": 1, "person_keys": 1, "personal": 1, "lookups": 4, "attributes": 1, "interactions": 1,
        "consents": 1, "scores": 1, "customers": 1,
    }  # fmt: skip
    said = everything(peopled)
    assert said.pop("erasures")[0][1] == key
    assert str(key) not in str(said)
    assert "anna" not in str(said).lower()
    assert customer_view.load_customer_view(peopled, "anna") is None
    assert data_export.export_customer(peopled, "anna") is None
    assert erasure.erase_customer(peopled, "anna") is None
    assert score_store.load_run_scores(peopled, "churn").empty


def test_her_sales_stay_in_the_books_as_if_nobody_had_been_named(
    peopled: Shop, load_lines: Load, fetch_rows: Rows, tmp_path: Path
) -> None:
    """The digest too: made with her id in it, it would tell whose line it is to whoever tries every id."""
    before = fetch_rows(peopled, "select count(*), sum(amount_minor) from transactions")
    erasure.erase_customer(peopled, "anna")
    erasure.erase_customer(peopled, "ben")
    assert fetch_rows(peopled, "select count(*), sum(amount_minor) from transactions") == before
    another = setup.init_home(tmp_path / "another")
    load_lines(another, LINES.replace("anna", "").replace("ben", ""))
    assert ledger(peopled, fetch_rows) == ledger(another, fetch_rows)
    assert fetch_rows(peopled, "select customer_key from transactions_history") == [(None,)]


def test_loading_the_same_files_again_brings_nobody_back(
    peopled: Shop, load_text: Load, load_lines: Load, fetch_rows: Rows, tmp_path: Path
) -> None:
    erasure.erase_customer(peopled, "anna")
    before = everything(peopled)
    again = load_lines(peopled, LINES)
    assert (again.read, again.unchanged, again.rejected) == (20, 20, 0)
    for kind, text, kept in (("customers", PEOPLE, 1), ("interactions", INTERACTIONS, 1), ("consents", CONSENTS, 0)):
        again = load_text(peopled, kind, text)
        assert (again.unchanged, again.rejected, again.reasons) == (kept, 1, {"this customer was erased": 1})
        assert again.rejects_file is not None
        assert "anna" not in Path(again.rejects_file).read_text(encoding="utf-8")
    # Whom Ben was brought by stays unsaid too.
    assert fetch_rows(peopled, "select referred_by from customers") == [(None,)]
    assert everything(peopled) == before


def test_a_new_sale_and_a_correction_with_an_erased_id_are_nobodys(
    peopled: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    erasure.erase_customer(peopled, "anna")
    corrected = LINES.replace("o1,anna,milk,2017-10-03T10:00Z,1,1", "o1,anna,milk,2017-10-03T10:00Z,1,7")
    done = load_lines(peopled, corrected + "o9,anna,tea,2017-11-20T10:00Z,1,4\no9, anna ,tea,2017-11-20T10:00Z,1,4\n")
    assert (done.updated, done.inserted, done.rejected) == (1, 2, 0)
    ben = lookup.find_keys(peopled, ["ben"])["ben"]
    assert fetch_rows(peopled, "select distinct customer_key from transactions where customer_key is not null") == [
        (ben,)
    ]
    assert fetch_rows(peopled, "select distinct customer_key from transactions_history") == [(None,)]
    assert lookup.find_keys(peopled, ["anna"]) == {}


def test_a_sale_posted_over_the_line_is_nobodys(peopled: Shop, fetch_rows: Rows) -> None:
    erasure.erase_customer(peopled, "anna")
    sale = {"order_id": "o9", "customer_id": "anna", "product_id": "tea", "sold_at": "2017-11-20T10:00Z",
            "quantity": 1, "amount": 4}  # fmt: skip
    taken = loading_load.ingest_records(peopled, "transactions", [sale])
    assert (taken.inserted, taken.customer_keys) == (1, [])
    assert fetch_rows(peopled, "select customer_key from transactions where order_id = 'o9'") == [(None,)]
    assert fetch_rows(peopled, "select * from unrefreshed") == []
    turned_away = loading_load.ingest_records(peopled, "customers", [{"customer_id": "anna", "given_name": "Anna"}])
    assert turned_away.errors == [{"index": 0, "reason": "this customer was erased"}]


def test_an_id_is_erased_in_its_own_source(peopled: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(peopled, "w1,anna,tea,2017-11-20T10:00Z,1,4\n", source="web")
    erasure.erase_customer(peopled, "files:anna")
    assert lookup.find_ids(peopled, lookup.find_keys(peopled, ["anna"]).values()) != {}
    load_lines(peopled, "w2,anna,tea,2017-11-21T10:00Z,1,4\n", source="web")
    assert fetch_rows(peopled, "select count(distinct customer_key) from transactions where source = 'web'") == [(1,)]
    load_lines(peopled, "o9,anna,tea,2017-11-21T10:00Z,1,4\n")
    assert fetch_rows(peopled, "select customer_key from transactions where order_id = 'o9'") == [(None,)]


def test_every_id_of_a_person_is_erased(peopled: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    key = lookup.find_keys(peopled, ["anna"])["anna"]
    with engine.write_transaction(peopled) as connection:
        connection.execute(sa.text(f"insert into identities values ('a-7', 'web', {key})"))
    erasure.erase_customer(peopled, "web:a-7")
    load_lines(peopled, "w1,a-7,tea,2017-11-20T10:00Z,1,4\n", source="web")
    load_lines(peopled, "o9,anna,tea,2017-11-21T10:00Z,1,4\n")
    assert fetch_rows(peopled, "select distinct customer_key from transactions where order_id in ('w1', 'o9')") == [
        (None,)
    ]


def test_a_person_erased_while_their_sales_are_loaded_is_not_brought_back(
    peopled: Shop, fetch_rows: Rows, tmp_path: Path
) -> None:
    """The load has looked up who Anna is when she is erased; what it writes afterwards is nobody's."""
    path = tmp_path / "late.csv"
    path.write_text(
        "order_id,line_id,customer_id,product_id,sold_at,quantity,amount\nl1,1,anna,tea,2017-11-20T10:00Z,1,4\n"
    )
    transactions_begun = 0

    def write() -> AbstractContextManager[sa.Connection]:
        nonlocal transactions_begun
        transactions_begun += 1
        if transactions_begun == 4:  # after: the newest erasure, who they are, the products
            erasure.erase_customer(peopled, "anna")
        return engine.write_transaction(peopled)

    with files.read_files([path], required=load_transactions.RECORD_KIND.required) as records:
        check(peopled, records)
        load_transactions.RECORD_KIND.load(peopled, "files", records, write)
    assert transactions_begun == 4
    late = fetch_rows(peopled, "select customer_key, content from transactions where order_id = 'l1'")
    path.write_text(path.read_text().replace("anna", ""))
    assert late[0][0] is None
    assert loading_load.load_files(peopled, "transactions", [path]).unchanged == 1


def check(where: Shop, records: Records) -> None:
    for name in set(load_transactions.COLUMNS) - set(records.columns):
        records.connection.execute(f'alter table raw add column "{name}" varchar')
    query = validation.validation_query(load_transactions.RECORD_KIND.checks(where), load_transactions.COLUMNS)
    records.connection.execute(f"create table checked as {query}")


def test_the_key_of_an_erased_customer_is_never_given_again(peopled: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    highest = max(lookup.find_keys(peopled, ["anna", "ben"]).items(), key=lambda named: named[1])
    erasure.erase_customer(peopled, highest[0])
    load_lines(peopled, "o9,cora,tea,2017-11-20T10:00Z,1,4\n")
    assert lookup.find_keys(peopled, ["cora"])["cora"] > highest[1]


def test_files_of_rejected_rows_lose_theirs(peopled: Shop, load_text: Load, load_lines: Load) -> None:
    alone = load_lines(peopled, "x1,anna,bread,never,1,1\n").rejects_file
    both = load_lines(peopled, "x1, anna,bread,never,1,1\nx2,ben,bread,never,1,1\n").rejects_file
    erasure.erase_customer(peopled, "anna")
    assert alone is not None
    assert both is not None
    assert not Path(alone).exists()
    left = Path(both).read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[3:5] for line in left] == [["order_id", "customer_id"], ["x2", "ben"]]
    assert Path(both).stat().st_mode & 0o077 == 0
    # Turned away for another reason, a later row of theirs does not write the id down either.
    later = load_lines(peopled, "x1,anna,bread,never,1,1\n").rejects_file
    assert later is not None
    assert "anna" not in Path(later).read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet"])
def test_the_tables_that_the_night_exported_lose_theirs(peopled: Shop, ending: str) -> None:
    """However the id was written; the rows of others, and what the file looks like, stay as they were."""
    folder = peopled.home / "exports"
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame(
        {
            "customer_id": ["anna", "ben", "files:anna", "annabel"],
            "as_of": pd.to_datetime(["2017-12-01T00:00Z"] * 4),
            "reasons": ["a, b", 'said "no"', "", "two\nlines"],
        }
    )
    written(frame, folder / f"scores.{ending}")
    written(frame.drop(columns="customer_id"), folder / f"totals.{ending}")
    (folder / f"scores.{ending}").chmod(0o640)
    totals = (folder / f"totals.{ending}").read_bytes()
    erasure.erase_customer(peopled, "anna")
    expected = written(frame.iloc[[1, 3]], folder / f"expected.{ending}")
    left = folder / f"scores.{ending}"
    if ending == "parquet":
        assert pd.read_parquet(left).equals(pd.read_parquet(expected))
        assert pq.read_schema(left) == pq.read_schema(expected)
    else:
        assert left.read_bytes() == expected.read_bytes()
    assert left.stat().st_mode & 0o777 == 0o640
    assert (folder / f"totals.{ending}").read_bytes() == totals
    assert len(list(folder.iterdir())) == 3


def test_an_exported_table_of_categories_does_not_name_them_any_more(peopled: Shop) -> None:
    """Their rows gone, a category that nothing belongs to would still be written down."""
    folder = peopled.home / "exports"
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame({"customer_id": ["anna", "ben", "anna"], "reason": ["late", "late", "early"]})
    path = written(frame.astype("category"), folder / "dropped-offers.parquet")
    assert b"anna" in path.read_bytes()
    erasure.erase_customer(peopled, "anna")
    assert pd.read_parquet(path).astype(object).to_dict("list") == {"customer_id": ["ben"], "reason": ["late"]}
    assert not any(name in path.read_bytes() for name in (b"anna", b"early"))
    assert pq.read_schema(path).field("customer_id").type in (pa.string(), pa.large_string())


def test_an_exported_table_of_theirs_alone_keeps_its_columns(peopled: Shop) -> None:
    (peopled.home / "exports").mkdir(exist_ok=True)
    path = peopled.home / "exports" / "scores.csv"
    path.write_text("customer_id,churn\nanna,0.5\n", encoding="utf-8")
    (peopled.home / "exports" / "empty.csv").touch()
    erasure.erase_customer(peopled, "anna")
    assert path.read_text(encoding="utf-8") == "customer_id,churn\n"


def written(frame: pd.DataFrame, path: Path) -> Path:
    """As the exports are written."""
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False, coerce_timestamps="us")
    elif path.suffix == ".ndjson":
        frame.to_json(path, orient="records", lines=True, date_format="iso", force_ascii=False)
    else:
        frame.to_csv(path, index=False)
    return path


def test_the_mirror_forgets_at_once_and_stays_so(peopled: Shop) -> None:
    keys = lookup.find_keys(peopled, ["anna", "ben"])
    erasure.erase_customer(peopled, "anna")

    def mirrored() -> set[int]:
        found = [pq.read_table(path, partitioning=None) for path in (peopled.home / "ledger").rglob("*.parquet")]
        named = [table.column("customer_key").to_pylist() for table in found if "customer_key" in table.column_names]
        return set().union(*named)

    assert mirrored() == {keys["ben"], None}
    # It is as true as if it had been made anew, so that nothing needs to be.
    assert mirror.refresh(peopled) == []
    before = copies(peopled)
    mirror.rebuild(peopled)
    assert copies(peopled) == before


def copies(where: Shop) -> dict[str, list[str]]:
    paths = sorted((where.home / "ledger").rglob("*.parquet"))
    return {str(path): sorted(map(str, pq.read_table(path, partitioning=None).to_pylist())) for path in paths}


def test_a_change_that_the_mirror_does_not_show_yet_is_not_lost_by_an_erasure(peopled: Shop, load_lines: Load) -> None:
    load_lines(peopled, "o9,ben,tea,2017-11-20T10:00Z,1,4\n")
    erasure.erase_customer(peopled, "anna")
    assert mirror.refresh(peopled) == ["2017-11", "products"]


def test_an_erasure_is_announced_until_the_floors_above_have_followed(peopled: Shop) -> None:
    keys = lookup.find_keys(peopled, ["anna", "ben"])
    for name in keys:
        erasure.erase_customer(peopled, name)
    announced = erasure.pending_erasures(peopled)
    assert [key for _, key in announced] == list(keys.values())
    erasure.complete_erasures(peopled, [announced[0][0]])
    assert erasure.pending_erasures(peopled) == announced[1:]
    erasure.complete_erasures(peopled, [])
    assert erasure.pending_erasures(peopled) == announced[1:]


def test_a_night_that_still_knows_them_writes_no_score(peopled: Shop) -> None:
    keys = lookup.find_keys(peopled, ["anna", "ben"])
    run = score_store.begin_run(peopled, "churn", 2, AS_OF)
    erasure.erase_customer(peopled, "anna")
    assert score_store.write_scores(peopled, run, [(key, 0.5, "{}") for key in keys.values()]) == 1
    assert score_store.write_online_scores(peopled, "churn", 3, AS_OF, [(keys["anna"], 0.5, "{}")]) == 0
    score_store.finish_run(peopled, run)
    assert exports.build_scores(peopled)["customer_id"].tolist() == ["ben"]


def test_a_tombstone_does_not_say_whose_it_is(peopled: Shop) -> None:
    erasure.erase_customer(peopled, "anna")
    with engine.read_transaction(peopled) as connection:
        token, at = connection.execute(erased.select()).one()
        assert connection.execute(erasures.select()).one().erased_at == at
    assert bytes(token) == encryption.get_cipher(peopled).tombstone_digest("files", "anna")
    assert bytes(token) not in {
        encryption.PersonalDataCipher(bytes(32)).tombstone_digest("files", "anna"),
        b"files\0anna",
    }


def test_the_files_of_the_database_hold_nothing_of_them(peopled: Shop) -> None:
    """SQLite overwrites what it deletes, and its log is emptied: the wrapped key is gone from the disk."""
    if not peopled.database_url.startswith("sqlite"):
        pytest.skip("a server's files are its own")
    key = lookup.find_keys(peopled, ["anna"])["anna"]
    with engine.read_transaction(peopled) as connection:
        mine = person_keys.c.customer_key == key
        secrets = [connection.execute(sa.select(person_keys.c.wrapped).where(mine)).scalar_one()]
        secrets += connection.execute(sa.select(personal.c.sealed).where(personal.c.customer_key == key)).scalars()
    erasure.erase_customer(peopled, "anna")
    held = b"".join(path.read_bytes() for path in peopled.home.glob("shop.db*"))
    assert not [secret for secret in (*secrets, b"anna", b"Anna", b"25-34") if secret in held]
    assert b"45-54" in held


def test_everything_that_is_held_is_shown(peopled: Shop) -> None:
    shown = data_export.export_customer(peopled, "anna")
    assert shown == json.loads(json.dumps(shown, allow_nan=False))
    assert shown is not None
    assert shown["ids"] == [{"source": "files", "customer_id": "anna"}]
    assert shown["profile"]["email"] == "anna@example.com"
    assert shown["attributes"] == {"age_band": "25-34"}
    assert [order["order_id"] for order in shown["orders"]] == ["o1", "o2", "o3"]
    line = shown["orders"][0]["lines"][0]
    assert (line["product_id"], line["amount"], line["sold_at"]) == ("bread", "1.00", "2017-10-03T10:00:00Z")
    assert [line["amount"] for line in shown["earlier_versions"]] == ["9.00"]
    assert shown["interactions"][0]["text"] == "the bread was stale"
    email = next(said for said in shown["consents"] if said["purpose"] == "marketing_email")
    assert (email["state"], email["history"][0]["wording"]) == ("granted", "yes please")
    assert shown["scores"][0]["detail"] == {"band": "high"}
    assert (shown["found_by"], shown["sealed_under_own_key"]) == (["email", "name", "name", "phone"], True)
    assert data_export.export_customer(peopled, "nobody") is None


def test_no_table_about_customers_is_left_untold() -> None:
    about = {table.name for table in metadata.sorted_tables if "customer_key" in table.c} - {"erasures"}
    assert about == set(data_export.EXPORT_FIELDS)
