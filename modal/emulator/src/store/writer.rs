//! The task that writes changes: many per commit.

use std::collections::{BTreeMap, HashMap};

use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{Change, StoreError, seal::Seal};

/// The most changes of one commit; further ones go into the next.
const COMMIT_LIMIT: usize = 2_000;
/// Rows of one statement. Each statement is a round trip to the database's thread, which costs more than its rows.
const STATEMENT_ROWS: usize = 64;

type Ack = oneshot::Sender<Result<(), StoreError>>;

/// Changes that are committed together.
pub struct Batch {
    pub changes: Vec<Change>,
    /// Receives the outcome of the commit.
    pub done: Ack,
}

/// Commits batches until the queue is closed, then closes the database.
pub async fn write_batches(mut connection: SqliteConnection, seal: Seal, mut batches: mpsc::UnboundedReceiver<Batch>) {
    // The changes of failed commits: the state in memory has them, so they come first in the next commit.
    let mut changes = Vec::new();
    while let Some(first) = batches.recv().await {
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(batch) = next.take() {
            changes.extend(batch.changes);
            waiting.push(batch.done);
            if changes.len() < COMMIT_LIMIT {
                next = batches.try_recv().ok();
            }
        }
        let outcome = commit(&mut connection, &seal, &changes).await.map_err(|error| error.to_string());
        if outcome.is_ok() {
            changes.clear();
        }
        for done in waiting {
            // The waiter is gone if its client has disconnected; the change is made all the same.
            let _ = done.send(outcome.clone().map_err(StoreError::Write));
        }
    }
    if !changes.is_empty()
        && let Err(error) = commit(&mut connection, &seal, &changes).await
    {
        tracing::error!(%error, lost = changes.len(), "the last changes could not be saved");
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the database did not close cleanly");
    }
}

async fn commit(connection: &mut SqliteConnection, seal: &Seal, changes: &[Change]) -> Result<(), StoreError> {
    // Only the last change of each record counts: many inputs come and go within one commit.
    let last: HashMap<_, _> = changes.iter().map(|change| (change.key(), change)).collect();
    if last.is_empty() {
        return Ok(());
    }
    let (mut puts, mut deletes) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for change in last.into_values() {
        match change {
            Change::Put { kind, id, value, payload } => puts.push((kind, id, seal.close(kind, id, value, payload)?)),
            Change::Delete { kind, id } => deletes.entry(kind).or_default().push(id),
        }
    }
    let failed = |error: sqlx::Error| StoreError::Write(error.to_string());
    let mut transaction = connection.begin().await.map_err(failed)?;
    for rows in puts.chunks(STATEMENT_ROWS) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT OR REPLACE INTO record (kind, id, sealed) ");
        insert.push_values(rows, |mut row, (kind, id, sealed)| {
            row.push_bind(**kind).push_bind(*id).push_bind(sealed.as_slice());
        });
        insert.build().execute(&mut *transaction).await.map_err(failed)?;
    }
    for (kind, ids) in &deletes {
        for ids in ids.chunks(STATEMENT_ROWS) {
            let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM record WHERE kind = ");
            delete.push_bind(**kind).push(" AND id IN (");
            let mut list = delete.separated(", ");
            for id in ids {
                list.push_bind(*id);
            }
            delete.push(")").build().execute(&mut *transaction).await.map_err(failed)?;
        }
    }
    transaction.commit().await.map_err(failed)
}
