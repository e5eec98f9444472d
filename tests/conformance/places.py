"""Our own stores, as the suite knows them. For another one, write one more class and name it in `PLACES`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

from perdure.storage.postgres import PostgresStore
from perdure.storage.sqlite import SQLiteStore
from perdure.storage.store import Store
from perdure.testing.conformance import Place


class Standing(Place, Protocol):
    """A place of ours.

    Attributes:
        ground: The fixture whose value it is made from.
    """

    ground: ClassVar[str]

    def __init__(self, ground: Any) -> None: ...  # noqa: ANN401  # what that fixture gives


class SQLiteFile:
    name: ClassVar[str] = "sqlite-file"
    shared: ClassVar[bool] = True
    tells: ClassVar[bool] = True
    ground: ClassVar[str] = "tmp_path"

    def __init__(self, ground: Path) -> None:
        self._path = ground / "actors.db"

    def store(self) -> Store:
        return SQLiteStore(self._path)

    async def kill(self, store: Store) -> None:
        assert isinstance(store, SQLiteStore)
        await store._disconnect()  # noqa: SLF001  # a death has no public name


class SQLiteMemory:
    name: ClassVar[str] = "sqlite-memory"
    shared: ClassVar[bool] = False
    tells: ClassVar[bool] = False
    ground: ClassVar[str] = "tmp_path"

    def __init__(self, ground: Path) -> None:
        del ground

    def store(self) -> Store:
        return SQLiteStore(":memory:")

    async def kill(self, store: Store) -> None:
        raise NotImplementedError("its data ends with it")


class PostgresSchema:
    name: ClassVar[str] = "postgres"
    shared: ClassVar[bool] = True
    tells: ClassVar[bool] = False
    ground: ClassVar[str] = "postgres"

    def __init__(self, ground: str) -> None:
        self._target = ground

    def store(self) -> Store:
        return PostgresStore(self._target)

    async def kill(self, store: Store) -> None:
        assert isinstance(store, PostgresStore)
        await store._disconnect()  # noqa: SLF001  # a death has no public name


PLACES: tuple[type[Standing], ...] = (SQLiteFile, SQLiteMemory, PostgresSchema)
