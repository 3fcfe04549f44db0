"""What Local Modal keeps, read and changed from outside while no server runs."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12
LENGTH = struct.Struct("<I")


def change_record(data: Path, kind: str, **fields: Any) -> None:
    """Set fields of the only record of a kind in the data folder `data`."""
    key = AESGCM(bytes.fromhex((data / "state.key").read_text()))
    with sqlite3.connect(data / "state.db") as database:
        [(name, sealed)] = database.execute("SELECT id, sealed FROM record WHERE kind = ?", [kind])
        bound_to = f"{kind}\0{name}".encode()
        opened = key.decrypt(sealed[:NONCE], sealed[NONCE:], bound_to)
        (length,) = LENGTH.unpack_from(opened)
        value = json.loads(opened[LENGTH.size :][:length]) | fields
        payload = opened[LENGTH.size + length :]
        encoded = json.dumps(value).encode()
        nonce = os.urandom(NONCE)
        sealed = nonce + key.encrypt(nonce, LENGTH.pack(len(encoded)) + encoded + payload, bound_to)
        database.execute("UPDATE record SET sealed = ? WHERE kind = ? AND id = ?", [sealed, kind, name])
