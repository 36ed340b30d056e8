//! The data base file.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};

use super::lock::FileLock;
use boundary::records::{Change, Record, StoreError};

/// Format of the file as a whole; the records have their own.
const FORMAT: u64 = 1;
/// The data base is small; this bounds what it caches, in bytes.
const CACHE_BYTES: usize = 1 << 20;
/// The store and its folder are for their owner alone.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The number of the last transaction, in [`META`].
const SEQUENCE: &str = "sequence";
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

pub(super) struct File {
    path: PathBuf,
    /// Absent after a failed write, until it could be opened again.
    database: Option<Database>,
    /// The number of the last transaction that is known to be on disk.
    sequence: u64,
    /// The number of a transaction of which it is not known whether it is.
    doubtful: Option<u64>,
    _lock: FileLock,
}

/// Errors of reading a file.
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
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(FOLDER_MODE).create(folder);
            made.map_err(|error| open_error(error.to_string()))?;
        }
        let lock = FileLock::take(&path.with_extension("lock"))
            .map_err(|error| open_error(error.to_string()))?
            .map_err(|holder| StoreError::InUse {
                path: shown.clone(),
                holder,
            })?;
        ensure(path).map_err(|error| open_error(error.to_string()))?;
        let (database, records, damaged) = match read(path) {
            Ok((database, records)) => (database, records, None),
            Err(Unreadable::Other(error)) => return Err(error),
            Err(Unreadable::Damaged(error)) => {
                tracing::debug!(error, "the store is damaged");
                let aside = put_aside(path).map_err(|error| open_error(error.to_string()))?;
                ensure(path).map_err(|error| open_error(error.to_string()))?;
                match read(path) {
                    Ok((database, records)) => (database, records, Some(aside)),
                    Err(Unreadable::Other(error)) => return Err(error),
                    Err(Unreadable::Damaged(error)) => return Err(open_error(error)),
                }
            }
        };
        let sequence = sequence(&database).map_err(|error| open_error(error.to_string()))?;
        let file = File {
            path: path.to_owned(),
            database: Some(database),
            sequence,
            doubtful: None,
            _lock: lock,
        };
        Ok((file, records, damaged))
    }

    /// Writes changes in one transaction and returns when they are on disk.
    pub(super) fn commit<'a>(
        &mut self,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<(), StoreError> {
        let number = self.sequence.max(self.doubtful.unwrap_or(0)) + 1;
        let written = write(self.opened()?, number, changes);
        let Err(error) = written else {
            self.sequence = number;
            return Ok(());
        };
        // After a failed write the data base refuses all others until it is opened again, and only
        // then shows whether the write reached the disk all the same.
        self.database = None;
        self.doubtful = Some(number);
        match self.opened().map(drop) {
            Ok(()) if self.sequence == number => Ok(()),
            Ok(()) => Err(self.save_error(error.to_string())),
            Err(again) => Err(StoreError::Uncertain {
                path: self.path.display().to_string(),
                error: format!("{error}; {again}"),
            }),
        }
    }

    /// Returns the data base, opened again if need be.
    fn opened(&mut self) -> Result<&Database, StoreError> {
        if self.database.is_none() {
            let unreadable = |unreadable| match unreadable {
                Unreadable::Other(error) => error,
                Unreadable::Damaged(error) => self.save_error(error),
            };
            let (database, _) = read(&self.path).map_err(unreadable)?;
            let found = sequence(&database).map_err(|error| self.save_error(error.to_string()))?;
            self.sequence = found;
            self.doubtful = None;
            self.database = Some(database);
        }
        self.database.as_ref().ok_or(StoreError::Closed)
    }

    fn save_error(&self, error: String) -> StoreError {
        StoreError::Save {
            path: self.path.display().to_string(),
            error,
        }
    }
}

fn write<'a>(
    database: &Database,
    number: u64,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(SEQUENCE, number)?;
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

/// Returns the number of the last transaction; 0 if there was none.
fn sequence(database: &Database) -> Result<u64, redb::Error> {
    let table = database.begin_read()?.open_table(META)?;
    Ok(table.get(SEQUENCE)?.map_or(0, |number| number.value()))
}

/// Makes an empty store if there is no file. It gets its name when it is whole, so an empty file
/// of that name is a damaged store and not one that was about to be made.
fn ensure(path: &Path) -> Result<(), redb::Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let unfinished = with_suffix(path, ".new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = builder().create(&unfinished)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(FILE_MODE))?;
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    database.close()?;
    fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

/// Opens the file and reads all records. A file that makes the data base panic is damaged.
fn read(path: &Path) -> Result<(Database, Vec<Record>), Unreadable> {
    let read = AssertUnwindSafe(|| read_checked(path));
    catch_unwind(read)
        .unwrap_or_else(|_| Err(Unreadable::Damaged("the data base gave up".to_owned())))
}

fn read_checked(path: &Path) -> Result<(Database, Vec<Record>), Unreadable> {
    let shown = path.display().to_string();
    let other = |error: String| {
        Unreadable::Other(StoreError::Open {
            path: shown.clone(),
            error,
        })
    };
    let damaged = |error: redb::Error| match error {
        redb::Error::Io(error) if !is_about_content(error.kind()) => other(error.to_string()),
        error => Unreadable::Damaged(error.to_string()),
    };
    let database = builder().open(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::TransactionInProgress => {
            other(error.to_string())
        }
        DatabaseError::Storage(StorageError::Io(error)) => damaged(error.into()),
        error => Unreadable::Damaged(error.to_string()),
    })?;
    match format(&database).map_err(damaged)? {
        Some(FORMAT) => {}
        Some(found) => {
            let error = StoreError::Format {
                path: shown,
                found,
                known: FORMAT,
            };
            return Err(Unreadable::Other(error));
        }
        None => return Err(Unreadable::Damaged("it has no format".to_owned())),
    }
    let records = records(&database).map_err(damaged)?;
    Ok((database, records))
}

/// Returns true if an error of this kind is about what the file holds, not about the disk.
fn is_about_content(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(kind, InvalidData | InvalidInput | UnexpectedEof)
}

/// Returns the format of the file; each store has one from its beginning.
fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    let table = database.begin_read()?.open_table(META)?;
    Ok(table.get("format")?.map(|format| format.value()))
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

/// Renames the file, to a name that nothing has yet.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut aside = with_suffix(path, &format!(".damaged-{seconds}"));
    for number in 2.. {
        if fs::symlink_metadata(&aside).is_err() {
            break;
        }
        aside = with_suffix(path, &format!(".damaged-{seconds}-{number}"));
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
