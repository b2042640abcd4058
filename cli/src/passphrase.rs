//! Where the passphrase and the recovery phrase come from. Never from the command line, which others can see.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use commonhold_client_sdk::Phrase;
use zeroize::Zeroizing;

use crate::exit::Failure;

/// The variable that holds the passphrase.
pub(crate) const VARIABLE: &str = "COMMONHOLD_PASSPHRASE";
/// 24 words of at most 8 letters, and room for generous spacing; more is no phrase.
const PHRASE_BYTES_MAX: u64 = 4096;

/// The passphrase of a vault that exists.
pub(crate) fn existing() -> Result<Zeroizing<String>, Failure> {
    match from_environment()? {
        Some(passphrase) => Ok(passphrase),
        None => ask("Passphrase: "),
    }
}

/// The passphrase of a vault to be made: asked for twice.
pub(crate) fn fresh() -> Result<Zeroizing<String>, Failure> {
    if let Some(passphrase) = from_environment()? {
        return Ok(passphrase);
    }
    let first = ask("Passphrase for this vault: ")?;
    if first.is_empty() {
        return Err(Failure::PassphraseEmpty);
    }
    let second = ask("The same again: ")?;
    if first == second { Ok(first) } else { Err(Failure::PassphrasesDiffer) }
}

/// The passphrase in the environment; an empty one counts as none.
pub(crate) fn from_environment() -> Result<Option<Zeroizing<String>>, Failure> {
    match std::env::var(VARIABLE) {
        Ok(passphrase) => Ok(Some(Zeroizing::new(passphrase)).filter(|passphrase| !passphrase.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::PassphraseNotText),
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|_| Failure::NoPassphrase)
}

/// The recovery phrase, from stdin: all of it, or on a terminal the first line.
pub(crate) fn recovery_phrase() -> Result<Phrase, Failure> {
    let stdin = io::stdin().lock();
    let mut text = Zeroizing::new(String::with_capacity(PHRASE_BYTES_MAX as usize));
    let read = if stdin.is_terminal() {
        let _ = writeln!(io::stderr(), "The 24 words of the recovery phrase, on one line:");
        stdin.take(PHRASE_BYTES_MAX).read_line(&mut text)
    } else {
        stdin.take(PHRASE_BYTES_MAX).read_to_string(&mut text)
    };
    read.map_err(Failure::PhraseUnreadable)?;
    Ok(Phrase::parse(&text)?)
}
