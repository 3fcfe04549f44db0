-- Requests with an `Idempotency-Key`: what was asked (its hash) and, once it is known, what was answered.
CREATE TABLE idempotency (
    key        TEXT    NOT NULL PRIMARY KEY,
    request    TEXT    NOT NULL,
    status     INTEGER,
    location   TEXT,
    body       BLOB,
    created_at TEXT    NOT NULL
) STRICT;
