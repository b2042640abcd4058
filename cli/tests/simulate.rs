//! `commonhold simulate`, as it is called: what it prints, what it writes, and what it says of a bad scenario.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const SCENARIO: &str = r#"
name = "small"
source = "assumed"
duration = "120 d"

[network]
nodes = 60
segments = 40
coding = "7/14"

[[population]]
name = "home"
lifetime = { law = "exponential", mean = "200 d" }
online = { law = "empirical", file = "hours.txt" }
offline = { law = "exponential", mean = "4 h" }
"#;
const SWEEP: &str = "\n[sweep]\nthreshold = [0.25, 0.5]\ntop-up = [\"7 d\", \"60 d\"]\n";

fn simulate(folder: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_commonhold");
    Command::new(program).arg("simulate").args(arguments).current_dir(folder).output().expect("it starts")
}

fn folder_with(scenario: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("small.toml"), scenario).expect("a file");
    fs::write(folder.path().join("hours.txt"), "# hours of sessions\n1\n2.5\n8\n30\n").expect("a file");
    folder
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn the_same_seed_prints_the_same_bytes_and_another_does_not() {
    let folder = folder_with(SCENARIO);
    let json = |seed| {
        let done = simulate(folder.path(), &["small.toml", "--json", "--seed", seed]);
        assert!(done.status.success(), "{}", text(&done.stderr));
        done.stdout
    };
    let one = json("1");
    assert_eq!(one, json("1"));
    assert_ne!(one, json("2"));
    let report: Value = serde_json::from_slice(&one).expect("JSON");
    assert_eq!((&report["seed"], &report["settings"]["threshold"]), (&1.into(), &12.into()));
    assert!(report["repair"]["repairs"].as_u64() > Some(0), "{report}");
    // Four hours of every 14 off.
    let online = report["nodes_online"].as_f64().expect("a number");
    assert!((0.6..0.85).contains(&online), "{online}");
}

#[test]
fn it_prints_a_table_and_writes_a_page_with_plots() {
    let folder = folder_with(SCENARIO);
    let done = simulate(folder.path(), &["small.toml", "--html", "page.html"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    for row in ["segments lost", "loss per year", "reads that work", "false repairs", "a steward's work"] {
        assert!(text(&done.stdout).lines().any(|line| line.starts_with(row)), "no row {row:?}");
    }
    let page = fs::read_to_string(folder.path().join("page.html")).expect("a page");
    assert!(page.contains("<svg") && page.ends_with("</html>\n"));
}

#[test]
fn a_sweep_marks_the_settings_that_policy_chooses() {
    let folder = folder_with(&format!("{SCENARIO}{SWEEP}"));
    let done = simulate(folder.path(), &["small.toml", "--sweep", "--html", "page.html"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let table = text(&done.stdout);
    // Headings, the four, and what policy would choose for so many nodes.
    assert_eq!(table.lines().count(), 6, "{table}");
    assert_eq!(table.lines().filter(|line| line.contains("policy's choice")).count(), 1, "{table}");
    assert!(fs::read_to_string(folder.path().join("page.html")).expect("a page").contains("<svg"));
}

#[test]
fn what_is_wrong_is_said_with_the_file_and_the_line() {
    for (scenario, arguments, said) in [
        (SCENARIO.replace("7/14", "14/7"), &["small.toml"][..], "small.toml, line 9"),
        (SCENARIO.replace("hours.txt", "none.txt"), &["small.toml"], "none.txt"),
        (SCENARIO.to_owned(), &["small.toml", "--sweep"], "small.toml, line 1: there is no section [sweep]"),
        (format!("{SCENARIO}\n[sweep]\n"), &["small.toml", "--sweep"], "small.toml, line 17: `[sweep]`"),
        (SCENARIO.to_owned(), &["other.toml"], "other.toml"),
    ] {
        let folder = folder_with(&scenario);
        let done = simulate(folder.path(), arguments);
        assert_eq!((done.status.code(), text(&done.stdout)), (Some(1), ""), "{arguments:?}");
        assert!(text(&done.stderr).contains(said), "{arguments:?}: {}", text(&done.stderr));
    }
}
