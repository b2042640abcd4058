use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use super::*;

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::at(folder.path().join("home"));
    home.create().expect("a home");
    (folder, home)
}

#[test]
fn each_writer_at_once_is_a_device_of_its_own_and_the_next_takes_up_where_one_ended() {
    let (_folder, home) = home();
    let (first, second) = (home.lock_device().expect("a device"), home.lock_device().expect("another"));
    assert_ne!((first.id, first.number), (second.id, second.number));
    let id = first.id;
    drop(first);
    let again = home.lock_device().expect("a device");
    assert_eq!((again.id, again.number), (id, 0), "released, and the same as before");
}

#[test]
fn a_device_that_another_process_holds_is_passed_over() {
    let (_folder, home) = home();
    let id = home.lock_device().expect("a device").id;
    let mut holder = Command::new("flock")
        .arg(home.dir().join("devices/0"))
        .args(["sh", "-c", "echo locked; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock of util-linux");
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("it says so");
    let other = home.lock_device().expect("a device");
    assert_ne!(other.id, id);
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
    assert_eq!(home.lock_device().expect("a device").id, id);
}

#[test]
fn a_device_file_that_a_crash_left_empty_or_cut_gets_a_new_id() {
    let (_folder, home) = home();
    let before = home.lock_device().expect("a device").id;
    for left in ["", "12ab", "not hex at all, not!"] {
        fs::write(home.dir().join("devices/0"), left).expect("written");
        let device = home.lock_device().expect("a device");
        assert_ne!(device.id, before);
        drop(device);
        let kept = home.lock_device().expect("a device").id;
        let text = fs::read_to_string(home.dir().join("devices/0")).expect("readable");
        assert_eq!(Some(hex::encode(kept.0).as_str()), text.lines().next());
    }
}

/// Both wrote as one device. Whoever saw the head of one of them took the other's for a head that it had seen.
#[test]
fn a_copy_of_a_home_is_another_device_with_nothing_under_way_and_the_original_stays_what_it_is() {
    let (folder, home) = home();
    let (first, second) = (home.lock_device().expect("a device"), home.lock_device().expect("another"));
    let ids = [first.id, second.id];
    drop((first, second));
    if made_at(&fs::File::open(home.dir().join("devices/0")).expect("there")).is_none() {
        eprintln!("SKIPPED: this file system does not say when a file was made");
        return;
    }
    fs::create_dir(home.spool_dir()).expect("made");
    let under_way = ["journal/0.log", "journal/1.log", "spool/0-0", "spool/0-7", "spool/1-0"];
    under_way.iter().for_each(|name| fs::write(home.dir().join(name), "x").expect("written"));
    let left = |home: &Home| under_way.iter().filter(|name| home.dir().join(name).exists()).count();

    let copy = Home::at(folder.path().join("copy"));
    let copied = Command::new("cp").arg("-a").args([home.dir(), copy.dir()]).status().expect("cp");
    assert!(copied.success());
    let devices = [copy.lock_device().expect("a device"), copy.lock_device().expect("another")];
    assert!(devices.iter().all(|device| !ids.contains(&device.id)), "the copy writes as the original");
    assert_eq!((left(&copy), left(&home)), (0, under_way.len()), "what is under way is the original's");
    let of_copy = devices.map(|device| device.id);
    let again = [copy.lock_device().expect("a device"), copy.lock_device().expect("another")];
    assert_eq!(again.map(|device| device.id), of_copy, "once is enough");

    // One that was only moved is the same.
    let moved = Home::at(folder.path().join("moved"));
    fs::rename(home.dir(), moved.dir()).expect("moved");
    let devices = [moved.lock_device().expect("a device"), moved.lock_device().expect("another")];
    assert_eq!(devices.map(|device| device.id), ids);
    assert_eq!(left(&moved), under_way.len());
}

#[test]
fn writers_have_a_limit() {
    let (_folder, home) = home();
    let devices: Vec<Device> = (0..DEVICES_MAX).map(|_| home.lock_device().expect("a device")).collect();
    assert!(matches!(home.lock_device(), Err(Error::TooManyWriters { writers_max: DEVICES_MAX, .. })));
    drop(devices);
    assert!(home.lock_device().is_ok());
}

#[test]
fn whether_another_has_the_cache_is_seen_without_taking_it() {
    let (_folder, home) = home();
    assert!(!home.cache_in_use(), "there is none yet");
    let lock = fs::File::create(home.cache_lock()).expect("a lock");
    assert!(!home.cache_in_use());
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("locked");
    assert!(home.cache_in_use());
    drop(lock);
    assert!(!home.cache_in_use());
}

#[test]
fn a_replaced_file_is_private_and_nothing_is_left_beside_it() {
    let (_folder, home) = home();
    let path = home.dir().join("file");
    for content in ["one", "two"] {
        write_atomically(&path, content.as_bytes()).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), content);
    }
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(home.dir()).expect("a folder").count(), 3, "devices, journal, file");
}

#[test]
fn remembered_nodes_are_bounded() {
    let (_folder, home) = home();
    home.remember_nodes((0..1000).map(|number| format!("address {number}"))).expect("written");
    assert_eq!(home.remembered_nodes().len(), REMEMBERED_NODES_MAX);
    // Nothing is forgotten for a network that nobody was met in.
    home.remember_nodes(std::iter::empty()).expect("nothing to do");
    assert_eq!(home.remembered_nodes().len(), REMEMBERED_NODES_MAX);
}

#[test]
fn a_network_key_is_read_and_what_is_none_is_named() {
    let (_folder, home) = home();
    let config = |key: Option<&str>| ClientConfig {
        network: NetworkSection { name: "n".to_owned(), key: key.map(str::to_owned) },
        client: ClientSection::default(),
    };
    assert!(config(None).network_key(&home).expect("none").is_none());
    fs::write(home.dir().join("key"), format!("{}\n", "0f".repeat(32))).expect("written");
    assert_eq!(config(Some("file:key")).network_key(&home).expect("a key").as_deref(), Some(&[0x0f; 32]));
    fs::write(home.dir().join("short"), "0f0f").expect("written");
    for bad in ["key", "file:short"] {
        let Err(Error::Config { reason, .. }) = config(Some(bad)).network_key(&home) else { panic!("{bad}") };
        assert!(reason.starts_with("network.key") && !reason.contains("0f0f"), "{reason}");
    }
    assert!(matches!(config(Some("file:absent")).network_key(&home), Err(Error::Io { .. })));
}
