use std::collections::BTreeSet;

use super::*;

const SAMPLE: &str = include_str!("../../node.sample.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("node.toml"), Path::new("/srv"))
}

#[test]
fn the_sample_file_is_what_the_structs_make() {
    let made = sample(&Config::default());
    if std::env::var_os("UPDATE_SAMPLE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/node.sample.toml"), &made).unwrap();
    }
    assert_eq!(made, SAMPLE, "run the test with UPDATE_SAMPLE=1 to write the file anew");
}

#[test]
fn the_sample_is_the_default_config() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!(config, Config { folder: PathBuf::from("/srv"), ..Config::default() });
    assert_eq!(config, parse("").unwrap());
}

#[test]
fn every_key_is_in_the_sample_and_every_example_is_valid() {
    let uncommented: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if sample::KEYS.iter().any(|doc| key.starts_with(&format!("{} = ", doc.key))) => key,
            _ => line,
        })
        // A private network has neither QUIC nor a domain by address: one example excludes the other.
        .filter(|line| !line.starts_with("listen = [\"/ip4/0.0.0.0/tcp/4400\""))
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = parse(&uncommented).unwrap();
    let with_listen = Config { node: NodeSection { listen: Some(Vec::new()), ..config.node.clone() }, ..config };
    let values = toml::Table::try_from(&with_listen).unwrap();
    let in_structs: BTreeSet<(String, String)> = values
        .iter()
        .flat_map(|(section, keys)| {
            let keys: Vec<String> = keys.as_table().unwrap().keys().cloned().collect();
            keys.into_iter().map(move |key| (section.clone(), key))
        })
        .collect();
    let in_sample = sample::KEYS.iter().map(|doc| (doc.section.to_owned(), doc.key.to_owned())).collect();
    assert_eq!(in_structs, in_sample);
}

#[test]
fn errors_name_the_file_the_line_the_key_and_what_is_allowed() {
    let cases = [
        (
            "[pledge]\nkeep-free = \"1 GiB\"\ndisc = \"5 GiB\"\n",
            "node.toml, line 3: unknown key `[pledge] disc`; allowed here: disk, keep-free, vault-max, records, upload, \
             download, relay, trash, scrub, announce",
        ),
        (
            "[node]\n\n[plegde]\n",
            "node.toml, line 3: unknown key `plegde`; allowed here: [node], [network], [pledge], [audit], [repair], \
             [lease], [dashboard]",
        ),
        (
            "[pledge]\ndisk = \"lots\"\n",
            "node.toml, line 2: `[pledge] disk`: expected a size, as in \"200 GiB\" or \"500 MB\"",
        ),
        (
            "[pledge]\ndisk = 5\n",
            "node.toml, line 2: `[pledge] disk`: invalid type: integer `5`, expected a size, as in \"200 GiB\" or \
             \"500 MB\"",
        ),
        (
            "[pledge]\nupload = \"20 MB\"\n",
            "node.toml, line 2: `[pledge] upload`: expected a data rate of at least 1 bit/s, as in \"20 Mbit/s\" or \
             \"800 kbit/s\"",
        ),
        (
            "[pledge]\nrecords = \"80%\"\n",
            "node.toml, line 2: `[pledge] records`: expected a share from \"0.01%\" to \"50%\", as in \"2%\"",
        ),
        (
            "[audit]\ngrace = \"a while\"\n",
            "node.toml, line 2: `[audit] grace`: expected a length of time, as in \"7 d\", \"12 h\" or \"30 s\"",
        ),
        (
            "[node]\nlisten = [\"/ip4/0.0.0.0/tcp/4400\",\n  \"0.0.0.0:4400\"]\n",
            "node.toml, line 2: `[node] listen`: expected a multiaddress, as in \"/ip4/0.0.0.0/tcp/4400\"",
        ),
        (
            "[network]\nname = \"Main Net\"\n",
            "node.toml, line 2: `[network] name`: expected 1 to 64 of a-z, 0-9 and -, as in \"main\"",
        ),
        (
            "[network]\nkey = \"0123\"\n",
            "node.toml, line 2: `[network] key`: expected a file, as in \"file:network.key\"",
        ),
        (
            "[network]\nkey = \"file:k\"\n[node]\nlisten = [\"/ip4/0.0.0.0/udp/4400/quic-v1\"]\n",
            "node.toml, line 4: `[node] listen`: a private network (`[network] key`) is TCP only: no /quic-v1 addresses \
             are allowed",
        ),
        (
            "[node]\nname = \"x\"\ndomain = \"rack-3\"\n",
            "node.toml, line 3: `[node] domain`: allowed in private networks only: set `[network] key`, or leave it out \
             (in an open network the domain is the observed address)",
        ),
        ("[dashboard]\nlisten = \"4480\"\n", "node.toml, line 2: `[dashboard] listen`: invalid socket address syntax"),
        ("[node\n", "node.toml, line 1: not valid TOML: unclosed table, expected `]`"),
        ("[pledge]\ndisk = \"0 B\"\n", "node.toml, line 2: `[pledge] disk`: more than 0 bytes are needed"),
    ];
    for (text, expected) in cases {
        let error = parse(text).expect_err(text).to_string();
        assert_eq!(error, expected, "for\n{text}");
    }
}

