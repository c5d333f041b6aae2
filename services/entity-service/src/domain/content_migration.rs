//! Bodies of content_blocks on their way into the object store (docs/content-migration.md).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use synap_types::{BlobKey, Checksum};
use uuid::Uuid;

/// Bytes of the largest body that is handed out: whoever uploads it holds it in memory.
pub const MAX_MIGRATED_BYTES: i64 = 64 * 1024 * 1024;

/// Which bodies are wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose the claims will be.
    pub claimant: Uuid,
    /// Bodies at most.
    pub limit: usize,
    /// Which entities are looked at.
    pub among: Among,
    /// Only entities of this user. As the row has it: it may be no id that we take.
    pub user: Option<String>,
    /// Only entities that were last changed then or later.
    pub since: Option<DateTime<Utc>>,
    /// Whether what has failed is tried again.
    pub retry_failed: bool,
    /// Whether nothing is to be recorded.
    pub dry_run: bool,
}

/// Which entities are looked at.
#[derive(Debug, Clone)]
pub enum Among {
    /// The next ones in the order of ids.
    After(Uuid),
    /// These.
    These(Vec<Uuid>),
}

/// What was found among the entities that were looked at.
#[derive(Debug, Default)]
pub struct Looked {
    /// The last one.
    pub last: Option<Uuid>,
    /// There are no more after it.
    pub done: bool,
    /// How many were looked at.
    pub entities: i64,
    /// How many of them are not handed out, and why.
    pub outcomes: BTreeMap<String, i64>,
    /// Those of them that need a person.
    pub notables: Vec<Notable>,
    /// Those of them that somebody holds already.
    pub held: Vec<Uuid>,
    /// What is handed out.
    pub claims: Vec<Claim>,
}

/// An entity that needs a person.
#[derive(Debug)]
pub struct Notable {
    /// Its id.
    pub entity_id: Uuid,
    /// The owner, as the row has it.
    pub user_id: String,
    /// What became of it.
    pub outcome: String,
    /// More about it, or empty.
    pub detail: String,
}

/// A body to upload.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose.
    pub entity_id: Uuid,
    /// The owner, as the row has it.
    pub user_id: String,
    /// Where to.
    pub key: BlobKey,
    /// Bytes.
    pub size: i64,
    /// An earlier holder may have uploaded it.
    pub resumed: bool,
    /// What the entity names already, where that is a key that the store takes.
    pub existing: Option<BlobKey>,
    /// What V0.2 says it is, unless that is markdown.
    pub content_type: Option<String>,
}

/// How an object was looked at after it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Not at all.
    None,
    /// It is there, in its size.
    Head,
    /// It was read to its end and hashed.
    Checksum,
}

impl Check {
    /// The level in the database.
    #[must_use]
    pub fn level(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Head => Some("head"),
            Self::Checksum => Some("checksum"),
        }
    }
}

/// A body that is in the store.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// Whose.
    pub entity_id: Uuid,
    /// The claim's key.
    pub key: BlobKey,
    /// Of what was uploaded.
    pub checksum: Checksum,
    /// Public name, if one is configured.
    pub url: Option<String>,
    /// It is under the key that the entity names already, and not under the claim's.
    pub existing: bool,
    /// How the object was looked at.
    pub check: Check,
}

/// What became of a body that is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// The entity names it.
    Attached,
    /// The entity is not what it was, or another has taken the claim over.
    Conflict,
    /// There is no such entity any more.
    Gone,
}

/// A claim that is given up.
#[derive(Debug, Clone)]
pub struct Released {
    /// Whose body.
    pub entity_id: Uuid,
    /// The claim's key.
    pub key: String,
    /// Why it failed for good, in a word and in more words; `None` if it did not.
    pub failure: Option<(String, String)>,
}

/// How far it is.
#[derive(Debug)]
pub struct Progress {
    /// About how many entities there are.
    pub estimated_entities: i64,
    /// Bodies that are being uploaded.
    pub claims: i64,
    /// Entities that have failed, by reason.
    pub failed: BTreeMap<String, i64>,
}
