use std::{fs, os::unix::fs::PermissionsExt};

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::*;

struct Database {
    folder: TempDir,
    path: PathBuf,
}

impl Database {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { path: folder.path().join("things.db"), folder }
    }

    async fn open(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(&self.path).create_if_missing(true);
        options.connect().await.expect("a database")
    }

    /// Upgrades to schema `version`; each migration adds a row.
    async fn upgrade(&self, version: i64) -> Result<Upgrade, SchemaError> {
        let migrations = self.folder.path().join(format!("to-{version}"));
        fs::create_dir_all(&migrations).expect("a folder");
        for number in 1..=version {
            let sql = match number {
                1 => "CREATE TABLE thing (version INTEGER); INSERT INTO thing VALUES (1)".to_owned(),
                _ => format!("INSERT INTO thing VALUES ({number})"),
            };
            fs::write(migrations.join(format!("{number}_thing.sql")), sql).expect("a migration");
        }
        let migrator = Migrator::new(migrations).await.expect("migrations");
        let mut connection = self.open().await;
        let upgraded = upgrade(&mut connection, &self.path, &migrator, "1.2.3").await;
        connection.close().await.expect("closed");
        upgraded
    }

    async fn things(&self, path: &Path) -> Vec<i64> {
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await.expect("a database");
        let things = sqlx::query_scalar("SELECT version FROM thing ORDER BY version");
        things.fetch_all(&mut connection).await.expect("things")
    }

    fn backups(&self) -> Vec<PathBuf> {
        backup::all(&self.path).into_iter().map(|(_, _, path)| path).collect()
    }
}

#[tokio::test]
async fn database_is_backed_up_before_a_migration() {
    let it = Database::new();
    assert_eq!(it.upgrade(1).await.expect("a new database"), Upgrade::None);
    assert_eq!(it.upgrade(1).await.expect("the same again"), Upgrade::None);
    assert_eq!(it.backups(), Vec::<PathBuf>::new(), "there was nothing to keep");

    let Upgrade::Migrated { from: 1, to: 3, backup } = it.upgrade(3).await.expect("an upgrade") else {
        panic!("not migrated")
    };
    assert_eq!(it.things(&it.path).await, [1, 2, 3]);
    assert_eq!(it.things(&backup).await, [1]);
    assert_eq!(it.backups(), [backup.as_path()]);
    assert_eq!(fs::metadata(&backup).expect("the backup").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn newest_three_backups_are_kept() {
    let it = Database::new();
    for version in 1..=4 {
        it.upgrade(version).await.expect("an upgrade");
    }
    // A backup from another day, older than all others.
    let old = backup::path(&it.path, 1, chrono::DateTime::UNIX_EPOCH);
    fs::write(&old, "").expect("a written file");
    it.upgrade(5).await.expect("an upgrade");
    let backups = it.backups();
    assert_eq!(backups.len(), 3, "{backups:?}");
    assert!(!backups.contains(&old) && !it.folder.path().join("things.partial").exists());
}

#[tokio::test]
async fn newer_schema_is_refused() {
    let it = Database::new();
    it.upgrade(1).await.expect("a new database");
    it.upgrade(3).await.expect("an upgrade");
    let before = fs::read(&it.path).expect("the database");
    let message = it.upgrade(2).await.expect_err("a newer schema").to_string();
    for part in ["schema 3", "1.2.3", "after 2", "things.db.v1-"] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    assert_eq!(fs::read(&it.path).expect("the database"), before);
}

#[tokio::test]
async fn failed_backup_leaves_the_database_unchanged() {
    let it = Database::new();
    it.upgrade(1).await.expect("a new database");
    let mut connection = it.open().await;
    let nowhere = it.folder.path().join("missing/things.db.v1.backup");
    let refused = backup::write(&mut connection, &it.path, &nowhere).await;
    assert!(matches!(refused, Err(BackupError::Files(_))), "{refused:?}");
    assert_eq!(it.things(&it.path).await, [1]);
}
