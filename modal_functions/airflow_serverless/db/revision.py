"""The version of Airflow that a metadata database is for."""

from __future__ import annotations

from airflow_serverless.db.backend import DatabaseBackend, DatabaseNewer, DatabaseOlder


def check_revision(backend: DatabaseBackend) -> None:
    """Raise DatabaseOlder or DatabaseNewer unless the loaded database is for this version of Airflow."""
    from airflow import __version__
    from airflow.utils.db import _REVISION_HEADS_MAP
    from sqlalchemy import text

    with backend.get_connection() as connection:
        revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    heads = list(_REVISION_HEADS_MAP.values())
    if revision == heads[-1]:
        return
    if revision in heads:
        raise DatabaseOlder(
            f"the metadata database has revision {revision}, and Airflow {__version__} needs {heads[-1]}"
        )
    raise DatabaseNewer(
        f"the metadata database has revision {revision}, which Airflow {__version__} does not know: "
        "a newer version has used it. Deploy that version again"
    )
