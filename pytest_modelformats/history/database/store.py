"""Every run in a database, so that a cell's metrics can be followed over time.

SQLite in the cache folder by default, or PostgreSQL. Appending is one transaction, and idempotent: the same run
twice is there once. A history that cannot be written costs a run one remark and never its result.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelformats.errors import ConfigurationError
from pytest_modelformats.schema.redact import HIDDEN, redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine

    from pytest_modelformats.record.read import Run
    from pytest_modelformats.settings.nouns import Settings

NONE = "none"
FILE = "history.sqlite"
# How long somebody else may hold the database. Appending 10,000 rows takes about half a second.
WAIT_S = 10
# Per address of a server. libpq rounds 1 up to 2; a host that drops packets would otherwise take minutes.
CONNECT_S = 5
# Any number that nobody else locks by: appending to one PostgreSQL database happens one after the other.
_LOCK = 7_236_642_613
_SHOWN = 300


def keep(settings: Settings, run: Run) -> list[str]:
    """Append a run that has ended; returns what the user has to know where that was not possible."""
    try:
        with opened(settings.history, settings.cache, write=True) as connection:
            if connection is not None:
                from pytest_modelformats.history.database.append import append
                from pytest_modelformats.history.database.rows import entry_of

                append(connection, entry_of(run))
    except ConfigurationError as error:
        return [f"this run is not in the history: {error}"]
    return []


def address(where: str, cache: Path) -> URL | None:
    """The database that ``--mf-history`` names; ``None`` where it is switched off.

    Raises: ConfigurationError for what is neither a file nor the address of a known database.
    """
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if where == NONE:
        return None
    if "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser().absolute() if where else cache / FILE))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        url = URL.create("unreadable")
    kind = url.get_backend_name() if url.drivername else ""
    if kind in {"postgresql", "postgres"}:
        # psycopg is what the extra "postgresql" installs; SQLAlchemy's own default is its predecessor.
        driver = url.drivername.partition("+")[2] or "psycopg"
        return url.set(drivername=f"postgresql+{driver}")
    if kind == "sqlite":
        return url
    msg = (
        f"--mf-history {redacted(where)} is no database that is known here; give a file, "
        "postgresql://user@host/database, or none"
    )
    raise ConfigurationError(msg)


def shown(url: URL) -> str:
    """The database in words, without a password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return redacted(url.render_as_string(hide_password=True))


@contextmanager
def opened(where: str, cache: Path, *, write: bool = False) -> Iterator[Connection | None]:
    """A connection within one transaction, or ``None`` where the history is switched off.

    Raises: ConfigurationError, saying what is wrong with the database and what to do.
    """
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        msg = f"SQLAlchemy cannot be imported ({error}); pip install 'sqlalchemy>=2.0', or --mf-history none"
        raise ConfigurationError(msg) from error
    url = address(where, cache)
    if url is None:
        yield None
        return
    from pytest_modelformats.history.database.rows import DamagedText

    _look(url, write=write)
    engine: Engine | None = None
    try:
        engine = _engine(url, write=write)
        with engine.begin() as connection:
            _ready(connection, url, write=write)
            yield connection
    except (SQLAlchemyError, OSError, ImportError, UnicodeError, DamagedText) as error:
        raise _refusal(url, error, "written" if write else "read") from None
    finally:
        if engine is not None:
            engine.dispose()


def _look(url: URL, *, write: bool) -> None:
    """What SQLite would say in fewer words: no folder, a folder in place of the file, nothing to read yet."""
    if url.get_backend_name() != "sqlite" or not url.database or url.query:
        return
    path = Path(url.database)
    if path.is_dir():
        msg = f"{path} is a folder; give a file in it, as in --mf-history {path / FILE}"
        raise ConfigurationError(msg)
    if not write and not path.exists():
        msg = f"there is no history at {path} yet; every run of pytest with --mf-model appends to it"
        raise ConfigurationError(msg)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(url, error, "written") from None


def _engine(url: URL, *, write: bool) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    if url.get_backend_name() == "sqlite":
        # No write-ahead log: the history stays one file that can be copied, read from where nothing may be written,
        # and lie on a network drive. One short transaction per run gains nothing from it.
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": WAIT_S, "isolation_level": None})
        start = "BEGIN IMMEDIATE" if write else "BEGIN"
    else:
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_S})
        start = f"SET LOCAL lock_timeout = '{WAIT_S}s'"

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(start)
        if write and url.get_backend_name() != "sqlite":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    return engine


def _ready(connection: Connection, url: URL, *, write: bool) -> None:
    """Create the tables of a new database; raises ConfigurationError for one that a newer version wrote."""
    from sqlalchemy import insert, inspect, select

    from pytest_modelformats.history.database.tables import VERSION, tables

    schema = tables().schema
    if inspect(connection).has_table(schema.name):
        version = connection.execute(select(schema.c.version)).scalar_one()
        if version > VERSION:
            msg = (
                f"the history {shown(url)} was written by a newer pytest-modelformats (schema {version}, this one "
                f"knows {VERSION}); update it (pip install -U pytest-modelformats), or give another --mf-history"
            )
            raise ConfigurationError(msg)
        return
    if not write:
        msg = f"the database {shown(url)} holds no history yet; every run of pytest with --mf-model appends to it"
        raise ConfigurationError(msg)
    tables().metadata.create_all(connection)
    connection.execute(insert(schema).values(version=VERSION))


_DAMAGED = "the database is damaged: put a copy of it back, move it away, or give another file with --mf-history"
# What a driver says, and what to do then.
_STEPS = {
    "are damaged": _DAMAGED,
    "could not decode": _DAMAGED,
    "file is not a database": "it is no SQLite file: move it away, or give another one with --mf-history",
    "database is locked": f"another process held it for more than {WAIT_S} s: try again later, or give another file",
    "lock timeout": f"another process held it for more than {WAIT_S} s: try again later",
    "readonly": "nothing may be written there: give another file with --mf-history",
    "permission denied": "grant the user the right to create tables, or give another database with --mf-history",
    "unable to open": "look whether the folder may be written, or give another file with --mf-history",
    "full": "make room, or give another file with --mf-history",
    "disk i/o error": "look after that disk, or give another file with --mf-history",
    "malformed": _DAMAGED,
    "no password supplied": "set PGPASSWORD or write ~/.pgpass, which keeps the password out of the command line",
    "password authentication failed": "look at the user and at PGPASSWORD or ~/.pgpass",
    "no module named": "pip install 'pytest-modelformats[postgresql]'",
    "does not exist": "create it, or look at the address in --mf-history",
    "refused": "look whether the server runs and at the address in --mf-history, or --mf-history none",
    "timeout": "look whether the server can be reached from here, or --mf-history none",
}
_ELSE = "look at --mf-history, or switch the history off with --mf-history none"


def _refusal(url: URL, error: Exception, what: str) -> ConfigurationError:
    """One sentence: which database, what the driver says, what to do; never with the password in it."""
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    for secret in (url.password, *(v for k, v in url.query.items() if "password" in k)):
        if secret:
            said = said.replace(str(secret), HIDDEN)
    said = redacted(said)
    step = next((step for words, step in _STEPS.items() if words in said.lower()), _ELSE)
    said = f"{said[:_SHOWN]}…" if len(said) > _SHOWN else said
    return ConfigurationError(f"the history {shown(url)} cannot be {what}: {said}; {step}")
