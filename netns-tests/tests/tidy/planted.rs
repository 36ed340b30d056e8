//! Every rule finds what is planted for it, and nothing in its lawful twin.

use std::collections::BTreeMap;

use crate::code::Code;
use crate::exceptions::Exceptions;
use crate::rules::{Violation, crates, files, forbidden, names, sizes, texts};
use crate::tree::{Package, Tree};

fn tree(files: &[(&str, &str)]) -> Tree {
    let files = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    Tree {
        files: files.collect::<BTreeMap<String, String>>(),
        ..Tree::default()
    }
}

fn code(files: &[(&str, &str)]) -> Code {
    Code::read(&tree(files), files[0].0)
}

/// Returns the lines where something was found, by path.
fn places(found: &[Violation]) -> Vec<(&str, usize)> {
    found
        .iter()
        .map(|found| (found.path.as_str(), found.line))
        .collect()
}

#[test]
fn crates_use_only_what_their_line_allows() {
    let package = |name: &str, uses: &[&str], tests_use: &[&str]| Package {
        name: name.to_owned(),
        folder: name.to_owned(),
        uses: uses.iter().map(|name| (*name).to_owned()).collect(),
        tests_use: tests_use.iter().map(|name| (*name).to_owned()).collect(),
        ..Package::default()
    };
    let check = |packages: Vec<Package>| {
        let tree = Tree {
            packages,
            ..Tree::default()
        };
        let found = crates::edges(&tree);
        found
            .into_iter()
            .map(|found| found.what)
            .collect::<Vec<String>>()
    };
    let lawful = vec![
        package("ipam", &["proto"], &["testbed", "lab"]),
        package("benches", &["router"], &["netns-tests"]),
    ];
    assert_eq!(check(lawful), Vec::<String>::new());
    let upward = check(vec![package("proto", &["ipam"], &["router"])]);
    assert_eq!(
        upward,
        [
            "proto must not use ipam",
            "tests of proto must not use router"
        ]
    );
    let sideways = check(vec![package("control", &["dataplane"], &[])]);
    assert_eq!(sideways, ["control must not use dataplane"]);
    let foreign = |name: &str| Package {
        foreign: vec!["tokio".to_owned()],
        ..package(name, &[], &[])
    };
    let doing = check(vec![foreign("ipam"), foreign("control")]);
    assert_eq!(doing, ["ipam only decides and must not use tokio"]);
    let unknown = check(vec![package("new", &[], &[])]);
    assert_eq!(unknown, ["crate new has no line in the table"]);
    let testing = check(vec![package("api", &["testbed"], &[])]);
    assert_eq!(testing, ["api must not use testbed"]);
}

#[test]
fn a_circle_of_files_is_found() {
    let circle = code(&[
        ("x/src/lib.rs", "mod a;\nmod b;\nmod c;"),
        ("x/src/a.rs", "use crate::b::B;\npub struct A;"),
        ("x/src/b.rs", "pub struct B;\nfn f() { crate::c::C; }"),
        ("x/src/c.rs", "pub struct C;\n\nfn f(_: super::a::A) {}"),
    ]);
    let found = files::circles(&circle);
    assert_eq!(
        places(&found),
        [("x/src/a.rs", 1), ("x/src/b.rs", 2), ("x/src/c.rs", 3)]
    );
    let chain = code(&[
        ("x/src/lib.rs", "mod a;\nmod b;\npub use a::A;"),
        ("x/src/a.rs", "use crate::b::B;\npub struct A;"),
        (
            "x/src/b.rs",
            "pub struct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }",
        ),
    ]);
    assert_eq!(files::circles(&chain), []);
}

/// A circle is one of the files that define what is named, not of those that export it again; in
/// macros and by other names as well.
#[test]
fn circles_are_followed_through_what_is_exported() {
    let circle = code(&[
        ("x/src/lib.rs", "mod a;\nmod b;"),
        (
            "x/src/a.rs",
            "pub mod deep;\npub use deep::A;\npub use self::deep::*;",
        ),
        (
            "x/src/a/deep.rs",
            "use crate::b as other;\npub struct A;\nfn f() { assert!(other::B::new().x); }",
        ),
        ("x/src/b.rs", "use crate::a::{self, A};\npub struct B;"),
    ]);
    let found = files::circles(&circle);
    assert_eq!(places(&found), [("x/src/a/deep.rs", 3), ("x/src/b.rs", 1)]);
}

