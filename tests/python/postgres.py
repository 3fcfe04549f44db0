"""A PostgreSQL server for tests, from the machine's binaries or from the package `pgserver`.

As a program it prints the URL of a fresh database and serves until its standard input ends.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from template import copy

USER, PASSWORD = "airflow", "pass%word$HOME"
"""The password needs percent-encoding, which is easily lost between two drivers."""
ENCODED = "pass%25word%24HOME"
START_LIMIT = 30.0
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=60")


def programs() -> Path:
    """The folder of `postgres` and `initdb`."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    if package := importlib.util.find_spec("pgserver"):
        assert package.origin is not None
        return Path(package.origin).parent / "pginstall" / "bin"
    raise FileNotFoundError("PostgreSQL is needed: install it, or the package pgserver into .venv")


def owner() -> str | None:
    """Whom PostgreSQL is to run as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


def self_made(name: str) -> tuple[str, str]:
    """A key and a certificate of a server of this name, in PEM; who trusts the certificate trusts the server."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return private.decode(), certificate.public_bytes(pem).decode()


class Postgres:
    """One server on a loopback port, which can be stopped and started again on the same data."""

    def __init__(self, cluster: Path | None = None) -> None:
        """`cluster`: the data folder of a server that was stopped, to be copied."""
        self.root = Path(tempfile.mkdtemp(prefix="pg-"))
        self.owner = owner()
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.certificate = ""
        secret = self.root / "secret"
        secret.write_text(PASSWORD)
        if self.owner:
            for path in (self.root, secret):
                shutil.chown(path, self.owner)
        if cluster:
            copy(cluster, self.data)
        else:
            self._initialize(secret)
        secret.unlink()

    def _initialize(self, secret: Path) -> None:
        self.run("initdb", "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-N", "-E", "UTF8", "-D", self.data)

    @property
    def data(self) -> Path:
        return self.root / "data"

    def demand_tls(self) -> None:
        """Lets nobody in without TLS from the next start on; `certificate` is that of a server named `localhost`."""
        key, self.certificate = self_made("localhost")
        (self.data / "server.crt").write_text(self.certificate)
        (self.data / "server.key").write_text(key)
        (self.data / "server.key").chmod(0o600)
        (self.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\n")
        if self.owner:
            for name in ("server.crt", "server.key"):
                shutil.chown(self.data / name, self.owner)

    def run(self, program: str, *arguments: object) -> None:
        """Runs a program of PostgreSQL to its end."""
        command = [str(programs() / program), *map(str, arguments)]
        subprocess.run(command, check=True, user=self.owner, cwd=self.root, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Starts the server, always on the same port, and waits until it lets people in."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.root}", *FAST]
        command = [str(programs() / "postgres"), "-D", str(self.data)]
        command += [word for setting in settings for word in ("-c", setting)]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, user=self.owner, cwd=self.root, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + START_LIMIT
        while not self.accepts():
            assert self.process.poll() is None and time.monotonic() < deadline, (self.root / "log").read_text()
            time.sleep(0.02)

    def accepts(self) -> bool:
        import psycopg2

        try:
            psycopg2.connect(self.url()).close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Ends the server at once, and with it all connections."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(START_LIMIT)
            self.process = None

    def close(self) -> None:
        """Ends the server and removes its data."""
        self.stop()
        shutil.rmtree(self.root)

    def url(self, database: str = "postgres", password: str = ENCODED) -> str:
        """The connection string of a database."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template1") -> str:
        """Creates a database as a copy of another one and gives its connection string."""
        self.execute("postgres", f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.url(database)

    def execute(self, database: str, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        """Runs one statement and gives the rows of a query."""
        import psycopg2

        connection = psycopg2.connect(self.url(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@contextlib.contextmanager
def serving(cluster: Path | None = None) -> Iterator[Postgres]:
    """A server for as long as the block runs."""
    server = Postgres(cluster)
    try:
        server.start()
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    with serving() as postgres:
        print(postgres.create("airflow"), flush=True)
        sys.stdin.read()
