-- Folders that are watched. `identity` is that of the folder when it was last brought to the Volume: another one in its
-- place, if it is empty, is taken for an absence.
CREATE TABLE watch (
    id          TEXT    NOT NULL PRIMARY KEY,
    environment TEXT    NOT NULL REFERENCES environment (name) ON DELETE CASCADE,
    directory   TEXT    NOT NULL,
    deletes     INTEGER NOT NULL,
    patterns    TEXT    NOT NULL,
    identity    TEXT,
    uploads     INTEGER NOT NULL DEFAULT 0,
    synced_at   TEXT,
    created_at  TEXT    NOT NULL,
    UNIQUE (environment, directory)
) STRICT;

-- What a watch has uploaded. A row without a hash is written before the first upload of a file begins: whoever finds it
-- knows that the file may be on the Volume. The stamp tells whether the local file is still the one with that hash.
CREATE TABLE watched_file (
    environment TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    watch       TEXT    NOT NULL REFERENCES watch (id) ON DELETE CASCADE,
    sha256      BLOB,
    size        INTEGER NOT NULL DEFAULT 0,
    modified    INTEGER NOT NULL DEFAULT 0,
    changed     INTEGER NOT NULL DEFAULT 0,
    inode       INTEGER NOT NULL DEFAULT 0,
    imports     TEXT    NOT NULL DEFAULT '',
    uploaded_at INTEGER NOT NULL DEFAULT 0,
    on_volume   INTEGER,
    PRIMARY KEY (environment, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX files_of_watch ON watched_file (watch);
