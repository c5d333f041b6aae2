//! Page tokens (AIP-158): where a list goes on, for one user and one question.
//!
//! A token is base64url of: a version byte, a tag, the place. The tag is HMAC-SHA256 over the
//! version, the question's fingerprint, the user and the place: nobody can make a token, and nobody
//! can use another's, or one of another question.

use aws_lc_rs::{
    hmac::{self, HMAC_SHA256},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use synap_proto::field::{Checked, Violation};
use synap_types::{Checksum, UserId};

/// Changes when the meaning of what follows does: tokens of an older release are then refused,
/// instead of misread.
const VERSION: u8 = 1;
const TAG_BYTES: usize = 32;
/// No token of ours is longer; more is not even decoded.
const MAX_TOKEN_BYTES: usize = 512;

/// Gives and takes page tokens.
#[derive(Clone)]
pub(crate) struct PageTokens {
    key: hmac::Key,
}

impl PageTokens {
    /// Signs with a secret that all replicas have.
    pub(crate) fn new(secret: &str) -> Self {
        Self { key: hmac::Key::new(HMAC_SHA256, secret.as_bytes()) }
    }

    /// Signs with a secret of this process: no other replica takes its tokens, and none of them
    /// outlives it.
    pub(crate) fn of_this_process() -> anyhow::Result<Self> {
        let key = hmac::Key::generate(HMAC_SHA256, &rand::SystemRandom::new());
        Ok(Self { key: key.map_err(|_| anyhow::anyhow!("no randomness for a secret"))? })
    }

    /// The token of a place in the answer to a question of the user's.
    pub(crate) fn seal(&self, user: &UserId, question: Checksum, place: &[u8]) -> String {
        let signed = signed(user, question, place);
        let tag = hmac::sign(&self.key, &signed);
        URL_SAFE_NO_PAD.encode([&[VERSION], tag.as_ref(), place].concat())
    }

    /// The place that a token stands for; `None` for the empty token, the first page's.
    pub(crate) fn open<Place: TryFrom<Vec<u8>>>(
        &self,
        user: &UserId,
        question: Checksum,
        token: &str,
    ) -> Checked<Option<Place>> {
        if token.is_empty() {
            return Ok(None);
        }
        self.verified(user, question, token).map(Some).ok_or_else(|| {
            Violation::new(
                "page_token",
                "is not the next_page_token of an answer to this user and these parameters; \
                 leave it empty to begin with the first page",
            )
        })
    }

    fn verified<Place: TryFrom<Vec<u8>>>(
        &self,
        user: &UserId,
        question: Checksum,
        token: &str,
    ) -> Option<Place> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (&VERSION, rest) = bytes.split_first()? else { return None };
        let (tag, place) = rest.split_at_checked(TAG_BYTES)?;
        hmac::verify(&self.key, &signed(user, question, place), tag).ok()?;
        place.to_vec().try_into().ok()
    }
}

/// What the tag is made of. The parts before the user have one length each, and the user's is said.
fn signed(user: &UserId, question: Checksum, place: &[u8]) -> Vec<u8> {
    let user = user.as_str().as_bytes();
    let length = (user.len() as u64).to_be_bytes();
    [&[VERSION], question.as_bytes().as_slice(), &length, user, place].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_user_and_question_only() {
        let tokens = PageTokens::new("a secret");
        let (ada, question) = (user("ada"), Checksum::of(b"list"));
        let token = tokens.seal(&ada, question, b"place");
        assert_eq!(tokens.open(&ada, question, &token), Ok(Some(*b"place")));
        assert_eq!(tokens.open::<[u8; 5]>(&ada, question, ""), Ok(None));

        let refused = |tokens: &PageTokens, user: &UserId, question, token: &str| {
            assert_eq!(
                tokens.open::<[u8; 5]>(user, question, token).unwrap_err().field,
                "page_token"
            );
        };
        refused(&tokens, &user("bob"), question, &token);
        refused(&tokens, &ada, Checksum::of(b"search"), &token);
        refused(&PageTokens::new("another"), &ada, question, &token);
        refused(&PageTokens::of_this_process().unwrap(), &ada, question, &token);
        for broken in ["x", "AQ", "ü", &token[1..], &token[..token.len() - 1], &"A".repeat(10_000)]
        {
            refused(&tokens, &ada, question, broken);
        }
        // A place of another length is another kind of token.
        assert!(tokens.open::<[u8; 4]>(&ada, question, &token).is_err());
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed() {
        let tokens = PageTokens::new("a secret");
        let (ada, question) = (user("ada"), Checksum::of(b"list"));
        let bytes = URL_SAFE_NO_PAD.decode(tokens.seal(&ada, question, b"place")).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let token = URL_SAFE_NO_PAD.encode(changed);
            assert!(tokens.open::<[u8; 5]>(&ada, question, &token).is_err(), "bit {bit}");
        }
    }
}
