//! Whether the object store has what rows say.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// How closely an object is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It is there, and has its size.
    Head,
    /// It was read to its end, and has its SHA-256.
    Checksum,
}

impl Level {
    /// The name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Checksum => "checksum",
        }
    }
}

/// What a look at an object found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What the row says, as far as the level goes.
    Sound,
    /// There is no object.
    Missing,
    /// It has another size.
    SizeDiffers,
    /// It has another SHA-256, or the row has none.
    ChecksumDiffers,
}

impl Outcome {
    /// The name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Missing => "missing",
            Self::SizeDiffers => "size_differs",
            Self::ChecksumDiffers => "checksum_differs",
        }
    }
}

/// A file as its row describes it: V0.2 wrote rows that say less, and keys of its own form.
#[derive(Debug, Clone)]
pub struct FileToCheck {
    /// The entity.
    pub entity_id: Uuid,
    /// The owner, as the row has it.
    pub user_id: String,
    /// What the entity is.
    pub entity_type: String,
    /// The object key; `None` where the entity has a text in content_blocks and no file.
    pub key: Option<String>,
    /// Bytes.
    pub size: Option<i64>,
    /// `sha256:` and base64 or hex.
    pub checksum: Option<String>,
}

/// Which files a walk by id is about.
#[derive(Debug, Clone, Copy)]
pub enum Scope {
    /// All.
    All,
    /// Those that were not found sound under the key that they have now.
    NotSound {
        /// At this level, or a closer one.
        level: Level,
        /// So long ago at most; `None` is however long.
        within: Option<Duration>,
    },
    /// Those that nobody has looked at under the key that they have now.
    NeverChecked,
}

/// A share of all entities.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Of 2^32.
    pub threshold: i64,
    /// Another number draws others.
    pub seed: i64,
}

/// A page of a walk through all files in the order of entity ids.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Entities after this one.
    pub after: Uuid,
    /// Files at most.
    pub limit: i64,
    /// Which of them.
    pub scope: Scope,
    /// Only some; `None` is all.
    pub sample: Option<Sample>,
    /// Entities that have a text and no file, too.
    pub with_missing_files: bool,
}

/// What a page of a walk came to.
#[derive(Debug, Clone, Default)]
pub struct WalkedFiles {
    /// In the order of entity ids.
    pub files: Vec<FileToCheck>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Uuid>,
}

/// What a look at one object found.
#[derive(Debug, Clone)]
pub struct FileCheck {
    /// The entity.
    pub entity_id: Uuid,
    /// The key that was looked at.
    pub key: String,
    /// How closely.
    pub level: Level,
    /// What was found.
    pub outcome: Outcome,
}

/// Rows, and what the last looks found under the keys that they have now.
#[derive(Debug, Clone, Default)]
pub struct VerificationSummary {
    /// All, deleted ones too.
    pub entities: i64,
    /// A text in content_blocks and no file.
    pub without_file: i64,
    /// With a public URL.
    pub with_file_url: i64,
    /// With an object key.
    pub with_file: i64,
    /// Found as the row says, at either level.
    pub sound: i64,
    /// Of these, read to the end since they were written.
    pub verified: i64,
    /// No object.
    pub missing: i64,
    /// Another size.
    pub size_differs: i64,
    /// Another SHA-256.
    pub checksum_differs: i64,
    /// The look that was longest ago.
    pub oldest_check: Option<DateTime<Utc>>,
    /// Claims of the content migration that are not settled.
    pub open_claims: i64,
}

/// A content block that is not what the entity's row says.
#[derive(Debug, Clone)]
pub struct ContentDifference {
    /// The entity.
    pub entity_id: Uuid,
    /// The owner, as the row has it.
    pub user_id: String,
    /// The object key.
    pub key: String,
}

/// What one step of the comparison of content blocks found.
#[derive(Debug, Clone, Default)]
pub struct Differences {
    /// In the order of entity ids.
    pub differences: Vec<ContentDifference>,
    /// Content blocks that were looked at.
    pub compared: i64,
    /// Where the next step begins; `None` at the end.
    pub next: Option<Uuid>,
    /// Whether this phase writes content blocks.
    pub applies: bool,
}
