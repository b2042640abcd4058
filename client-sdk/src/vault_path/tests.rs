use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;

fn parse(text: &[u8]) -> Result<VaultPath, Error> {
    VaultPath::parse(OsStr::from_bytes(text))
}

#[test]
fn slashes_are_forgiven_and_dots_are_not() {
    let path = parse(b"/a/b").expect("a path");
    for same in [&b"a/b"[..], b"//a///b", b"/a/b/"] {
        assert_eq!(parse(same).expect("a path"), path);
    }
    for root in [&b""[..], b"/", b"///"] {
        assert_eq!(parse(root).expect("the root"), VaultPath::root());
    }
    for bad in [&b"/a/../b"[..], b"..", b"./a", b"/a/.", b"a\0b", &[b'n'; 256]] {
        assert!(matches!(parse(bad), Err(Error::BadPath { .. })), "{:?}", String::from_utf8_lossy(bad));
    }
    assert!(parse(b"/.../..a/a..").is_ok());
}

#[test]
fn the_depth_has_a_limit() {
    assert!(parse(&b"/n".repeat(DEPTH_MAX)).is_ok());
    assert!(matches!(parse(&b"/n".repeat(DEPTH_MAX + 1)), Err(Error::BadPath { .. })));
}

#[test]
fn below_means_whole_names() {
    let path = |text: &str| parse(text.as_bytes()).expect("a path");
    assert!(path("/a/b").starts_with(&path("/a")) && path("/a").starts_with(&VaultPath::root()));
    assert!(!path("/ab").starts_with(&path("/a")));
    let (above, name) = path("/a/b").split_last().map(|(above, name)| (above, name.clone())).expect("two names");
    assert_eq!((above.join(name), above), (path("/a/b"), path("/a")));
}

proptest! {
    #[test]
    fn what_is_parsed_is_made_of_safe_names_and_prints_as_itself(text in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(path) = parse(&text) {
            for name in path.names() {
                let name = name.as_bytes();
                prop_assert!(!name.is_empty() && name != b"." && name != b"..");
                prop_assert!(!name.contains(&b'/') && !name.contains(&0));
            }
            let joined: Vec<u8> = path.names().iter().flat_map(|name| [b"/", name.as_bytes()].concat()).collect();
            prop_assert_eq!(parse(&joined).expect("a path again"), path);
        }
    }
}
