"""A history that cannot be used costs a run one remark: a sentence, soon, and without a password."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_modelformats.cli import main as cli
from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.history.database import store as history
from pytest_modelformats.schema.redact import redacted
from pytest_modelformats.settings import machine

from . import servers
from .conftest import CELL, MACHINE
from .test_append import settings_of

SOON_S = 20  # a closed port refuses at once; the time-out of a connection is 5 s


def remark(tmp_path, where, run):
    """The one remark of a run whose history is this."""
    start = time.monotonic()
    (said,) = history.keep(settings_of(tmp_path, str(where)), run)
    assert time.monotonic() - start < SOON_S
    assert said.startswith("this run is not in the history: ")
    assert "\n" not in said
    assert "Traceback" not in said
    assert len(said) < 600, said
    return said


def asked(path, *args):
    """What ``modelformats history`` says: its output, or its one error."""
    done = CliRunner().invoke(cli.commands, ["history", f"--mf-history={path}", *args])
    if isinstance(done.exception, ConfigurationError):
        return str(done.exception)
    assert done.exit_code == 0, done.exception
    return done.output


def test_a_missing_server_is_a_skip_or_where_one_is_required_a_failure():
    with pytest.raises(pytest.skip.Exception, match="apt-get install postgresql"):
        servers.absent({})
    with pytest.raises(pytest.fail.Exception, match="apt-get install postgresql"):
        servers.absent({servers.REQUIRE: "1"})


def test_text_that_no_database_can_hold(tmp_path, run_of):
    run = run_of()
    odd = replace(run, header=replace(run.header, run="run-\ud800"))
    assert "surrogates not allowed" in remark(tmp_path, tmp_path / "history.sqlite", odd)


def test_a_folder_in_place_of_the_file(tmp_path, run_of):
    assert f"{tmp_path} is a folder; give a file in it" in remark(tmp_path, tmp_path, run_of())


def test_a_file_that_is_no_database(tmp_path, run_of):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be looked at as one\n" * 40)
    said = remark(tmp_path, path, run_of())
    assert "notes.txt cannot be written: file is not a database; it is no SQLite file: move it away" in said
    assert path.read_text().startswith("not a database")
    with pytest.raises(ConfigurationError, match="file is not a database"), history.opened(str(path), tmp_path):
        pass


def test_a_database_that_may_not_be_written(tmp_path, run_of):
    path = tmp_path / "history.sqlite"
    assert history.keep(settings_of(tmp_path, str(path)), run_of(0)) == []
    said = remark(tmp_path, f"sqlite:///file:{path}?mode=ro&uri=true", run_of(1))
    assert "readonly database; nothing may be written there: give another file with --mf-history" in said


def test_a_folder_that_cannot_be_made(tmp_path, run_of):
    said = remark(tmp_path, "/proc/nowhere/history.sqlite", run_of())
    assert "/proc/nowhere/history.sqlite cannot be written" in said


def test_a_database_that_another_process_holds(tmp_path, run_of, monkeypatch):
    monkeypatch.setattr(history, "WAIT_S", 1)
    path = tmp_path / "history.sqlite"
    assert history.keep(settings_of(tmp_path, str(path)), run_of(0)) == []
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert "database is locked; another process held it" in remark(tmp_path, path, run_of(1))
    holder.execute("ROLLBACK")
    holder.close()
    assert history.keep(settings_of(tmp_path, str(path)), run_of(1)) == []


def test_a_full_disk(tmp_path, run_of, monkeypatch):
    """SQLite itself refuses to grow the file, as it does where the disk is full."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    path = tmp_path / "history.sqlite"
    assert history.keep(settings_of(tmp_path, str(path)), run_of(0)) == []

    @event.listens_for(Engine, "connect")
    def full(connection, _):
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

    from .conftest import cell_line, latency_line

    cells = [f"net{i}-onnx-fp32-onnxruntime@cpu" for i in range(300)]
    body = [line for cell in cells for line in (cell_line(cell), latency_line(cell=cell))]
    try:
        assert "database or disk is full; make room" in remark(tmp_path, path, run_of(1, body))
    finally:
        event.remove(Engine, "connect", full)
    assert history.keep(settings_of(tmp_path, str(path)), run_of(1, body)) == []


def test_a_closed_port(tmp_path, run_of):
    port = servers.free_port()
    said = remark(tmp_path, f"postgresql://who:topsecret@127.0.0.1:{port}/x", run_of())
    assert "refused" in said
    assert "look whether the server runs" in said
    assert "who:***@127.0.0.1" in said
    assert "topsecret" not in said


def test_a_host_that_does_not_exist(tmp_path, run_of):
    said = remark(tmp_path, "postgresql://who@no.such.host.invalid/x", run_of())
    assert "no.such.host.invalid" in said


