//! Step 2 of whatever brings a note's body.

use super::Saga;
use crate::{
    clients::{Attempt, BodyAhead},
    domain::{Body, StoredFile},
    error::Error,
};

/// Bytes of a body that are searched: entity-service takes no more.
const MAX_SEARCH_BYTES: usize = 64 * 1024;

/// Where a body is: what the pivot writes of it.
pub(super) struct Placed {
    /// In the object store, in every phase but `legacy`.
    pub(super) file: Option<StoredFile>,
    /// For content_blocks, in the phases that write them.
    pub(super) content_block: Option<String>,
    /// The beginning, to find the note by.
    pub(super) search_text: String,
}

impl Saga {
    /// Puts a body where the attempt's phase wants it, or ends one that is on its way there.
    pub(super) async fn place(
        &self,
        attempt: &Attempt,
        body: &Body,
        ahead: Option<BodyAhead>,
    ) -> Result<Placed, Error> {
        let file = if attempt.phase.writes_blob() {
            synap_failpoint::hit("gateway.put.before").await;
            let url = self.content.put(&attempt.key, body, ahead).await?;
            synap_failpoint::hit("gateway.put.after").await;
            Some(StoredFile {
                url,
                path: attempt.key.clone(),
                size: i64::try_from(body.bytes().len()).unwrap_or(i64::MAX),
                kind: "markdown".to_owned(),
                checksum: body.checksum().to_string(),
                name: String::new(),
            })
        } else {
            None
        };
        let content_block = attempt.phase.writes_content_block().then(|| body.to_text());
        let search_text = body.beginning(MAX_SEARCH_BYTES);
        Ok(Placed { file, content_block, search_text })
    }
}

/// What an event says of a body: a reference, for whoever wants to read it. It is known before the
/// body is put.
pub(super) fn reference(attempt: &Attempt, body: &Body) -> serde_json::Value {
    if !attempt.phase.writes_blob() {
        return serde_json::Value::Null;
    }
    serde_json::json!({
        "path": attempt.key,
        "size": body.bytes().len(),
        "checksum": body.checksum().to_string(),
    })
}
