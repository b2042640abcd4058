//! Folders to store: any number of small files, large ones, and everything that a file can be besides its bytes.

use std::{
    ffi::OsStr,
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

/// A fresh seed, or the one in COMMONHOLD_SEED; printed, so that a failure can be repeated.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("COMMONHOLD_SEED").ok().map(|text| text.parse().expect("COMMONHOLD_SEED is a number"));
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("COMMONHOLD_SEED={seed}");
    seed
}

/// Bytes that no compressor makes shorter.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Text that compresses, no part of it like another.
pub(crate) fn words(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "shard ", "vault ", "the ", "holder ", "of ", "a ", "segment ", "keeps ", "what ", "nobody ", "else ", "can ",
        "read\n", "and ", "proves ", "it ",
    ];
    let mut random = StdRng::seed_from_u64(seed);
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        match random.random_range(0..20) {
            at @ 0..16 => text.extend_from_slice(WORDS[at].as_bytes()),
            _ => text.extend_from_slice(format!("{:x} ", random.random::<u32>()).as_bytes()),
        }
    }
    text.truncate(length);
    text
}

/// A folder in the making.
pub(crate) struct Tree {
    root: PathBuf,
    random: StdRng,
}

impl Tree {
    /// An empty folder at `root`; the same seed makes the same things.
    pub(crate) fn new(root: impl Into<PathBuf>, seed: u64) -> Self {
        let root = root.into();
        fs::create_dir_all(&root).unwrap();
        Self { root, random: StdRng::seed_from_u64(seed) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// A file with these bytes, and the folders above it.
    pub(crate) fn file(&mut self, name: impl AsRef<OsStr>, bytes: &[u8]) -> PathBuf {
        let path = self.root.join(name.as_ref());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Small files spread over folders: most of them of some hundred bytes, some of tens of KiB, some empty.
    pub(crate) fn small_files(&mut self, count: usize) {
        for number in 0..count {
            let length = match number % 16 {
                0 => 0,
                1 => self.random.random_range(4 << 10..40 << 10),
                _ => self.random.random_range(1..3 << 10),
            };
            let seed = self.random.random();
            let bytes = if number % 2 == 0 { noise(seed, length) } else { words(seed, length) };
            let path = self.file(format!("small/{:02}/{number:05}", number % 97), &bytes);
            let mode = [0o644, 0o600, 0o755, 0o444][number % 4];
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            self.set_time(&path);
        }
    }

    /// A moment of the last years, to the nanosecond.
    fn set_time(&mut self, path: &Path) {
        let moment =
            Duration::new(self.random.random_range(0..1_700_000_000), self.random.random_range(0..1_000_000_000));
        fs::File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH + moment).unwrap();
    }

    /// One of everything: modes, times, links, attributes, holes, pipes, names that are no text, empty folders.
    pub(crate) fn oddities(&mut self) {
        let odd = self.root.join("odd");
        self.file("odd/setuid", b"a program");
        fs::set_permissions(odd.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
        self.file("odd/no-mode", b"nobody's");
        for name in [
            &b"not \xff\xfe text"[..],
            b"line\nbreak",
            b"\x1b[2J",
            "gr\u{fc}\u{df}e \u{1f5c4}".as_bytes(),
            b" ",
            b"-rf",
        ] {
            self.file(Path::new("odd").join(OsStr::from_bytes(name)), name);
        }
        self.file(format!("odd/{}", "n".repeat(255)), b"a long name");
        fs::create_dir_all(odd.join("empty/empty too")).unwrap();
        fs::set_permissions(odd.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("../small/00/00000", odd.join("link")).unwrap();
        symlink("/nowhere/at all", odd.join("dangling")).unwrap();
        symlink(OsStr::from_bytes(b"\xff\xff"), odd.join("link to no text")).unwrap();
        symlink(".", odd.join("circle")).unwrap();
        self.file("odd/names/one", &noise(1, 100_000));
        fs::hard_link(odd.join("names/one"), odd.join("names/two")).unwrap();
        fs::hard_link(odd.join("names/one"), odd.join("zz three")).unwrap();
        self.file("odd/small names/one", b"short");
        fs::hard_link(odd.join("small names/one"), odd.join("small names/two")).unwrap();
        self.sparse("odd/sparse", &[0, 5 << 20, 40 << 20], 64 << 20);
        self.sparse("odd/all hole", &[], 16 << 20);
        tool("mkfifo", &[odd.join("pipe").as_os_str()]);
        self.attribute("odd/names/one", "user.colour", "blue");
        self.attribute("odd/empty", "user.on-a-folder", "yes");
        self.attribute("odd/setuid", "user.long", &"x".repeat(1500));
        self.attribute("odd/setuid", "user.none", "");
        let before_1970 = SystemTime::UNIX_EPOCH - Duration::new(12_345, 678_901_234);
        fs::File::open(odd.join("no-mode")).unwrap().set_modified(before_1970).unwrap();
        fs::set_permissions(odd.join("no-mode"), fs::Permissions::from_mode(0o400)).unwrap();
        // Last, since everything above changes the time of its folder.
        let far = "2119-03-04 05:06:07.123456789";
        tool("touch", &["-h".as_ref(), "-d".as_ref(), far.as_ref(), odd.join("link").as_os_str()]);
        tool("touch", &["-d".as_ref(), "1999-12-31 23:59:59.999999999".as_ref(), odd.join("empty").as_os_str()]);
        tool("touch", &["-d".as_ref(), "2001-02-03 04:05:06.000000007".as_ref(), odd.as_os_str()]);
    }

    /// A file with 64 KiB of data at each of these places, and holes between them.
    fn sparse(&mut self, name: &str, data_at: &[u64], length: u64) {
        let path = self.file(name, b"");
        let mut file = fs::File::options().write(true).open(path).unwrap();
        for at in data_at {
            file.seek(SeekFrom::Start(*at)).unwrap();
            file.write_all(&noise(*at, 64 << 10)).unwrap();
        }
        file.set_len(length).unwrap();
    }

    fn attribute(&self, name: &str, key: &str, value: &str) {
        let path = self.root.join(name);
        tool("setfattr", &["-n".as_ref(), key.as_ref(), "-v".as_ref(), value.as_ref(), path.as_os_str()]);
    }
}

fn tool(program: &str, arguments: &[&OsStr]) {
    let status = std::process::Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