#[test]
fn a_child_that_imports_its_face_is_found() {
    let bad = code(&[
        ("x/src/lib.rs", "mod a;"),
        (
            "x/src/a.rs",
            "mod b;\npub struct A;\npub(crate) const N: u8 = 1;",
        ),
        (
            "x/src/a/b.rs",
            "use super::A;\nfn f(_: A) -> u8 { super::N }",
        ),
    ]);
    assert_eq!(
        places(&files::faces(&bad)),
        [("x/src/a/b.rs", 1), ("x/src/a/b.rs", 2)]
    );
    let all = code(&[
        ("x/src/lib.rs", "mod a;"),
        ("x/src/a/mod.rs", "mod b;\npub struct A;"),
        ("x/src/a/b.rs", "use super::*;"),
    ]);
    assert_eq!(places(&files::faces(&all)), [("x/src/a/b.rs", 1)]);
    assert_eq!(places(&files::module_style(&all)), [("x/src/a/mod.rs", 0)]);
    let good = code(&[
        ("x/src/lib.rs", "mod a;"),
        ("x/src/a.rs", "mod b;\nmod c;\nuse b::B;\npub struct A(B);"),
        (
            "x/src/a/b.rs",
            "use super::c::C;\npub(super) struct B(pub(super) C);",
        ),
        (
            "x/src/a/c.rs",
            "pub(crate) struct C;\n#[cfg(test)]\nmod tests { use crate::a::A; }",
        ),
    ]);
    assert_eq!(files::faces(&good), []);
}

#[test]
fn a_library_file_only_says_what_there_is() {
    let bad = code(&[(
        "x/src/lib.rs",
        "//! Doc.\n\npub mod a;\n\npub struct A;\nmod b {}",
    )]);
    assert_eq!(
        places(&files::faces(&bad)),
        [("x/src/lib.rs", 5), ("x/src/lib.rs", 6)]
    );
    let good = code(&[(
        "x/src/lib.rs",
        "//! Doc.\npub mod a;\npub use a::A;\n#[cfg(test)]\nmod b {}",
    )]);
    assert_eq!(files::faces(&good), []);
}

#[test]
fn machines_that_know_each_other_are_found() {
    let bad = code(&[
        ("ipam/src/lib.rs", "pub mod allocator;"),
        (
            "ipam/src/allocator.rs",
            "mod cx;\nmod operations;\nmod outbox;\nmod questions;\nmod reclaim;\nuse outbox::Outbox;",
        ),
        ("ipam/src/allocator/cx.rs", ""),
        ("ipam/src/allocator/outbox.rs", "pub struct Outbox;"),
        (
            "ipam/src/allocator/operations.rs",
            "use super::questions::Question;\nuse super::reclaim::Reclaim;",
        ),
        ("ipam/src/allocator/questions.rs", "pub struct Question;"),
        (
            "ipam/src/allocator/reclaim.rs",
            "pub struct Reclaim;\nuse super::outbox::Outbox;",
        ),
    ]);
    let found = files::allocator(&bad);
    assert_eq!(
        places(&found),
        [
            ("ipam/src/allocator/operations.rs", 2),
            ("ipam/src/allocator/reclaim.rs", 2)
        ]
    );
}

#[test]
fn a_file_that_nothing_names_is_found() {
    let mut tree = tree(&[
        (
            "x/src/lib.rs",
            "mod a;\n#[cfg(test)]\n#[path = \"other.rs\"]\nmod tests;",
        ),
        ("x/src/a.rs", ""),
        ("x/src/other.rs", ""),
        ("x/src/lost.rs", ""),
        ("x/tests/whole.rs", ""),
    ]);
    tree.packages.push(Package {
        name: "x".to_owned(),
        folder: "x".to_owned(),
        roots: vec!["x/src/lib.rs".to_owned()],
        ..Package::default()
    });
    assert_eq!(places(&files::orphans(&tree)), [("x/src/lost.rs", 0)]);
}

