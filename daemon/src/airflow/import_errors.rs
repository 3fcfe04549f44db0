//! Import errors, as recorded by the scheduler.

use airflow_serverless_api::{
    dag::{ImportError, ImportErrorList, ListImportErrors},
    page::limit,
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlite_schema::row;

use super::{Deployed, metadata::Metadata};
use crate::error::Result;

row! {
    #[derive(Deserialize)]
    struct ImportErrorRow {
        filename: String,
        timestamp: Option<DateTime<Utc>>,
        stacktrace: String,
    }
}

pub(super) async fn import_errors(metadata: &Metadata) -> Result<Vec<ImportError>> {
    const SQL: &str = "SELECT filename, timestamp, stacktrace FROM import_error ORDER BY filename";
    let error = |row: ImportErrorRow| ImportError {
        line: line_of(&row.filename, &row.stacktrace),
        filename: row.filename,
        timestamp: row.timestamp,
        stack_trace: row.stacktrace,
    };
    Ok(metadata.query(SQL, &[]).await?.into_iter().map(error).collect())
}

impl Deployed {
    /// Lists one page of import errors, by file.
    pub async fn list_import_errors(&self, wanted: &ListImportErrors) -> Result<ImportErrorList> {
        let all = import_errors(&self.metadata().await?).await?;
        let total_entries = all.len() as i64;
        let (offset, limit) = (wanted.offset.unwrap_or(0) as usize, limit(wanted.limit) as usize);
        Ok(ImportErrorList { import_errors: all.into_iter().skip(offset).take(limit).collect(), total_entries })
    }
}

/// Returns the last line number of this file in a stack trace.
fn line_of(filename: &str, stacktrace: &str) -> Option<u32> {
    let start = format!("{filename}\", line ");
    let (_, rest) = stacktrace.rsplit_once(&start)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_the_file_is_found_in_the_traceback() {
        let trace =
            "  File \"/vol/dags/a.py\", line 3, in <module>\n  File \"/vol/dags/b.py\", line 7, in f\nKeyError: 1";
        assert_eq!((line_of("a.py", trace), line_of("b.py", trace), line_of("c.py", trace)), (Some(3), Some(7), None));
    }
}
