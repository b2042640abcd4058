//! Promise: the commands that ask, count and advise say what is so, as lines and as JSON. Who asks them for what there
//! is not is told what to do about it, and the exit code says of what kind the mistake is.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::harness::{Finished, Home, Network, PROGRAM, Setup, Tree, mortal, noise};

const NODES: usize = 4;

#[test]
fn what_is_asked_of_a_vault_is_answered_or_comes_with_advice() {
    let mut network = Network::start(&Setup { nodes: NODES, coding: Some("2/4"), ..Setup::default() });
    let (home, _) = network.new_home("home");
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("noise", &noise(1, 100_000));
    tree.file("below/short", b"ten bytes.");
    tree.file("below/empty", b"");
    home.put(tree.path(), "/x");

    counts_files_and_bytes(&home);
    makes_folders(&home);
    lists_nodes(&network, &home);
    examines(&network, &home);

    // Nobody is there any more.
    for node in 0..NODES {
        network.kill(node);
    }
    refused(&home, &["peers"], 5, &["no node", "--bootstrap ADDR"]);
    let found = home.run(["doctor"]).expect_code(5).expect_said(&["see the advice beside each failed check"]);
    let lines = text(&found);
    let failed = lines.lines().skip_while(|line| !line.starts_with("fail  network")).nth(1);
    assert!(failed.is_some_and(|advice| advice.contains("--bootstrap ADDR")), "{lines}");
}

fn counts_files_and_bytes(home: &Home) {
    let used = |path: &str| {
        let used = home.json(["du", path]);
        ["files", "folders", "bytes"].map(|figure| used[figure].as_u64().unwrap())
    };
    assert_eq!(used("/x"), [3, 2, 100_010]);
    assert_eq!(used("/x/below"), [2, 1, 10]);
    assert_eq!(used("/x/noise"), [1, 0, 100_000]);
    assert_eq!(text(&home.run(["du", "/x/below"]).expect_code(0)), "10 B in 2 files and 1 folder\n");
    // Without a path, all of it.
    let all = text(&home.run(["du"]).expect_code(0));
    assert!(all.ends_with("in 3 files and 3 folders\n"), "{all}");

    refused(home, &["du", "/x/nothing"], 1, &["/x/nothing", "`commonhold ls /x` shows what is there"]);
    refused(home, &["du", "/x/../y"], 2, &["write a path of the vault as /folder/name"]);
}

fn makes_folders(home: &Home) {
    // With those above it, and without a word.
    assert_eq!(text(&home.run(["mkdir", "/new/inner"]).expect_code(0)), "");
    let made = home.json(["mkdir", "/new/other"]);
    assert!(made["head_kept"].as_u64().unwrap() > 0, "{made}");
    assert_eq!(home.names("/new"), ["inner", "other"]);
    assert_eq!(home.names("/new/inner"), Vec::<String>::new());

    refused(home, &["mkdir", "/new/inner"], 1, &["exists already", "choose another path"]);
    refused(home, &["mkdir", "/x/noise/inner"], 1, &["/x/noise", "a path whose parents are folders"]);
    assert_eq!(home.names("/x"), ["below", "noise"]);
}

