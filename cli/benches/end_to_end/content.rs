//! What is stored: noise, text, and many small files. Seeded, so every run stores the same.

use std::{
    fs::{self, File},
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
};

use rand::{RngCore, SeedableRng, rngs::StdRng};

use crate::{Failure, Settings};

const SMALL_FILE_BYTES: usize = 10 << 10;
const FILES_PER_FOLDER: usize = 100;

/// The files and folders to store.
pub(crate) struct Content {
    /// One file that does not compress.
    pub(crate) noise: PathBuf,
    /// One file that compresses about as source code does.
    pub(crate) text: PathBuf,
    /// Small files in folders.
    pub(crate) small: PathBuf,
    pub(crate) small_bytes: u64,
}

impl Content {
    pub(crate) fn make(settings: &Settings) -> Result<Self, Failure> {
        let folder = settings.scratch.join("content");
        fs::create_dir_all(&folder)?;
        let content = Self {
            noise: folder.join("noise"),
            text: folder.join("text"),
            small: folder.join("small"),
            small_bytes: (settings.files * SMALL_FILE_BYTES) as u64,
        };
        let mut random = StdRng::seed_from_u64(7);
        fill(&content.noise, settings.large_bytes, |piece| random.fill_bytes(piece))?;
        let mut words = Words::new(8);
        fill(&content.text, settings.large_bytes, |piece| words.fill(piece))?;
        let mut bytes = [0; SMALL_FILE_BYTES];
        for number in 0..settings.files {
            let parent = content.small.join(format!("{:03}", number / FILES_PER_FOLDER));
            fs::create_dir_all(&parent)?;
            random.fill_bytes(&mut bytes);
            fs::write(parent.join(format!("{number:05}")), bytes)?;
        }
        // Or else the syncs of the nodes would wait for these files too.
        rustix::fs::sync();
        Ok(content)
    }
}

fn fill(path: &Path, bytes: u64, mut next: impl FnMut(&mut [u8])) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    let mut piece = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len() as u64) as usize;
        next(&mut piece[..count]);
        file.write_all(&piece[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// Words of a small language, in random order.
struct Words {
    random: StdRng,
    dictionary: Vec<Vec<u8>>,
}

impl Words {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut word = || {
            let length = 2 + random.next_u32() as usize % 9;
            let letters = (0..length).map(|_| b'a' + (random.next_u32() % 26) as u8);
            letters.chain([b' ']).collect()
        };
        let dictionary = (0..256).map(|_| word()).collect();
        Self { random, dictionary }
    }

    fn fill(&mut self, mut piece: &mut [u8]) {
        while !piece.is_empty() {
            for choice in self.random.next_u64().to_le_bytes() {
                let word = &self.dictionary[usize::from(choice)];
                let count = word.len().min(piece.len());
                let (filled, rest) = std::mem::take(&mut piece).split_at_mut(count);
                filled.copy_from_slice(&word[..count]);
                piece = rest;
            }
        }
    }
}

/// Fails unless both are files, or both folders, with the same content.
pub(crate) fn compare(stored: &Path, restored: &Path) -> Result<(), Failure> {
    let different = || format!("{} is not what was stored", restored.display());
    if stored.is_dir() {
        let names = |folder: &Path| -> Result<Vec<_>, Failure> {
            let mut names =
                fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, Failure>>()?;
            names.sort();
            Ok(names)
        };
        let wanted = names(stored)?;
        if wanted != names(restored)? {
            return Err(different().into());
        }
        return wanted.iter().try_for_each(|name| compare(&stored.join(name), &restored.join(name)));
    }
    let (wanted, found) = (File::open(stored)?, File::open(restored)?);
    if wanted.metadata()?.len() != found.metadata()?.len() {
        return Err(different().into());
    }
    let (mut wanted, mut found) = (BufReader::new(wanted), BufReader::new(found));
    let (mut one, mut other) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = wanted.read(&mut one)?;
        if count == 0 {
            return Ok(());
        }
        found.read_exact(&mut other[..count])?;
        if one[..count] != other[..count] {
            return Err(different().into());
        }
    }
}
