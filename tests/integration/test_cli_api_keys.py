"""The commands `keys api`: a secret is shown once, and the database holds nothing from which it could be read."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner, Result

from locas_agent.cli import app
from locas_storage import open_store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", "api", *arguments])


def test_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    path = tmp_path / "locas.db"
    place = ("--store", f"sqlite:///{path}")
    secret = run("new", "--tenant", "acme", "--label", "chat", *place).stdout.strip()
    own = json.loads(run("new", "--user", "ada", "--json", "-", *place).stdout)
    assert (own["tenant"], own["user"], own["revoked_at"]) == ("default", "ada", None)
    listed = run("list", "--json", "-", *place).stdout
    assert {(key["tenant"], key["user"], key["label"]) for key in json.loads(listed)} == {
        ("acme", None, "chat"),
        ("default", "ada", ""),
    }
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for each in (secret, own["secret"]):
        assert each not in listed + run("list", *place).stdout
        assert each.rsplit("-", 1)[1].encode() not in everything

    with closing(open_store(place[1])) as opened:
        assert opened.api_keys.holder(secret) is not None
        assert run("revoke", own["id"], *place).exit_code == 0
        assert opened.api_keys.holder(own["secret"]) is None  # in a process that had the store open before
        assert opened.api_keys.holder(secret) is not None
    again = run("revoke", own["id"], *place)
    assert again.exit_code == 1
    assert "keys api list" in again.stderr
