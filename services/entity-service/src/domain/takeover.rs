//! From content_blocks to the object store and back.

use chrono::{DateTime, Utc};
use synap_types::Checksum;
use uuid::Uuid;

use super::Phase;

/// Something that must hold before a phase is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Every migration of this release is applied.
    MigrationsCurrent,
    /// No row is claimed by a migration that has not ended, or failed in one.
    MigrationClaims,
    /// No committed write waits long for its event.
    EventsWaiting,
    /// Text in content_blocks is in a file, too.
    TextWithoutFile,
    /// The last look at the file found what the row says.
    FileUnsound,
    /// The file was read and compared, or was hashed on its way by our own write a short time ago.
    FileUnchecked,
    /// The text in content_blocks has the checksum of the row.
    ContentDiffers,
    /// Whatever is searched has its document: later nothing could make it.
    SearchDocumentMissing,
    /// The embedding in content_blocks is in entity_vectors, too.
    EmbeddingMissing,
}

impl Condition {
    /// What must hold of the installation before this phase is entered.
    #[must_use]
    pub fn of_installation(to: Phase) -> &'static [Self] {
        match to {
            Phase::DualWrite => &[Self::MigrationsCurrent],
            _ => &[Self::MigrationsCurrent, Self::MigrationClaims, Self::EventsWaiting],
        }
    }

    /// What must hold of every entity.
    #[must_use]
    pub fn of_entities(to: Phase) -> &'static [Self] {
        const PRIMARY: [Condition; 6] = [
            Condition::TextWithoutFile,
            Condition::FileUnsound,
            Condition::FileUnchecked,
            Condition::ContentDiffers,
            Condition::SearchDocumentMissing,
            Condition::EmbeddingMissing,
        ];
        match to {
            Phase::ObjectPrimary => &PRIMARY[..4],
            Phase::ObjectOnly => &PRIMARY,
            _ => &[],
        }
    }

    /// The name that it has in every report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MigrationsCurrent => "migrations_current",
            Self::MigrationClaims => "migration_claims",
            Self::EventsWaiting => "events_waiting",
            Self::TextWithoutFile => "text_without_file",
            Self::FileUnsound => "file_unsound",
            Self::FileUnchecked => "file_unchecked",
            Self::ContentDiffers => "content_differs",
            Self::SearchDocumentMissing => "search_document_missing",
            Self::EmbeddingMissing => "embedding_missing",
        }
    }

    /// What to do where it does not hold.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::MigrationsCurrent => {
                "the schema is not this release's: start entity-service with AUTO_MIGRATE=true, or \
                 run the migration job"
            }
            Self::MigrationClaims => {
                "a migration has not ended, or failed for some rows: `synapctl migrate content \
                 --retry-failed`"
            }
            Self::EventsWaiting => {
                "committed writes wait for their events for over a minute: `synapctl status` says \
                 whether gateway and event-service are ready"
            }
            Self::TextWithoutFile => {
                "text in content_blocks has no file: `synapctl migrate content`"
            }
            Self::FileUnsound => {
                "files are missing or are not what their rows say: `synapctl verify` names them; in \
                 dual_write the gateway repairs a note when it is read, and `synapctl migrate \
                 content` uploads those of V0.2 again"
            }
            Self::FileUnchecked => {
                "files were not read back and compared yet: `synapctl verify --level checksum`"
            }
            Self::ContentDiffers => {
                "content_blocks was changed behind our back and says something else than the file: \
                 `synapctl verify` names the rows; write the text that counts as an update, or put \
                 the old one back"
            }
            Self::SearchDocumentMissing => {
                "entities cannot be searched yet: entity-service writes their documents by itself, \
                 hundreds a second; try again"
            }
            Self::EmbeddingMissing => {
                "embeddings are in content_blocks only: `synapctl migrate content` moves them into \
                 entity_vectors"
            }
        }
    }
}

/// What does not hold.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The condition.
    pub condition: Condition,
    /// For how many entities, or how many things are in the way; 0 if it holds.
    pub number: i64,
    /// Some of the entities.
    pub ids: Vec<Uuid>,
}

/// Some of the entities, as a walk in the order of ids has met them.
#[derive(Debug, Clone)]
pub struct Stretch<T> {
    /// What was found.
    pub found: T,
    /// Entities that were looked at.
    pub seen: i64,
    /// The last of them; `None` where there are no more.
    pub last: Option<Uuid>,
    /// Entities there are, as the database estimates it.
    pub total: i64,
}

/// What is to be copied back into content_blocks.
#[derive(Debug, Clone, Default)]
pub struct CopyBack {
    /// Entities whose blob has a body that content_blocks lacks.
    pub bodies: Vec<BodyToCopy>,
    /// Entities whose content block was written behind our back after their blob.
    pub unknown: Vec<Uuid>,
}

/// A body that content_blocks lacks.
#[derive(Debug, Clone)]
pub struct BodyToCopy {
    /// The entity.
    pub id: Uuid,
    /// The blob's key.
    pub key: String,
    /// Its size in bytes, as far as the row has it.
    pub size: i64,
    /// Its checksum, as far as the row has it.
    pub checksum: String,
}

/// A body for content_blocks.
#[derive(Debug, Clone)]
pub struct ContentBlock {
    /// The entity.
    pub id: Uuid,
    /// The key of the blob that it is of.
    pub key: String,
    /// The body.
    pub content: String,
}

/// Whether content_blocks is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableState {
    /// It is.
    Present,
    /// It has another name.
    Renamed,
    /// It is gone.
    Dropped,
}

/// What there is of content_blocks.
#[derive(Debug, Clone)]
pub struct LegacyTable {
    /// Whether it is there.
    pub state: TableState,
    /// Rows, estimated.
    pub rows: i64,
    /// What it takes on disk.
    pub bytes: i64,
    /// When it was renamed.
    pub renamed_at: Option<DateTime<Utc>>,
    /// How it is made.
    pub shape: TableShape,
    /// The database's version.
    pub server_version: String,
    /// What was told of its backup.
    pub backup: Option<String>,
    /// Names the installation.
    pub installation: Uuid,
}

/// How a table is made: SQL that the database has written down, with `{table}` for its name.
#[derive(Debug, Clone, Default)]
pub struct TableShape {
    /// Columns, the key first.
    pub columns: Vec<String>,
    /// The statement that makes it.
    pub definition: String,
    /// Those that follow when its rows are there: indexes and checks.
    pub finish: Vec<String>,
    /// Those that bind it to other tables and to roles.
    pub attach: Vec<String>,
}

/// Some rows of content_blocks.
#[derive(Debug, Clone, Default)]
pub struct RowsText {
    /// In the text format of COPY.
    pub data: Vec<u8>,
    /// How many.
    pub rows: i64,
    /// The last of them; `None` if there are none.
    pub last: Option<Uuid>,
}

/// What a range of rows holds.
#[derive(Debug, Clone, Copy)]
pub struct RowsHash {
    /// Rows.
    pub rows: i64,
    /// Of their text.
    pub sha256: Checksum,
}

/// A step of content_blocks to its end, or back.
#[derive(Debug, Clone)]
pub enum TableStep {
    /// It gets another name, and the installation is in `legacy_dropped`.
    Rename {
        /// What is to be remembered of the backup: a JSON object.
        backup: String,
    },
    /// It is dropped, if it had the other name for so many days.
    Drop {
        /// Days.
        min_days: i32,
    },
    /// It, or what was imported in its place, has its name, and the installation is in `object_only`.
    Restore,
}