def test_a_server_that_wants_a_password(tmp_path, run_of, postgresql, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    said = remark(tmp_path, postgresql.by_port("postgres"), run_of())
    assert "no password supplied; set PGPASSWORD or write ~/.pgpass" in said
    wrong = remark(tmp_path, postgresql.by_port("postgres", "guarded:topsecret"), run_of())
    assert "password authentication failed" in wrong
    assert "topsecret" not in wrong


def test_the_password_is_taken_from_the_environment(tmp_path, run_of, postgresql, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", servers.PASSWORD)
    postgresql.database()
    database = f"history{postgresql.made}"
    postgresql.sql(f"ALTER DATABASE {database} OWNER TO guarded")
    assert history.keep(settings_of(tmp_path, postgresql.by_port(database)), run_of()) == []


def test_a_user_who_may_not_create_tables(tmp_path, run_of, postgresql, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", servers.PASSWORD)
    postgresql.database()
    said = remark(tmp_path, postgresql.by_port(f"history{postgresql.made}"), run_of())
    assert "permission denied" in said
    assert "grant the user the right to create tables" in said


def test_a_database_that_does_not_exist(tmp_path, run_of, postgresql):
    said = remark(tmp_path, postgresql.url("nowhere"), run_of())
    assert 'database "nowhere" does not exist; create it' in said


def test_a_server_of_which_another_process_holds_the_lock(tmp_path, run_of, postgresql, monkeypatch):
    import psycopg

    monkeypatch.setattr(history, "WAIT_S", 1)
    where = postgresql.database()
    with psycopg.connect(where) as holder:
        holder.execute(f"SELECT pg_advisory_xact_lock({history._LOCK})")
        assert "lock timeout; another process held it" in remark(tmp_path, where, run_of())
    assert history.keep(settings_of(tmp_path, where), run_of()) == []


NO_FACTS = ["", "{", '{"cpu": "Imag', "[1, 2]", '"a CPU"', "7", '{"gpu": 3}', "[" * 100_000]


@pytest.mark.parametrize("text", NO_FACTS, ids=[text[:20] or "empty" for text in NO_FACTS])
def test_damaged_facts_of_a_machine_are_one_sentence(tmp_path, run_of, text):
    """Whoever asks for a trend of that machine is told; the list of cells and other machines need nothing of it."""
    path = tmp_path / "history.sqlite"
    other = {"cpu": "Another", "physical_cores": 64}
    assert history.keep(settings_of(tmp_path, str(path)), run_of(0)) == []
    assert history.keep(settings_of(tmp_path, str(path)), run_of(1, machine=other)) == []
    here = machine.identity(MACHINE)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE modelformats_machines SET facts = ? WHERE identity = ?", (text, here))
    said = asked(path, CELL, "--machine", here)
    assert said == (
        f"the history {path} cannot be read: the facts of the machine {here} are damaged ({text[:40]!r}); the database "
        "is damaged: put a copy of it back, move it away, or give another file with --mf-history"
    )
    assert asked(path, CELL, "--machine", "zzz") == said
    assert "Another, 64 cores" in asked(path, CELL, "--machine", machine.identity({**MACHINE, **other}))
    assert CELL in asked(path, "--machine", "all")
    assert history.keep(settings_of(tmp_path, str(path)), run_of(2)) == []


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", "[{}]", "null", '[{"onnxruntime": "1.2'])
def test_damaged_versions_of_a_run_are_one_sentence(tmp_path, run_of, text):
    path = tmp_path / "history.sqlite"
    assert history.keep(settings_of(tmp_path, str(path)), run_of(0)) == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE modelformats_runtimes SET versions = ?", (text,))
    said = asked(path, CELL, "--machine", "all")
    assert f"{path} cannot be read: the versions of a run are damaged ({text!r}); the database is damaged: " in said


def test_a_text_that_is_no_text_is_one_sentence(tmp_path, run_of):
    path = tmp_path / "history.sqlite"
    assert history.keep(settings_of(tmp_path, str(path)), run_of(0)) == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE modelformats_machines SET facts = CAST(X'ff7b' AS TEXT)")
    said = asked(path, CELL, "--machine", "all")
    assert f"the history {path} cannot be read: Could not decode to UTF-8" in said
    assert "put a copy of it back" in said


def test_a_machine_without_facts_has_a_trend(tmp_path, run_of):
    path = tmp_path / "history.sqlite"
    assert history.keep(settings_of(tmp_path, str(path)), run_of(0)) == []
    for text in (None, "null"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE modelformats_machines SET facts = ?", (text,))
        assert "1 run on" in asked(path, CELL, "--machine", "all")


def test_a_missing_driver_says_what_to_install(tmp_path, run_of):
    said = remark(tmp_path, "postgresql+pg8000x://who@127.0.0.1/x", run_of())
    assert "cannot be written" in said
    assert "--mf-history" in said


@pytest.mark.parametrize(
    "where", ["mysql://who:topsecret@host/x", "http://who:topsecret@host/", "://x", "postgresql+://"]
)
def test_an_address_of_nothing_that_is_known(tmp_path, run_of, where):
    said = remark(tmp_path, where, run_of())
    assert "topsecret" not in said
    assert "--mf-history" in said


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("--mf-history=postgresql://u:pw@h/d", "--mf-history=postgresql://u:***@h/d"),
        ("postgresql+psycopg://u:p@ss/w@h:1/d", "postgresql+psycopg://u:***@h:1/d"),
        ("postgresql://h/d?user=u&password=pw&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("/a/b:c@d", "/a/b:c@d"),
        ("net-onnx-fp32-onnxruntime@cpu", "net-onnx-fp32-onnxruntime@cpu"),
    ],
)
def test_passwords_are_taken_out(text, hidden):
    assert redacted(text) == hidden


def test_nothing_to_read_yet_is_said(tmp_path, postgresql):
    for where in (str(tmp_path / "none.sqlite"), postgresql.database()):
        with (
            pytest.raises(ConfigurationError, match=r"no history .*yet; every run of pytest"),
            history.opened(where, Path()),
        ):
            pass
    assert not (tmp_path / "none.sqlite").exists()


def test_without_sqlalchemy_the_run_says_what_to_install(tmp_path, run_of, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sqlalchemy.exc", None)
    assert "pip install 'sqlalchemy>=2.0'" in remark(tmp_path, tmp_path / "x.sqlite", run_of())
