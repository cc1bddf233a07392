"""Keys and values are those of Feast, to the byte."""

import math

import numpy as np
import pytest

from features.store import redis_values, value_codec

LISTS = {
    "int64": np.array([0, 1, -1, 2**40], np.int64),
    "float64": np.array([0.1, -2.5, 1e300]),
    "float32": np.array([0.1, -2.5], np.float32),
    "string": np.array(["milk", "zoë's bread", ""], object),
}
FEAST_TYPES = {"int64": "Int64", "float64": "Float64", "float32": "Float32", "string": "String"}


def feast_messages(values: list, type_name: str, is_list: bool) -> list[bytes]:
    """The bytes that Feast stores for these values."""
    from feast import types
    from feast.type_map import python_values_to_proto_values

    feast_type = getattr(types, type_name)
    value_type = (types.Array(feast_type) if is_list else feast_type).to_value_type()
    return [message.SerializeToString() for message in python_values_to_proto_values(values, value_type)]


@pytest.mark.parametrize("key", [1, 0, -1, 2**62])
def test_a_key_is_the_one_of_feast(key: int) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.infra.online_stores.helpers import _mmh3
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    entity = EntityKey(join_keys=["customer_key"], entity_values=[Value(int64_val=key)])
    assert value_codec.entity_key(key) == serialize_entity_key(entity, 3)
    assert value_codec.customer_key(value_codec.entity_key(key)) == key
    assert redis_values.feature_field("rhythm", "recency_days") == _mmh3("rhythm:recency_days")


@pytest.mark.parametrize("number", [0.0, 1.5, -1e300, math.inf])
def test_a_number_is_the_one_of_feast(number: float) -> None:
    (message,) = feast_messages([number], "Float64", is_list=False)
    assert value_codec.encode_number(number) == message
    assert value_codec.decode_number(message) == number


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_number_is_empty(missing: float | None) -> None:
    assert [value_codec.encode_number(missing)] == feast_messages([missing, 1.0], "Float64", is_list=False)[:1]
    assert math.isnan(value_codec.decode_number(b""))


@pytest.mark.parametrize("element_type", LISTS)
def test_a_list_is_the_one_of_feast(element_type: str) -> None:
    values = LISTS[element_type]
    (message,) = feast_messages([values], FEAST_TYPES[element_type], is_list=True)
    assert value_codec.encode_list(values, element_type) == message
    np.testing.assert_array_equal(np.array(value_codec.decode_list(message, element_type), values.dtype), values)


@pytest.mark.parametrize("element_type", ["float64", "float32"])
@pytest.mark.parametrize("length", [1, 14, 15, 16, 17, 31, 32, 2_047, 2_048, 5_000])
def test_a_list_of_any_length_is_the_one_of_feast(element_type: str, length: int) -> None:
    """Lengths are written in one, two or three bytes."""
    values = np.linspace(-1, 1, length).astype(element_type)
    (message,) = feast_messages([values], FEAST_TYPES[element_type], is_list=True)
    assert value_codec.encode_list(values, element_type) == message
    np.testing.assert_array_equal(value_codec.decode_list(message, element_type), values)


@pytest.mark.parametrize("element_type", LISTS)
def test_an_empty_list_is_not_a_missing_one(element_type: str) -> None:
    empty = value_codec.encode_list(LISTS[element_type][:0], element_type)
    decoded = value_codec.decode_list(empty, element_type)
    assert decoded is not None
    assert list(decoded) == []
    assert value_codec.encode_list(None, element_type) == b""
    assert value_codec.decode_list(b"", element_type) is None


def test_a_value_of_another_type_counts_as_missing() -> None:
    assert math.isnan(value_codec.decode_number(value_codec.encode_list([1.0], "float64")))
    assert value_codec.decode_list(value_codec.encode_list([1], "int64"), "float64") is None


@pytest.mark.parametrize("element_type", ["float64", "float32"])
def test_a_damaged_list_is_an_error_or_missing(element_type: str) -> None:
    from google.protobuf.message import DecodeError

    message = value_codec.encode_list(np.arange(40.0), element_type)
    for damaged in (message[:-1], message[:3], message + b"x"):
        with pytest.raises(DecodeError):
            value_codec.decode_list(damaged, element_type)
