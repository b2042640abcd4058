//! The recovery phrase: 24 BIP-39 words that encode the vault's 32-byte secret itself.

use bip39::Mnemonic;
use commonhold_storage_engine::keys::VaultSecret;
use zeroize::Zeroizing;

use crate::error::Error;

/// The words that restore a vault on any machine. Whoever has them has the vault.
pub struct Phrase(Mnemonic);

impl Phrase {
    /// The phrase of a secret.
    pub fn of(secret: &VaultSecret) -> Result<Self, Error> {
        let words = Mnemonic::from_entropy(secret.as_bytes());
        words.map(Self).map_err(|error| Error::WrongPhrase { reason: error.to_string() })
    }

    /// Reads 24 words, in any case and spacing; their checksum must fit.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let spaced = Zeroizing::new(text.split_whitespace().collect::<Vec<_>>().join(" "));
        let text = Zeroizing::new(spaced.to_lowercase());
        let words = Mnemonic::parse_in(bip39::Language::English, text.as_str())
            .map_err(|error| Error::WrongPhrase { reason: error.to_string() })?;
        match words.word_count() {
            24 => Ok(Self(words)),
            count => Err(Error::WrongPhrase { reason: format!("it has {count} words, a recovery phrase has 24") }),
        }
    }

    /// The secret that the words encode.
    pub fn secret(&self) -> Result<VaultSecret, Error> {
        let entropy = Zeroizing::new(self.0.to_entropy());
        let bytes = entropy.as_slice().try_into();
        bytes.map(VaultSecret::from_bytes).map_err(|_| Error::WrongPhrase { reason: "it is too short".to_owned() })
    }

    /// The words, to be shown once.
    pub fn words(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.words().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last 256-bit English vector of the BIP-39 reference list (trezor/python-mnemonic, vectors.json).
    #[test]
    fn reads_the_reference_vector() {
        let words = "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen \
                     patrol group space point ten exist slush involve unfold";
        let secret = hex::decode("f585c11aec520db57dd353c69554b21a89b20fb0650966fa0a9d6f74fd989d8f").expect("hex");
        let phrase = Phrase::parse(words).expect("a valid phrase");
        assert_eq!(phrase.secret().expect("a secret").as_bytes().as_slice(), secret.as_slice());
        assert_eq!(*phrase.words(), words);
    }

    #[test]
    fn refuses_a_swapped_word_and_a_short_phrase() {
        let swapped = "come void effort suffer camp survey warrior heavy shoot primary clutch crush open amazing \
                       screen patrol group space point ten exist slush involve unfold";
        assert!(matches!(Phrase::parse(swapped), Err(Error::WrongPhrase { .. })));
        let twelve = "legal winner thank year wave sausage worth useful legal winner thank yellow";
        assert!(matches!(Phrase::parse(twelve), Err(Error::WrongPhrase { .. })));
    }
}