#[test]
fn what_is_forbidden_is_found_however_it_is_named() {
    for (text, line) in [
        ("use std::fs;", 1),
        ("use std::{fmt, net::{IpAddr, TcpStream}};", 1),
        ("use std as s;\nfn f() { s::thread::sleep(x); }", 2),
        (
            "use std::time;\nfn f() { let _ = time::Instant::now(); }",
            2,
        ),
        ("fn f() {\n    assert!(std::env::args().len() > 1);\n}", 2),
        ("type T = std::collections::HashMap<u8, u8>;", 1),
        ("#[cfg(not(test))]\nuse std::fs;", 2),
    ] {
        let found = forbidden::paths(&code(&[("proto/src/lib.rs", text)]));
        assert_eq!(
            places(&found).first(),
            Some(&("proto/src/lib.rs", line)),
            "{text}"
        );
    }
    for text in [
        "use std::net::IpAddr;\nuse std::collections::BTreeMap;\nuse std::time::Duration;",
        "/// Like `std::fs::read`.\nconst A: &str = \"std::fs\";",
        "#[cfg(test)]\nmod tests { use std::fs; }\nstruct A { #[cfg(test)] b: std::fs::File }",
        "fn f() { #[cfg(test)] std::fs::read(x); }"
            .replace(" std", " let _ = std")
            .as_str(),
    ] {
        let found = forbidden::paths(&code(&[("proto/src/lib.rs", text)]));
        assert_eq!(found, [], "{text}");
    }
}

/// What stands behind a module of tests is looked at as well.
#[test]
fn tests_hide_nothing_that_follows() {
    let text = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nuse std::fs;";
    let found = forbidden::paths(&code(&[("ipam/src/lib.rs", text)]));
    assert_eq!(places(&found), [("ipam/src/lib.rs", 5)]);
}

/// What stands in a module for tests is none of the product.
#[test]
fn modules_for_tests_may_do_more() {
    let code = code(&[
        ("ipam/src/lib.rs", "pub mod testing;"),
        ("ipam/src/testing.rs", "use std::fs;\nstruct Wish;"),
    ]);
    assert_eq!(forbidden::paths(&code), []);
    assert_eq!(names::never(&code), []);
}

#[test]
fn each_part_has_what_is_forbidden_in_it() {
    for (path, text) in [
        (
            "router/control/src/lib.rs",
            "fn f(g: Box<dyn FnOnce(&mut Control)>) {}",
        ),
        ("router/control/src/lib.rs", "fn f() { tokio::spawn(x); }"),
        ("router/dataplane/src/tx.rs", "fn f() { format!(\"\"); }"),
        ("router/dataplane/src/rx.rs", "fn f(g: &dyn Fn()) {}"),
        (
            "router/dataplane/src/output.rs",
            "fn f() { tracing::debug!(\"\"); }",
        ),
        ("router/host/src/lib.rs", "fn f() { libc::close(1); }"),
        ("router/control/src/lib.rs", "use http::StatusCode;"),
        ("router/docker/src/lib.rs", "use kernel::netlink::Netlink;"),
        ("router/api/src/lib.rs", "use control::testing::Store;"),
    ] {
        let found = forbidden::paths(&code(&[(path, text)]));
        assert_eq!(places(&found), [(path, 1)], "{text}");
    }
    for (path, text) in [
        (
            "router/dataplane/src/threads.rs",
            "fn f() { tracing::debug!(\"\"); }",
        ),
        ("router/kernel/src/lib.rs", "fn f() { libc::close(1); }"),
        ("router/api/src/lib.rs", "use axum::http::StatusCode;"),
        ("router/host/src/lib.rs", "use kernel::netlink::Netlink;"),
    ] {
        assert_eq!(forbidden::paths(&code(&[(path, text)])), [], "{text}");
    }
}

#[test]
fn unsafe_code_is_found_outside_of_its_room() {
    let texts =
        [["uns", "afe fn f() {}"], ["#![allow(uns", "afe_code)]"]].map(|parts| parts.concat());
    for text in &texts {
        let found = forbidden::unsafe_places(&tree(&[("router/host/src/lib.rs", text)]));
        assert_eq!(places(&found), [("router/host/src/lib.rs", 1)]);
        let in_tests = forbidden::unsafe_places(&tree(&[("proto/tests/x.rs", text)]));
        assert_eq!(places(&in_tests), [("proto/tests/x.rs", 1)]);
        let lawful = forbidden::unsafe_places(&tree(&[("router/kernel/src/lib.rs", text)]));
        assert_eq!(lawful, []);
    }
    let lawful = "// unsafe\nconst A: &str = \"unsafe\";\n#![forbid(unsafe_code)]";
    assert_eq!(
        forbidden::unsafe_places(&tree(&[("proto/src/lib.rs", lawful)])),
        []
    );
}

#[test]
fn names_to_avoid_are_found() {
    let bad = code(&[
        (
            "x/src/lib.rs",
            "mod near;\nstruct Wish;\nstruct PathManager;",
        ),
        ("x/src/near.rs", ""),
    ]);
    let found = names::never(&bad);
    assert_eq!(
        places(&found),
        [
            ("x/src/lib.rs", 2),
            ("x/src/lib.rs", 3),
            ("x/src/near.rs", 0)
        ]
    );
    let good = code(&[("x/src/lib.rs", "struct Linear;\nstruct NoCommonOverlay;")]);
    assert_eq!(names::never(&good), []);
}

