"""The process beneath which a PostgreSQL server for tests runs. It outlives whoever started it, and leaves nothing.

It is a program of its own that knows nothing of perdure, so that it starts in no time:

    python -I -S postgres_guard.py FOLDER UID GID PG_CTL

Each line of its standard input is a command (a JSON list of arguments), answered by its exit code. At the end of its
input, which comes however its starter ends (after SIGKILL too), it stops the server and removes the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

COMMAND_SECONDS = 120.0
TIMED_OUT = 124


class Guard:
    """A folder with a server in it, and the user whom the server runs as: -1 is the present one."""

    def __init__(self, folder: Path, user: int, group: int, pg_ctl: str) -> None:
        self._folder = folder
        self._pg_ctl = pg_ctl
        self._user = None if user < 0 else user
        self._group = None if user < 0 else group
        self._groups: list[int] | None = None if user < 0 else []
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        self._environment = {**kept, "LC_ALL": "C", "HOME": str(folder)}

    def serve(self) -> None:
        """Run commands until their source has ended."""
        try:
            for line in sys.stdin:
                sys.stdout.write(f"{self._run(json.loads(line))}\n")
                sys.stdout.flush()
        finally:
            self._run([self._pg_ctl, "-D", str(self._folder / "data"), "-w", "-m", "immediate", "stop"])
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, command: list[str]) -> int:
        # Never with a pipe for output: the server that pg_ctl starts keeps it open, and its reader would wait for ever.
        with (self._folder / "commands.log").open("ab") as log:
            try:
                ran = subprocess.run(  # noqa: S603  # what its starter asks for
                    command,
                    check=False,
                    cwd=self._folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=COMMAND_SECONDS,
                    user=self._user,
                    group=self._group,
                    extra_groups=self._groups,
                )
            except subprocess.TimeoutExpired:
                return TIMED_OUT
        return ran.returncode


def main() -> None:
    """Guard one server."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what ends its starter must not end it before it has cleaned up
    folder, user, group, pg_ctl = sys.argv[1:]
    Guard(Path(folder), int(user), int(group), pg_ctl).serve()


if __name__ == "__main__":
    main()
