//! `init`: a vault and its config in this home; the recovery phrase is shown once.

use std::{fs, path::Path};

use commonhold_client_sdk::{self as sdk, ClientConfig, ClientSection, NetworkSection};
use serde::Serialize;

use crate::{args, exit::Failure, output::Output, passphrase};

/// What a person should know of the words on stdout.
const ADVICE: &str = "\
These 24 words are the vault: whoever has them can read and delete all that is in it, on any machine.
They are shown this once and are kept nowhere. Write them on paper, in order, and keep the paper where
you keep other things that must not burn or be found. With them, `commonhold init --recover` restores
the vault on a new machine; without them and without this machine, nobody can.";

#[derive(Serialize)]
struct Made<'a> {
    home: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    phrase: Option<&'a str>,
}

pub(super) fn run(args: args::Init, output: &Output) -> Result<(), Failure> {
    let home = super::home()?;
    if home.has_vault() {
        return Err(sdk::Error::VaultExists { home: home.dir().to_owned() }.into());
    }
    let key = args.network_key.as_deref().map(key_reference).transpose()?;
    let config = ClientConfig {
        network: NetworkSection { name: args.network.to_string(), key },
        client: ClientSection {
            bootstrap: args.bootstrap,
            coding: args.coding.map(|coding| coding.to_string()),
            ..ClientSection::default()
        },
    };
    if args.recover {
        let phrase = passphrase::recovery_phrase()?;
        let passphrase = passphrase::fresh()?;
        sdk::recover(&home, &config, &passphrase, &phrase)?;
        return output.done(&Made { home: home.dir(), phrase: None }, || {
            vec![format!("the vault is recovered in {}", home.dir().display())]
        });
    }
    let passphrase = passphrase::fresh()?;
    let phrase = sdk::create(&home, &config, &passphrase)?;
    let words = phrase.words();
    if output.is_json() {
        return output.json(&Made { home: home.dir(), phrase: Some(&words) });
    }
    output.line(&*words)?;
    output.remark(&format!(
        "\n{ADVICE}\n\nThe vault's keys are in {}, sealed under the passphrase.",
        home.dir().display()
    ));
    Ok(())
}

/// How the config names a key file: by its whole path, as the home may lie anywhere.
pub(super) fn key_reference(path: &Path) -> Result<String, Failure> {
    let whole = fs::canonicalize(path).map_err(super::file_failure("find", path))?;
    Ok(format!("file:{}", whole.display()))
}