#[test]
fn names_that_come_twice_are_found() {
    let twice = code(&[
        ("x/src/lib.rs", "mod a;\nmod b;"),
        ("x/src/a.rs", "pub struct State;\nstruct Other;"),
        (
            "x/src/b.rs",
            "enum State {}\nstruct Other;\n#[cfg(test)]\nmod tests { struct Link; }\nstruct Link;",
        ),
    ]);
    let found = names::unique("x", &twice);
    assert_eq!(places(&found), [("x/src/a.rs", 1), ("x/src/b.rs", 1)]);
}

#[test]
fn what_is_large_says_why() {
    let long = |head: &str| format!("{head}fn f() {{\n{}}}\n", "    g();\n".repeat(70));
    let check = |text: &str| {
        let found = sizes::sizes(&code(&[("x/src/a.rs", text)]));
        found.first().map(|found| found.line)
    };
    assert_eq!(check(&long("")), Some(1));
    assert_eq!(
        check(&long("/// Larger than the habit: one table.\n")),
        None
    );
    assert_eq!(check(&long("#[cfg(test)]\n")), None);
    let lines = "const A: u8 = 1;\n".repeat(501);
    assert_eq!(check(&lines), Some(0));
    assert_eq!(
        check(&format!("//! Larger than the habit: one table.\n{lines}")),
        None
    );
    let tests = format!("const A: u8 = 1;\n#[cfg(test)]\nmod tests {{\n{lines}}}\n");
    assert_eq!(check(&tests), None);
}

/// What only holds data may have as many fields as there is data.
#[test]
fn types_that_do_too_much_say_why() {
    let check = |head: &str, fields: usize, lines: usize| {
        let fields = "a: u8,".repeat(fields);
        let block = format!("impl A {{\n{}}}", "const A: u8 = 1;\n".repeat(lines));
        let found = sizes::sizes(&code(&[
            ("x/src/lib.rs", "mod a;\nmod b;"),
            (
                "x/src/a.rs",
                &format!("{head}struct A {{ {fields} }}\n{block}"),
            ),
            ("x/src/b.rs", &format!("use crate::a::A;\n{block}")),
        ]));
        found
            .into_iter()
            .map(|found| (found.path, found.line))
            .collect::<Vec<_>>()
    };
    let here = [("x/src/a.rs".to_owned(), 1)];
    assert_eq!(check("", 12, 200), []);
    assert_eq!(check("", 13, 20), []);
    assert_eq!(check("", 13, 200), here);
    assert_eq!(check("", 1, 400), here);
    let head = "/// Larger than the habit: one table.\n";
    assert_eq!(check(head, 13, 200), []);
    assert_eq!(check(head, 1, 400), []);
}

#[test]
fn phrases_and_marks_are_found() {
    let phrase = [
        "/// Like the orig",
        "inal\n//! and was not to be\n/// ha",
        "d.\n",
    ]
    .concat();
    let found = texts::never(&tree(&[("x/src/a.rs", &phrase)]));
    assert_eq!(places(&found), [("x/src/a.rs", 1), ("x/src/a.rs", 2)]);
    let mark = ["\n// TO", "DO: more"].concat();
    let found = texts::unfinished(&tree(&[("x/src/a.rs", &mark)]));
    assert_eq!(places(&found), [("x/src/a.rs", 2)]);
    let found = texts::links(&tree(&[("README.md", "\n[a](LICENSE) [b](nowhere.md)")]));
    assert_eq!(places(&found), [("README.md", 2)]);
}

#[test]
fn exceptions_are_used_or_found() {
    let violation = Violation::new("circle", "x/src/a.rs", 7, "names b");
    let exceptions = Exceptions::parse("# Head\ncircle x/src/a.rs is cut soon\n");
    assert_eq!(
        exceptions.compare(std::slice::from_ref(&violation)),
        Vec::<String>::new()
    );
    assert_eq!(
        exceptions.compare(&[]),
        ["x/src/a.rs: the exception from circle is not needed, take it out"]
    );
    let other = Violation::new("face", "x/src/a.rs", 7, "imports");
    let found = exceptions.compare(&[violation, other]);
    assert_eq!(found, ["x/src/a.rs:7: face: imports"]);
}
