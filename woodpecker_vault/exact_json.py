"""JSON in which numbers keep their digits: what an admin wrote as 3.10 is 3.10 again, not 3.1."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_DECODER = json.JSONDecoder(parse_float=Decimal)


def loads(text: str) -> Any:
    """Read a JSON text; numbers with a point or an exponent come as :class:`~decimal.Decimal`.

    Raises:
        ValueError, RecursionError: it is none, or one too deep.
    """
    return _DECODER.decode(text)


def dumps(value: Any) -> str:
    """Write a value as compact JSON text."""
    match value:
        case Decimal():
            return str(value)
        case Mapping():
            return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{dumps(value[key])}" for key in value) + "}"
        case list() | tuple():
            return "[" + ",".join(map(dumps, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)
