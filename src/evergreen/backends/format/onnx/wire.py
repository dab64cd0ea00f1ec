"""Looks over protobuf bytes before a parser makes objects of them: depth, number, and lengths that fit."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from evergreen.core.errors import InvalidInput

_DEPTH = 12
#: Messages, which cost a parser much; texts (a forest has one for every node) and numbers, which cost it little.
_MESSAGES, _TEXTS, _NUMBERS = 100_000, 3_000_000, 20_000_000
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_STRING, _MESSAGE = 9, 11


def survey(data: bytes, descriptor: Any) -> None:
    """Raise `InvalidInput` unless `data` is a message of that kind, sound and of bounded depth and number."""
    _Survey(data).message(descriptor, 0, len(data), 0)


class _Survey:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.messages = self.texts = self.numbers = 0

    def message(self, descriptor: Any, at: int, end: int, depth: int) -> None:
        if depth > _DEPTH:
            raise InvalidInput(f"the file is nested deeper than {_DEPTH} levels")
        fields = descriptor.fields_by_number
        while at < end:
            start = at
            tag, at = self.varint(at, end)
            field, wire = fields.get(tag >> 3), tag & 7
            if wire == _LENGTH:
                length, at = self.varint(at, end)
                if length > end - at:
                    raise InvalidInput(f"the file is cut off or damaged: at byte {start} it announces {length} bytes")
                if field is not None and field.type == _MESSAGE:
                    self.messages = self.counted(self.messages, _MESSAGES)
                    self.message(field.message_type, at, at + length, depth + 1)
                else:
                    self.texts = self.counted(self.texts, _TEXTS)
                    if field is not None and field.type == _STRING:
                        self.text(at, at + length)
                at += length
            elif wire in (_VARINT, _FIXED32, _FIXED64) and tag >> 3:
                at = self.numbered(start, at, end, wire)
            else:
                raise InvalidInput(f"the file is damaged: byte {start} begins nothing that protobuf knows")

    def numbered(self, start: int, at: int, end: int, wire: int) -> int:
        """Pass over a run of numbers with the same tag, however long, at the speed of C."""
        run = _run(self.data[start:at], wire).match(self.data, start, end)
        if run is None:
            raise InvalidInput(f"the file is cut off or damaged at byte {start}")
        self.numbers += (run.end() - start) // (at - start + 1)
        if self.numbers > _NUMBERS:
            raise InvalidInput(f"the file holds more than {_NUMBERS} numbers")
        return run.end()

    def text(self, at: int, end: int) -> None:
        try:
            self.data[at:end].decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"the file is damaged: the text at byte {at} is not UTF-8") from None

    def counted(self, so_far: int, most: int) -> int:
        if so_far >= most:
            raise InvalidInput(f"the file is made of more than {most} parts")
        return so_far + 1

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for i in range(10):
            if at + i >= end:
                break
            byte = self.data[at + i]
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                return value, at + i + 1
        raise InvalidInput(f"the file is cut off or damaged: no number ends at byte {at}")


@lru_cache(maxsize=256)
def _run(tag: bytes, wire: int) -> re.Pattern[bytes]:
    value = {_VARINT: rb"[\x80-\xff]{0,9}+[\x00-\x7f]", _FIXED32: rb".{4}", _FIXED64: rb".{8}"}[wire]
    return re.compile(rb"(?:%b%b)++" % (re.escape(tag), value), re.DOTALL)
