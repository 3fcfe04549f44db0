//! Structs for rows.

/// Defines a struct for a row of SQLite: each field is read from the column with its name.
///
/// `#[derive(sqlx::FromRow)]` does the same, but its macro crate depends on the driver and on SQLite, which would be
/// compiled a second time for the build host.
#[macro_export]
macro_rules! row {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_attribute:meta])* $field_visibility:vis $field:ident: $kind:ty),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility struct $name {
            $($(#[$field_attribute])* $field_visibility $field: $kind),*
        }

        impl<'r> ::sqlx::FromRow<'r, ::sqlx::sqlite::SqliteRow> for $name {
            fn from_row(row: &'r ::sqlx::sqlite::SqliteRow) -> ::sqlx::Result<Self> {
                Ok(Self { $($field: ::sqlx::Row::try_get(row, stringify!($field))?),* })
            }
        }
    };
}
