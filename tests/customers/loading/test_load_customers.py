"""Loading customers: personal fields are searchable and shown, and encrypted under the shop's key."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from customers.database import engine, schema
from customers.loading.load import LoadResult
from customers.people import lookup
from customers.reports import customer_view
from customers.security import encryption
from customers.security.encryption import EncryptionError, PersonalDataCipher
from customers.shop.errors import ShopError
from customers.shop.settings import Shop

PEOPLE = (
    "customer_id,given_name,family_name,email,phone,birth_date,city,preferences,joined_at,age_band,work_email\n"
    'c1,小明,王,Xiaoming@Example.COM,+86 138 0013 8000,1990-02-28,上海,"{""size"": ""M""}",'
    "2017-01-01,25-34,w@example.com\n"
    "c2,José,Núñez,jose@example.com,0049 30 123456,,Berlin,,,35-44,\n"
    "c3,Jose,Canary-Kanarienvogel,,,,,,,,\n"
)
Load = Callable[..., LoadResult]
Rows = Callable[..., list[tuple]]


def load_counts(loaded: LoadResult) -> tuple[int, int, int, int]:
    return loaded.inserted, loaded.updated, loaded.unchanged, loaded.rejected


def test_a_customer_is_shown_as_loaded(corner_shop: Shop, load_text: Load, load_lines: Load) -> None:
    assert load_counts(load_text(corner_shop, "customers", PEOPLE)) == (3, 0, 0, 0)
    load_lines(corner_shop, "7,c1,tea,2017-11-01T10:00:00Z,2,9.90\n")
    view = customer_view.load_customer_view(corner_shop, "c1")
    assert view is not None
    assert view["profile"] == {
        "given_name": "小明",
        "family_name": "王",
        "email": "Xiaoming@Example.COM",
        "phone": "+86 138 0013 8000",
        "birth_date": "1990-02-28",
        "city": "上海",
        "preferences": {"size": "M"},
        "work_email": "w@example.com",
    }
    assert view["attributes"] == {"age_band": "25-34"}
    assert view["stage"] == "customer"
    assert view["joined_at"] == datetime(2016, 12, 31, 23, tzinfo=UTC)
    assert view["purchases"]["spent"] == [{"amount": "9.90", "currency": "EUR"}]
    assert [(order["order_id"], len(order["lines"])) for order in view["orders"]] == [("7", 1)]
    assert customer_view.load_customer_view(corner_shop, "c9") is None


@pytest.mark.parametrize(
    ("query", "customer_ids"),
    [
        ({"email": " xiaoming@example.com"}, ["c1"]),
        ({"phone": "+8613800138000"}, ["c1"]),
        ({"phone": "+49 (30) 12-34-56"}, ["c2"]),
        ({"name": "王小明"}, ["c1"]),
        ({"name": "Nunez, Jose"}, ["c2"]),
        ({"name": "jose núñez", "email": "jose@example.com"}, ["c2"]),
        ({"name": "jose núñez", "email": "other@example.com"}, []),
        ({"email": "nobody@example.com"}, []),
    ],
)
def test_a_search_matches_other_spellings(
    corner_shop: Shop, load_text: Load, query: dict[str, str], customer_ids: list[str]
) -> None:
    load_text(corner_shop, "customers", PEOPLE)
    keys = lookup.find_customers(corner_shop, **query)
    assert list(lookup.find_ids(corner_shop, keys).values()) == customer_ids


def test_an_empty_search_is_refused_with_what_to_give(corner_shop: Shop) -> None:
    with pytest.raises(ShopError, match="give an email, a phone or a name"):
        lookup.find_customers(corner_shop, email=" ")


def test_loading_customers_again_updates_only_changed_fields(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "customers", PEOPLE)
    assert load_counts(load_text(corner_shop, "customers", PEOPLE)) == (0, 0, 3, 0)
    assert load_counts(load_text(corner_shop, "customers", PEOPLE.replace("Berlin", "Bonn"))) == (0, 1, 2, 0)
    again = load_text(corner_shop, "customers", "customer_id,email\nc1,new@example.com\nc2,\n")
    assert load_counts(again) == (0, 2, 0, 0)
    first, second = (
        customer_view.load_customer_view(corner_shop, "c1"),
        customer_view.load_customer_view(corner_shop, "c2"),
    )
    assert first is not None
    assert second is not None
    assert (first["profile"]["email"], first["profile"]["city"]) == ("new@example.com", "上海")
    assert "email" not in second["profile"]
    assert second["attributes"] == {"age_band": "35-44"}
    assert lookup.find_customers(corner_shop, email="jose@example.com") == []


def test_an_invalid_customer_is_rejected_without_personal_data_in_the_file(corner_shop: Shop, load_text: Load) -> None:
    text = (
        "customer_id,given_name,birth_date,stage\nc1,Kanarienvogel,soon,\n,Kanarienvogel,,\nc3,Kanarienvogel,,friend\n"
    )
    loaded = load_text(corner_shop, "customers", text)
    assert load_counts(loaded) == (0, 0, 0, 3)
    assert loaded.rejects_file
    content = Path(loaded.rejects_file).read_text()
    assert "Kanarienvogel" not in content
    assert "c1" not in content.replace(str(corner_shop.home), "")
    assert "4,stage is none of prospect, customer" in content.replace('"', "")


def test_no_personal_field_is_stored_in_clear_text(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "customers", PEOPLE)
    load_text(corner_shop, "customers", PEOPLE.replace("Kanarienvogel", "Vogelkanari"))
    secrets = ["Kanarienvogel", "Vogelkanari", "小明", "jose@example", "13800138000", "138 0013 8000", "work@", "上海"]
    contents = {path: path.read_bytes() for path in corner_shop.home.rglob("*") if path.is_file()}
    with engine.read_transaction(corner_shop) as connection:
        for table in schema.metadata.tables.values():
            values = [value for row in connection.execute(table.select()) for value in row]
            contents[table.name] = b"".join(
                value if isinstance(value, bytes) else str(value).encode() for value in values
            )
    for location, content in contents.items():
        for secret in secrets:
            assert secret.encode() not in content, (location, secret)
            assert secret.encode("utf-16-le") not in content, (location, secret)


def test_fields_decrypt_only_for_their_own_customer_purpose_and_shop() -> None:
    cipher, other_cipher = PersonalDataCipher(b"k" * 32), PersonalDataCipher(b"o" * 32)
    anna, ben = cipher.new_wrapped_key(1), cipher.new_wrapped_key(2)
    encrypted = cipher.encrypt(1, anna, {"given_name": "Anna"})
    assert cipher.decrypt(1, anna, encrypted) == {"given_name": "Anna"}
    for wrong in (
        lambda: cipher.decrypt(2, anna, encrypted),
        lambda: cipher.decrypt(1, ben, encrypted),
        lambda: cipher.decrypt(2, ben, encrypted),
        lambda: cipher.decrypt(1, anna, encrypted, purpose="notes"),
        lambda: other_cipher.decrypt(1, anna, encrypted),
        lambda: cipher.decrypt(1, anna, encrypted[:-1]),
        lambda: cipher.decrypt(1, anna, b""),
    ):
        with pytest.raises(EncryptionError):
            wrong()
    for position in range(len(encrypted)):
        flipped = bytes([*encrypted[:position], encrypted[position] ^ 1, *encrypted[position + 1 :]])
        with pytest.raises(EncryptionError):
            cipher.decrypt(1, anna, flipped)


def test_equal_fields_encrypt_differently_each_time() -> None:
    cipher = PersonalDataCipher(b"k" * 32)
    key = cipher.new_wrapped_key(1)
    assert cipher.encrypt(1, key, {"email": "a"}) != cipher.encrypt(1, key, {"email": "a"})
    assert cipher.new_wrapped_key(1) != cipher.new_wrapped_key(1)


def test_lookup_digests_differ_between_shops_and_fields() -> None:
    assert PersonalDataCipher(b"k" * 32).lookup_digest("email", "a@example.com") != PersonalDataCipher(
        b"o" * 32
    ).lookup_digest("email", "a@example.com")
    assert PersonalDataCipher(b"k" * 32).lookup_digest("email", "1") != PersonalDataCipher(b"k" * 32).lookup_digest(
        "phone", "1"
    )


def test_with_another_key_nothing_can_be_read(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "customers", PEOPLE)
    wrong_key_shop = replace(corner_shop, key=b"x" * 32)
    assert lookup.find_customers(wrong_key_shop, email="jose@example.com") == []
    with pytest.raises(EncryptionError) as refused:
        customer_view.load_customer_view(wrong_key_shop, "c2")
    assert "José" not in str(refused.value)


def test_destroying_a_customers_key_makes_the_profile_unreadable(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "customers", PEOPLE)
    key = lookup.find_keys(corner_shop, ["c2"])["c2"]
    with engine.write_transaction(corner_shop) as connection:
        connection.execute(schema.person_keys.delete().where(schema.person_keys.c.customer_key == key))
    view = customer_view.load_customer_view(corner_shop, "c2")
    assert view is not None
    assert view["profile"] == {}


def test_an_id_of_two_sources_is_qualified_by_its_source(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "customers", "customer_id\n7\n8\na:b\n")
    load_text(corner_shop, "customers", "customer_id\n7\n9\n", source="till")
    load_text(corner_shop, "customers", "customer_id\n9\n", source="web")
    ids = ["7", "files:7", "till:7", "8", "files:8", "9", "till:9", "a:b", "nobody:7"]
    keys = lookup.find_keys(corner_shop, ids)
    assert keys["7"] == keys["files:7"] != keys["till:7"]
    assert keys["8"] == keys["files:8"]
    assert "9" not in keys
    assert "nobody:7" not in keys
    assert lookup.find_keys(corner_shop, ["\ud800", "a\0", ":", ""]) == {}
    ids_by_key = lookup.find_ids(corner_shop, keys.values())
    assert ids_by_key[keys["till:7"]] == "till:7"
    assert ids_by_key[keys["files:7"]] == "files:7"
    assert ids_by_key[keys["8"]] == "8"
    assert ids_by_key[keys["a:b"]] == "a:b"


def test_each_shop_has_its_own_cipher(corner_shop: Shop) -> None:
    assert encryption.get_cipher(corner_shop) is encryption.get_cipher(corner_shop)
    assert encryption.get_cipher(corner_shop) is not encryption.get_cipher(replace(corner_shop, key=b"x" * 32))
