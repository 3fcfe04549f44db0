-- Everything that outlives the process, one row per object. `value` is the object as JSON, `payload` the bytes that
-- JSON would bloat (a function's definition, an input, a result, a Dict's value).
CREATE TABLE record (
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    value   TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
