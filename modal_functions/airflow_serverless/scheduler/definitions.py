"""Which files define which DAGs, and which file counts where several define the same id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from airflow_serverless.config import BUNDLE
from airflow_serverless.db import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Definitions:
    """The DAG ids that each file defines. The file that defined an id first owns it, until it no longer defines it."""

    def __init__(self, connection: Connection) -> None:
        self._ids = tables.get_definitions(connection)
        self._owners = _owners()
        for dag_id, path in self._owners.items():
            self._ids.setdefault(path, set()).add(dag_id)
        self._files: defaultdict[str, set[str]] = defaultdict(set)
        for path, dag_ids in self._ids.items():
            for dag_id in dag_ids:
                self._files[dag_id].add(path)
        self._changed: set[str] = set()

    def duplicates(self, path: str, dag_ids: Iterable[str]) -> set[str]:
        """Those of the ids in a file that another file owns."""
        return {dag_id for dag_id in dag_ids if self._owners.get(dag_id, path) != path}

    def put(self, path: str, dag_ids: Iterable[str]) -> set[str]:
        """Record the ids in a file; returns the files to parse again: they define an id that it no longer defines."""
        before, after = self._ids.get(path, set()), set(dag_ids)
        to_parse: set[str] = set()
        for dag_id in before - after:
            self._files[dag_id].discard(path)
            if self._owners.get(dag_id) == path:
                del self._owners[dag_id]
                to_parse |= self._files[dag_id]
        for dag_id in after:
            self._files[dag_id].add(path)
            self._owners.setdefault(dag_id, path)
        if before != after:
            self._ids[path] = after
            self._changed.add(path)
        return to_parse

    def keep_only(self, paths: Set[str]) -> set[str]:
        """Forget all other files; returns the files to parse again."""
        to_parse: set[str] = set()
        for path in self._ids.keys() - paths:
            to_parse |= self.put(path, ())
        return to_parse.intersection(paths)

    def save(self, connection: Connection) -> None:
        """Write what has changed."""
        for path in self._changed:
            tables.set_definitions(connection, path, self._ids[path])
        self._changed.clear()


def _owners() -> dict[str, str]:
    """{id of a DAG: its file}, as of the last parse; for a DAG in an archive, the archive."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(DagModel.dag_id, DagModel.relative_fileloc)
    with create_session() as session:
        rows = session.execute(query.where(DagModel.bundle_name == BUNDLE, DagModel.is_stale.is_(False)))
        return {dag_id: _file(place) for dag_id, place in rows if place}


def _file(place: str) -> str:
    archives = [str(folder) for folder in PurePosixPath(place).parents if folder.suffix == ".zip"]
    return archives[-1] if archives else place
