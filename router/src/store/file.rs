//! The data base file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

use super::lock::FileLock;
use super::{Change, Record, StoreError};

/// Format of the file as a whole; the records have their own.
const FORMAT: u64 = 1;
/// The data base is small; this bounds what it caches, in bytes.
const CACHE_BYTES: usize = 1 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

pub(super) struct File {
    path: PathBuf,
    /// Absent after a failed write, until it could be opened again.
    database: Option<Database>,
    _lock: FileLock,
}

/// What keeps a file from being read.
enum Unreadable {
    Damaged(String),
    Other(StoreError),
}

impl File {
    /// Opens the file with its records. A damaged one is renamed, and its new name told.
    pub(super) fn open(path: &Path) -> Result<(File, Vec<Record>, Option<PathBuf>), StoreError> {
        let shown = path.display().to_string();
        let open_error = |error: String| StoreError::Open {
            path: shown.clone(),
            error,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| open_error(error.to_string()))?;
        }
        let lock = FileLock::take(&path.with_extension("lock"))
            .map_err(|error| open_error(error.to_string()))?
            .map_err(|holder| StoreError::InUse {
                path: shown.clone(),
                holder,
            })?;
        let (database, records, damaged) = match read(path) {
            Ok((database, records)) => (database, records, None),
            Err(Unreadable::Other(error)) => return Err(error),
            Err(Unreadable::Damaged(_)) => {
                let aside = put_aside(path).map_err(|error| open_error(error.to_string()))?;
                match read(path) {
                    Ok((database, records)) => (database, records, Some(aside)),
                    Err(Unreadable::Other(error)) => return Err(error),
                    Err(Unreadable::Damaged(error)) => return Err(open_error(error)),
                }
            }
        };
        let file = File {
            path: path.to_owned(),
            database: Some(database),
            _lock: lock,
        };
        Ok((file, records, damaged))
    }

    /// Writes changes in one transaction and returns when they are on disk.
    pub(super) fn commit<'c>(
        &mut self,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => match read(&self.path) {
                Ok((database, _)) => database,
                Err(Unreadable::Other(error)) => return Err(error),
                Err(Unreadable::Damaged(error)) => return Err(self.save_error(error)),
            },
        };
        match write(&database, changes) {
            Ok(()) => {
                self.database = Some(database);
                Ok(())
            }
            // After a failed write the data base refuses all others until it is opened again.
            Err(error) => Err(self.save_error(error.to_string())),
        }
    }

    fn save_error(&self, error: String) -> StoreError {
        StoreError::Save {
            path: self.path.display().to_string(),
            error,
        }
    }
}

fn write<'c>(
    database: &Database,
    changes: impl Iterator<Item = &'c Change>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORDS)?;
        for Change { key, value } in changes {
            match value {
                Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(path: &Path) -> Result<(Database, Vec<Record>), Unreadable> {
    let shown = path.display().to_string();
    let other = |error: String| {
        Unreadable::Other(StoreError::Open {
            path: shown.clone(),
            error,
        })
    };
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create(path);
    let database = opened.map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == std::io::ErrorKind::InvalidData =>
        {
            Unreadable::Damaged(error.to_string())
        }
        DatabaseError::Storage(StorageError::Io(error)) => other(error.to_string()),
        DatabaseError::Storage(error) => Unreadable::Damaged(error.to_string()),
        error => other(error.to_string()),
    })?;
    let damaged = |error: redb::Error| match error {
        redb::Error::Io(error) => other(error.to_string()),
        error => Unreadable::Damaged(error.to_string()),
    };
    match format(&database).map_err(damaged)? {
        FORMAT => {}
        found => {
            let error = StoreError::Format {
                path: shown,
                found,
                known: FORMAT,
            };
            return Err(Unreadable::Other(error));
        }
    }
    let records = records(&database).map_err(damaged)?;
    Ok((database, records))
}

/// The format of the file; a new one gets ours.
fn format(database: &Database) -> Result<u64, redb::Error> {
    if let Ok(table) = database.begin_read()?.open_table(META)
        && let Some(format) = table.get("format")?
    {
        return Ok(format.value());
    }
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    Ok(FORMAT)
}

fn records(database: &Database) -> Result<Vec<Record>, redb::Error> {
    let table = database.begin_read()?.open_table(RECORDS)?;
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        records.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(records)
}

fn put_aside(path: &Path) -> std::io::Result<PathBuf> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{seconds}"));
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}
