"""Encoding and decoding of protocol buffers and TFRecords, without generated classes or TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

Fields = dict[int, list]


def fields(message: bytes) -> Fields:
    """Return field number -> values in order: an int for a varint, bytes for every other type.

    Raises:
        ValueError: the bytes are not a message.
    """
    values_by_field: Fields = {}
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _read_varint(message, position)
        else:
            if wire_type == 2:
                length, position = _read_varint(message, position)
            elif wire_type in (1, 5):
                length = {1: 8, 5: 4}[wire_type]
            else:
                raise ValueError(f"wire type {wire_type} is not supported")
            value, position = message[position : position + length], position + length
            if position > len(message):
                raise ValueError("the message ends within a field")
        values_by_field.setdefault(number, []).append(value)
    return values_by_field


def encode(number: int, value: int | bytes | str) -> bytes:
    """Encode a field: an int as a varint, other values as length-delimited."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    payload = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def encode_map(number: int, entries: Mapping[str, bytes]) -> bytes:
    """Encode a map from strings to messages."""
    return b"".join(encode(number, encode(1, key) + encode(2, value)) for key, value in entries.items())


def decode_map(entries: Iterable[bytes]) -> dict[str, bytes]:
    """Decode a map from strings to messages."""
    decoded = (fields(entry) for entry in entries)
    return {text(entry, 1): last(entry, 2, b"") for entry in decoded}


def last(message: Fields, number: int, default):
    """Return the value of a field that is not repeated: the last one, or the default."""
    return message.get(number, [default])[-1]


def text(message: Fields, number: int) -> str:
    """Return the value of a string field."""
    return last(message, number, b"").decode()


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file.

    Raises:
        ValueError: a checksum is wrong or the file ends within a record.
    """
    data = path.read_bytes()
    start = 0
    while start < len(data):
        if len(data) < start + 12:
            raise ValueError(f"{path}: ends within the header of a record")
        length, header_crc = struct.unpack_from("<QI", data, start)
        record = data[start + 12 : start + 12 + length]
        record_crc = data[start + 12 + length : start + 16 + length]
        if (
            masked_crc(data[start : start + 8]) != header_crc
            or struct.pack("<I", masked_crc(record)) != record_crc
        ):
            raise ValueError(f"{path}: wrong checksum of the record at byte {start}")
        yield record
        start += 16 + length


def masked_crc(data: bytes) -> int:
    """Return the checksum of a TFRecord: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = 2**32 - 1
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    crc ^= 2**32 - 1
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def varint(number: int) -> bytes:
    """Encode a varint: seven bits per byte, the lowest first."""
    number &= 2**64 - 1  # a negative number is its two's complement in ten bytes
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    """Return the varint at an offset and the offset after it."""
    value = 0
    for count in range(10):
        if start + count >= len(data):
            raise ValueError("the message ends within a number")
        byte = data[start + count]
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value & (2**64 - 1), start + count + 1
    raise ValueError("a number of more than ten bytes")


def signed(number: int) -> int:
    """Return a varint's value as a signed int64."""
    return number - 2**64 if number >= 2**63 else number


def unpack(data: bytes) -> np.ndarray:
    """Decode consecutive varints to int64."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 128) + 1
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    index = np.arange(len(raw)) - np.repeat(starts, ends - starts)
    parts = (raw & 127).astype(np.uint64) << (7 * index).astype(np.uint64)
    return np.add.reduceat(parts, starts).view(np.int64)


def pack(values: np.ndarray) -> bytes:
    """Encode integers as consecutive varints."""
    whole = values.ravel().astype(np.int64).view(np.uint64)[:, None]
    shifts = 7 * np.arange(10, dtype=np.uint64)
    rest = whole >> shifts
    parts = (rest & np.uint64(127)).astype(np.uint8)
    more = np.concatenate([rest[:, 1:] > 0, np.zeros((len(rest), 1), bool)], 1)
    used = np.concatenate([np.ones((len(rest), 1), bool), rest[:, 1:] > 0], 1)
    return (parts | more.astype(np.uint8) << 7)[used].tobytes()
