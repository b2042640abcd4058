//! Promise: two homes of one vault that write at the same moment, fifty times, lose nothing of either: both files are
//! there, and where both wrote to one path, both versions are.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use super::harness::{Finished, Home, Network, Running, Setup, contents};

const ROUNDS: usize = 50;

#[test]
fn writing_at_once_loses_nothing() {
    let network = Network::start(&Setup { nodes: 5, coding: Some("2/4"), ..Setup::default() });
    let (ada, phrase) = network.new_home("ada");
    let local = network.scratch().join("local");
    fs::create_dir(&local).unwrap();
    // Heads of a vault that has none yet cannot be recovered: the first write makes the vault known.
    write(&local, "start", "start");
    ada.put(&local.join("start"), "/start");
    let bob = network.cold_home("bob", &phrase, &[0, 1, 2]);

    let mut kept = BTreeMap::from([("start".to_owned(), "start".to_owned())]);
    let mut clashes = Vec::new();
    for round in 0..ROUNDS {
        // What each of them writes: mostly files of their own, sometimes the same one, sometimes over what they had.
        let [paths, overwrite] = match round % 5 {
            1 => [["clash", "clash"].map(|name| format!("{name}-{round:02}")), Default::default()],
            3 => [["ada's diary", "bob's diary"].map(str::to_owned), ["--overwrite".to_owned(), String::new()]],
            _ => [["ada", "bob"].map(|name| format!("{name}-{round:02}")), Default::default()],
        };
        let contents = ["ada", "bob"].map(|name| format!("{name} in round {round}"));
        let started: Vec<_> = [&ada, &bob]
            .into_iter()
            .zip(&paths)
            .zip(&contents)
            .map(|((home, path), content)| {
                let file = write(&local, &format!("{}-{round}", &content[..3]), content);
                let (file, path) = (file.to_str().unwrap().to_owned(), format!("/{path}"));
                let arguments = ["put", &file, &path].into_iter().chain(overwrite.iter().map(String::as_str));
                home.spawn(arguments.filter(|argument| !argument.is_empty()))
            })
            .collect();
        let ended: Vec<Finished> = started.into_iter().map(Running::finish).collect();
        if paths[0] == paths[1] && ended.iter().all(|put| put.code == Some(0)) {
            clashes.push((paths[0].clone(), contents));
            continue;
        }
        for ((put, path), content) in ended.into_iter().zip(paths.clone()).zip(contents) {
            if paths[0] == paths[1] && put.code == Some(1) {
                // One was done before the other had looked, who therefore did not write.
                put.expect_said(&["exists already"]);
            } else {
                put.expect_code(0);
                kept.insert(path, content);
            }
        }
        if round % 10 == 9 {
            check(&ada, &bob, network.scratch(), round, &kept, &clashes);
        }
    }
    assert!(!clashes.is_empty(), "they never wrote at once");
    eprintln!("{} clashes", clashes.len());
    let cold = network.cold_home("cold", &phrase, &[3]);
    check(&cold, &bob, network.scratch(), ROUNDS, &kept, &clashes);
}

/// Whoever copies a home to another machine has two writers, and not one that is in two places.
#[test]
fn a_copy_of_a_home_is_another_writer() {
    let network = Network::start(&Setup { nodes: 5, coding: Some("2/5"), ..Setup::default() });
    let (home, phrase) = network.new_home("home");
    let local = network.scratch().join("local");
    fs::create_dir(&local).unwrap();
    let put = |home: &Home, name: &str| {
        let file = write(&local, name, name);
        home.spawn(["put", file.to_str().unwrap(), &format!("/{name}")])
    };
    put(&home, "before").finish().expect_code(0);
    let copy = Home::at(network.scratch().join("copy"), Vec::new());
    assert!(Command::new("cp").arg("-a").args([&home.dir, &copy.dir]).status().unwrap().success());
    let mut expected = vec!["before".to_owned()];
    for round in 0..5 {
        let names = [format!("of the copy {round}"), format!("of the original {round}")];
        let [first, second] = [(&copy, &names[0]), (&home, &names[1])].map(|(home, name)| put(home, name));
        first.finish().expect_code(0);
        second.finish().expect_code(0);
        expected.extend(names);
    }
    expected.sort();
    // Before anybody else: a reader that finds two heads merges them, and becomes a writer by that.
    assert_eq!(home.json(["status"])["devices"], 2, "two homes, two devices");
    let reader = network.cold_home("cold", &phrase, &[1]);
    assert_eq!(reader.names("/"), expected);
}

fn write(folder: &Path, name: &str, content: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Both homes see the same, and it is all that was ever written.
fn check(
    one: &Home,
    other: &Home,
    scratch: &Path,
    round: usize,
    kept: &BTreeMap<String, String>,
    clashes: &[(String, [String; 2])],
) {
    let [mut seen, same] = [("one", one), ("other", other)].map(|(name, home)| {
        let folder = scratch.join(format!("seen-by-{name}-{round}"));
        home.get("/", &folder).expect_code(0);
        contents(&folder)
    });
    assert_eq!(seen, same);
    for (name, content) in kept {
        assert_eq!(seen.remove(name).as_ref(), Some(content), "{name} after round {round}");
    }
    for (name, contents) in clashes {
        // One has the name; the other is beside it, under a name that begins the same and says what it is.
        let copies: Vec<String> = seen.keys().filter(|seen| seen.starts_with(name.as_str())).cloned().collect();
        let mut found: Vec<String> = copies.iter().map(|name| seen.remove(name).unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, *contents, "{name} after round {round}: {copies:?}");
        assert!(copies.contains(name), "{copies:?}");
        let plain = |copy: &String| copy.contains("conflict") && copy.contains("device");
        assert!(copies.iter().any(plain), "{copies:?}: no name that a person understands");
    }
    assert!(seen.is_empty(), "nobody wrote these: {seen:?}");
}
