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
    store.save_alone(changes, move |result| done.send(result).unwrap());
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
            .save_alone(vec![put("k", &i.to_string())], move |result| {
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
    std::fs::remove_file(&ballast).unwrap();
    save(&opened.store, vec![put("after", "3")]).unwrap();
    drop(opened);
    let records = Store::open(&path).unwrap().records;
    let expected: Vec<Record> = vec![("after".into(), "3".into()), ("before".into(), "1".into())];
    assert_eq!(records, expected);
}

fn save_in_order(store: &Store, changes: Vec<Change>) -> Result<(), StoreError> {
    let (done, wait) = channel();
    store.save(changes, move |result| done.send(result).unwrap());
    wait.recv().unwrap()
}

/// Returns a change that the data base refuses on any disk.
fn impossible(key: &str) -> Change {
    Change {
        key: key.into(),
        value: Some(vec![0; 4 << 30]),
    }
}

#[test]
fn a_failed_save_fails_what_builds_on_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Store::open(&folder.path().join("weft.db")).unwrap();
    let store = &opened.store;
    save(store, vec![impossible("lost")]).unwrap_err();
    save(store, vec![put("a", "1")]).unwrap();
    save_in_order(store, vec![put("b", "2")]).unwrap();

    save_in_order(store, vec![impossible("lost")]).unwrap_err();
    save_in_order(store, vec![put("stale", "3")]).unwrap_err();
    save(store, vec![put("c", "4")]).unwrap();
    store.resume();
    save_in_order(store, vec![put("d", "5")]).unwrap();
}

#[test]
fn a_save_that_shares_the_sync_of_a_failed_one_is_tried_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    let opened = Store::open(&path).unwrap();
    let (done, wait) = channel();
    let hand_in = |in_order: bool, change: Change| {
        let done = done.clone();
        let done = move |result: Result<(), StoreError>| done.send(result.is_ok()).unwrap();
        match in_order {
            true => opened.store.save(vec![change], done),
            false => opened.store.save_alone(vec![change], done),
        }
    };
    // The store's thread is kept busy, so what follows is saved by one sync.
    let (release, hold) = channel::<()>();
    opened
        .store
        .save_alone(vec![put("first", "0")], move |_| hold.recv().unwrap());
    hand_in(false, put("a", "1"));
    hand_in(false, impossible("lost"));
    hand_in(true, put("b", "2"));
    hand_in(true, impossible("lost"));
    hand_in(true, put("stale", "3"));
    hand_in(false, put("c", "4"));
    release.send(()).unwrap();
    drop((opened, done));
    let saved: Vec<bool> = wait.iter().collect();
    assert_eq!(saved, [true, false, true, false, false, true]);
    let records = Store::open(&path).unwrap().records;
    let keys: Vec<&[u8]> = records.iter().map(|(key, _)| &key[..]).collect();
    assert_eq!(keys, [&b"a"[..], b"b", b"c", b"first"]);
}

/// Returns a store as a router leaves it behind after some work: records of several sizes, some
/// removed.
fn worked_store(path: &Path, rng: &mut fastrand::Rng) -> Vec<Record> {
    let opened = Store::open(path).unwrap();
    for round in 0..12 {
        let changes = (0..60).map(|_| Change {
            key: format!("ipam/{}", rng.u16(..400)).into_bytes(),
            value: (rng.u8(..4) > 0).then(|| vec![rng.u8(..); rng.usize(..200)]),
        });
        let mut changes: Vec<_> = changes.collect();
        changes.push(put("round", &round.to_string()));
        save(&opened.store, changes).unwrap();
    }
    drop(opened);
    Store::open(path).unwrap().records
}

/// Returns a folder that costs no waiting for a disk, where there is such a place.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Each damage is told and put aside, or is in a place that says nothing and changes no record.
#[test]
fn no_damage_goes_unnoticed() {
    let folder = in_memory();
    let path = folder.path().join("weft.db");
    let mut rng = fastrand::Rng::with_seed(11);
    let records = worked_store(&path, &mut rng);
    let whole = std::fs::read(&path).unwrap();
    let (mut found, mut harmless) = (0, 0);
    for round in 0..250 {
        let mut bytes = whole.clone();
        let at = rng.usize(..bytes.len());
        match round % 10 {
            0 => bytes.truncate(at),
            1 => bytes.truncate(at & !0xfff),
            2 => bytes[at..].fill(0),
            3 => bytes[..at].fill(0),
            4 => bytes[at & !0xfff..]
                .iter_mut()
                .take(4096)
                .for_each(|byte| *byte = 0),
            // The head of the file is small, and its bytes matter most.
            5 | 6 => bytes[rng.usize(..512)] ^= 1 << rng.u8(..8),
            7 => bytes.extend_from_slice(&whole[..at]),
            _ => bytes[at] ^= 1 << rng.u8(..8),
        }
        std::fs::write(&path, &bytes).unwrap();
        let opened = Store::open(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        match opened.damaged {
            Some(aside) => {
                found += 1;
                assert_eq!(std::fs::read(&aside).unwrap(), bytes, "round {round}");
                assert_eq!(opened.records, [], "round {round}");
                std::fs::remove_file(aside).unwrap();
            }
            None => {
                harmless += 1;
                assert_eq!(opened.records, records, "round {round}");
            }
        }
        save(&opened.store, vec![put("after", "1")]).unwrap();
    }
    assert!(found > 120, "{found} found, {harmless} harmless");
}

#[test]
fn an_empty_or_zeroed_file_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft.db");
    for bytes in [vec![], vec![0; 100], vec![0; 1 << 20]] {
        std::fs::write(&path, &bytes).unwrap();
        let aside = Store::open(&path).unwrap().damaged.unwrap();
        assert_eq!(std::fs::read(aside).unwrap(), bytes);
    }
    // Each has a name of its own.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
}

#[test]
fn a_store_that_was_not_closed_is_whole() {
    let folder = in_memory();
    let path = folder.path().join("weft.db");
    let opened = Store::open(&path).unwrap();
    for round in 0..20 {
        save(&opened.store, vec![put("round", &round.to_string())]).unwrap();
        let copy = folder.path().join(format!("copy/{round}"));
        std::fs::create_dir_all(folder.path().join("copy")).unwrap();
        std::fs::copy(&path, &copy).unwrap();
        let found = Store::open(&copy).unwrap();
        assert_eq!(found.damaged, None);
        let expected: Vec<Record> = vec![("round".into(), round.to_string().into())];
        assert_eq!(found.records, expected);
    }
}

#[test]
fn the_files_are_for_their_owner_and_no_link_is_followed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weft/weft.db");
    drop(Store::open(&path).unwrap());
    let mode = |name: &str| {
        let metadata = std::fs::metadata(folder.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("weft"), 0o700);
    assert_eq!(
        (mode("weft/weft.db"), mode("weft/weft.lock")),
        (0o600, 0o600)
    );

    let precious = folder.path().join("precious");
    std::fs::write(&precious, "text").unwrap();
    let lock = folder.path().join("weft/weft.lock");
    std::fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(&precious, &lock).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("weft.lock is a link; remove it"), "{error}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "text");
}
