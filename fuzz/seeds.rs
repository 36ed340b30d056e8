//! What the tests `corpus` of proto and ipam share: every file of `fuzz/corpus/TARGET` goes through
//! the function of that target, and the files `seed-*` among them are exactly those that the
//! recorded vectors give. `WEFT_WRITE_SEEDS=1 cargo test -p proto -p ipam --test corpus` writes
//! them again. All other files were found by fuzzers, or made by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Seeds of one target; more teach a fuzzer little that it would not find from these.
const SEEDS_MAX: usize = 60;
/// Bytes of a seed, the size of the smallest database; a larger one slows down every input that
/// is made of it.
const SEED_BYTES_MAX: usize = 32 * 1024;

/// An entry point for fuzzing.
pub(crate) struct Target {
    /// Name of its file in `fuzz_targets` and of its folder in `corpus`.
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    /// Inputs made from the recorded vectors.
    pub(crate) seeds: Vec<Vec<u8>>,
}

impl Target {
    pub(crate) fn new(name: &'static str, run: fn(&[u8]), seeds: Vec<Vec<u8>>) -> Target {
        Target { name, run, seeds }
    }

    fn folder(&self) -> PathBuf {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus");
        PathBuf::from(root).join(self.name)
    }

    /// The content of the files of its folder whose names are wanted, by name.
    fn files(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            if wanted(&name) {
                files.insert(name, fs::read(entry.path()).expect("a file to read"));
            }
        }
        files
    }

    /// The files that its seeds make: small ones, each once, in the order of the vectors.
    fn seed_files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut kept: Vec<&Vec<u8>> = Vec::new();
        for seed in &self.seeds {
            if seed.len() <= SEED_BYTES_MAX && kept.len() < SEEDS_MAX && !kept.contains(&seed) {
                kept.push(seed);
            }
        }
        let numbered = kept.into_iter().enumerate();
        numbered
            .map(|(number, seed)| (format!("seed-{number:02}"), seed.clone()))
            .collect()
    }
}

/// Runs every target on every input of its folder.
pub(crate) fn replay(targets: &[Target]) {
    for target in targets {
        let inputs = target.files(|_| true);
        assert!(!inputs.is_empty(), "corpus/{} is empty", target.name);
        for (name, input) in inputs {
            // Shown only if the function panics, which does not say by which file.
            eprintln!("corpus/{}/{name}", target.name);
            (target.run)(&input);
        }
    }
}

/// Compares the seeds of every target with those in its folder, or writes them.
pub(crate) fn check_seeds(targets: &[Target]) {
    for target in targets {
        let made = target.seed_files();
        assert!(
            !made.is_empty(),
            "no vector makes a seed for {}",
            target.name
        );
        if std::env::var_os("WEFT_WRITE_SEEDS").is_some() {
            fs::create_dir_all(target.folder()).expect("a folder");
            for name in target.files(is_seed).keys() {
                fs::remove_file(target.folder().join(name)).expect("a file to remove");
            }
            for (name, seed) in &made {
                fs::write(target.folder().join(name), seed).expect("a file to write");
            }
        }
        let kept = target.files(is_seed);
        let differ = made.keys().chain(kept.keys());
        let differ: Vec<&String> = differ
            .filter(|name| made.get(*name) != kept.get(*name))
            .collect();
        assert!(
            differ.is_empty(),
            "corpus/{}: {differ:?} are not what the vectors give; write them with WEFT_WRITE_SEEDS=1",
            target.name
        );
    }
}

fn is_seed(name: &str) -> bool {
    name.starts_with("seed-")
}
