"""pydantic models, which read and write themselves. pydantic is optional and is never imported from here."""

import sys
from typing import Any

import msgspec


def is_pydantic(cls: type[Any]) -> bool:
    """Whether this is a pydantic model. If pydantic was never imported, none is."""
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return isinstance(base, type) and issubclass(cls, base)


def is_root_model(cls: type[Any]) -> bool:
    """Whether this model is one value rather than an object of fields."""
    return bool(getattr(cls, "__pydantic_root_model__", False))


def lower_model(model: Any) -> object:  # noqa: ANN401  # pydantic is not imported, so its types have no names here
    """The JSON value of a model, by the names of its fields and never by their aliases."""
    return msgspec.json.decode(model.__pydantic_serializer__.to_json(model, by_alias=False, round_trip=True))


def lift_model(cls: Any, value: object) -> Any:  # noqa: ANN401  # pydantic is not imported, so its types have no names here
    """The model of a JSON value."""
    return cls.model_validate_json(msgspec.json.encode(value), by_alias=False, by_name=True)
