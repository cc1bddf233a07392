"""The keys and values of Feast's online stores, read and written without importing Feast, which takes seconds."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

#: Feast's project: the prefix of its tables, and the ending of its keys in Redis.
PROJECT = "regulars"
#: Feast's entity key, version 3: the number of join keys, the type (string), length and name of the one there is, and
#: the type (int64) and length of its value, all little-endian.
_KEY_PREFIX = struct.pack("<III12sII", 1, 2, 12, b"customer_key", 4, 8)
_NUMBER = struct.Struct("<Bd")
#: Field 5 of Feast's value message, a double, as it is written in front of the number.
_NUMBER_TAG = 5 << 3 | 1

#: Field of Feast's value message that holds a list, by element type: its name, its number, and the protobuf type.
LIST_FIELDS = {
    "string": ("string_list_val", 12, "TYPE_STRING"),
    "int64": ("int64_list_val", 14, "TYPE_INT64"),
    "float64": ("double_list_val", 15, "TYPE_DOUBLE"),
    "float32": ("float_list_val", 16, "TYPE_FLOAT"),
}
#: Elements of these types have one width, and lie beside each other in a stored list as they do in an array.
_FIXED_WIDTH: dict[str, np.dtype[Any]] = {"float64": np.dtype("<f8"), "float32": np.dtype("<f4")}
#: Field 1 of Feast's list messages, packed elements.
_ELEMENTS_TAG = b"\x0a"


def entity_key(key: int) -> bytes:
    """A customer's key in the online stores."""
    return _KEY_PREFIX + struct.pack("<q", key)


def customer_key(entity: bytes) -> int:
    """The customer of a key of an online store."""
    return int.from_bytes(entity[-8:], "little", signed=True)


def encode_number(value: Any) -> bytes:
    """A number as Feast stores it; nothing for a missing one (None or NaN)."""
    return b"" if value is None or math.isnan(value) else _NUMBER.pack(_NUMBER_TAG, value)


def decode_number(value: bytes) -> float:
    """The number of a stored value; NaN where it holds none."""
    return float(_NUMBER.unpack(value)[1]) if len(value) == 9 and value[0] == _NUMBER_TAG else math.nan


def encode_list(values: Sequence[Any] | None, element_type: str) -> bytes:
    """A list as Feast stores it; nothing for a missing one. `element_type` is a key of LIST_FIELDS."""
    if values is None:
        return b""
    if element_type in _FIXED_WIDTH:
        return _encode_fixed_width(np.asarray(values, _FIXED_WIDTH[element_type]), element_type)
    message = _value_class()()
    field = getattr(message, LIST_FIELDS[element_type][0])
    field.SetInParent()
    field.val.extend(values.tolist() if isinstance(values, np.ndarray) else values)
    return bytes(message.SerializeToString())


def decode_list(value: bytes, element_type: str) -> Sequence[Any] | np.ndarray | None:
    """The list of a stored value, (n,); None where it holds none."""
    if not value:
        return None
    if element_type in _FIXED_WIDTH and (array := _decode_fixed_width(value, element_type)) is not None:
        return array
    message, name = _value_class().FromString(value), LIST_FIELDS[element_type][0]
    return getattr(message, name).val if message.HasField(name) else None


def _encode_fixed_width(values: np.ndarray, element_type: str) -> bytes:
    """As protobuf writes the list, which takes ten times as long; values: (n,)."""
    raw = values.tobytes()
    elements = _ELEMENTS_TAG + _varint(len(raw)) + raw if raw else b""
    return _list_tag(element_type) + _varint(len(elements)) + elements


def _decode_fixed_width(value: bytes, element_type: str) -> np.ndarray | None:
    """The elements, (n,); None for a value that is not written as `_encode_fixed_width` does."""
    dtype, tag = _FIXED_WIDTH[element_type], _list_tag(element_type)
    if not value.startswith(tag):
        return None
    size, start = _read_varint(value, len(tag))
    if size == 0 and start == len(value):
        return np.empty(0, dtype)
    if start + size != len(value) or not value.startswith(_ELEMENTS_TAG, start):
        return None
    size, start = _read_varint(value, start + len(_ELEMENTS_TAG))
    return np.frombuffer(value, dtype, offset=start) if start + size == len(value) else None


@cache
def _list_tag(element_type: str) -> bytes:
    """Field number of the list in Feast's value message, and the type of a message."""
    return _varint(LIST_FIELDS[element_type][1] << 3 | 2)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(encoded: bytes, start: int) -> tuple[int, int]:
    """The number that begins at this position, and the position after it."""
    number = 0
    for position in range(start, len(encoded)):
        number |= (encoded[position] & 0x7F) << 7 * (position - start)
        if encoded[position] < 0x80:
            return number, position + 1
    return -1, len(encoded)


def encoder(element_type: str | None) -> Callable[[Any], bytes]:
    """What encodes the values of a feature: of a number (None), or of a list with this element type."""
    return encode_number if element_type is None else lambda values: encode_list(values, element_type)


def decoder(element_type: str | None) -> Callable[[bytes], Any]:
    """What decodes the values of a feature: of a number (None), or of a list with this element type."""
    return decode_number if element_type is None else lambda value: decode_list(value, element_type)


@cache
def _value_class() -> Any:
    """A message with the fields of Feast's value that hold lists, under a name of our own: both may be loaded."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="regulars/value.proto", package="regulars", syntax="proto3")
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="val")
    types = descriptor_pb2.FieldDescriptorProto
    for name, number, element_type in LIST_FIELDS.values():
        list_type = file.message_type.add(name=f"List{number}")
        list_type.field.add(name="val", number=1, type=getattr(types, element_type), label=types.LABEL_REPEATED)
        value.field.add(
            name=name, number=number, type=types.TYPE_MESSAGE, type_name=f".regulars.List{number}",
            label=types.LABEL_OPTIONAL, oneof_index=0,
        )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("regulars.Value"))
