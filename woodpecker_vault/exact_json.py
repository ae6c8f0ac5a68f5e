"""JSON in which numbers keep the digits that Vault sent: 1e-7 is 1e-7 again, and 0.10 is not 0.1."""

import json
from collections.abc import Mapping
from typing import Any


class Digits(str):
    """A number with a point or an exponent, as it was written."""

    __slots__ = ()


_DECODER = json.JSONDecoder(parse_float=Digits)


def loads(text: str) -> Any:
    """Read a JSON text; numbers with a point or an exponent come as :class:`Digits`.

    Raises:
        ValueError, RecursionError: it is none, or one too deep.
    """
    return _DECODER.decode(text)


def dumps(value: Any) -> str:
    """Write a value as compact JSON text."""
    match value:
        case Digits():
            return str(value)
        case Mapping():
            return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{dumps(value[key])}" for key in value) + "}"
        case list() | tuple():
            return "[" + ",".join(map(dumps, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)
