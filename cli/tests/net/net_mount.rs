//! Promise: a mounted vault is a folder like any other, as tools that are not ours see it, except that it cannot be
//! written. It follows the vault, what is open stays as it was, dead nodes are not noticed while enough are left, and
//! a mount that died is told apart and taken away.

use std::{
    ffi::OsStr,
    fs,
    io::{ErrorKind, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::harness::{
    Finished, Home, NOBODY, Network, Running, Setup, Someone, Tree, assert_same, eventually, noise, seed,
};

/// How long a read may take that must fail: the drive's own limit, and a little for a loaded machine.
const FAIL_MAX: Duration = Duration::from_secs(70);

/// A folder for a drive, which is unmounted whatever happens.
struct Point(PathBuf);

impl Point {
    fn new(network: &Network) -> Self {
        let dir = network.scratch().join("the drive");
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn mount(&self, home: &Home, options: &[&str]) -> Running {
        let mut arguments = vec!["mount".as_ref(), self.0.as_os_str()];
        arguments.extend(options.iter().map(OsStr::new));
        let mut running = home.spawn(arguments);
        eventually("the drive is mounted", || {
            assert!(!running.has_ended(), "`mount` has ended");
            self.is_mounted()
        });
        running
    }

    fn is_mounted(&self) -> bool {
        let above = fs::symlink_metadata(self.0.parent().unwrap()).unwrap().dev();
        fs::symlink_metadata(&self.0).is_ok_and(|found| found.dev() != above)
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        // Mostly there is nothing to unmount any more.
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

fn fuse_is_missing() -> bool {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = &device {
        eprintln!("SKIPPED: /dev/fuse cannot be opened: {error}");
    }
    device.is_err()
}

#[test]
fn a_mounted_vault_is_a_folder_like_any_other() {
    if fuse_is_missing() {
        return;
    }
    let mut random = StdRng::seed_from_u64(seed());
    let mut network = Network::start(&Setup { nodes: 8, coding: Some("4/8"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(300);
    tree.oddities();
    let large = tree.file("large", &noise(2, 40 << 20));
    let (home, _) = network.new_home("home");
    home.put(tree.path(), "/x");

    let point = Point::new(&network);
    let mounted = point.mount(&home, &["-o", "nofail,noexec"]);
    let drive = point.0.join("x");
    assert_same(tree.path(), &drive);
    holes_take_no_space(&drive);

    // Several readers, each here and there.
    let (inside, outside) = (fs::File::open(drive.join("large")).unwrap(), fs::File::open(&large).unwrap());
    thread::scope(|scope| {
        for seed in 0..4 {
            let (inside, outside) = (&inside, &outside);
            let mut random = StdRng::seed_from_u64(seed ^ random.random::<u64>());
            scope.spawn(move || same_at_random(inside, outside, &mut random, 40));
        }
    });

    for refused in [
        fs::write(drive.join("new"), b"x"),
        fs::File::options().write(true).open(drive.join("large")).map(drop),
        fs::create_dir(drive.join("folder")),
        fs::remove_file(drive.join("large")),
        fs::rename(drive.join("large"), drive.join("larger")),
        fs::hard_link(drive.join("large"), drive.join("linked")),
        fs::set_permissions(drive.join("large"), fs::metadata(&large).unwrap().permissions()),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    home.run(["mount".as_ref(), point.0.as_os_str()]).expect_code(1).expect_said(&["mounted at", "commonhold umount"]);

    // What is put by somebody else appears; what is open stays.
    let kept = fs::File::open(drive.join("small/01/00001")).unwrap();
    let before = fs::read(tree.path().join("small/01/00001")).unwrap();
    let number = kept.metadata().unwrap().ino();
    let folder = fs::metadata(&drive).unwrap().ino();
    tree.file("small/01/00001", b"changed");
    tree.file("added/file", b"new");
    fs::remove_file(tree.path().join("odd/dangling")).unwrap();
    home.run(["put".as_ref(), "--overwrite".as_ref(), tree.path().as_os_str(), "/x".as_ref()]).expect_code(0);
    let put = Instant::now();
    eventually("the second put appears", || drive.join("added/file").exists());
    eprintln!("the second put appeared after {:?}", put.elapsed());
    eventually("names are looked up again", || fs::read(drive.join("small/01/00001")).unwrap() == b"changed");
    // The kernel may believe what it knew for a second.
    let modified = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    for folder in ["", "odd", "small/01"] {
        eventually("a folder's time is looked up again", || {
            modified(drive.join(folder)) == modified(tree.path().join(folder))
        });
    }
    assert_same(tree.path(), &drive);
    let mut still = vec![0; before.len()];
    kept.read_exact_at(&mut still, 0).unwrap();
    assert!(still == before, "an open file changed");
    assert_eq!(kept.metadata().unwrap().ino(), number);
    assert_eq!(fs::metadata(&drive).unwrap().ino(), folder, "a folder's number changed");

    // Of 8 nodes with any 4 enough, two die while somebody reads.
    let reading = thread::spawn({
        let (inside, outside) = (inside.try_clone().unwrap(), outside.try_clone().unwrap());
        move || same_at_random(&inside, &outside, &mut StdRng::seed_from_u64(7), 200)
    });
    network.kill(0);
    network.kill(1);
    reading.join().unwrap();
    let mut everything = Vec::new();
    fs::File::open(drive.join("large")).unwrap().read_to_end(&mut everything).unwrap();
    assert!(everything == fs::read(&large).unwrap());

    drop((inside, kept));
    home.run(["umount".as_ref(), point.0.as_os_str()]).expect_code(0);
    mounted.finish().expect_code(0);
    assert!(!point.is_mounted());
    home.run(["umount".as_ref(), point.0.as_os_str()]).expect_code(1).expect_said(&["no vault is mounted"]);
}

#[test]
fn a_drive_ends_with_its_process_or_is_known_to_be_dead() {
    if fuse_is_missing() {
        return;
    }
    let mut network = Network::start(&Setup { nodes: 8, coding: Some("4/8"), ..Setup::default() });
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.file("large", &noise(2, 20 << 20));
    let (home, _) = network.new_home("home");
    home.put(tree.path(), "/x");
    let point = Point::new(&network);

    // A signal unmounts, though somebody still has a file open.
    let mounted = point.mount(&home, &[]);
    let open = fs::File::open(point.0.join("x/large")).unwrap();
    mounted.signal("TERM");
    mounted.finish().expect_code(0);
    assert!(!point.is_mounted());
    drop(open);

    // Without its process a mount is dead; both commands see that.
    let mut mounted = point.mount(&home, &[]);
    fs::metadata(point.0.join("x/large")).unwrap();
    mounted.signal("KILL");
    eventually("the mount's process is gone", || mounted.has_ended());
    let mount = || home.run(["mount".as_ref(), point.0.as_os_str()]);
    mount().expect_code(1).expect_said(&["whose process has died", "commonhold umount '"]);
    home.run(["umount".as_ref(), point.0.as_os_str()]).expect_code(0);
    assert!(!point.is_mounted());

    // Too many nodes are dead: an error that the log explains, in bounded time, and what is known stays to be seen.
    let mounted = point.mount(&home, &[]);
    assert_eq!(fs::metadata(point.0.join("x/large")).unwrap().len(), 20 << 20);
    // Each segment has a part whose node is dead, and some parts can still be read.
    let whole = || fs::read(point.0.join("x/large"));
    (0..5).for_each(|node| network.kill(node));
    let started = Instant::now();
    let failed = whole().unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::EIO));
    assert!(started.elapsed() < FAIL_MAX, "failing took {:?}", started.elapsed());
    eprintln!("failing took {:?}", started.elapsed());
    assert_eq!(fs::metadata(point.0.join("x/large")).unwrap().len(), 20 << 20);
    // Nor does silence last for ever.
    (5..8).for_each(|node| network.freeze(node));
    let started = Instant::now();
    let failed = whole().unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::EIO));
    assert!(started.elapsed() < FAIL_MAX, "failing took {:?}", started.elapsed());
    eprintln!("failing in silence took {:?}", started.elapsed());
    mounted.signal("INT");
    mounted.finish().expect_code(0).expect_said(&["cannot read a file", "segment ", "3 shards reachable, 4 needed"]);
    assert!(!point.is_mounted());
}

#[test]
fn a_large_folder_is_listed_whole() {
    if fuse_is_missing() {
        return;
    }
    const FILES: usize = 20_000;
    let network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
    let tree = Tree::new(network.scratch().join("source"), 1);
    let names: Vec<String> = (0..FILES).map(|number| format!("{number:06} {}", "n".repeat(number % 90))).collect();
    names.iter().for_each(|name| fs::write(tree.path().join(name), b"").unwrap());
    let (home, _) = network.new_home("home");
    home.put(tree.path(), "/x");
    let point = Point::new(&network);
    let mounted = point.mount(&home, &[]);
    let started = Instant::now();
    let listed =
        fs::read_dir(point.0.join("x")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(listed.collect::<Vec<_>>() == names, "each name once, in order");
    eprintln!("{FILES} names in {:?}", started.elapsed());
    mounted.signal("INT");
    mounted.finish().expect_code(0);
}

/// They mount through `fusermount3`, and nobody else sees into their drive. Where the device is root's alone, one that is
/// everybody's stands in its place, in a mount namespace of our own.
#[test]
fn somebody_who_is_not_root_mounts_too() {
    if fuse_is_missing() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: we are not root, so every other test here shows it");
        return;
    }
    let network = Network::start(&Setup { nodes: 4, coding: Some("2/4"), ..Setup::default() });
    let someone = Someone::new(&network);
    let mut tree = Tree::new(network.scratch().join("source"), 1);
    tree.small_files(100);
    tree.file("large", &noise(2, 10 << 20));
    Someone::give_away(tree.path());
    let source = tree.path().to_str().unwrap();
    someone.run(&["init", "--network", &network.name(), "--bootstrap", &network.address(0)]).expect_code(0);
    someone.run(&["put", source, "/x"]).expect_code(0);
    let point = someone.folder.join("the drive");
    fs::create_dir(&point).unwrap();
    Someone::give_away(&point);
    let point = point.to_str().unwrap();

    let device = network.scratch().join("fuse");
    let own = r#"mknod -m 666 "$0" c 10 229 && mount --bind "$0" /dev/fuse && exec setpriv "$@""#;
    let mut mount = Command::new("unshare");
    mount.args(["--mount", "--", "sh", "-c", own]).arg(device).args(Someone::becoming(NOBODY));
    mount.arg(&someone.program).args(["mount", point]).stdout(Stdio::piped()).stderr(Stdio::piped());
    someone.with_home(&mut mount);
    let mut mount = mount.spawn().unwrap();
    let mounts = format!("/proc/{}/mountinfo", mount.id());
    // Blanks stand in it as octal numbers.
    let line = format!(" {} ", point.replace(' ', "\\040"));
    eventually("the drive is mounted", || {
        assert!(mount.try_wait().unwrap().is_none(), "`mount` has ended");
        fs::read_to_string(&mounts).is_ok_and(|mounts| mounts.contains(&line))
    });

    let inside = |uid: u32, arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", mount.id())).args(["--", "setpriv"]);
        command.args(Someone::becoming(uid)).args(arguments);
        someone.with_home(&mut command);
        Finished::of(&mut command)
    };
    let drive = format!("{point}/x");
    inside(NOBODY, &["diff", "-r", source, &drive]).expect_code(0);
    let listed = ["find", &drive, "-printf", "%P %y %m %U %s %T@\\n"];
    let listed = String::from_utf8(inside(NOBODY, &listed).expect_code(0).stdout).unwrap();
    assert_eq!(listed.lines().count(), 1 + 1 + 1 + 97 + 100, "{listed}");
    assert!(listed.lines().all(|line| line.contains(" 65534 ")), "{listed}");
    inside(0, &["ls", &drive]).expect_code(2).expect_said(&["Permission denied"]);
    let program = someone.program.to_str().unwrap();
    inside(NOBODY, &[program, "mount", point]).expect_code(1).expect_said(&["mounted at"]);
    inside(NOBODY, &[program, "umount", point]).expect_code(0);
    let ended = mount.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

fn holes_take_no_space(drive: &Path) {
    let sparse = fs::metadata(drive.join("odd/sparse")).unwrap();
    assert_eq!((sparse.len(), sparse.blocks() * 512), (64 << 20, 3 * (64 << 10)));
    assert_eq!(fs::metadata(drive.join("odd/all hole")).unwrap().blocks(), 0);
    let whole = fs::metadata(drive.join("large")).unwrap();
    assert_eq!(whole.blocks() * 512, whole.len());
}

fn same_at_random(inside: &fs::File, outside: &fs::File, random: &mut StdRng, times: usize) {
    let length = outside.metadata().unwrap().len();
    for _ in 0..times {
        let (at, bytes) = (random.random_range(0..length), random.random_range(1..300_000));
        let (mut ours, mut theirs) = (vec![0; bytes], vec![0; bytes]);
        let (read, expected) = (read_full(inside, &mut ours, at), read_full(outside, &mut theirs, at));
        assert_eq!(read, expected, "bytes at {at}");
        assert!(ours == theirs, "{bytes} bytes at {at} differ");
    }
}

/// Reads until there is no more; a read may give less than was asked for.
fn read_full(file: &fs::File, buffer: &mut [u8], at: u64) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64).unwrap() {
            0 => break,
            read => done += read,
        }
    }
    done
}
