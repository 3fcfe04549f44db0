"""Brings the database in line with the DAG folder: parses what changed, forgets what is gone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from airflow_serverless.config import BUNDLE, PARSE_TIMEOUT_SECONDS
from airflow_serverless.dags import plugins, requirements
from airflow_serverless.dags.isolation import Limits
from airflow_serverless.dags.requirements import Environments, RequirementsError
from airflow_serverless.dags.storage import ParsedFile, parse_isolated, refused
from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseBackend
from airflow_serverless.executor import in_process
from airflow_serverless.state import FAILED, PackagesNote, packages_key

LIMITS = Limits(seconds=PARSE_TIMEOUT_SECONDS, memory_mb=4096)
DAG, HELPER, BROKEN, DATA = "dag", "helper", "broken", "data"


@dataclass
class Synced:
    """Files that were parsed and files that vanished, relative to the DAG folder; and what has to be installed before
    other files can be parsed, by the names of their environments."""

    parsed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.parsed or self.removed)


class DagFolder:
    """The DAG folder as a warm process knows it; content digests are kept for files that look untouched."""

    def __init__(self, root: Path, environments: Environments) -> None:
        self._root = root
        self._environments = environments
        self._digests: dict[str, tuple[tuple[int, int, int], str]] = {}
        self._plugins = plugins.NOTHING

    def follow_plugins(self) -> None:
        """Have this process go by the plugins that are in the folder now."""
        if plugins.follow(self._root):
            in_process.forget_dags()
            self._plugins = plugins.load(self._root, LIMITS)

    def sync(self, backend: DatabaseBackend, notes: Mapping[str, PackagesNote]) -> Synced:
        """Parse changed files, with the plugins that this process follows, and write the result through Airflow's ORM.

        A file whose packages are not installed yet is left for a later tick, as what it was.
        """
        present = self._present()
        connection = backend.get_connection()
        try:
            known = tables.get_files(connection)
            result = Synced()
            changed = {path for path, digest in present.items() if known.get(path, ("", ""))[0] != digest}
            gone = known.keys() - present.keys()
            if not changed and not gone:
                return result
            candidates = self._dag_files()
            kinds = {path: (known[path][1] if path in known else DATA) for path in present}
            for path in sorted(_to_parse(candidates, changed, gone, known)):
                kind = self._parse(path, notes, result)
                if kind is None:
                    # As before, so that it is found to have changed again.
                    present[path] = known.get(path, ("", ""))[0]
                    continue
                kinds[path] = kind
                result.parsed.append(path)
            result.removed = sorted(gone)
            _forget_missing(candidates)
            _write_plugin_errors(self._plugins["errors"])
            self._environments.collect(self._used(candidates))
            rows = [(path, digest, kinds[path] if path in candidates else DATA) for path, digest in present.items()]
            tables.set_files(connection, rows)
            connection.commit()
            return result
        finally:
            connection.close()

    def _walk(self) -> Iterator[str]:
        """All files that can matter to a DAG, relative to the folder."""
        for directory, names, files in os.walk(self._root):
            names[:] = [name for name in names if name != "__pycache__" and not name.startswith(".")]
            for name in files:
                if name == ".airflowignore" or not name.startswith("."):
                    yield (Path(directory) / name).relative_to(self._root).as_posix()

    def _digest(self, path: str) -> str:
        file = self._root / path
        status = file.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        remembered = self._digests.get(path)
        if remembered and remembered[0] == stamp:
            return remembered[1]
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        self._digests[path] = (stamp, digest)
        return digest

    def _present(self) -> dict[str, str]:
        """{path: digest} of all files. A plugin is another one when it loads otherwise than it did."""
        present = {path: self._digest(path) for path in self._walk()}
        if self._plugins["errors"]:
            suffix = json.dumps([sorted(self._plugins["errors"]), self._plugins["is_safe"]])
            present |= {path: digest + suffix for path, digest in present.items() if plugins.is_plugin(path)}
        return present

    def _dag_files(self) -> set[str]:
        """Python files and archives that .airflowignore leaves in, without plugins."""
        from airflow.dag_processing.importers import get_importer_registry

        found = get_importer_registry().list_dag_files(str(self._root), safe_mode=False)
        paths = {Path(path).relative_to(self._root).as_posix() for path in found}
        return {path for path in paths if not plugins.is_plugin(path)}

    def _parse(self, path: str, notes: Mapping[str, PackagesNote], result: Synced) -> str | None:
        """Parse one file and write what came of it; returns the kind of file that it is, or None if it has to wait."""
        file = self._root / path
        try:
            asked = requirements.declared(file, self._root)
        except RequirementsError as error:
            parsed = refused(file, self._root, str(error))
        else:
            packages = self._environments.find(asked) if asked else None
            note = notes.get(packages_key(Environments.name(asked))) if asked else None
            failed = note is not None and note["status"] == FAILED
            if asked and packages is None and not failed:
                result.missing[Environments.name(asked)] = asked
                return None
            parsed = parse_isolated(file, self._root, LIMITS, packages)
            if note is not None and failed and packages is None and parsed["import_errors"]:
                parsed = refused(file, self._root, f"its requirements cannot be installed: {note['error']}")
        _write(path, parsed)
        if parsed["import_errors"]:
            return BROKEN
        return DAG if parsed["dags"] else HELPER

    def _used(self, candidates: set[str]) -> set[str]:
        """Names of the environments that files ask for."""
        used = set()
        for path in candidates:
            with contextlib.suppress(RequirementsError):
                if asked := requirements.declared(self._root / path, self._root):
                    used.add(Environments.name(asked))
        return used


def _to_parse(candidates: set[str], changed: set[str], gone: set[str], known: dict[str, tuple[str, str]]) -> set[str]:
    """Changed files; with them the broken ones, which may lack what has just come. If something changed that others
    may import or read, everything: which file depends on which is not known."""
    touched = changed | gone
    if any(plugins.is_plugin(path) or (path in known and known[path][1] in (HELPER, DATA)) for path in touched):
        return candidates
    broken = {path for path, (_, kind) in known.items() if kind == BROKEN}
    unseen = {path for path in candidates if path not in known}
    return (changed | broken | unseen) & candidates


def _write(path: str, parsed: ParsedFile) -> None:
    from airflow._shared.timezones import timezone
    from airflow.dag_processing.collection import update_dag_parsing_results_in_db
    from airflow.models.dag import DagModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG
    from airflow.utils.session import create_session
    from sqlalchemy import or_, select

    now = timezone.utcnow()
    dags = [LazyDeserializedDAG(data=dag["data"], last_loaded=now) for dag in parsed["dags"]]
    errors = {(BUNDLE, path): "\n\n".join(error["traceback"] for error in parsed["import_errors"])}
    with create_session() as session:
        update_dag_parsing_results_in_db(
            BUNDLE,
            None,
            dags,
            errors if parsed["import_errors"] else {},
            None,
            set(),
            session=session,
            files_parsed={(BUNDLE, path)},
        )
        if parsed["import_errors"]:
            return
        found = [dag["dag_id"] for dag in parsed["dags"]]
        stale = select(DagModel).where(
            DagModel.bundle_name == BUNDLE,
            # DAGs of an archive are in files of its own.
            or_(DagModel.relative_fileloc == path, DagModel.relative_fileloc.startswith(f"{path}/", autoescape=True)),
            DagModel.is_stale.is_(False),
            DagModel.dag_id.not_in(found),
        )
        for model in session.scalars(stale):
            model.is_stale = True


def _archive(place: str) -> set[str]:
    """What may be the archive with the file of a DAG: the folders above it."""
    return {str(folder) for folder in PurePosixPath(place).parents}


def _forget_missing(present: set[str]) -> None:
    """Retire the DAGs and import errors of files that are gone."""
    from airflow.models.asset import remove_references_to_deleted_dags
    from airflow.models.dag import DagModel
    from airflow.models.errors import ParseImportError
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select

    with create_session() as session:
        places = session.scalars(select(DagModel.relative_fileloc).where(DagModel.bundle_name == BUNDLE).distinct())
        inside = {place for place in places if place and _archive(place) & present}
        if DagModel.deactivate_deleted_dags(bundle_name=BUNDLE, rel_filelocs=present | inside, session=session):
            remove_references_to_deleted_dags(session=session)
        session.execute(
            delete(ParseImportError).where(
                ParseImportError.bundle_name == BUNDLE, ParseImportError.filename.not_in(present)
            )
        )


def _write_plugin_errors(errors: Mapping[str, str]) -> None:
    """Enter what is wrong with plugins where Airflow has what is wrong with DAG files. Those of before are gone."""
    from airflow._shared.timezones import timezone
    from airflow.models.errors import ParseImportError
    from airflow.utils.session import create_session

    with create_session() as session:
        for path, text in errors.items():
            session.add(
                ParseImportError(filename=path, bundle_name=BUNDLE, timestamp=timezone.utcnow(), stacktrace=text)
            )
