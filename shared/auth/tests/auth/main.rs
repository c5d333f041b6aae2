//! Tokens with real signatures, good ones and all the ways in which they can be bad.
#![expect(clippy::unwrap_used, reason = "what a test needs must be there")]

mod key_set;
mod keys;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use synap_auth::{AuthArgs, AuthConfigError, AuthError, Authenticator, Secret, issue_hs256};
use synap_types::{InvalidUserId, SystemClock, UserId};

use keys::{ED25519, P256, P384, Pair, RSA, RSA_OTHER, SECRET, args, at, claims, file, signed};

fn with_secret() -> AuthArgs {
    AuthArgs { jwt_hs256_secret: Some(Secret::new(SECRET)), ..args() }
}

fn with_pem(pem: &str) -> Result<Authenticator, AuthConfigError> {
    let file = file(pem);
    Authenticator::new(&AuthArgs { jwt_public_key_file: Some(file.path().to_owned()), ..args() })
}

fn secret_key() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

/// What is said of a token with these claims and a good signature.
async fn judge(args: &AuthArgs, claims: &Value) -> Result<UserId, AuthError> {
    let header = signed(&secret_key(), Algorithm::HS256, claims);
    let authenticator = Authenticator::new(args).unwrap();
    authenticator.authenticate(Some(&header)).await
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

#[tokio::test]
async fn a_development_token_names_its_user() {
    let authenticator = Authenticator::new(&with_secret()).unwrap();
    for id in ["local-user", "auth0|12", "a/b", "Jürgen", "../x"] {
        let token =
            issue_hs256(&Secret::new(SECRET), &user(id), Duration::from_mins(1), &SystemClock);
        let header = format!("Bearer {token}");
        let caller = authenticator.authenticate(Some(&header)).await;
        assert_eq!(caller, Ok(user(id)));
    }
    assert_eq!(authenticator.authenticate(None).await, Err(AuthError::Missing));
}

#[tokio::test]
async fn every_public_key_checks_its_own_algorithms() {
    let cases: [(&Pair, &[Algorithm]); 4] = [
        (
            &RSA,
            &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
        ),
        (&P256, &[Algorithm::ES256]),
        (&P384, &[Algorithm::ES384]),
        (&ED25519, &[Algorithm::EdDSA]),
    ];
    for (pair, algorithms) in cases {
        let authenticator = with_pem(&pair.public_pem).unwrap();
        for &algorithm in algorithms {
            let header = signed(&pair.signing, algorithm, &claims());
            let caller = authenticator.authenticate(Some(&header)).await;
            assert_eq!(caller, Ok(user("auth0|12")), "{algorithm:?}");
        }
        for (other, _) in cases.iter().filter(|(other, _)| !std::ptr::eq(*other, pair)) {
            let stranger = with_pem(&other.public_pem).unwrap();
            let header = signed(&pair.signing, algorithms[0], &claims());
            let refused = stranger.authenticate(Some(&header)).await;
            assert_eq!(refused, Err(AuthError::Untrusted), "{algorithms:?}");
        }
    }
}

#[tokio::test]
async fn another_key_of_the_same_kind_is_not_trusted() {
    let authenticator = with_pem(&RSA.public_pem).unwrap();
    let header = signed(&RSA_OTHER.signing, Algorithm::RS256, &claims());
    let refused = authenticator.authenticate(Some(&header)).await;
    assert_eq!(refused, Err(AuthError::Untrusted));

    let authenticator = Authenticator::new(&with_secret()).unwrap();
    let other = EncodingKey::from_secret(b"another secret, just as long as the first one");
    let header = signed(&other, Algorithm::HS256, &claims());
    let refused = authenticator.authenticate(Some(&header)).await;
    assert_eq!(refused, Err(AuthError::Untrusted));
}

/// The classic attack: what everybody may know, the public key, used as an HMAC secret.
#[tokio::test]
async fn a_public_key_is_no_secret() {
    for pair in [&RSA, &P256, &ED25519] {
        let authenticator = with_pem(&pair.public_pem).unwrap();
        for secret in [pair.public_pem.as_bytes(), pair.public_pem.trim().as_bytes()] {
            let forged = EncodingKey::from_secret(secret);
            let header = signed(&forged, Algorithm::HS256, &claims());
            let refused = authenticator.authenticate(Some(&header)).await;
            assert_eq!(refused, Err(AuthError::Untrusted));
        }
    }
}

#[tokio::test]
async fn the_token_does_not_choose_its_algorithm() {
    let authenticator = Authenticator::new(&with_secret()).unwrap();
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let header = signed(&secret_key(), algorithm, &claims());
        let refused = authenticator.authenticate(Some(&header)).await;
        assert_eq!(refused, Err(AuthError::Untrusted), "{algorithm:?}");
    }
    let header = signed(&RSA.signing, Algorithm::RS256, &claims());
    let refused = authenticator.authenticate(Some(&header)).await;
    assert_eq!(refused, Err(AuthError::Untrusted));

    for none in ["none", "None", "nOnE"] {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(&json!({"alg": none, "typ": "JWT"}));
        for signature in ["", "AAAA"] {
            let header = format!("Bearer {head}.{}.{signature}", part(&claims()));
            let refused = authenticator.authenticate(Some(&header)).await;
            assert_eq!(refused, Err(AuthError::Malformed), "{none} {signature}");
        }
    }
}

