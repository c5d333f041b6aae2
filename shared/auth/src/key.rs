//! One key that is trusted, together with the algorithms that it may be used with and the claims
//! that a token must have.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation, decode,
    errors::{Error, ErrorKind},
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use synap_types::UserId;

use crate::{AuthArgs, AuthConfigError, AuthError, Secret};

/// RFC 7518, section 3.2: a key for HS256 is at least as long as its hash.
pub(crate) const MIN_SECRET_BYTES: usize = 32;

/// Sizes of an RSA modulus in bytes that the cryptography library verifies with.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// What is asked of every token, whoever signed it.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
    leeway_secs: u64,
}

impl Rules {
    pub(crate) fn new(args: &AuthArgs) -> Self {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            issuer: set(&args.jwt_issuer),
            audience: set(&args.jwt_audience),
            leeway_secs: args.jwt_leeway_secs,
        }
    }

    fn validation(&self, algorithms: &[Algorithm]) -> Validation {
        let mut validation = Validation {
            algorithms: algorithms.to_vec(),
            leeway: self.leeway_secs,
            validate_nbf: true,
            // Without a name of our own every audience will do; `jsonwebtoken` would take none.
            validate_aud: self.audience.is_some(),
            ..Validation::default()
        };
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// A trusted key.
#[derive(Debug)]
pub(crate) struct Key {
    id: Option<String>,
    decoding: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    /// Any JSON, so that a `sub` of another type is told apart from a token that is not JSON.
    #[serde(default)]
    sub: Value,
}

impl Key {
    /// The shared secret.
    pub(crate) fn from_secret(secret: &Secret, rules: &Rules) -> Result<Self, AuthConfigError> {
        let secret = secret.expose().as_bytes();
        if secret.len() < MIN_SECRET_BYTES {
            return Err(AuthConfigError::SecretTooShort { bytes: secret.len() });
        }
        Ok(Self {
            id: None,
            decoding: DecodingKey::from_secret(secret),
            validation: rules.validation(&[Algorithm::HS256]),
        })
    }

    /// The public key in a PEM file.
    pub(crate) fn from_pem_file(path: &Path, rules: &Rules) -> Result<Self, AuthConfigError> {
        let pem = std::fs::read_to_string(path).map_err(|source| {
            AuthConfigError::KeyFileUnreadable { path: path.to_owned(), source }
        })?;
        Self::from_pem(&pem, rules)
            .map_err(|problem| AuthConfigError::KeyFile { path: path.to_owned(), problem })
    }

    fn from_pem(pem: &str, rules: &Rules) -> Result<Self, &'static str> {
        if pem.contains("PRIVATE KEY-----") {
            return Err("holds a private key; give the public one, and keep the other elsewhere");
        }
        // A certificate would pass as well, by luck: its first bit string need not be its key.
        let blocks = pem.matches("-----BEGIN ").count();
        let keys = pem.matches("-----BEGIN PUBLIC KEY-----").count()
            + pem.matches("-----BEGIN RSA PUBLIC KEY-----").count();
        if (blocks, keys) != (1, 1) {
            return Err("is not one PEM block `PUBLIC KEY`");
        }
        let pem = pem.as_bytes();
        let decoding = DecodingKey::from_ed_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_rsa_pem(pem))
            .map_err(|_| "holds no public key for RSA, EC or Ed25519")?;
        // As a JWK it tells curve and size, which is what decides.
        Jwk::from_decoding_key(&decoding, None)
            .ok()
            .and_then(|jwk| Self::from_jwk(&jwk, rules))
            .ok_or(
                "holds a key that is not RSA of 2048 to 8192 bits, EC P-256 or P-384, or Ed25519",
            )
    }

    /// One key of a key set; none if it is not for signatures, or nothing that we can check.
    pub(crate) fn from_jwk(jwk: &Jwk, rules: &Rules) -> Option<Self> {
        let common = &jwk.common;
        let for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
            && common
                .key_operations
                .as_ref()
                .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !for_signatures {
            return None;
        }
        let fitting = fitting(&jwk.algorithm)?;
        let algorithms = match common.key_algorithm {
            None => fitting.to_vec(),
            Some(only) => {
                let only = Algorithm::try_from(only).ok()?;
                fitting.contains(&only).then(|| vec![only])?
            }
        };
        Some(Self {
            id: common.key_id.clone(),
            decoding: DecodingKey::from_jwk(jwk).ok()?,
            validation: rules.validation(&algorithms),
        })
    }

    /// The name under which tokens refer to the key.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether the key makes signatures of this kind.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }

    /// Checks signature first, then claims, and names the user.
    pub(crate) fn verify(&self, token: &str) -> Result<UserId, AuthError> {
        let token = decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|error| refusal(&error))?;
        match token.claims.sub {
            Value::String(subject) => Ok(UserId::parse(subject)?),
            _ => Err(AuthError::NoSubject),
        }
    }
}

/// The algorithms that a key can be used with. A symmetric key in a public set is nobody's secret.
fn fitting(key: &AlgorithmParameters) -> Option<&'static [Algorithm]> {
    match key {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
            let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
            RSA_MODULUS_BYTES
                .contains(&(modulus.len() - zeros))
                .then_some(AlgorithmFamily::Rsa.algorithms())
        }
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => Some(&[Algorithm::ES256]),
            EllipticCurve::P384 => Some(&[Algorithm::ES384]),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(pair) => match pair.curve {
            EllipticCurve::Ed25519 => Some(&[Algorithm::EdDSA]),
            _ => None,
        },
        _ => None,
    }
}

fn refusal(error: &Error) -> AuthError {
    match error.kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => AuthError::Untrusted,
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::NotYetValid,
        ErrorKind::InvalidIssuer => AuthError::WrongIssuer,
        ErrorKind::InvalidAudience => AuthError::WrongAudience,
        ErrorKind::InvalidClaimFormat(_) => AuthError::MalformedClaim,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "iss" => AuthError::WrongIssuer,
            "aud" => AuthError::WrongAudience,
            _ => AuthError::NoExpiry,
        },
        _ => AuthError::Malformed,
    }
}
