use super::*;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_consistent() {
    definition().debug_assert();
}

#[test]
fn the_lines_of_the_design_are_understood() {
    for line in [
        "commonhold demo",
        "commonhold demo some/folder",
        "commonhold dev --nodes 12 --dir D --domains 12 --coding 7/14 --config F",
        "commonhold dev --add 2 --dir D",
        "commonhold init --bootstrap A --bootstrap B --coding 7/14",
        "commonhold init --coding 9-nines",
        "commonhold init --recover --network home --network-key F",
        "commonhold node init --dir D",
        "commonhold node run --config node.toml",
        "commonhold node status",
        "commonhold node fsck --config node.toml",
        "commonhold put SRC /x --bootstrap A",
        "commonhold get /x DEST --json",
        "commonhold --json cat /x",
        "commonhold ls",
        "commonhold ls -l /x",
        "commonhold rm /x",
        "commonhold mv /a /b",
        "commonhold mkdir /x",
        "commonhold du",
        "commonhold prune",
        "commonhold prune --dry-run --json",
        "commonhold mount DIR -o ro,allow_other -o noexec --bootstrap A",
        "commonhold umount DIR",
        "commonhold status --quiet",
        "commonhold peers",
        "commonhold segments /x",
        "commonhold doctor",
        "commonhold simulate SCENARIO.toml --seed 7",
        "commonhold simulate S --sweep --html F --json",
        "commonhold completions bash",
        "commonhold man",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn what_is_wrong_is_a_usage_error() {
    for line in [
        "commonhold",
        "commonhold dev --nodes 0 --dir D",
        "commonhold dev --nodes 4",
        "commonhold dev --add 2 --nodes 4 --dir D",
        "commonhold init --coding 7",
        "commonhold init --coding 14/7",
        "commonhold init --coding 0-nines",
        "commonhold init --coding nines",
        "commonhold init --network Not_A_Name",
        "commonhold put",
        "commonhold mount",
        "commonhold put SRC /x --passphrase secret",
        "commonhold prune /x",
    ] {
        assert_eq!(parse(line).map(|_| ()).map_err(|error| error.exit_code()), Err(2), "{line}");
    }
}
