use serde_json::json;

use std::time::{Duration, Instant};

use super::budget::Budget;
use super::{render, render_within};

const LONG: Duration = Duration::from_secs(600);

fn data() -> serde_json::Value {
    json!({
        "Version": "2.8.1",
        "Router": {
            "Name": "00:00:00:00:00:01",
            "Port": 6783,
            "Encryption": true,
            "Peers": [
                {"Name": "a", "NickName": "h1", "UID": 18446744073709551615u64},
                {"Name": "b", "NickName": "", "UID": 7},
            ],
            "Targets": null,
            "Connections": [{"Attrs": {"mtu": 1414}}, {"Attrs": null}],
        },
        "DNS": {"Domain": "weave.local.", "Entries": []},
    })
}

#[track_caller]
fn check(template: &str, expected: &str) {
    assert_eq!(
        render(template, &data()).as_deref(),
        Ok(expected),
        "{template}"
    );
}

#[track_caller]
fn refuse(template: &str, expected: &str) {
    assert_eq!(
        render(template, &data()).unwrap_err().to_string(),
        expected,
        "{template}"
    );
}

#[test]
fn fields_and_text() {
    check("{{.Version}}", "2.8.1");
    check("v{{ .Version }}!", "v2.8.1!");
    check("{{.Router.Port}} {{.Router.Encryption}}", "6783 true");
    check("a {{- .Version -}} b", "a2.8.1b");
    check("{{/* nothing */}}x", "x");
    check("{{`}}`}}{{\"a\\n\"}}", "}}a\n");
}

#[test]
fn branches_and_loops() {
    check(
        "{{range .Router.Peers}}{{.Name}}({{.NickName}}) {{end}}",
        "a(h1) b() ",
    );
    check(
        "{{range $i, $p := .Router.Peers}}{{$i}}={{$p.UID}};{{end}}",
        "0=18446744073709551615;1=7;",
    );
    check("{{range .DNS.Entries}}x{{else}}none{{end}}", "none");
    check("{{range .Router.Targets}}x{{end}}", "");
    check("{{if .Router.Encryption}}yes{{else}}no{{end}}", "yes");
    check(
        "{{if eq .Version \"1\"}}a{{else if eq .Version \"2.8.1\"}}b{{else}}c{{end}}",
        "b",
    );
    check(
        "{{with .DNS}}{{.Domain}} {{$.Version}}{{end}}",
        "weave.local. 2.8.1",
    );
    check("{{with $d := .DNS}}{{$d.Domain}}{{end}}", "weave.local.");
    check("{{$x := .Version}}{{$x}}", "2.8.1");
    check(
        "{{range .Router.Connections}}{{.Attrs.mtu}} {{end}}",
        "1414 <no value> ",
    );
}

#[test]
fn functions() {
    check("{{json .Router.Targets}}", "null");
    check("{{json .DNS}}", r#"{"Domain":"weave.local.","Entries":[]}"#);
    check(
        "{{.DNS | json}}",
        r#"{"Domain":"weave.local.","Entries":[]}"#,
    );
    check(
        "{{printf \"%-5s|%05d|%q|%v\" \"ab\" .Router.Port .Version true}}",
        "ab   |06783|\"2.8.1\"|true",
    );
    check("{{len .Router.Peers}}", "2");
    check(
        "{{index .Router.Peers 1 | json}}",
        r#"{"Name":"b","NickName":"","UID":7}"#,
    );
    check("{{(index .Router.Peers 0).Name}}", "a");
    check("{{if and .Version (not .Router.Targets)}}ok{{end}}", "ok");
    check("{{if gt .Router.Port 6000}}high{{end}}", "high");
}

#[test]
fn mistakes_are_explained() {
    refuse("{{", "template: format:1: unclosed action");
    refuse(
        "\n{{.Nope}}",
        "template: format:2: can't evaluate field Nope",
    );
    refuse(
        "{{if .Version}}",
        "template: format:1: unexpected EOF: {{end}} missing",
    );
    refuse("{{end}}", "template: format:1: unexpected {{end}}");
    refuse(
        "{{nope}}",
        "template: format:1: function \"nope\" not defined",
    );
    refuse("{{$y}}", "template: format:1: undefined variable \"$y\"");
    refuse("{{}}", "template: format:1: missing value for command");
    refuse(
        "{{range .Version}}{{end}}",
        "template: format:1: range can't iterate over \"2.8.1\"",
    );
}

#[test]
fn hostile_templates_end() {
    for template in [
        "{{((((((",
        "{{\"",
        "{{`",
        "{{.}",
        "{{.a.b.c | | }}",
        "{{%}}",
        "{{1.2.3}}",
    ] {
        assert!(render(template, &data()).is_err(), "{template}");
    }
    let deep = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(render(&deep, &data()).is_err());
    let nested = "{{if 1}}".repeat(5000);
    assert!(render(&nested, &data()).is_err());
    assert_eq!(
        render("{{printf \"%99999999d\" 1}}", &data())
            .unwrap()
            .len(),
        1024
    );
}

#[test]
fn a_template_has_its_share_of_work_and_memory() {
    let bounded = |template: &str| {
        let work = render_within(template, &data(), &Budget::of(1 << 20, LONG));
        let error = work.unwrap_err().to_string();
        assert!(
            error.ends_with("the template takes too much work") || error.ends_with("too long"),
            "{error}"
        );
    };
    // 2 to the power of 50 turns.
    let nested = "{{range $.Router.Peers}}".repeat(50) + &"{{end}}".repeat(50);
    bounded(&nested);
    bounded(&format!(
        "{}x{}",
        "{{range $.Router.Peers}}".repeat(30),
        "{{end}}".repeat(30)
    ));
    // A text that doubles with each line.
    let doubling = "{{$x := printf \"%s%s\" $x $x}}".repeat(60);
    bounded(&format!("{{{{$x := \"0123456789\"}}}}{doubling}"));
    // The whole report, ever again in one call.
    bounded(&format!("{{{{len (print {})}}}}", "$ ".repeat(60_000)));
    bounded(&format!("{{{{len (print {})}}}}", ". ".repeat(60_000)));
    // Quotes that are quoted ever again.
    bounded(&format!("{{{{. | {} len}}}}", "json | ".repeat(60)));
    // What people write takes next to nothing.
    let fair = "{{range .Router.Peers}}{{.Name}} {{.NickName}} {{json .}}{{end}}";
    assert!(render_within(fair, &data(), &Budget::of(1000, LONG)).is_ok());
}

#[test]
fn a_template_has_its_share_of_time() {
    let nested = "{{range $.Router.Peers}}".repeat(50) + &"{{end}}".repeat(50);
    let budget = Budget::of(u64::MAX, Duration::from_millis(50));
    let begin = Instant::now();
    assert!(render_within(&nested, &data(), &budget).is_err());
    assert!(begin.elapsed() < Duration::from_secs(10));
}