#[tokio::test]
async fn what_was_changed_after_signing_is_refused() {
    let good = signed(&secret_key(), Algorithm::HS256, &claims());
    let authenticator = Authenticator::new(&with_secret()).unwrap();
    let parts: Vec<_> = good.split('.').collect();
    let [head, _, signature] = parts[..] else { panic!("three parts: {good}") };
    let payload = URL_SAFE_NO_PAD.encode(json!({"sub": "admin", "exp": at(3600)}).to_string());
    let header = format!("{head}.{payload}.{signature}");
    let refused = authenticator.authenticate(Some(&header)).await;
    assert_eq!(refused, Err(AuthError::Untrusted));

    let unsigned = format!("{head}.{payload}.");
    let refused = authenticator.authenticate(Some(&unsigned)).await;
    assert_eq!(refused, Err(AuthError::Untrusted));
    for broken in [
        "Bearer a.b.c".to_owned(),
        "Bearer ...".to_owned(),
        format!("{head}.{payload}"),
        format!("{good}.more"),
    ] {
        let refused = authenticator.authenticate(Some(&broken)).await;
        assert_eq!(refused, Err(AuthError::Malformed), "{broken}");
    }
}

#[tokio::test]
async fn an_extension_that_must_be_understood_is_refused() {
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let header = keys::bearer(&header, &secret_key(), &claims());
    let authenticator = Authenticator::new(&with_secret()).unwrap();
    let refused = authenticator.authenticate(Some(&header)).await;
    assert_eq!(refused, Err(AuthError::Malformed));
}

#[tokio::test]
async fn a_huge_token_is_not_looked_at() {
    let huge = json!({"sub": "u", "exp": at(3600), "x": "x".repeat(8 * 1024)});
    let refused = judge(&with_secret(), &huge).await;
    assert_eq!(refused, Err(AuthError::TooLarge));
    let large = json!({"sub": "u", "exp": at(3600), "x": "x".repeat(5 * 1024)});
    assert_eq!(judge(&with_secret(), &large).await, Ok(user("u")));
}

