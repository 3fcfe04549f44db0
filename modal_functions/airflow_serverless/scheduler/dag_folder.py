"""Brings the database in line with the DAG folder: parses what changed, forgets what is gone."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from airflow_serverless import regular
from airflow_serverless.config import BUNDLE, PARSE_TIMEOUT_SECONDS
from airflow_serverless.dags import plugins, requirements, values
from airflow_serverless.dags.isolation import Limits
from airflow_serverless.dags.listing import IGNORE_FILE, Listing, list_dag_files, walk
from airflow_serverless.dags.lookups import Lookups
from airflow_serverless.dags.requirements import Environments, RequirementsError
from airflow_serverless.dags.storage import ParsedFile, mentions_dags, not_imported, parse_isolated, refused
from airflow_serverless.dags.values import Values
from airflow_serverless.dags.write import NotStored, not_stored, printable, write
from airflow_serverless.db import tables
from airflow_serverless.db.backend import DatabaseBackend
from airflow_serverless.execution_api import in_process
from airflow_serverless.quarantine import FILE, FOLDER, LONGEST_PATH, PATH, Quarantine, is_systemic
from airflow_serverless.scheduler import package_installs
from airflow_serverless.scheduler.definitions import Definitions
from airflow_serverless.scheduler.stale import ObservedState, Reads
from airflow_serverless.state import FAILED, PackagesNote, packages_key

LIMITS = Limits(seconds=PARSE_TIMEOUT_SECONDS, memory_mb=4096)
PARSED, BROKEN, DATA, WAITING = "parsed", "broken", "data", "waiting"
"""Kinds of files: parsed without errors, parsed with errors, not a DAG file, without the packages that it asks for."""


@dataclass
class Synced:
    """The result of a sync of the DAG folder; paths are relative to it.

    Files that were parsed, files that vanished, and what must be installed before other files can be parsed, by the
    names of the environments. `next_parse_at`: when the next file that reads the clock, or whose packages could not be
    installed, is due, in seconds since the epoch.
    """

    parsed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    missing: dict[str, tuple[str, ...]] = field(default_factory=dict)
    next_parse_at: float | None = None

    def note_parse_at(self, at: float | None) -> None:
        """Note a time at which files are due."""
        self.next_parse_at = min((time for time in (self.next_parse_at, at) if time is not None), default=None)

    def __bool__(self) -> bool:
        return bool(self.parsed or self.removed)


class DagFolder:
    """The DAG folder as a warm process knows it; content digests are kept for files that look untouched."""

    def __init__(self, root: Path, environments: Environments, environment_names: frozenset[str]) -> None:
        self._root = root
        self._environments = environments
        self._environment_names = environment_names
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}
        self._plugins = plugins.NOTHING
        self._values: Values | None = None
        # {file: when the installation failed that its import error tells of}
        self._failures: dict[str, float] = {}

    def follow_plugins(self) -> None:
        """Have this process go by the plugins that are in the folder now."""
        if plugins.follow(self._root):
            in_process.forget_dags()
            self._plugins = plugins.load(self._root, LIMITS, Lookups(values.load_values()))

    def sync(self, backend: DatabaseBackend, notes: Mapping[str, PackagesNote], quarantine: Quarantine) -> Synced:
        """Parse changed files, with the plugins that this process follows, and write the result through Airflow's ORM.

        A file whose packages are not installed yet is left for a later tick, as what it was. A file that cannot be
        written has an import error, and is quarantined.
        """
        present = self._present(quarantine)
        connection = backend.get_connection()
        try:
            known = tables.get_files(connection)
            reads, observed, result = Reads(connection), ObservedState(present), Synced()
            changed = {path for path, digest in present.items() if known.get(path, ("", ""))[0] != digest}
            gone = known.keys() - present.keys()
            retried = {path for path in quarantine.names(FILE) if not quarantine.is_held(FILE, path)}
            parsed_before = {path for path, (_, kind) in known.items() if kind != DATA}
            waiting_before = {path for path, (_, kind) in known.items() if kind == WAITING} - changed - gone
            # What waits for its first parse has read nothing that could be outdated.
            outdated = reads.outdated({path for path in parsed_before if reads.is_known(path)}, observed)
            outdated |= {path for path in parsed_before - waiting_before if not reads.is_known(path)}
            ready = {path for path in waiting_before - outdated if self._is_ready(path, notes, result)}
            result.note_parse_at(reads.next_parse_at())
            if not changed and not gone and not retried and not outdated and not ready:
                return result
            self._values = None
            listed = self._dag_files(parsed_before, quarantine)
            candidates = listed & present.keys()
            kinds = {path: (known[path][1] if path in known else DATA) for path in present}
            definitions = Definitions(connection)
            waiting = (_to_parse(candidates, changed, gone, known, reads) | retried | outdated | ready) & candidates
            waiting |= definitions.keep_only(candidates)
            reads.keep_only(candidates)
            while waiting:
                path = min(waiting)
                waiting.remove(path)
                parsed = self._parse(path, notes, result, path in changed or path in outdated)
                if parsed is None:
                    # Airflow keeps what it had of it.
                    kinds[path] = WAITING
                    reads.forget(path)
                    continue
                dag_ids = [dag["dag_id"] for dag in parsed["dags"]]
                duplicates = definitions.duplicates(path, dag_ids)
                kinds[path] = self._store(path, _without(parsed, duplicates), quarantine)
                reads.put(path, parsed["reads"], observed)
                if kinds[path] != BROKEN:
                    waiting |= definitions.put(path, dag_ids)
                if path in self._failures:
                    kinds[path] = WAITING
                result.parsed.append(path)
            result.removed = sorted(gone)
            result.note_parse_at(reads.next_parse_at())
            quarantine.keep_only(FILE, [*present, FOLDER])
            _forget_missing(candidates)
            _write_plugin_errors(self._plugins["errors"])
            self._environments.collect(self._used(candidates))
            rows = [(path, digest, kinds[path] if path in candidates else DATA) for path, digest in present.items()]
            tables.set_files(connection, rows)
            definitions.save(connection)
            reads.save(connection)
            connection.commit()
            return result
        finally:
            connection.close()

    def _walk(self) -> Iterator[str]:
        """All files that can matter to a DAG, relative to the folder."""
        for folder, names, files in walk(self._root):
            names[:] = [name for name in names if name != "__pycache__" and not name.startswith(".")]
            for name in files:
                if name == IGNORE_FILE or not name.startswith("."):
                    yield (folder / name).relative_to(self._root).as_posix()

    def _digest(self, path: str) -> str:
        file = self._root / path
        status = file.stat()
        # `cp -p` and `touch -r` preserve mtime, but not ctime.
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        remembered = self._digests.get(path)
        if remembered and remembered[0] == stamp:
            return remembered[1]
        digest = hashlib.sha256(regular.read_bytes(file)).hexdigest()
        self._digests[path] = (stamp, digest)
        return digest

    def _present(self, quarantine: Quarantine) -> dict[str, str]:
        """{path: digest} of all files that can be read. A plugin is another one when it loads otherwise than it did."""
        present, unreadable = {}, set[str]()
        for path in self._walk():
            try:
                # The database takes text only.
                path.encode()
                present[path] = self._digest(path)
            except FileNotFoundError:
                # A link that leads nowhere, or a file that was removed a moment ago.
                continue
            except (OSError, UnicodeEncodeError) as error:
                quarantine.add(PATH, path, error)
                unreadable.add(path)
        quarantine.keep_only(PATH, unreadable)
        if self._plugins["errors"]:
            suffix = json.dumps([sorted(self._plugins["errors"]), self._plugins["is_safe"]])
            present |= {path: digest + suffix for path, digest in present.items() if plugins.is_plugin(path)}
        return present

    def _dag_files(self, known: set[str], quarantine: Quarantine) -> set[str]:
        """Python files and archives that .airflowignore leaves in, without plugins; `known` without a list."""
        listing: Listing | None = None
        with quarantine.guard(FILE, FOLDER):
            listing = list_dag_files(self._root)
        if listing is None:
            return known
        ignore_files = {path for path in quarantine.names(FILE) if PurePosixPath(path).name == IGNORE_FILE}
        for path in ignore_files - listing.faults.keys():
            quarantine.release(FILE, path)
        for path, fault in listing.faults.items():
            quarantine.add(FILE, path, fault)
        return {path for path in listing.files if not plugins.is_plugin(path)}

    def _is_ready(self, path: str, notes: Mapping[str, PackagesNote], result: Synced) -> bool:
        """Whether there is news for a file that waits for its packages. Notes what has to be installed for it."""
        try:
            asked = requirements.declared(self._root / path, self._root)
        except (RequirementsError, OSError):
            return True
        if not asked or self._environments.find(asked) is not None:
            return True
        name = Environments.name(asked)
        note = notes.get(packages_key(name))
        if note is None or note["status"] != FAILED:
            result.missing[name] = asked
            return False
        if self._failures.get(path) != note["at"]:
            return True
        retry_at = package_installs.retry_at(note)
        if retry_at <= time.time():
            result.missing[name] = asked
        else:
            result.note_parse_at(retry_at)
        return False

    def _parse(
        self, path: str, notes: Mapping[str, PackagesNote], result: Synced, has_changed: bool
    ) -> ParsedFile | None:
        """What is in a file, or None if it has to wait for its packages.

        If they could not be installed, that is tried again at once for a file that `has_changed`.
        """
        file = self._root / path
        self._failures.pop(path, None)
        if not mentions_dags(file):
            return not_imported()
        try:
            asked = requirements.declared(file, self._root)
        except RequirementsError as error:
            parsed = refused(file, self._root, str(error))
        else:
            found = self._environments.find(asked) if asked else None
            note = notes.get(packages_key(Environments.name(asked))) if asked and found is None else None
            if asked and found is None and (has_changed or note is None or note["status"] != FAILED):
                result.missing[Environments.name(asked)] = asked
                return None
            parsed = self._import(file, found)
            if note is not None:
                self._failures[path] = note["at"]
                retry_at = package_installs.retry_at(note)
                result.note_parse_at(retry_at)
                if retry_at <= time.time():
                    result.missing[Environments.name(asked)] = asked
                if parsed["import_errors"]:
                    again = datetime.datetime.fromtimestamp(retry_at, datetime.UTC).isoformat(" ", "seconds")
                    reason = f"its requirements cannot be installed: {note['error']}\nThis is tried again at {again}."
                    parsed = refused(file, self._root, reason)
        return parsed

    def _import(self, file: Path, packages: Path | None) -> ParsedFile:
        """Import a file. Loads the environment's values only when a file first requests one, because most do not."""
        parsed = parse_isolated(file, self._root, LIMITS, Lookups(self._values, self._environment_names), packages)
        if parsed["needs_values"]:
            self._values = values.load_values()
            return self._import(file, packages)
        return parsed

    def _store(self, path: str, parsed: ParsedFile, quarantine: Quarantine) -> str:
        """Write what is in a file; returns its kind."""
        with quarantine.guard(FILE, path):
            try:
                if parsed["writes"]:
                    values.apply_writes(parsed["writes"])
                    self._values = None
                errors = write(path, parsed["dags"], parsed["import_errors"])
            except BaseException as error:
                if is_systemic(error):
                    raise
                # Airflow's tables have what was there before, and why the new content is not.
                write(path, [], not_stored(self._root / path, self._root, error))
                raise
            if errors and not parsed["import_errors"]:
                raise NotStored(errors)
            return BROKEN if errors else PARSED
        return BROKEN

    def _used(self, candidates: set[str]) -> set[str]:
        """Names of the environments that files ask for."""
        used = set()
        for path in candidates:
            with contextlib.suppress(RequirementsError):
                if asked := requirements.declared(self._root / path, self._root):
                    used.add(Environments.name(asked))
        return used