fn lists_nodes(network: &Network, home: &Home) {
    let ids: BTreeSet<String> = network.nodes().into_iter().map(|node| network.node_id(node)).collect();
    let listed = home.json(["peers"]);
    let peers = listed.as_array().unwrap();
    assert_eq!(peers.iter().map(|peer| peer["node"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), ids);
    for peer in peers {
        assert!(peer["free_bytes"].as_u64().unwrap() > 0, "{peer}");
        assert!(peer["addresses"][0].as_str().unwrap().contains("127.0.0.1"), "{peer}");
    }
    let lines = text(&home.run(["peers"]).expect_code(0));
    assert!(lines.starts_with("NODE"), "{lines}");
    assert_eq!(lines.lines().count(), 1 + NODES, "{lines}");
    for line in lines.lines().skip(1) {
        let shown = line.split(' ').next().unwrap();
        assert!(ids.iter().any(|id| id.starts_with(shown)), "{shown:?} is no node of {ids:?}");
    }

    refused(home, &["peers", "--bootstrap", "10.0.0.1:4400"], 2, &["10.0.0.1:4400", "/tcp/4400/p2p/"]);
}

fn examines(network: &Network, home: &Home) {
    let checks = home.json(["doctor"]);
    let checks = checks.as_array().unwrap();
    for check in checks {
        assert_eq!(check["verdict"], "ok", "{check}");
    }
    let examined: Vec<&str> = checks.iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(examined, ["clock", "home", "cache", "config", "vault", "network", "time", "space", "head", "lease"]);
    let lines = text(&home.run(["doctor"]).expect_code(0));
    assert!(lines.lines().all(|line| line.starts_with("ok ")), "{lines}");
    assert!(lines.contains("4 of 4 known nodes answer"), "{lines}");

    // With another passphrase it says what it can, and what to do about the rest.
    let with_other = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        Finished::of(command.env("COMMONHOLD_PASSPHRASE", "another")).expect_code(1)
    };
    let lines = text(&with_other(&["doctor"]).expect_said(&["1 of the checks failed", "see the advice"]));
    let failed: Vec<&str> = lines.lines().skip_while(|line| !line.starts_with("fail  vault")).collect();
    assert!(matches!(failed[..], [_, advice] if advice.contains("check COMMONHOLD_PASSPHRASE")), "{lines}");
    let found = with_other(&["doctor", "--json"]);
    let checks = found.json();
    let failed = checks.as_array().unwrap().last().unwrap();
    assert_eq!((&failed["check"], &failed["verdict"]), (&"vault".into(), &"fail".into()), "{checks}");
    assert!(failed["advice"].as_str().unwrap().contains("commonhold init --recover"), "{failed}");
    assert_eq!(serde_json::from_str::<Value>(&found.stderr).unwrap()["code"], 1);

    // Where there is no vault, that is what it says.
    let nowhere = Home::at(network.scratch().join("nowhere"), Vec::new());
    let lines = text(&nowhere.run(["doctor"]).expect_code(1));
    assert!(lines.contains("fail") && lines.contains("commonhold init"), "{lines}");
}

/// A command that must fail, with this exit code, and say each of these; as lines and as JSON.
#[track_caller]
fn refused(home: &Home, arguments: &[&str], code: i32, said: &[&str]) {
    let told = home.run(arguments).expect_code(code).expect_said(said);
    assert!(told.stderr.starts_with("error: ") && told.stderr.contains("\nhelp: "), "{}", told.stderr);
    let told = home.run(arguments.iter().chain(&["--json"])).expect_code(code);
    assert_eq!(text(&told), "");
    let told: Value = serde_json::from_str(&told.stderr).unwrap();
    assert_eq!(told["code"], code);
    let whole = format!("{}\n{}", told["error"].as_str().unwrap(), told["help"].as_str().unwrap());
    assert!(said.iter().all(|part| whole.contains(part)), "{whole}");
}

#[track_caller]
fn text(finished: &Finished) -> String {
    String::from_utf8(finished.stdout.clone()).unwrap()
}

