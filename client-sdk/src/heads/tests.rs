use super::*;

fn version(counters: &[(u8, u64)]) -> Version {
    Version::from_counters(counters.iter().map(|(device, counter)| (DeviceId([*device; 8]), *counter)))
}

const VAULT: VaultId = VaultId::from_bytes([7; 32]);

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::at(folder.path());
    (folder, home)
}

#[test]
fn what_was_seen_is_remembered_and_never_less() {
    let (_folder, home) = home();
    assert_eq!(seen(&home, &VAULT).expect("nothing"), Version::default());
    remember(&home, &VAULT, &version(&[(1, 5)])).expect("kept");
    remember(&home, &VAULT, &version(&[(1, 3)])).expect("older");
    assert_eq!(seen(&home, &VAULT).expect("a version"), version(&[(1, 5)]));
    remember(&home, &VAULT, &version(&[(1, 4), (2, 1)])).expect("kept");
    assert_eq!(seen(&home, &VAULT).expect("a version"), version(&[(1, 5), (2, 1)]));
}

/// A vault made in a home where another one was could not be used: nobody had a head as new as the other's.
#[test]
fn what_was_seen_of_another_vault_says_nothing() {
    let (_folder, home) = home();
    remember(&home, &VAULT, &version(&[(1, 5)])).expect("kept");
    let other = VaultId::from_bytes([8; 32]);
    assert_eq!(seen(&home, &other).expect("nothing"), Version::default());
    remember(&home, &other, &version(&[(2, 1)])).expect("kept");
    assert_eq!(seen(&home, &other).expect("a version"), version(&[(2, 1)]));
}

#[test]
fn an_unreadable_memory_is_an_error_and_not_a_blank_one() {
    let (_folder, home) = home();
    for damaged in [&b""[..], b"short", &[&VAULT.as_bytes()[..], b"\xff\xff\xff"].concat()] {
        fs::write(seen_file(&home), damaged).expect("written");
        assert!(matches!(seen(&home, &VAULT), Err(Error::Config { .. })), "{damaged:?}");
    }
}
