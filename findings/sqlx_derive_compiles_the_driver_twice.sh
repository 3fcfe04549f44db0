#!/bin/sh
# sqlx 0.9.0: `#[derive(FromRow)]` makes the compiler's side depend on the whole database driver.
#
# Expected: the features `sqlite` and `derive` add SQLite's driver to the program, and a macro crate that only reads
#           the fields of a struct.
# Observed: the macro crate (`sqlx-macros`, through `sqlx-macros-core`) depends on `sqlx-sqlite` and on the bundled C
#           code of SQLite, too. Cargo resolves the features of proc macros apart from those of the program, so the
#           driver, SQLite, tokio and what they need are compiled twice as soon as the two sets of features or profiles
#           differ. Without `derive` (and `macros`) they are compiled once. Migrations do not need the macro crate:
#           `Migrator::with_migrations` takes them as values.
# Output seen: see `expected` below.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
echo 'fn main() {}' > src/main.rs

# The crates between a macro crate and SQLite's C code, with these features.
macro_path() {
  cat > Cargo.toml <<END
[package]
name = "finding"
version = "0.1.0"
edition = "2024"

[dependencies]
sqlx = { version = "=0.9.0", default-features = false, features = [$1] }
END
  cargo tree --quiet --edges normal --prefix none --invert libsqlite3-sys | sed 's/ v[0-9].*(proc-macro).*/ (proc-macro)/; s/ v[0-9].*//' |
    grep -x -e 'sqlx-macros (proc-macro)' -e 'sqlx-macros-core' -e 'sqlx-sqlite' | sort -u | tr '\n' ' '
}

derived=$(macro_path '"runtime-tokio", "sqlite", "migrate", "derive"')
plain=$(macro_path '"runtime-tokio", "sqlite", "migrate"')
echo "with derive:    $derived"
echo "without derive: $plain"
expected='sqlx-macros (proc-macro) sqlx-macros-core sqlx-sqlite '
[ "$derived" = "$expected" ] || { echo "changed: the macro crate does not reach the driver as it did" >&2; exit 1; }
[ "$plain" = 'sqlx-sqlite ' ] || { echo "changed: more than the driver depends on SQLite without derive" >&2; exit 1; }
