//! Promise: a private network is closed to whoever has not its key, as a node and as a client, though they know its name,
//! its addresses, and the vault's recovery phrase.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use commonhold_node::{NodeStatus, status_of};

use super::harness::{Home, PROGRAM, Tree, assert_same, eventually, mortal};

/// What a node logs when nobody lets it in.
const IN_VAIN: &str = "nobody could be reached";

/// Nodes, each of which joins through the first; killed when dropped.
struct Nodes {
    folder: tempfile::TempDir,
    name: String,
    running: Vec<(PathBuf, Child)>,
}

impl Nodes {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("commonhold-private-").tempdir().unwrap();
        // Names that begin so are not looked for around us.
        Self { folder, name: format!("dev-{:08x}", rand::random::<u32>()), running: Vec::new() }
    }

    /// A file with a key of its own.
    fn new_key(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("{}\n", hex::encode(rand::random::<[u8; 32]>()))).unwrap();
        path
    }

    /// Starts a node; returns once it listens.
    fn start(&mut self, key: Option<&Path>) -> usize {
        let number = self.running.len();
        let folder = self.folder.path().join(format!("node-{number}"));
        fs::create_dir(&folder).unwrap();
        let bootstrap = if number == 0 { String::new() } else { format!("{:?}", self.address()) };
        let key = key.map(|path| format!("key = \"file:{}\"\n", path.display())).unwrap_or_default();
        let config = format!(
            "[node]\ndomain = \"domain-{number}\"\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nbootstrap = [{bootstrap}]\n\
             [network]\nname = \"{}\"\n{key}[pledge]\nkeep-free = \"64 MiB\"\n[dashboard]\nlisten = \"127.0.0.1:0\"\n",
            self.name
        );
        fs::write(folder.join("node.toml"), config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = mortal(PROGRAM);
        command.args(["node", "run", "--config"]).arg(folder.join("node.toml"));
        command.env("RUST_LOG", "info,commonhold_node::node::bootstrap=debug").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.running.push((folder.clone(), command.spawn().unwrap()));
        eventually("a node listens and answers", || folder.join("addr").exists() && status_of(&folder).is_ok());
        number
    }

    fn status(&self, number: usize) -> NodeStatus {
        status_of(&self.running[number].0).unwrap()
    }

    fn tried_in_vain(&self, number: usize) -> bool {
        fs::read_to_string(self.running[number].0.join("log")).unwrap().contains(IN_VAIN)
    }

    /// Where the first node is.
    fn address(&self) -> String {
        fs::read_to_string(self.running[0].0.join("addr")).unwrap().trim().to_owned()
    }

    fn home(&self, name: &str, key: Option<&Path>) -> Home {
        let mut init =
            ["--network", &self.name, "--bootstrap", &self.address(), "--coding", "2/3"].map(str::to_owned).to_vec();
        init.extend(key.iter().flat_map(|path| ["--network-key".to_owned(), path.display().to_string()]));
        Home::at(self.folder.path().join(name), init)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_private_network_is_closed_to_whoever_has_not_its_key() {
    let mut nodes = Nodes::new();
    let (key, other_key) = (nodes.new_key("key"), nodes.new_key("other-key"));
    let members = [0, 1, 2].map(|_| nodes.start(Some(&key)));
    let all_meet = |nodes: &Nodes| members.iter().all(|node| nodes.status(*node).nodes_known == 2);
    eventually("those with the key know each other", || all_meet(&nodes));
    let home = nodes.home("home", Some(&key));
    let phrase = home.init();
    let mut tree = Tree::new(nodes.folder.path().join("source"), 1);
    tree.small_files(10);
    home.put(tree.path(), "/x");

    for (what, wrong) in [("no key", None), ("another key", Some(other_key.as_path()))] {
        let node = nodes.start(wrong);
        eventually("it tries to join, in vain", || nodes.tried_in_vain(node));
        let status = nodes.status(node);
        assert_eq!((status.peers, status.nodes_known), (0, 0), "a node with {what}");
        let outsider = nodes.home(what, wrong);
        outsider.recover(&phrase).expect_code(5);
        assert!(!outsider.dir.join("vault").exists(), "a client with {what} has recovered the vault");
    }
    for member in members {
        let status = nodes.status(member);
        assert_eq!(status.nodes_known, 2, "node {member} knows somebody from outside");
        assert!(status.shards.held > 0, "node {member} holds nothing");
    }
    let reader = nodes.home("reader", Some(&key));
    reader.recover(&phrase).expect_code(0);
    let target = nodes.folder.path().join("back");
    reader.get("/x", &target).expect_code(0);
    assert_same(tree.path(), &target);
}