#[tokio::test]
async fn a_token_is_good_between_nbf_and_exp() {
    for (claims, said) in [
        (json!({"sub": "u", "exp": at(-10)}), Ok(user("u"))),
        (json!({"sub": "u", "exp": at(-60)}), Err(AuthError::Expired)),
        (json!({"sub": "u"}), Err(AuthError::NoExpiry)),
        (json!({"sub": "u", "exp": null}), Err(AuthError::NoExpiry)),
        (json!({"sub": "u", "exp": "never"}), Err(AuthError::NoExpiry)),
        (json!({"sub": "u", "exp": -1}), Err(AuthError::NoExpiry)),
        (json!({"sub": "u", "exp": at(60), "nbf": at(10)}), Ok(user("u"))),
        (json!({"sub": "u", "exp": at(600), "nbf": at(120)}), Err(AuthError::NotYetValid)),
        (json!({"sub": "u", "exp": at(600), "nbf": "soon"}), Err(AuthError::MalformedClaim)),
    ] {
        assert_eq!(judge(&with_secret(), &claims).await, said, "{claims}");
    }
    let strict = AuthArgs { jwt_leeway_secs: 0, ..with_secret() };
    let claims = json!({"sub": "u", "exp": at(-10)});
    assert_eq!(judge(&strict, &claims).await, Err(AuthError::Expired));
}

#[tokio::test]
async fn the_subject_must_be_a_user() {
    let exp = at(3600);
    for (claims, said) in [
        (json!({"exp": exp}), Err(AuthError::NoSubject)),
        (json!({"exp": exp, "sub": null}), Err(AuthError::NoSubject)),
        (json!({"exp": exp, "sub": 12}), Err(AuthError::NoSubject)),
        (json!({"exp": exp, "sub": ["u"]}), Err(AuthError::Malformed)),
        (json!({"exp": exp, "sub": ""}), Err(AuthError::InvalidSubject(InvalidUserId::Empty))),
        (
            json!({"exp": exp, "sub": "a\0b"}),
            Err(AuthError::InvalidSubject(InvalidUserId::ControlCharacter)),
        ),
        (
            json!({"exp": exp, "sub": "ü".repeat(200)}),
            Err(AuthError::InvalidSubject(InvalidUserId::TooLong { encoded: 1200 })),
        ),
        (json!({"exp": exp, "sub": "a/../b"}), Ok(user("a/../b"))),
    ] {
        assert_eq!(judge(&with_secret(), &claims).await, said, "{claims}");
    }
}

#[tokio::test]
async fn a_subject_that_is_given_twice_is_refused() {
    let payload = format!(r#"{{"sub":"a","sub":"b","exp":{}}}"#, at(3600));
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &secret_key(), Algorithm::HS256).unwrap();
    let header = format!("Bearer {message}.{signature}");
    let authenticator = Authenticator::new(&with_secret()).unwrap();
    let refused = authenticator.authenticate(Some(&header)).await;
    assert_eq!(refused, Err(AuthError::Malformed));
}

#[tokio::test]
async fn issuer_and_audience_are_checked_where_they_are_configured() {
    let strict = AuthArgs {
        jwt_issuer: Some("https://issuer.example/".to_owned()),
        jwt_audience: Some("synap".to_owned()),
        ..with_secret()
    };
    let with = |iss: Value, aud: Value| json!({"sub": "u", "exp": at(60), "iss": iss, "aud": aud});
    let issuer = || json!("https://issuer.example/");
    for (claims, said) in [
        (with(issuer(), json!("synap")), Ok(user("u"))),
        (with(issuer(), json!(["other", "synap"])), Ok(user("u"))),
        (with(json!("https://issuer.example"), json!("synap")), Err(AuthError::WrongIssuer)),
        (with(json!(7), json!("synap")), Err(AuthError::WrongIssuer)),
        (with(issuer(), json!("other")), Err(AuthError::WrongAudience)),
        (with(issuer(), json!([])), Err(AuthError::WrongAudience)),
        (with(issuer(), json!(null)), Err(AuthError::WrongAudience)),
        (json!({"sub": "u", "exp": at(60), "aud": "synap"}), Err(AuthError::WrongIssuer)),
        (json!({"sub": "u", "exp": at(60), "iss": issuer()}), Err(AuthError::WrongAudience)),
    ] {
        assert_eq!(judge(&strict, &claims).await, said, "{claims}");
        assert_eq!(judge(&with_secret(), &claims).await, Ok(user("u")));
    }
    let unset = AuthArgs {
        jwt_issuer: Some(String::new()),
        jwt_audience: Some(String::new()),
        ..with_secret()
    };
    assert!(judge(&unset, &claims()).await.is_ok());
}

