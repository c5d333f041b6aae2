//! Keys made for one run of the tests, and tokens signed with them.

use std::{io::Write as _, sync::LazyLock};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use serde_json::{Value, json};
use synap_auth::AuthArgs;
use tempfile::NamedTempFile;

pub(crate) const SECRET: &str = "a secret of more than thirty-two bytes, for tests";

/// A key pair whose public half is known in every form.
pub(crate) struct Pair {
    pub(crate) signing: EncodingKey,
    pub(crate) public_pem: String,
    pub(crate) private_pem: String,
}

pub(crate) static RSA: LazyLock<Pair> = LazyLock::new(rsa);
pub(crate) static RSA_OTHER: LazyLock<Pair> = LazyLock::new(rsa);
pub(crate) static P256: LazyLock<Pair> = LazyLock::new(|| ec(&ECDSA_P256_SHA256_FIXED_SIGNING));
pub(crate) static P384: LazyLock<Pair> = LazyLock::new(|| ec(&ECDSA_P384_SHA384_FIXED_SIGNING));
pub(crate) static ED25519: LazyLock<Pair> = LazyLock::new(|| {
    let private = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private.as_ref()).unwrap();
    let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    Pair {
        signing: EncodingKey::from_ed_pem(private_pem.as_bytes()).unwrap(),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        private_pem,
    }
});

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der = pair.as_der().unwrap();
    let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    Pair {
        signing: EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap(),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        private_pem,
    }
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Pair {
    let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref()).unwrap();
    let public: PublicKeyX509Der = pair.public_key().as_der().unwrap();
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    Pair {
        signing: EncodingKey::from_ec_pem(private_pem.as_bytes()).unwrap(),
        public_pem: pem("PUBLIC KEY", public.as_ref()),
        private_pem,
    }
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl Pair {
    /// The public half as a member of a key set.
    pub(crate) fn jwk(&self, id: &str, algorithm: Algorithm) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.signing, algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }
}

pub(crate) fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Nothing is trusted yet.
pub(crate) fn args() -> AuthArgs {
    AuthArgs {
        jwt_hs256_secret: None,
        jwt_public_key_file: None,
        jwt_jwks_url: None,
        jwt_issuer: None,
        jwt_audience: None,
        jwt_leeway_secs: 30,
    }
}

/// Seconds since 1970, `offset` seconds from now.
pub(crate) fn at(offset: i64) -> u64 {
    get_current_timestamp().saturating_add_signed(offset)
}

/// The claims of a token that is good for an hour.
pub(crate) fn claims() -> Value {
    json!({"sub": "auth0|12", "exp": at(3600)})
}

/// `Bearer <token>`, signed.
pub(crate) fn signed(key: &EncodingKey, algorithm: Algorithm, claims: &Value) -> String {
    bearer(&Header::new(algorithm), key, claims)
}

/// `Bearer <token>` that names the key it is signed with.
pub(crate) fn named(key: &Pair, algorithm: Algorithm, id: &str) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(id.to_owned());
    bearer(&header, &key.signing, &claims())
}

pub(crate) fn bearer(header: &Header, key: &EncodingKey, claims: &Value) -> String {
    format!("Bearer {}", encode(header, claims, key).unwrap())
}
