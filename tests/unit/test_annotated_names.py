"""Names in annotations mean what their module says."""

from __future__ import annotations

import sys
import types
from typing import Any

from perdure.actors.ref import Reference
from perdure.storage.records import Address


def test_two_modules_may_each_have_a_class_of_one_name() -> None:
    """An annotation means what its own module calls so, whoever else has an actor of that name."""
    source = (
        "from perdure import Actor, handler\n"
        "class Twin(Actor, kind='twin.{0}'):\n"
        "    @handler\n"
        "    async def meet(self, other: 'Twin') -> None: ...\n"
    )
    twins: list[Any] = []
    for name in ("one", "two"):
        module = types.ModuleType(f"tests.twins_{name}")
        sys.modules[module.__name__] = module
        exec(source.format(name), module.__dict__)  # a module of its own
        twins.append(module.__dict__["Twin"])
    for twin in twins:
        signature = twin.__perdure__.handlers["meet"].signature
        ref = Reference(twin, Address(twin.__perdure__.kind, "t"), None)
        assert signature.arguments.decode(signature.encode((ref,), {}))["other"] == ref
