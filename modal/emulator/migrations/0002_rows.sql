-- In a table without row ids, finding a place compares with whole rows, payload included: one large value of a Dict made
-- every write near it slow. Here the index has only the keys.
CREATE TABLE record_with_rowid (
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    value   TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (kind, id)
);
INSERT INTO record_with_rowid SELECT kind, id, value, payload FROM record;
DROP TABLE record;
ALTER TABLE record_with_rowid RENAME TO record;
