"""pydantic models as messages and state."""

import subprocess
import sys

import pydantic
import pytest

from perdure.errors import EncodingError
from perdure.storage.codec import codec_for, digest


class Address(pydantic.BaseModel):
    street: str = pydantic.Field(alias="Street")
    tags: set[str] = set()


class Person(pydantic.BaseModel):
    name: str
    home: Address | None = None
    secret: str = pydantic.Field(default="", exclude=True)


class Names(pydantic.RootModel[list[str]]):
    pass


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Person, Person(name="p", home=Address(Street="s", tags={"x"}))),
        (list[Person | None], [None, Person(name="p")]),
        (dict[str, Names], {"a": Names(["x"])}),
    ],
    ids=range(3),
)
def test_pydantic_models_come_back_through_their_own_validation(annotation: object, value: object) -> None:
    """People keep the models that they have."""
    codec = codec_for(annotation)
    assert codec.name == "json"
    assert codec.decode(codec.encode(value)) == value


def test_a_pydantic_model_that_loses_something_is_refused() -> None:
    """An excluded field is not dropped behind the user's back."""
    with pytest.raises(EncodingError, match="come back equal") as caught:
        codec_for(list[Person]).encode([Person(name="p", secret="x")])
    assert caught.value.path == "value[0]"


def test_pydantic_is_not_imported_to_find_out() -> None:
    """Who does not use pydantic does not wait for its import."""
    code = f"import sys; sys.path[:] = {sys.path}; from perdure.storage.codec import codec_for; codec_for(list[int])"
    code += "; assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_equal_models_have_equal_digests() -> None:
    """A replay is checked against the model that was really passed."""
    assert digest((Person(name="p"),), {}) == digest((Person(name="p"),), {}) != digest((Person(name="q"),), {})
    assert digest((Person(name="p"),), {}) is not None
