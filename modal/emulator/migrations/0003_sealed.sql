-- Records hold Secrets, arguments of calls and what Dicts keep: on the disk they are encrypted. `sealed` is value and
-- payload in one (see store/seal.rs). What is in `plain` was written before; it is sealed when the database is opened.
ALTER TABLE record RENAME TO plain;
CREATE TABLE record (
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (kind, id)
);