#[test]
fn exactly_one_source_of_keys_is_needed() {
    let refused = |args: &AuthArgs| Authenticator::new(args).unwrap_err().to_string();
    let text = refused(&args());
    for name in ["JWT_HS256_SECRET", "JWT_PUBLIC_KEY_FILE", "JWT_JWKS_URL"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(text.ends_with("set now: none"), "{text}");

    let empty = AuthArgs {
        jwt_hs256_secret: Some(Secret::new("")),
        jwt_public_key_file: Some("".into()),
        jwt_jwks_url: Some(String::new()),
        ..args()
    };
    assert!(refused(&empty).ends_with("set now: none"));

    let two =
        AuthArgs { jwt_jwks_url: Some("https://issuer.example/jwks".to_owned()), ..with_secret() };
    let text = refused(&two);
    assert!(
        text.ends_with("set now: JWT_HS256_SECRET, JWT_JWKS_URL") && !text.contains(SECRET),
        "{text}"
    );
}

#[test]
fn a_key_that_cannot_protect_anybody_is_refused() {
    let short = AuthArgs { jwt_hs256_secret: Some(Secret::new("x".repeat(31))), ..args() };
    let text = Authenticator::new(&short).unwrap_err().to_string();
    assert!(text.contains("31 bytes") && text.contains("32"), "{text}");

    let plain = AuthArgs { jwt_jwks_url: Some("http://issuer.example/jwks".to_owned()), ..args() };
    let text = Authenticator::new(&plain).unwrap_err().to_string();
    assert!(text.contains("JWT_JWKS_URL must begin with https://"), "{text}");

    let absent = AuthArgs { jwt_public_key_file: Some("/nowhere/key.pem".into()), ..args() };
    let text = Authenticator::new(&absent).unwrap_err().to_string();
    assert!(text.contains("/nowhere/key.pem"), "{text}");

    for (pem, problem) in [
        (RSA.private_pem.clone(), "private key"),
        (P256.private_pem.clone(), "private key"),
        (format!("{}{}", RSA.public_pem, P256.public_pem), "one PEM block"),
        (keys::pem("CERTIFICATE", b"x"), "one PEM block"),
        (keys::pem("PUBLIC KEY", b"x"), "no public key"),
        (String::new(), "one PEM block"),
        (SMALL_RSA.to_owned(), "2048"),
        (P521.to_owned(), "P-384"),
    ] {
        let text = with_pem(&pem).unwrap_err().to_string();
        assert!(text.contains(problem), "{problem}: {text}");
    }
}

/// The public half of a key made for this test: RSA with 1024 bits.
const SMALL_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCy2/4P7DSAeHeQmqe79EUe6fw5
NmjDNa180LwsDm2CzrAeTB9Yvwl2WrILfD7TCuTAcbbBfdi0hnScsrxHsIqRQAIs
OXzyTm9PSoT2dijFTsL+s1AiLMyO4PHUniAGuSLSrBsYe0XzKrXmNznAARLfvnzK
m9Rog0va0SL5zXIjkQIDAQAB
-----END PUBLIC KEY-----
";

/// The public half of a key made for this test: EC on the curve P-521.
const P521: &str = "-----BEGIN PUBLIC KEY-----
MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAIEUCViA1y663c1CND9Pz4Eg6qrm5
WzhQvho7IV8bZaSBys03ugTBA/Roz4PmZitWpO1E0/Jj72GeGJj1lT2Mg2MAaIws
BNrLeH9cN2Q4Dk3dL5VyLp8Cz/8tdnRKPjVDHdMJ5QUN5DKtCVZP/JFid1PNNA1s
MqNKsXXKbJlpfvIzGgk=
-----END PUBLIC KEY-----
";
