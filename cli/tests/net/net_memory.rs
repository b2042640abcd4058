//! Promise: what a put and a get need of memory has a limit, however large a file is and however many lie in one folder.

use std::{fs, io::Write, path::Path};

use super::harness::{Network, Setup, Tree, noise};

const MIB: u64 = 1 << 20;
/// A put has segments of 112 MiB under way at most, and what it codes them with. A small one never comes to that.
const PUT_MORE_MAX: u64 = 192 * MIB;
/// What a get fetches ahead.
const GET_MORE_MAX: u64 = 96 * MIB;
/// Of 29,500 files more, all of which is stored in the tree: about 1 KiB of each would be too much.
const FILES_MORE_MAX: u64 = 32 * MIB;

/// The most memory that each command had.
struct Peaks {
    put: u64,
    get: u64,
}

#[test]
fn memory_does_not_grow_with_the_size_of_a_file() {
    let network = Network::start(&Setup { nodes: 4, coding: Some("3/4"), ..Setup::default() });
    let [small, large] = [20, 600].map(|mib| {
        let folder = Tree::new(network.scratch().join(format!("source-{mib}")), 1);
        let mut file = fs::File::create(folder.path().join("noise")).unwrap();
        for part in 0..mib / 20 {
            file.write_all(&noise(1000 * mib + part, 20 << 20)).unwrap();
        }
        there_and_back(&network, folder.path())
    });
    assert_at_most(large.put, small.put, PUT_MORE_MAX);
    assert_at_most(large.get, small.get, GET_MORE_MAX);
}

#[test]
fn memory_does_not_grow_with_the_files_in_a_folder() {
    let network = Network::start(&Setup { nodes: 4, coding: Some("3/4"), ..Setup::default() });
    let [few, many] = [500, 30_000].map(|files| {
        let mut folder = Tree::new(network.scratch().join(format!("source-{files}")), 1);
        for number in 0..files {
            folder.file(format!("{number:05}"), &noise(number, 100));
        }
        there_and_back(&network, folder.path())
    });
    assert_at_most(many.put, few.put, FILES_MORE_MAX);
    assert_at_most(many.get, few.get, FILES_MORE_MAX);
}

/// Stores a folder in a vault of its own, and reads it back.
fn there_and_back(network: &Network, source: &Path) -> Peaks {
    let name = source.file_name().unwrap().to_str().unwrap();
    let (home, _) = network.new_home(&format!("home-of-{name}"));
    let back = network.scratch().join(format!("back-{name}"));
    let put = home.peak_of(["put", source.to_str().unwrap(), "/x"]);
    let get = home.peak_of(["get", "/x", back.to_str().unwrap()]);
    let entries = |folder: &Path| fs::read_dir(folder).unwrap().count();
    assert_eq!(entries(&back), entries(source), "not all came back");
    fs::remove_dir_all(&back).unwrap();
    eprintln!("{name}: {} MiB for the put, {} MiB for the get", put / MIB, get / MIB);
    Peaks { put, get }
}

#[track_caller]
fn assert_at_most(larger: u64, smaller: u64, more_max: u64) {
    assert!(smaller > 0 && larger > 0, "a peak was not seen");
    assert!(larger <= smaller + more_max, "{} MiB instead of {} MiB", larger / MIB, smaller / MIB);
}