#[test]
fn a_private_network_listens_on_tcp_only_by_default() {
    let open = parse("").unwrap();
    assert!(open.listen().iter().any(|address| address.to_string().contains("quic")));
    let private = parse("[network]\nkey = \"file:network.key\"\n").unwrap();
    assert_eq!(private.listen().iter().map(ToString::to_string).collect::<Vec<_>>(), ["/ip4/0.0.0.0/tcp/4400"]);
    assert!(private.names_domains());
}

#[test]
fn a_network_made_by_dev_names_its_domains_and_discovers_nobody() {
    let config = parse("[network]\nname = \"dev-1f\"\n[node]\ndomain = \"domain-03\"\n").unwrap();
    assert!(config.names_domains());
    assert!(!config.local_discovery());
    assert!(parse("").unwrap().local_discovery());
}

#[test]
fn paths_start_at_the_folder_of_the_config_file() {
    assert_eq!(parse("").unwrap().data_dir(), Path::new("/srv/."));
    assert_eq!(parse("[node]\ndata-dir = \"data\"\n").unwrap().data_dir(), Path::new("/srv/data"));
    assert_eq!(parse("[node]\ndata-dir = \"/var/x\"\n").unwrap().data_dir(), Path::new("/var/x"));
}

#[test]
fn a_network_key_is_read_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, "[network]\nkey = \"file:network.key\"\n").unwrap();
    let config = Config::load(&path).unwrap();
    assert!(matches!(config.network_key(), Err(ConfigError::Unreadable { .. })));
    std::fs::write(folder.path().join("network.key"), "not a key").unwrap();
    assert!(matches!(config.network_key(), Err(ConfigError::KeyFile { .. })));
    // Bare digits, or the file that other libp2p programs use.
    for text in ["07".repeat(32), format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "07".repeat(32))] {
        std::fs::write(folder.path().join("network.key"), text).unwrap();
        assert_eq!(*config.network_key().unwrap().unwrap(), [7; 32]);
    }
}

#[test]
fn an_overlay_replaces_single_keys() {
    let base = sample(&Config::default());
    let over = "[audit]\ngrace = \"2 s\"\n[pledge]\ntrash = \"1 s\"\n";
    let config = parse(&overlay(&base, over, Path::new("over.toml")).unwrap()).unwrap();
    assert_eq!((config.audit.grace.as_ms(), config.pledge.trash.as_ms()), (2000, 1000));
    assert_eq!(config.pledge.disk, Config::default().pledge.disk);
    let error = overlay(&base, "[audit]\ngraze = \"2 s\"\n", Path::new("over.toml")).unwrap_err();
    assert!(error.to_string().starts_with("over.toml, line 2: unknown key `[audit] graze`"), "{error}");
}
