//! Looks for byte strings in files and messages, in one pass over each.

use std::{fs, path::Path};

/// A page of nothing but zeros, as most of a preallocated file is, need not be searched.
const PAGE_BYTES: usize = 4096;
/// What the first look at a position compares.
const PREFIX_BYTES: usize = 4;

/// Byte strings to look for, each with a name.
#[derive(Default)]
pub(crate) struct Needles {
    needles: Vec<(&'static str, Vec<u8>)>,
    longest: usize,
}

impl Needles {
    pub(crate) fn add(&mut self, what: &'static str, bytes: &[u8]) {
        assert!(bytes.len() >= 8, "{what} is so short that it may be anywhere by chance");
        self.longest = self.longest.max(bytes.len());
        self.needles.push((what, bytes.to_vec()));
    }

    /// The names of those that are found.
    pub(crate) fn in_bytes(&self, bytes: &[u8]) -> Vec<&'static str> {
        let mut wanted = vec![false; 1 << 16];
        let key = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        self.needles.iter().for_each(|(_, needle)| wanted[key(needle)] = true);
        let mut found = Vec::new();
        let mut at = 0;
        while at + PREFIX_BYTES <= bytes.len() {
            if at % PAGE_BYTES == 0 && is_zero(&bytes[at..bytes.len().min(at + PAGE_BYTES + self.longest)]) {
                at += PAGE_BYTES;
                continue;
            }
            if wanted[key(&bytes[at..])] {
                let here = self.needles.iter().filter(|(_, needle)| bytes[at..].starts_with(needle));
                found.extend(here.map(|(what, _)| *what));
            }
            at += 1;
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What is found in which files below a folder, in their names too.
    pub(crate) fn in_folder(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mut told = |what: Vec<&str>| {
                found.extend(what.into_iter().map(|what| format!("{what}: {}", path.display())));
            };
            told(self.in_bytes(path.file_name().unwrap().as_encoded_bytes()));
            // A node that runs may remove a file meanwhile.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_file() {
                told(fs::read(&path).map(|bytes| self.in_bytes(&bytes)).unwrap_or_default());
            } else if metadata.is_dir() {
                found.extend(self.in_folder(&path));
            }
        }
        found
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[test]
fn needles_are_found_wherever_they_lie() {
    let mut needles = Needles::default();
    needles.add("one", b"one needle");
    needles.add("two", b"another needle");
    let mut hay = vec![0; 5 * PAGE_BYTES];
    assert!(needles.in_bytes(&hay).is_empty());
    // Across the end of a page of zeros, and at the very end.
    hay[2 * PAGE_BYTES - 3..][..10].copy_from_slice(b"one needle");
    assert_eq!(needles.in_bytes(&hay), ["one"]);
    let end = hay.len();
    hay[end - 14..].copy_from_slice(b"another needle");
    assert_eq!(needles.in_bytes(&hay), ["one", "two"]);
}
