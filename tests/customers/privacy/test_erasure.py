"""Erasure of a customer is complete and stays so; the data export shows before it all that the shop holds."""

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
from customers.loading import load, load_transactions, validation
from customers.loading.connectors import files
from customers.loading.connectors.files import Records
from customers.loading.load import LoadResult
from customers.parquet import mirror
from customers.people import lookup
from customers.privacy import anonymisation, data_export, erasure
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
# Bread twice in one order and without line ids, several times over: such lines are matched by their content.
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
def filled_home(
    copy_shop: Copy, new_home: Path, tmp_path_factory: pytest.TempPathFactory, load_text: Load, load_lines: Load
) -> Path:
    """Anna and Ben, their sales (one corrected since), interactions, consents and a score of Anna."""
    shop = copy_shop(new_home, tmp_path_factory.mktemp("filled") / "shop")
    load_text(shop, "customers", PEOPLE)
    load_lines(shop, LINES.replace("o3,anna,milk,2017-11-03T10:00Z,1,1", "o3,anna,milk,2017-11-03T10:00Z,1,9"))
    load_lines(shop, LINES)
    load_text(shop, "interactions", INTERACTIONS)
    load_text(shop, "consents", CONSENTS)
    key = lookup.find_keys(shop, ["anna"])["anna"]
    run = score_store.begin_run(shop, "churn", 1, AS_OF)
    score_store.write_scores(shop, run, [(key, 0.5, '{"band": "high"}')])
    score_store.finish_run(shop, run)
    mirror.refresh(shop)
    return shop.home


@pytest.fixture
def filled_shop(copy_shop: Copy, filled_home: Path, tmp_path: Path) -> Iterator[Shop]:
    """A copy of the shop with Anna and Ben."""
    shop = copy_shop(filled_home, tmp_path / "shop")
    yield shop
    engine.get_engine(shop).dispose()


def read_tables(shop: Shop) -> dict[str, list[tuple]]:
    with engine.read_transaction(shop) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(table.select())] for table in metadata.sorted_tables
        }


def read_ledger(shop: Shop, fetch_rows: Rows) -> list[tuple]:
    columns = "order_id, line_id, customer_key, sold_at, amount_minor, content"
    return sorted(fetch_rows(shop, f"select {columns} from transactions"), key=str)


def test_no_table_names_an_erased_customer(filled_shop: Shop) -> None:
    key = lookup.find_keys(filled_shop, ["anna"])["anna"]
    result = erasure.erase_customer(filled_shop, "anna")
    assert result is not None
    assert (result.customer_key, result.lines) == (key, 3 * 4 + 1)
    removed = {name: count for name, count in result.removed.items() if count}
    assert removed == {
        "identities": 1, "person_keys": 1, "personal": 1, "lookups": 4, "attributes": 1, "interactions": 1,
        "consents": 1, "scores": 1, "customers": 1,
    }  # fmt: skip
    tables = read_tables(filled_shop)
    assert tables.pop("erasures")[0][1] == key
    assert str(key) not in str(tables)
    assert "anna" not in str(tables).lower()
    assert customer_view.load_customer_view(filled_shop, "anna") is None
    assert data_export.export_customer(filled_shop, "anna") is None
    assert erasure.erase_customer(filled_shop, "anna") is None
    assert score_store.load_run_scores(filled_shop, "churn").empty


def test_sales_of_an_erased_customer_stay_as_anonymous_sales(
    filled_shop: Shop, load_lines: Load, fetch_rows: Rows, tmp_path: Path
) -> None:
    """The digest too: with her id in it, trying every id would reveal whose line it is."""
    before = fetch_rows(filled_shop, "select count(*), sum(amount_minor) from transactions")
    erasure.erase_customer(filled_shop, "anna")
    erasure.erase_customer(filled_shop, "ben")
    assert fetch_rows(filled_shop, "select count(*), sum(amount_minor) from transactions") == before
    anonymous_shop = setup.init_home(tmp_path / "another")
    load_lines(anonymous_shop, LINES.replace("anna", "").replace("ben", ""))
    assert read_ledger(filled_shop, fetch_rows) == read_ledger(anonymous_shop, fetch_rows)
    assert fetch_rows(filled_shop, "select customer_key from transactions_history") == [(None,)]


