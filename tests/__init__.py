"""The tests, a module for each room of the package; each test's name is a sentence about it."""

from typing import Any, get_args

from pydantic import BaseModel


def models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The tables that a setting of this type may be: one, or one of several; none if it is a plain value."""
    kinds = get_args(annotation) or (annotation,)
    return kinds if all(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds) else ()