/// Both come from the definition of the command line alone: no home, no passphrase, no network.
#[test]
fn completions_and_manual_pages_are_printed_anywhere() {
    let nowhere = tempfile::tempdir().unwrap();
    let home = Home::at(nowhere.path().join("home"), Vec::new());
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&home.run(["completions", shell]).expect_code(0));
        for part in ["commonhold", "mkdir", "--overwrite"] {
            assert!(script.contains(part.trim_start_matches('-')), "{shell}: no {part}");
        }
    }
    // What a person gets who types a part of a word and the tab key.
    let script = text(&home.run(["completions", "bash"]).expect_code(0));
    assert_eq!(completed(&script, &["pe"]), ["peers"]);
    assert_eq!(completed(&script, &["node", "dr"]), ["drain"]);
    assert_eq!(completed(&script, &["get", "--over"]), ["--overwrite"]);
    refused_by_clap(&home, &["completions", "tcsh"], &["tcsh", "possible values: bash"]);

    let page = text(&home.run(["man"]).expect_code(0));
    for part in [".TH COMMONHOLD", ".SH SYNOPSIS", "COMMONHOLD_PASSPHRASE", ".SH \"EXIT STATUS\"", "mkdir"] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(text(&home.run(["man", "node", "drain"]).expect_code(0)).contains("COMMONHOLD-NODE-DRAIN"));
    refused(&home, &["man", "nothing"], 2, &["\"nothing\" is not a command", "`commonhold --help` lists the commands"]);
    assert!(fs::read_dir(nowhere.path()).unwrap().next().is_none(), "a home was made for nothing");
}

/// What bash offers for the last of these words.
fn completed(script: &str, words: &[&str]) -> Vec<String> {
    let ask = "COMP_WORDS=(commonhold \"$@\"); COMP_CWORD=$#; \
               _commonhold commonhold \"${!#}\" \"${COMP_WORDS[$# - 1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &format!("{script}\n{ask}"), "bash"]).args(words).stdin(Stdio::null());
    text(&Finished::of(&mut bash).expect_code(0)).lines().map(str::to_owned).collect()
}

/// A command line that is refused before anything is done.
#[track_caller]
fn refused_by_clap(home: &Home, arguments: &[&str], said: &[&str]) {
    home.run(arguments).expect_code(2).expect_said(said);
    let told = home.run(arguments.iter().chain(&["--json"])).expect_code(2);
    let told: Value = serde_json::from_str(&told.stderr).unwrap();
    assert_eq!(told["code"], 2);
    let whole = format!("{}\n{}", told["error"].as_str().unwrap(), told["help"].as_str().unwrap());
    assert!(said.iter().all(|part| whole.contains(part)), "{whole}");
}

#[test]
fn the_tour_ends_as_it_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(scratch.path().join("source"), 1);
    tree.small_files(30);
    let its_own = scratch.path().join("its own");
    fs::create_dir(&its_own).unwrap();
    let demo = |folder: &Path, options: &[&str]| {
        let mut command = mortal(PROGRAM);
        command.arg("demo").arg(folder).args(options).env("TMPDIR", &its_own).stdin(Stdio::null());
        Finished::of(&mut command)
    };

    let toured = demo(tree.path(), &["--json"]).expect_code(0);
    let tour = toured.json();
    let stored: u64 = tree_bytes(tree.path());
    assert_eq!((&tour["nodes"], &tour["stored_bytes"]), (&12.into(), &stored.into()), "{tour}");
    assert_eq!(tour["compared_bytes"], stored, "{tour}");
    // Every node of the first twelve is gone: some killed at once, all others replaced.
    let names = |list: &Value| list.as_array().unwrap().len();
    let replaced = tour["replaced"].as_array().unwrap().iter().map(|loss| names(&loss["nodes"])).sum::<usize>();
    assert!(names(&tour["killed"]) > 0, "{tour}");
    assert_eq!(names(&tour["killed"]) + replaced, 12, "{tour}");
    eprintln!("the tour took {:?}", toured.took);

    demo(&scratch.path().join("nothing"), &[]).expect_code(1).expect_said(&["cannot find", "help: check the path"]);
    assert!(fs::read_dir(&its_own).unwrap().next().is_none(), "something is left behind");
}

/// The bytes of all files below a folder.
fn tree_bytes(folder: &Path) -> u64 {
    let of = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        found if found.is_dir() => tree_bytes(&entry.path()),
        found => found.len(),
    };
    fs::read_dir(folder).unwrap().map(|entry| of(entry.unwrap())).sum()
}