def test_loading_the_same_files_again_does_not_restore_an_erased_customer(
    filled_shop: Shop, load_text: Load, load_lines: Load, fetch_rows: Rows, tmp_path: Path
) -> None:
    erasure.erase_customer(filled_shop, "anna")
    before = read_tables(filled_shop)
    again = load_lines(filled_shop, LINES)
    assert (again.read, again.unchanged, again.rejected) == (20, 20, 0)
    for kind, text, unchanged in (
        ("customers", PEOPLE, 1),
        ("interactions", INTERACTIONS, 1),
        ("consents", CONSENTS, 0),
    ):
        again = load_text(filled_shop, kind, text)
        assert (again.unchanged, again.rejected, again.reasons) == (unchanged, 1, {"this customer was erased": 1})
        assert again.rejects_file is not None
        assert "anna" not in Path(again.rejects_file).read_text(encoding="utf-8")
    # The customer who referred Ben stays removed too.
    assert fetch_rows(filled_shop, "select referred_by from customers") == [(None,)]
    assert read_tables(filled_shop) == before


def test_a_new_sale_and_a_correction_with_an_erased_id_are_anonymous(
    filled_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    erasure.erase_customer(filled_shop, "anna")
    corrected = LINES.replace("o1,anna,milk,2017-10-03T10:00Z,1,1", "o1,anna,milk,2017-10-03T10:00Z,1,7")
    result = load_lines(
        filled_shop, corrected + "o9,anna,tea,2017-11-20T10:00Z,1,4\no9, anna ,tea,2017-11-20T10:00Z,1,4\n"
    )
    assert (result.updated, result.inserted, result.rejected) == (1, 2, 0)
    ben = lookup.find_keys(filled_shop, ["ben"])["ben"]
    assert fetch_rows(filled_shop, "select distinct customer_key from transactions where customer_key is not null") == [
        (ben,)
    ]
    assert fetch_rows(filled_shop, "select distinct customer_key from transactions_history") == [(None,)]
    assert lookup.find_keys(filled_shop, ["anna"]) == {}


def test_a_sale_posted_with_an_erased_id_is_anonymous(filled_shop: Shop, fetch_rows: Rows) -> None:
    erasure.erase_customer(filled_shop, "anna")
    sale = {"order_id": "o9", "customer_id": "anna", "product_id": "tea", "sold_at": "2017-11-20T10:00Z",
            "quantity": 1, "amount": 4}  # fmt: skip
    result = load.ingest_records(filled_shop, "transactions", [sale])
    assert (result.inserted, result.customer_keys) == (1, [])
    assert fetch_rows(filled_shop, "select customer_key from transactions where order_id = 'o9'") == [(None,)]
    assert fetch_rows(filled_shop, "select * from unrefreshed") == []
    rejected = load.ingest_records(filled_shop, "customers", [{"customer_id": "anna", "given_name": "Anna"}])
    assert rejected.errors == [{"index": 0, "reason": "this customer was erased"}]


def test_an_id_is_erased_in_its_own_source(filled_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    load_lines(filled_shop, "w1,anna,tea,2017-11-20T10:00Z,1,4\n", source="web")
    erasure.erase_customer(filled_shop, "files:anna")
    assert lookup.find_ids(filled_shop, lookup.find_keys(filled_shop, ["anna"]).values()) != {}
    load_lines(filled_shop, "w2,anna,tea,2017-11-21T10:00Z,1,4\n", source="web")
    assert fetch_rows(filled_shop, "select count(distinct customer_key) from transactions where source = 'web'") == [
        (1,)
    ]
    load_lines(filled_shop, "o9,anna,tea,2017-11-21T10:00Z,1,4\n")
    assert fetch_rows(filled_shop, "select customer_key from transactions where order_id = 'o9'") == [(None,)]


def test_every_id_of_a_customer_is_erased(filled_shop: Shop, load_lines: Load, fetch_rows: Rows) -> None:
    key = lookup.find_keys(filled_shop, ["anna"])["anna"]
    with engine.write_transaction(filled_shop) as connection:
        connection.execute(sa.text(f"insert into identities values ('a-7', 'web', {key})"))
    erasure.erase_customer(filled_shop, "web:a-7")
    load_lines(filled_shop, "w1,a-7,tea,2017-11-20T10:00Z,1,4\n", source="web")
    load_lines(filled_shop, "o9,anna,tea,2017-11-21T10:00Z,1,4\n")
    assert fetch_rows(filled_shop, "select distinct customer_key from transactions where order_id in ('w1', 'o9')") == [
        (None,)
    ]


def test_a_customer_erased_while_their_sales_are_loaded_is_not_created_again(
    filled_shop: Shop, fetch_rows: Rows, tmp_path: Path
) -> None:
    """The load has looked up who Anna is when she is erased; what it writes afterwards is anonymous."""
    path = tmp_path / "late.csv"
    path.write_text(
        "order_id,line_id,customer_id,product_id,sold_at,quantity,amount\nl1,1,anna,tea,2017-11-20T10:00Z,1,4\n"
    )
    transactions_begun = 0

    def write() -> AbstractContextManager[sa.Connection]:
        nonlocal transactions_begun
        transactions_begun += 1
        if transactions_begun == 4:  # after: the newest erasure, who they are, the products
            erasure.erase_customer(filled_shop, "anna")
        return engine.write_transaction(filled_shop)

    with files.read_files([path], required=load_transactions.RECORD_KIND.required) as records:
        check_records(filled_shop, records)
        load_transactions.RECORD_KIND.load(filled_shop, "files", records, write)
    assert transactions_begun == 4
    late = fetch_rows(filled_shop, "select customer_key, content from transactions where order_id = 'l1'")
    path.write_text(path.read_text().replace("anna", ""))
    assert late[0][0] is None
    assert load.load_files(filled_shop, "transactions", [path]).unchanged == 1


def check_records(shop: Shop, records: Records) -> None:
    for name in set(load_transactions.COLUMNS) - set(records.columns):
        records.connection.execute(f'alter table raw add column "{name}" varchar')
    query = validation.validation_query(load_transactions.RECORD_KIND.checks(shop), load_transactions.COLUMNS)
    records.connection.execute(f"create table checked as {query}")


def test_the_key_of_an_erased_customer_is_never_assigned_again(
    filled_shop: Shop, load_lines: Load, fetch_rows: Rows
) -> None:
    highest = max(lookup.find_keys(filled_shop, ["anna", "ben"]).items(), key=lambda id_and_key: id_and_key[1])
    erasure.erase_customer(filled_shop, highest[0])
    load_lines(filled_shop, "o9,cora,tea,2017-11-20T10:00Z,1,4\n")
    assert lookup.find_keys(filled_shop, ["cora"])["cora"] > highest[1]


def test_rejects_files_lose_the_rows_of_an_erased_customer(
    filled_shop: Shop, load_text: Load, load_lines: Load
) -> None:
    alone = load_lines(filled_shop, "x1,anna,bread,never,1,1\n").rejects_file
    both = load_lines(filled_shop, "x1, anna,bread,never,1,1\nx2,ben,bread,never,1,1\n").rejects_file
    erasure.erase_customer(filled_shop, "anna")
    assert alone is not None
    assert both is not None
    assert not Path(alone).exists()
    remaining = Path(both).read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[3:5] for line in remaining] == [["order_id", "customer_id"], ["x2", "ben"]]
    assert Path(both).stat().st_mode & 0o077 == 0
    # A later row of theirs, rejected for another reason, does not write the id either.
    later = load_lines(filled_shop, "x1,anna,bread,never,1,1\n").rejects_file
    assert later is not None
    assert "anna" not in Path(later).read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", ["csv", "ndjson", "parquet"])
def test_exported_tables_lose_the_rows_of_an_erased_customer(filled_shop: Shop, ending: str) -> None:
    """Whichever form the id has; the rows of others, and the format of the file, stay as they were."""
    folder = filled_shop.home / "exports"
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame(
        {
            "customer_id": ["anna", "ben", "files:anna", "annabel"],
            "as_of": pd.to_datetime(["2017-12-01T00:00Z"] * 4),
            "reasons": ["a, b", 'said "no"', "", "two\nlines"],
        }
    )
    write_table(frame, folder / f"scores.{ending}")
    write_table(frame.drop(columns="customer_id"), folder / f"totals.{ending}")
    (folder / f"scores.{ending}").chmod(0o640)
    totals = (folder / f"totals.{ending}").read_bytes()
    erasure.erase_customer(filled_shop, "anna")
    expected = write_table(frame.iloc[[1, 3]], folder / f"expected.{ending}")
    path = folder / f"scores.{ending}"
    if ending == "parquet":
        assert pd.read_parquet(path).equals(pd.read_parquet(expected))
        assert pq.read_schema(path) == pq.read_schema(expected)
    else:
        assert path.read_bytes() == expected.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o640
    assert (folder / f"totals.{ending}").read_bytes() == totals
    assert len(list(folder.iterdir())) == 3


def test_an_exported_categorical_column_loses_the_categories_of_an_erased_customer(filled_shop: Shop) -> None:
    """Otherwise a category without rows would still be written in the file."""
    folder = filled_shop.home / "exports"
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame({"customer_id": ["anna", "ben", "anna"], "reason": ["late", "late", "early"]})
    path = write_table(frame.astype("category"), folder / "dropped-offers.parquet")
    assert b"anna" in path.read_bytes()
    erasure.erase_customer(filled_shop, "anna")
    assert pd.read_parquet(path).astype(object).to_dict("list") == {"customer_id": ["ben"], "reason": ["late"]}
    assert not any(name in path.read_bytes() for name in (b"anna", b"early"))
    assert pq.read_schema(path).field("customer_id").type in (pa.string(), pa.large_string())


def test_an_exported_table_with_only_erased_rows_keeps_its_columns(filled_shop: Shop) -> None:
    (filled_shop.home / "exports").mkdir(exist_ok=True)
    path = filled_shop.home / "exports" / "scores.csv"
    path.write_text("customer_id,churn\nanna,0.5\n", encoding="utf-8")
    (filled_shop.home / "exports" / "empty.csv").touch()
    erasure.erase_customer(filled_shop, "anna")
    assert path.read_text(encoding="utf-8") == "customer_id,churn\n"


def test_an_export_in_parts_loses_the_rows_of_an_erased_customer(filled_shop: Shop) -> None:
    folder = filled_shop.home / "exports" / "scores"
    folder.mkdir(parents=True)
    path = write_table(pd.DataFrame({"customer_id": ["anna", "ben"]}), folder / "part-00000.parquet")
    erasure.erase_customer(filled_shop, "anna")
    assert pd.read_parquet(path)["customer_id"].tolist() == ["ben"]


def test_parts_that_are_being_written_or_have_vanished_stop_no_erasure(
    filled_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled_shop.home / "exports" / ".scores.x" / "new"
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_bytes(b"PAR1 and no more yet")
    vanished = filled_shop.home / "exports" / "scores.csv"
    vanished.write_text("customer_id,churn\nanna,0.5\n", encoding="utf-8")
    monkeypatch.setattr("shutil.copymode", lambda path, _: path.rename(path.with_name("moved.csv")).stat)
    monkeypatch.setattr("os.replace", lambda _, path: path.stat())
    anonymisation.purge_exports(filled_shop, {"anna"})
    assert not vanished.exists()


def write_table(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table as the exports are written."""
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False, coerce_timestamps="us")
    elif path.suffix == ".ndjson":
        frame.to_json(path, orient="records", lines=True, date_format="iso", force_ascii=False)
    else:
        frame.to_csv(path, index=False)
    return path


def test_the_mirror_loses_an_erased_customer_at_once(filled_shop: Shop) -> None:
    keys = lookup.find_keys(filled_shop, ["anna", "ben"])
    erasure.erase_customer(filled_shop, "anna")

    def mirrored_keys() -> set[int]:
        tables = [pq.read_table(path, partitioning=None) for path in (filled_shop.home / "ledger").rglob("*.parquet")]
        keys_by_table = [
            table.column("customer_key").to_pylist() for table in tables if "customer_key" in table.column_names
        ]
        return set().union(*keys_by_table)

    assert mirrored_keys() == {keys["ben"], None}
    # It equals a rebuilt mirror, so there is nothing to refresh.
    assert mirror.refresh(filled_shop) == []
    before = mirror_contents(filled_shop)
    mirror.rebuild(filled_shop)
    assert mirror_contents(filled_shop) == before


def mirror_contents(shop: Shop) -> dict[str, list[str]]:
    paths = sorted((shop.home / "ledger").rglob("*.parquet"))
    return {str(path): sorted(map(str, pq.read_table(path, partitioning=None).to_pylist())) for path in paths}


def test_a_change_that_the_mirror_does_not_have_yet_is_not_lost_by_an_erasure(
    filled_shop: Shop, load_lines: Load
) -> None:
    load_lines(filled_shop, "o9,ben,tea,2017-11-20T10:00Z,1,4\n")
    erasure.erase_customer(filled_shop, "anna")
    assert mirror.refresh(filled_shop) == ["2017-11", "products"]


def test_an_erasure_is_pending_until_the_upper_floors_complete_it(filled_shop: Shop) -> None:
    keys = lookup.find_keys(filled_shop, ["anna", "ben"])
    for name in keys:
        erasure.erase_customer(filled_shop, name)
    pending = erasure.pending_erasures(filled_shop)
    assert [key for _, key in pending] == list(keys.values())
    erasure.complete_erasures(filled_shop, [pending[0][0]])
    assert erasure.pending_erasures(filled_shop) == pending[1:]
    erasure.complete_erasures(filled_shop, [])
    assert erasure.pending_erasures(filled_shop) == pending[1:]


def test_a_nightly_run_in_progress_writes_no_score_of_an_erased_customer(filled_shop: Shop) -> None:
    keys = lookup.find_keys(filled_shop, ["anna", "ben"])
    run = score_store.begin_run(filled_shop, "churn", 2, AS_OF)
    erasure.erase_customer(filled_shop, "anna")
    assert score_store.write_scores(filled_shop, run, [(key, 0.5, "{}") for key in keys.values()]) == 1
    assert score_store.write_online_scores(filled_shop, "churn", 3, AS_OF, [(keys["anna"], 0.5, "{}")]) == 0
    score_store.finish_run(filled_shop, run)
    assert exports.build_scores(filled_shop)["customer_id"].tolist() == ["ben"]


def test_a_tombstone_does_not_reveal_the_customer(filled_shop: Shop) -> None:
    erasure.erase_customer(filled_shop, "anna")
    with engine.read_transaction(filled_shop) as connection:
        token, at = connection.execute(erased.select()).one()
        assert connection.execute(erasures.select()).one().erased_at == at
    assert bytes(token) == encryption.get_cipher(filled_shop).tombstone_digest("files", "anna")
    assert bytes(token) not in {
        encryption.PersonalDataCipher(bytes(32)).tombstone_digest("files", "anna"),
        b"files\0anna",
    }


def test_the_files_of_the_database_hold_nothing_of_an_erased_customer(filled_shop: Shop) -> None:
    """SQLite overwrites what it deletes, and its log is emptied: the wrapped key is no longer on the disk."""
    if not filled_shop.database_url.startswith("sqlite"):
        pytest.skip("a server's files are its own")
    key = lookup.find_keys(filled_shop, ["anna"])["anna"]
    with engine.read_transaction(filled_shop) as connection:
        is_customer = person_keys.c.customer_key == key
        secrets = [connection.execute(sa.select(person_keys.c.wrapped).where(is_customer)).scalar_one()]
        secrets += connection.execute(sa.select(personal.c.sealed).where(personal.c.customer_key == key)).scalars()
    erasure.erase_customer(filled_shop, "anna")
    content = b"".join(path.read_bytes() for path in filled_shop.home.glob("shop.db*"))
    assert not [secret for secret in (*secrets, b"anna", b"Anna", b"25-34") if secret in content]
    assert b"45-54" in content


def test_the_data_export_shows_everything_that_is_held(filled_shop: Shop) -> None:
    shown = data_export.export_customer(filled_shop, "anna")
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
    email = next(consent for consent in shown["consents"] if consent["purpose"] == "marketing_email")
    assert (email["state"], email["history"][0]["wording"]) == ("granted", "yes please")
    assert shown["scores"][0]["detail"] == {"band": "high"}
    assert (shown["found_by"], shown["sealed_under_own_key"]) == (["email", "name", "name", "phone"], True)
    assert data_export.export_customer(filled_shop, "nobody") is None


def test_the_data_export_covers_every_table_about_customers() -> None:
    customer_tables = {table.name for table in metadata.sorted_tables if "customer_key" in table.c} - {"erasures"}
    assert customer_tables == set(data_export.EXPORT_FIELDS)
