"""`perdure backup` and `perdure copy`, as people type them."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from perdure.console.cli import main
from tests.copying.conftest import NewTarget
from tests.copying.written import query, write


def run(*args: str, **environment: str) -> Result:
    """A command."""
    return CliRunner().invoke(main, args, env={"COLUMNS": "300", **environment})


def test_backup_says_what_it_holds(tmp_path: Path) -> None:
    """Whoever reads the log of last night's backup sees that it is one."""
    write(tmp_path / "a.db", 1_234)
    result = run("backup", str(tmp_path / "b.db"), PERDURE_DB=str(tmp_path / "a.db"))
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == f"{tmp_path}/a.db is backed up in {tmp_path}/b.db"
    assert second.startswith("1 actor, 1,234 messages, 1,234 outcomes, 0 journal records; ")
    assert ", verified, in " in second
    again = run("backup", str(tmp_path / "b.db"), "--db", str(tmp_path / "a.db"))
    assert again.exit_code == 2
    assert "--force" in again.stderr
    forced = run("backup", str(tmp_path / "b.db"), "--force", "--json", "--db", str(tmp_path / "a.db"))
    assert {"name": "message", "rows": 1_234} in json.loads(forced.stdout)["tables"]


def test_copy_shows_every_table(tmp_path: Path, new_target: NewTarget) -> None:
    """Whoever moves sees that everything has arrived, and later whether it is still the same."""
    old, new = str(tmp_path / "a.db"), new_target("postgres")
    write(Path(old), 1_234)
    result = run("copy", f"sqlite:///{old}", new)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["TABLE", "ROWS", "DIGEST", "THERE"]
    (message,) = (line.split() for line in lines if line.startswith("message"))
    assert (message[1], message[3]) == ("1,234", "equal")
    assert "holds the same as" in result.stdout
    assert run("copy", old, new).exit_code == 2
    assert run("copy", old, new, "--verify-only").exit_code == 0
    query(new, "DELETE FROM message WHERE seq = 7")
    different = run("copy", old, new, "--verify-only", "--json")
    assert different.exit_code == 1
    document = json.loads(different.stdout)
    assert not document["equal"]
    assert [table["name"] for table in document["tables"] if not table["equal"]] == ["message"]


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    """What is printed can be put into a ticket."""
    write(tmp_path / "a.db", 1)
    result = run("copy", str(tmp_path / "a.db"), "postgresql://me:s3cret@127.0.0.1:1/x?connect_timeout=1")
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr
    assert "s3cret" not in result.output + result.stderr
