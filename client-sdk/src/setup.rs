//! A vault's first day in a home: made new, or recovered from its phrase.

use commonhold_storage_engine::keys::VaultSecret;

use crate::{
    error::Error,
    home::{ClientConfig, Home},
    phrase::Phrase,
    progress::Progress,
    vault::{OpenOptions, Vault},
    vault_file,
};

/// Makes a new vault. Works offline; the phrase that comes back is shown once and never again.
pub fn create(home: &Home, config: &ClientConfig, passphrase: &str) -> Result<Phrase, Error> {
    refuse_existing(home)?;
    check(home, config)?;
    let secret = VaultSecret::generate().map_err(|_| Error::NoRandomness)?;
    let phrase = Phrase::of(&secret)?;
    write(home, config, &secret, passphrase)?;
    Ok(phrase)
}

/// Takes up a vault by its phrase, if the network knows one of it.
pub fn recover(home: &Home, config: &ClientConfig, passphrase: &str, phrase: &Phrase) -> Result<(), Error> {
    refuse_existing(home)?;
    check(home, config)?;
    let secret = phrase.secret()?;
    let vault = Vault::open_with(home, config, &secret, &OpenOptions::default())?;
    home.create()?;
    let (state, _) = vault.read_states(&Progress::default())?;
    if state.version == commonhold_protocol::Version::default() {
        return Err(Error::UnknownVault { network: config.network.name.clone() });
    }
    write(home, config, &secret, passphrase)
}

fn refuse_existing(home: &Home) -> Result<(), Error> {
    if home.has_vault() { Err(Error::VaultExists { home: home.dir().to_owned() }) } else { Ok(()) }
}

fn check(home: &Home, config: &ClientConfig) -> Result<(), Error> {
    config.network_name(home)?;
    config.coding(home)?;
    config.client.bootstrap.iter().try_for_each(|address| crate::vault::parse_address(address).map(drop))
}

/// The vault file comes last: with it, the home is complete.
fn write(home: &Home, config: &ClientConfig, secret: &VaultSecret, passphrase: &str) -> Result<(), Error> {
    home.create()?;
    home.write_config(config)?;
    vault_file::write(&home.vault_file(), secret, passphrase)
}
