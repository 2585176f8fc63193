"""A real PostgreSQL of the system's packages, private to the tests: its own folder, socket and port."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL = "apt-get install postgresql (its initdb and pg_ctl in /usr/lib/postgresql/*/bin)"
REQUIRE = "MODELFORMATS_REQUIRE_POSTGRESQL"
PASSWORD = "s3cret/p@ss"  # what a careless address would not escape


def programs():
    """The folder of the newest server that is installed, or ``None``."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parent.parent.name.split(".")[0])
    )
    return found[-1].parent if found else None


def absent(environment):
    """End the test that needs a server where there is none: skipped, or failed where one is required."""
    if environment.get(REQUIRE):
        pytest.fail(f"{REQUIRE} is set, and there is no PostgreSQL: {INSTALL}")
    pytest.skip(f"no PostgreSQL server: {INSTALL}")


def user():
    """initdb refuses root: the server runs as another user then."""
    if os.geteuid() != 0:
        return None
    return next(name for name in ("postgres", "nobody") if any(entry.pw_name == name for entry in pwd.getpwall()))


@dataclass
class Server:
    """A running server; everybody may in by the socket, and ``guarded`` only with a password by the port."""

    folder: Path
    port: int
    name: str
    made: int = 0

    @property
    def socket(self):
        return self.folder / "socket"

    def url(self, database):
        return f"postgresql://{self.name}@/{database}?host={self.socket}&port={self.port}"

    def by_port(self, database, who="guarded"):
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement, database="postgres"):
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            return connection.execute(statement)

    def database(self):
        """The address of a new, empty database."""
        self.made += 1
        name = f"history{self.made}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(binaries):
    """A new server, and what ends it."""
    folder = Path(tempfile.mkdtemp(prefix="mf-pg-", dir="/tmp"))  # a socket's path may not be long
    who = user()
    (folder / "socket").mkdir()
    if who is not None:
        for path in (folder, folder / "socket"):
            shutil.chown(path, who)
    groups = {"user": who, "group": pwd.getpwnam(who).pw_gid, "extra_groups": []} if who else {}

    def run(*command):
        done = subprocess.run(
            [str(binaries / command[0]), *command[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=120, **groups,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    data, port = str(folder / "data"), free_port()
    run("initdb", "-D", data, "-A", "trust", "-E", "UTF8", "--no-sync")
    rules = Path(data, "pg_hba.conf")
    rules.write_text(
        "local all all trust\nhost all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
    )
    settings = f"-c fsync=off -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}/socket"
    log = str(folder / "log")
    # Its own output would keep the pipe of this call open for as long as it runs.
    run("pg_ctl", "-D", data, "-o", settings, "-l", log, "-w", "-t", "60", "start")

    def stop():
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)

    server = Server(folder, port, who or getpass.getuser())
    server.sql(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
    return server, stop