def _to_parse(
    candidates: set[str], changed: set[str], gone: set[str], known: dict[str, tuple[str, str]], reads: Reads
) -> set[str]:
    """Changed files, and files with import errors, which the change may fix.

    All files if a plugin has changed, or a file that no DAG file is known to read: the read may be undetectable, as in
    a subprocess.
    """
    touched = changed | gone
    was_parsed = {path for path, (_, kind) in known.items() if kind != DATA}
    if any(plugins.is_plugin(path) for path in touched):
        return candidates
    if any(not reads.has_reader(path) for path in touched - candidates - was_parsed):
        return candidates
    broken = {path for path, (_, kind) in known.items() if kind == BROKEN}
    # It may have been left out before, as by .airflowignore.
    unseen = candidates - was_parsed
    return changed | broken | unseen


def _without(parsed: ParsedFile, dag_ids: set[str]) -> ParsedFile:
    """The file without DAGs for which another file counts."""
    return {**parsed, "dags": [dag for dag in parsed["dags"] if dag["dag_id"] not in dag_ids]}


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
    """Store the errors of plugins among Airflow's import errors. `_forget_missing` has deleted the earlier ones."""
    from airflow._shared.timezones import timezone
    from airflow.models.errors import ParseImportError
    from airflow.utils.session import create_session

    with create_session() as session:
        for path, text in errors.items():
            session.add(
                ParseImportError(
                    filename=path[-LONGEST_PATH:],
                    bundle_name=BUNDLE,
                    timestamp=timezone.utcnow(),
                    stacktrace=printable(text),
                )
            )
