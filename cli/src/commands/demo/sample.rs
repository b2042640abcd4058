//! A folder to store, for who gives none: small and large files, links, and names that are awkward.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use rand::RngCore;

use super::DemoError;

const LETTERS: usize = 200;
const PHOTOS: usize = 4;
/// Random, so that nothing about it can be compressed or guessed.
const PHOTO_BYTES: usize = 8 << 20;

/// Makes the sample.
pub(super) fn make(folder: &Path) -> Result<(), DemoError> {
    write(folder).map_err(|source| DemoError::Io { action: "make the sample in", path: folder.to_owned(), source })
}

fn write(folder: &Path) -> io::Result<()> {
    let letters = folder.join("letters");
    fs::create_dir_all(&letters)?;
    for number in 0..LETTERS {
        let mut letter = BufWriter::new(File::create(letters.join(format!("letter-{number:03}.txt")))?);
        for line in 0..40 {
            writeln!(letter, "Letter {number}, line {line}: all is well here, the cellar is dry and the roof holds.")?;
        }
        letter.flush()?;
    }
    let photos = folder.join("photos/2024");
    fs::create_dir_all(&photos)?;
    let mut random = rand::rng();
    let mut pixels = vec![0; PHOTO_BYTES];
    for number in 0..PHOTOS {
        random.fill_bytes(&mut pixels);
        fs::write(photos.join(format!("photo-{number}.raw")), &pixels)?;
    }
    fs::create_dir(folder.join("empty folder"))?;
    fs::write(folder.join("Grüße, 世界.txt"), "a name that is not ASCII\n")?;
    let script = folder.join("run-me.sh");
    fs::write(&script, "#!/bin/sh\necho hello\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    symlink("photos/2024/photo-0.raw", folder.join("best photo"))?;
    fs::hard_link(letters.join("letter-000.txt"), folder.join("the first letter.txt"))
}
