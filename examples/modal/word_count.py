"""Counts the words of the books on a Volume: a Modal app that has nothing to do with Airflow.

The README says how to run it with Local Modal, in "Run any Modal app locally"; it runs on Modal just the same.
"""

from __future__ import annotations

import collections
import re
from pathlib import Path

import modal

app = modal.App("word-count")
books = modal.Volume.from_name("word-count-books", create_if_missing=True)
counts = modal.Dict.from_name("word-count-counts", create_if_missing=True)
web = modal.Image.debian_slim().uv_pip_install("fastapi")

SHELF = "/books"


@app.function(volumes={SHELF: books})
def titles() -> list[str]:
    """The books on the Volume."""
    return sorted(str(path.relative_to(SHELF)) for path in Path(SHELF).rglob("*.txt"))


@app.function(volumes={SHELF: books}, retries=2)
def count_words(title: str) -> dict[str, int]:
    """How often each word is in a book; many of these run side by side."""
    words = re.findall(r"[a-z]+", Path(SHELF, title).read_text().lower())
    print(f"{title}: {len(words)} words")
    return dict(collections.Counter(words))


@app.cls(max_containers=1)
class Tally:
    """Adds up what is counted. There is one container, so its memory is the state; the Dict keeps it."""

    @modal.enter()
    def load(self) -> None:
        self.total: collections.Counter[str] = collections.Counter(counts.get("total", {}))

    @modal.method()
    def replace(self, parts: list[dict[str, int]]) -> None:
        self.total = collections.Counter()
        for part in parts:
            self.total.update(part)
        counts["total"] = dict(self.total)

    @modal.method()
    def top(self, n: int = 3) -> list[tuple[str, int]]:
        return self.total.most_common(n)


@app.function(schedule=modal.Cron("0 6 * * *", timezone="Europe/Oslo"), timeout=600)
def recount() -> int:
    """Counts everything anew, every morning and on request."""
    parts = list(count_words.map(titles.remote()))
    Tally().replace.remote(parts)
    return len(parts)


@app.function(image=web)
@modal.fastapi_endpoint()
def top(n: int = 3) -> dict[str, int]:
    """The most frequent words, for a browser."""
    return dict(Tally().top.remote(n))


@app.local_entrypoint()
def main(n: int = 3) -> None:
    print(f"{recount.remote()} books")
    for word, count in Tally().top.remote(n):
        print(f"{count:6} {word}")
