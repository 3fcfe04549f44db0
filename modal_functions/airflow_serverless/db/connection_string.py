"""The connection string of PostgreSQL, as it comes with the environment's Secret and as each driver wants it.

No error repeats any of its text: what stands in the wrong place may be a part of the password.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import certifi

from airflow_serverless.config import Paths, Settings

VARIABLE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
"""Where it is in the process environment. Airflow hides this variable, and no other, from tasks."""
FORM = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://"
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^:@/?#]*))?@)?"
    r"(?P<host>\[[^\]]+\]|[^:@/?#\[\]]*)(?::(?P<port>\d+))?"
    r"(?:/(?P<database>[^/?#]*))?(?:\?(?P<options>[^#]*))?"
)
DEFAULTS = {
    "connect_timeout": "10",
    # A server that vanished silently is noticed within a minute, not after hours.
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}

PROVING = frozenset({"require", "verify-ca", "verify-full"})
"""The values of `sslmode` with which libpq proves the server's certificate if it has one to prove it by."""


class ConnectionStringError(ValueError):
    """There is no connection string, or it does not have the expected form."""


@dataclass(frozen=True)
class ConnectionString:
    """Its parts, decoded; `options` are libpq's (`sslmode` and the like) as they stand there.

    `root_certificate`: certificates in PEM to one of which the server's has to go back, if its owner has given any.
    """

    host: str
    port: int | None
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    database: str | None
    options: Mapping[str, str] = field(repr=False)
    root_certificate: str | None = field(default=None, repr=False)

    @classmethod
    def of_process(cls) -> ConnectionString:
        """That of the process environment, with the certificate of its settings."""
        if not (text := os.environ.get(VARIABLE)):
            raise ConnectionStringError("the environment's Secret has no connection string")
        if text in _handed_over:
            return _handed_over[text]
        return replace(cls.parse(text), root_certificate=Settings.from_environment().root_certificate)

    @classmethod
    def parse(cls, text: str) -> ConnectionString:
        """Read `postgresql://user:password@host:port/database?option=value` (or `postgres://`)."""
        found = FORM.fullmatch(text.strip())
        if found is None:
            raise ConnectionStringError(
                "the connection string is not of the form postgresql://user:password@host:5432/database; "
                "write special characters of the password in percent-encoding, such as %40 for @"
            )
        host = unquote(found["host"]).strip("[]")
        options = {**DEFAULTS, **dict(parse_qsl(found["options"] or ""))}
        if host.startswith("/"):
            # The folder of a Unix socket, which has no place in SQLAlchemy's URLs.
            host, options["host"] = "", host
        return cls(
            host=host,
            port=int(found["port"]) if found["port"] else None,
            user=unquote(found["user"]) if found["user"] else None,
            password=unquote(found["password"]) if found["password"] else None,
            database=unquote(found["database"]) if found["database"] else None,
            options=options,
        )

    @property
    def server(self) -> str:
        """Host and port, for messages."""
        host = self.host or self.options.get("host") or "localhost"
        return f"{host}:{self.port or self.options.get('port') or 5432}"

    def for_libpq(self) -> dict[str, Any]:
        """Arguments of `psycopg2.connect`."""
        parts = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
        }
        return {**{name: value for name, value in parts.items() if value}, **self.arguments()}

    def arguments(self) -> dict[str, str]:
        """The options as libpq takes them beside a URL: certificates are files of this container.

        Who gives a certificate, or wants the public ones, wants the server to be proved.
        """
        if self.root_certificate:
            return {"sslmode": "verify-full", **self.options, "sslrootcert": _written(self.root_certificate)}
        if self.options.get("sslrootcert") == "system":
            # The libpq inside of psycopg2 does not know where a system has them.
            return {**self.options, "sslmode": "verify-full", "sslrootcert": certifi.where()}
        return dict(self.options)

    def for_sqlalchemy(self) -> str:
        """The URL without the options, of which each driver has its own: they are handed over beside it.

        It may take the place of the original in the process environment, whose options are then remembered here.
        """
        from sqlalchemy.engine import URL

        url = URL.create("postgresql+psycopg2", self.user, self.password, self.host or None, self.port, self.database)
        text = url.render_as_string(hide_password=False)
        _handed_over[text] = self
        return text


_handed_over: dict[str, ConnectionString] = {}


def __getattr__(name: str) -> dict[str, Any]:
    """What Airflow's settings name by `SYNC_ARGUMENTS` and `ASYNC_ARGUMENTS`: the options for each of its engines."""
    if name == "SYNC_ARGUMENTS":
        return dict(ConnectionString.of_process().arguments())
    if name == "ASYNC_ARGUMENTS":
        return _for_asyncpg(ConnectionString.of_process().arguments())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _for_asyncpg(options: Mapping[str, str]) -> dict[str, Any]:
    """Its names for those options that it knows; it refuses all others."""
    place = {key: options[key] for key in ("host", "port") if key in options}
    return {**place, **_encryption(options), "timeout": float(options["connect_timeout"])}


def _encryption(options: Mapping[str, str]) -> dict[str, Any]:
    """The TLS options for asyncpg: `sslmode` as it is, but with a certificate what it means to libpq."""
    mode, root = options.get("sslmode"), options.get("sslrootcert")
    if mode is None:
        return {}
    if root is None or mode not in PROVING:
        return {"ssl": mode}
    context = ssl.create_default_context(cafile=root)
    context.check_hostname = mode == "verify-full"
    return {"ssl": context}


def _written(certificate: str) -> str:
    """Path of a file of this process with the certificate."""
    path = Paths.from_environment().work / "root.pem"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(f"{path}.partial")
        partial.write_text(certificate)
        partial.replace(path)
    return str(path)
