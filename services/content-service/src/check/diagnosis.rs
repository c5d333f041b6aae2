//! What S3's errors mean to whoever set the variables.

use crate::config::{Bucket, Place};

/// Says what is wrong, from the store's own words.
pub(super) fn explain(place: &Place, verb: &str, cause: &str) -> String {
    of_s3(place, verb, cause).unwrap_or_else(|| format!("cannot {verb} an object: {cause}"))
}

/// As [`explain`], where the words are known.
pub(super) fn of_s3(place: &Place, verb: &str, cause: &str) -> Option<String> {
    let Place::S3(bucket) = place else { return None };
    let Bucket { endpoint, name, region, .. } = bucket;
    let says = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    // R2 and S3 name an error in the body of the answer; the rest are words of the client's.
    let meaning = if says(&[
        "InvalidAccessKeyId",
        "NotSignedUp",
        "Credential access key has length",
    ]) {
        "the store does not know the access key id; check R2_ACCESS_KEY_ID".to_owned()
    } else if says(&["SignatureDoesNotMatch"]) {
        "the store does not accept our signatures; check R2_SECRET_ACCESS_KEY, and S3_REGION where \
         the store is not R2"
            .to_owned()
    } else if says(&["RequestTimeTooSkewed", "RequestExpired"]) {
        "the clock of this machine differs too much from the store's; set it by NTP".to_owned()
    } else if says(&["NoSuchBucket"]) {
        format!("the store has no bucket {name:?}; create it, or check R2_BUCKET_NAME")
    } else if says(&["InvalidBucketName"]) {
        format!("{name:?} cannot be the name of a bucket; check R2_BUCKET_NAME")
    } else if says(&["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocation"]) {
        format!("the bucket is in another region than {region:?}; check S3_REGION and S3_ENDPOINT")
    } else if says(&["AccessDenied", "403 Forbidden", "Unauthorized", "AllAccessDisabled"]) {
        format!(
            "the access key may not {verb} objects in bucket {name:?}; give it read and write \
             access to the bucket's objects"
        )
    } else if says(&["SlowDown", "429 Too Many", "503 Service", "TooManyRequests"]) {
        "the store is overloaded, or limits us; try again later".to_owned()
    } else if says(&["dns error", "failed to lookup address"]) {
        format!("there is no host of the name in {endpoint}; check R2_ACCOUNT_ID or S3_ENDPOINT")
    } else if says(&["certificate", "invalid peer", "UnknownIssuer"]) {
        format!(
            "the TLS certificate of {endpoint} is not trusted here; check S3_ENDPOINT, and the \
             certificate authorities of this machine"
        )
    } else if says(&["corrupt message", "InvalidContentType", "HandshakeFailure", "handshake"]) {
        format!("{endpoint} does not speak TLS as we do; check https:// in S3_ENDPOINT")
    } else if says(&[
        "Connection refused",
        "tcp connect error",
        "operation timed out",
        "error trying to connect",
        "error sending request",
    ]) {
        format!("nobody answers at {endpoint}; check S3_ENDPOINT, the network, and its firewalls")
    } else if says(&["404 Not Found"]) {
        format!("the store has no such object or bucket; check R2_BUCKET_NAME, which is {name:?}")
    } else {
        return None;
    };
    Some(meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{S3Limits, StoreArgs};

    #[test]
    fn each_misconfiguration_has_its_sentence() {
        let place = StoreArgs {
            s3_endpoint: Some("https://h".to_owned()),
            r2_access_key_id: Some("id".to_owned()),
            r2_secret_access_key: Some("hush".into()),
            r2_bucket_name: Some("notes".to_owned()),
            s3_limits: S3Limits::default(),
            ..StoreArgs::default()
        };
        let place = place.resolve().unwrap().place;
        for (cause, word) in [
            ("403: <Error><Code>InvalidAccessKeyId</Code></Error>", "R2_ACCESS_KEY_ID"),
            ("<Message>Credential access key has length 20, should be 32", "R2_ACCESS_KEY_ID"),
            ("403: <Code>SignatureDoesNotMatch</Code>", "R2_SECRET_ACCESS_KEY"),
            ("403: <Code>RequestTimeTooSkewed</Code>", "clock"),
            ("404: <Code>NoSuchBucket</Code>", "R2_BUCKET_NAME"),
            ("403: <Code>AccessDenied</Code>", "may not write"),
            ("client error (Connect): dns error: failed to lookup", "no host"),
            ("client error (Connect): invalid peer certificate: UnknownIssuer", "not trusted"),
            ("client error (Connect): tcp connect error: Connection refused", "nobody answers"),
        ] {
            let says = explain(&place, "write", cause);
            assert!(says.contains(word), "{cause}: {says}");
        }
        assert_eq!(explain(&place, "write", "new"), "cannot write an object: new");
    }
}
