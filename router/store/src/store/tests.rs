use std::sync::mpsc::channel;

use super::*;
use boundary::records::Held;

fn put(key: &str, value: &str) -> Change {
    Change {
        key: key.into(),
        value: Some(value.into()),
    }
}

fn save(store: &Store, changes: Vec<Change>) -> Result<(), StoreError> {
    let (done, wait) = channel();
    store.save(changes, move |result| done.send(result).unwrap());
    wait.recv().unwrap()
}

#[test]
fn what_was_saved_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/weft.db");
    let opened = Store::open(&path).unwrap();
    assert!(opened.records.is_empty() && opened.damaged.is_none());
    save(
        &opened.store,
        vec![put("b", "2"), put("a", "1"), put("c", "3")],
    )
    .unwrap();
    save(
        &opened.store,
        vec![
            Change {
                key: "b".into(),
                value: None,
            },
            put("a", "4"),
        ],
    )
    .unwrap();
    drop(opened);
    let records = Store::open(&path).unwrap().records;
    let expected: Vec<Record> = vec![("a".into(), "4".into()), ("c".into(), "3".into())];
    assert_eq!(records, expected);
}

#[test]
fn batches_are_answered_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Store::open(&folder.path().join("weft.db")).unwrap();
    let (done, wait) = channel();
    for i in 0..200 {
        let done = done.clone();
        opened
            .store
            .save(vec![put("k", &i.to_string())], move |result| {
                result.unwrap();
                done.send(i).unwrap();
            });
    }
    drop((opened, done));
    assert!(wait.iter().eq(0..200));
}

#[test]
fn a_second_process_is_told_who_has_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    let _first = Store::open(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    let expected = Held {
        pid: Some(std::process::id()),
    };
    assert_eq!(
        error,
        StoreError::InUse {
            path: path.display().to_string(),
            holder: expected
        }
    );
}

#[test]
fn a_damaged_file_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    let garbage = vec![0x5a; 100_000];
    std::fs::write(&path, &garbage).unwrap();
    let opened = Store::open(&path).unwrap();
    assert_eq!(std::fs::read(opened.damaged.unwrap()).unwrap(), garbage);
    save(&opened.store, vec![put("a", "1")]).unwrap();
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    drop(Store::open(&path).unwrap());
    {
        let database = redb::Database::open(&path).unwrap();
        let table = redb::TableDefinition::<&str, u64>::new("meta");
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(table)
            .unwrap()
            .insert("format", 99)
            .unwrap();
        transaction.commit().unwrap();
    }
    let error = Store::open(&path).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Format {
                found: 99,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(path.exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("weft.db")).unwrap_err().to_string();
    assert!(error.contains("--db-prefix"), "{error}");
}

/// A file system of its own, small enough to fill. Needs root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: &str) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        rustix::mount::mount(
            "tmpfs",
            folder.path(),
            "tmpfs",
            flags,
            Some(options.as_c_str()),
        )
        .ok()?;
        Some(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_recovers() {
    let Some(disk) = SmallDisk::mount("4M") else {
        testbed::skips::skip("a_full_disk_loses_nothing_and_recovers", "root");
        return;
    };
    let path = disk.0.path().join("weft.db");
    let opened = Store::open(&path).unwrap();
    save(&opened.store, vec![put("before", "1")]).unwrap();
    let ballast = disk.0.path().join("ballast");
    let mut size = 4 << 20;
    while size > 0 {
        // Fill up to the last page.
        size = match std::fs::write(&ballast, vec![0; size]) {
            Ok(()) => break,
            Err(_) => size - 4096,
        };
    }
    let big = "x".repeat(1 << 20);
    let error = save(&opened.store, vec![put("lost", &big)]).unwrap_err();
    assert!(
        error.to_string().contains("Free space on the disk"),
        "{error}"
    );
    // What was made before the failure was seen fails too, room or not.
    std::fs::remove_file(&ballast).unwrap();
    save(&opened.store, vec![put("stale", "2")]).unwrap_err();
    opened.store.resume();
    save(&opened.store, vec![put("after", "3")]).unwrap();
    drop(opened);
    let records = Store::open(&path).unwrap().records;
    let expected: Vec<Record> = vec![("after".into(), "3".into()), ("before".into(), "1".into())];
    assert_eq!(records, expected);
}
