//! SHA-256 of a body. An ETag is not a content hash: this is the only checksum we trust.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

/// SHA-256 of a body. Its text form is `sha256:` + base64, as V0.2 stores it; hex is read too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum([u8; 32]);

/// The text is not a checksum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a checksum is `sha256:` followed by 32 bytes in base64 or hex")]
pub struct InvalidChecksum;

impl Checksum {
    /// The checksum of a whole body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    /// A checksum from its 32 raw bytes, as they travel in protos.
    ///
    /// # Errors
    /// [`InvalidChecksum`] unless there are 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidChecksum> {
        bytes.try_into().map(Self).map_err(|_| InvalidChecksum)
    }

    /// The 32 raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Checksum {
    type Err = InvalidChecksum;

    fn from_str(text: &str) -> Result<Self, InvalidChecksum> {
        let digest = text.strip_prefix("sha256:").ok_or(InvalidChecksum)?;
        if digest.len() == 64 {
            let mut bytes = [0; 32];
            for (byte, pair) in bytes.iter_mut().zip(digest.as_bytes().chunks(2)) {
                let pair = std::str::from_utf8(pair).map_err(|_| InvalidChecksum)?;
                // from_str_radix would take a sign.
                if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(InvalidChecksum);
                }
                *byte = u8::from_str_radix(pair, 16).map_err(|_| InvalidChecksum)?;
            }
            return Ok(Self(bytes));
        }
        Self::from_bytes(&STANDARD.decode(digest).map_err(|_| InvalidChecksum)?)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes a [`Checksum`] chunk by chunk.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    /// The checksum of all chunks taken.
    #[must_use]
    pub fn finish(self) -> Checksum {
        Checksum(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    const EMPTY_HEX: &str =
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_is_base64_and_hex_is_read() {
        let empty = Checksum::of(b"");
        assert_eq!(empty.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(empty));
        assert_eq!(EMPTY_HEX.parse(), Ok(empty));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "sha256:", "md5:1B2M2Y8AsgTpgAmY7PhCfg==", &EMPTY[7..], "sha256:47DEQpj8"] {
            assert!(bad.parse::<Checksum>().is_err(), "{bad:?} was accepted");
        }
        assert!(EMPTY_HEX.replace("e3", "+3").parse::<Checksum>().is_err());
    }

    #[test]
    fn chunks_hash_like_the_whole() {
        let mut hasher = Hasher::default();
        hasher.update(b"a note ");
        hasher.update(b"in two chunks");
        assert_eq!(hasher.finish(), Checksum::of(b"a note in two chunks"));
    }
}
