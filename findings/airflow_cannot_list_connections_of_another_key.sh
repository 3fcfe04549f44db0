#!/bin/sh
# apache-airflow-core 3.3.2: one Connection that was stored with another Fernet key keeps all of them from being loaded.
#
# Expected: only reading the password of that Connection fails, or returns None, as the value of a Variable does that
#           cannot be decrypted.
# Observed: the model decrypts the password when the ORM loads the row, so that a query for all Connections raises
#           InvalidToken and gives none of them. The Variable next to it can be loaded.
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" \
  apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 apache-airflow-providers-standard==1.21.0

cat > "$folder/finding.py" <<'END'
import airflow.models
from airflow.models import crypto
from airflow.models.base import Base
from airflow.models.connection import Connection
from airflow.models.variable import Variable
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

airflow.models.import_all_models()
engine = create_engine("sqlite://")
Base.metadata.create_all(engine)


def use_key(key):
    crypto.get_fernet.cache_clear()
    from airflow.configuration import conf

    conf.set("core", "fernet_key", key)


def outcome(query):
    with Session(engine) as session:
        try:
            return [getattr(row, "conn_id", None) or row.val for row in session.scalars(query)]
        except Exception as error:
            return type(error).__name__


use_key(Fernet.generate_key().decode())
with Session(engine) as session:
    session.add(Connection(conn_id="old", conn_type="http", password="word"))
    session.add(Variable(key="old", val="value"))
    session.commit()
use_key(Fernet.generate_key().decode())
with Session(engine) as session:
    session.add(Connection(conn_id="new", conn_type="http", password="word"))
    session.commit()
print("connections:", outcome(select(Connection)))
print("the new one:", outcome(select(Connection).where(Connection.conn_id == "new")))
print("variables:", outcome(select(Variable)))
END
expected="connections: InvalidToken
the new one: ['new']
variables: [None]"
seen=$(AIRFLOW_HOME="$folder/home" "$folder/venv/bin/python" -W ignore "$folder/finding.py" 2>"$folder/errors" | grep -e '^connections: ' -e '^the new one: ' -e '^variables: ')
echo "$seen"
[ "$seen" = "$expected" ] || { cat "$folder/errors" >&2; echo "changed" >&2; exit 1; }
