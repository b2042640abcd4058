//! Promise: a get that is killed at any moment leaves each file as it was or as it is to be, never a mix. What it leaves
//! besides is cleared by the next get into the same place, is not stored by a put, and is left alone while a get that
//! runs still works on it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::harness::{Finished, Home, Network, Running, Setup, Tree, assert_same, noise, poll_until};

const MIB: u64 = 1 << 20;
/// Long enough to be caught half-way.
const LARGE: usize = 256 << 20;

struct Fixture {
    network: Network,
    tree: Tree,
    home: Home,
}

impl Fixture {
    /// A vault with one large file among some small ones, at `/x`.
    fn new() -> Self {
        let network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
        let mut tree = Tree::new(network.scratch().join("source"), 1);
        tree.small_files(50);
        tree.file("large", &noise(2, LARGE));
        let (home, _) = network.new_home("home");
        home.put(tree.path(), "/x");
        Self { network, tree, home }
    }

    fn get(&self, path: &str, target: &Path, overwrite: bool) -> Running {
        let arguments = ["get", path, target.to_str().unwrap()].into_iter();
        self.home.spawn(arguments.chain(overwrite.then_some("--overwrite")))
    }

    /// Starts a get and returns once it has written a part of a draft in `folder`; gives that draft.
    fn caught(&self, path: &str, target: &Path, overwrite: bool, folder: &Path) -> (Running, PathBuf) {
        let before = drafts(folder);
        let get = self.get(path, target, overwrite);
        let begun = poll_until(Duration::from_secs(60), || {
            let new = drafts(folder).into_iter().find(|draft| !before.contains(draft))?;
            fs::metadata(&new).is_ok_and(|draft| draft.len() > MIB).then_some(new)
        });
        (get, begun.expect("it never began to write"))
    }

    fn killed(&self, path: &str, target: &Path, overwrite: bool, folder: &Path) {
        let (get, draft) = self.caught(path, target, overwrite, folder);
        get.signal("KILL");
        let killed: Finished = get.finish();
        assert_eq!(killed.code, None, "it was done before it was killed: {}", killed.stderr);
        assert_eq!(drafts(folder), [draft], "one that is left, and none of an earlier get");
    }
}

/// The drafts in a folder, but not below it.
fn drafts(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().path());
    names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".commonhold-draft-")).collect()
}

#[test]
fn a_get_that_is_killed_leaves_old_or_new_and_the_next_one_clears_up() {
    let fixture = Fixture::new();
    let Fixture { network, tree, home } = &fixture;
    let target = network.scratch().join("target");

    fixture.killed("/x", &target, false, &target);
    assert!(!target.join("large").exists(), "a file that is not whole has its name");

    // A put of what came of it leaves the draft out, and says so.
    let put = home.put(&target, "/half");
    assert_eq!(put["drafts_left_out"], 1, "{put}");
    assert!(home.names("/half").iter().all(|name| !name.starts_with(".commonhold")), "{:?}", home.names("/half"));
    let put = home.run(["put", target.to_str().unwrap(), "/half", "--overwrite"]).expect_code(0);
    put.expect_said(&["1 draft of a `get` was left out"]);

    // Over files that are there: they stay what they were.
    let old = noise(3, 5 << 20);
    fs::write(target.join("large"), &old).unwrap();
    fixture.killed("/x", &target, true, &target);
    assert!(fs::read(target.join("large")).unwrap() == old, "the old file is damaged");

    home.run(["get", "/x", target.to_str().unwrap(), "--overwrite"]).expect_code(0);
    assert_same(tree.path(), &target);

    // A single file, whose drafts lie in the folder above.
    let alone = network.scratch().join("alone");
    fs::create_dir(&alone).unwrap();
    fixture.killed("/x/large", &alone.join("large"), false, &alone);
    fs::write(alone.join("large"), &old).unwrap();
    fixture.killed("/x/large", &alone.join("large"), true, &alone);
    assert!(fs::read(alone.join("large")).unwrap() == old, "the old file is damaged");
    home.run(["get", "/x/large", alone.join("large").to_str().unwrap(), "--overwrite"]).expect_code(0);
    let names: Vec<_> = fs::read_dir(&alone).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["large"]);
    assert!(fs::read(alone.join("large")).unwrap() == fs::read(tree.path().join("large")).unwrap());
}

#[test]
fn a_get_that_runs_keeps_its_drafts_though_another_clears_up() {
    let fixture = Fixture::new();
    let target = fixture.network.scratch().join("target");
    fixture.killed("/x", &target, false, &target);
    // Frozen half-way; that it is slow is all that the other can know.
    let (slow, draft) = fixture.caught("/x", &target, true, &target);
    slow.signal("STOP");
    assert_eq!(drafts(&target), std::slice::from_ref(&draft), "that of the one that was killed is still there");
    fixture.get("/x", &target, true).finish().expect_code(0);
    assert_eq!(drafts(&target), [draft], "one that is still written to was taken");
    slow.signal("CONT");
    slow.finish().expect_code(0);
    assert_same(fixture.tree.path(), &target);
}
