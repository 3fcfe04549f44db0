-- How an environment is to end (NULL: not at all; `keep` or `purge`, by what becomes of its Volume, Dict and Secret), the
-- generation whose work was cancelled, and what is known of attempts that failed.
ALTER TABLE environment ADD COLUMN deletion TEXT;
ALTER TABLE environment ADD COLUMN cancelled_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE environment ADD COLUMN failed_step TEXT;
ALTER TABLE environment ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE environment ADD COLUMN retry_at TEXT;
-- When these conditions last changed.
ALTER TABLE environment ADD COLUMN available_at TEXT;
ALTER TABLE environment ADD COLUMN reconciled_at TEXT;
UPDATE environment SET available_at = updated_at, reconciled_at = updated_at;

-- Operations outlive their environment: somebody may still follow its deletion.
CREATE TABLE operation_2 (
    id          TEXT    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    steps       TEXT    NOT NULL,
    error       TEXT,
    revision    INTEGER NOT NULL,
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL
) STRICT;
INSERT INTO operation_2 SELECT id, kind, environment, state, steps, error, revision, created_at, updated_at FROM operation;
DROP TABLE operation;
ALTER TABLE operation_2 RENAME TO operation;
CREATE INDEX operation_of_environment ON operation (environment, created_at);

-- What has happened, for those who follow it. Ids are never used again.
CREATE TABLE event (
    id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind        TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    data        TEXT    NOT NULL,
    created_at  TEXT    NOT NULL
) STRICT;
