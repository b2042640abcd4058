use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::Path,
};

use rustix::fs::{CWD, mknodat};

use super::*;

const DEAD: &str = ".commonhold-draft-0123456789abcdef-7";

fn open(folder: &Path) -> File {
    File::open(folder).expect("a folder")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("one").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn only_the_names_of_drafts_are_names_of_drafts() {
    let ours = Drafts::new().expect("random").next();
    for name in [ours.as_encoded_bytes(), DEAD.as_bytes(), b".commonhold-draft-ffffffffffffffff-18446744073709551615"] {
        assert!(is_draft(name), "{}", String::from_utf8_lossy(name));
    }
    for name in [
        "",
        "-",
        ".commonhold-draft-",
        ".commonhold-draft-0123456789abcdef",
        ".commonhold-draft-0123456789abcdef-",
        ".commonhold-draft-0123456789abcdef-7x",
        ".commonhold-draft-0123456789abcdef--7",
        ".commonhold-draft-0123456789ABCDEF-7",
        ".commonhold-draft-0123456789abcde-7",
        ".commonhold-draft-0123456789abcdef0-7",
        ".commonhold-draft-0123456789abcdef-184467440737095516150",
        "commonhold-draft-0123456789abcdef-7",
        " .commonhold-draft-0123456789abcdef-7",
        ".commonhold-draft-0123456789abcdef-7\n",
    ] {
        assert!(!is_draft(name.as_bytes()), "{name:?}");
    }
}

#[test]
fn what_nobody_works_on_is_removed_and_what_somebody_does_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let (name, file) = Drafts::new().expect("random").create(&open(at)).expect("made");
    fs::write(at.join(DEAD), "half").expect("written");
    fs::write(at.join("kept"), "somebody's").expect("written");
    clear(&open(at)).expect("cleared");
    let live = name.clone().into_string().expect("text");
    assert_eq!(names(at), [live, "kept".to_owned()]);
    assert_eq!(fs::metadata(at.join(&name)).expect("there").permissions().mode() & 0o777, 0o600);
    drop(file);
    clear(&open(at)).expect("cleared");
    assert_eq!(names(at), ["kept"]);
}

/// Whoever may write to the folder can give anything a draft's name.
#[test]
fn what_is_no_file_with_one_name_stays_and_nothing_behind_a_link_is_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let draft = |number: u8| at.join(format!(".commonhold-draft-0123456789abcdef-{number}"));
    fs::create_dir(draft(1)).expect("made");
    fs::write(draft(1).join(DEAD), "deeper").expect("written");
    fs::write(at.join("target"), "somebody's").expect("written");
    symlink(at.join("target"), draft(2)).expect("made");
    mknodat(CWD, draft(3), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
    fs::hard_link(at.join("target"), draft(4)).expect("made");
    let before = names(at);
    clear(&open(at)).expect("cleared");
    assert_eq!(names(at), before);
    assert!(draft(1).join(DEAD).exists(), "a folder that is not restored into was entered");
    assert_eq!(fs::read(at.join("target")).expect("there"), b"somebody's");
    assert!(fs::symlink_metadata(draft(3)).expect("there").file_type().is_fifo());
}

/// Somebody clears the folder while a draft is made in it: it is never lost to whoever made it.
#[test]
fn a_new_draft_is_never_taken_for_an_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let handle = open(at);
    let mut drafts = Drafts::new().expect("random");
    for _ in 0..2000 {
        std::thread::scope(|scope| {
            scope.spawn(|| clear(&handle).expect("cleared"));
            let (name, _file) = drafts.create(&handle).expect("made");
            fs::rename(at.join(&name), at.join("placed")).expect("the draft is there");
        });
    }
    assert_eq!(names(at), ["placed"]);
}
