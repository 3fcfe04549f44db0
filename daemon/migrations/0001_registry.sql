-- What the user asked for (config, generation) and what has been brought to Modal: up to which generation, with which
-- version of the functions, and why the last attempt failed.
CREATE TABLE environment (
    name                TEXT    NOT NULL PRIMARY KEY,
    config              TEXT    NOT NULL,
    generation          INTEGER NOT NULL,
    observed_generation INTEGER NOT NULL DEFAULT 0,
    functions           TEXT    NOT NULL DEFAULT '',
    error               TEXT,
    created_at          TEXT    NOT NULL,
    updated_at          TEXT    NOT NULL
) STRICT;

CREATE TABLE operation (
    id          TEXT    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL,
    environment TEXT    NOT NULL REFERENCES environment (name) ON DELETE CASCADE,
    state       TEXT    NOT NULL,
    steps       TEXT    NOT NULL,
    error       TEXT,
    revision    INTEGER NOT NULL,
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL
) STRICT;

CREATE INDEX operation_of_environment ON operation (environment, created_at);
