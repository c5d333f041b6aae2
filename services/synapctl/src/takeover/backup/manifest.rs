//! What a backup holds.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use synap_proto::entity::GetLegacyTableResponse;
use synap_types::Hasher;

use super::file;

const NAME: &str = "manifest.json";
const TABLE: &str = "000-table.sql.gz";
const FINISH: &str = "900-finish.sql.gz";

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    table: String,
    /// Whose it is.
    pub(super) installation_id: String,
    restore_with: String,
    /// Of PostgreSQL, when the backup was begun.
    server_version: String,
    pub(crate) columns: Vec<String>,
    /// Whether all rows are written.
    pub(crate) complete: bool,
    /// Whether all of it was read back and compared with the table after that had its other name:
    /// nobody has written to it since.
    pub(crate) compared_after_rename: bool,
    rows: i64,
    /// Of the rows' text.
    bytes: u64,
    /// SHA-256 of the parts' `sha256`, one after the other, each with an end of line.
    sha256: String,
    pub(crate) parts: Vec<Part>,
    /// SHA-256 of the two files without rows.
    table_file_sha256: String,
    finish_file_sha256: String,
}

/// A file with rows, in the order of ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) file: String,
    /// Rows after this one; empty from the first.
    pub(crate) after_id: String,
    /// Up to this one, itself included.
    pub(crate) last_id: String,
    pub(crate) rows: i64,
    /// Of the rows' text.
    pub(crate) bytes: u64,
    /// SHA-256 of the rows' text.
    pub(crate) sha256: String,
    /// SHA-256 of the file.
    pub(crate) file_sha256: String,
}

impl Manifest {
    /// Begins a backup: the files without rows.
    pub(super) fn create(directory: &Path, table: &GetLegacyTableResponse) -> anyhow::Result<Self> {
        let manifest = Self {
            table: "content_blocks".to_owned(),
            installation_id: table.installation_id.clone(),
            restore_with: "zcat *.sql.gz | psql -v ON_ERROR_STOP=1 DATABASE".to_owned(),
            server_version: table.server_version.clone(),
            columns: table.columns.clone(),
            complete: false,
            compared_after_rename: false,
            rows: 0,
            bytes: 0,
            sha256: String::new(),
            parts: Vec::new(),
            table_file_sha256: file::write_text(directory, TABLE, &make(table))?,
            finish_file_sha256: file::write_text(directory, FINISH, &finish(table))?,
        };
        manifest.clone().save(directory)?;
        Ok(manifest)
    }

    pub(super) fn load(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(NAME);
        match fs::read(&path) {
            Ok(text) => {
                let manifest = serde_json::from_slice(&text);
                Ok(Some(manifest.with_context(|| path.display().to_string())?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Durably: a crash leaves the manifest as it was or as it is.
    pub(crate) fn save(&mut self, directory: &Path) -> anyhow::Result<()> {
        self.rows = self.rows();
        self.bytes = self.parts.iter().map(|part| part.bytes).sum();
        let mut whole = Hasher::default();
        for part in &self.parts {
            whole.update(format!("{}\n", part.sha256).as_bytes());
        }
        self.sha256 = whole.finish().to_string();
        let draft = directory.join(format!("{NAME}.draft"));
        let write = || {
            fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
            File::open(&draft)?.sync_all()?;
            file::give_name(directory, &draft, NAME)
        };
        write().with_context(|| directory.display().to_string())
    }

    pub(crate) fn rows(&self) -> i64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// The last row that is written; empty if there is none.
    pub(super) fn last_id(&self) -> &str {
        self.parts.last().map_or("", |part| part.last_id.as_str())
    }

    /// What the database remembers of it.
    pub(crate) fn summary(&self) -> String {
        let Self { rows, bytes, sha256, .. } = self;
        let parts = self.parts.len();
        serde_json::json!({ "rows": rows, "bytes": bytes, "parts": parts, "sha256": sha256 })
            .to_string()
    }
}

fn named(statement: &str) -> String {
    statement.replace("{table}", "content_blocks")
}

fn make(table: &GetLegacyTableResponse) -> String {
    format!(
        "-- content_blocks of Synap V0.2. All files, in the order of their names, into psql:\n\
         --   zcat *.sql.gz | psql -v ON_ERROR_STOP=1 DATABASE\n\
         SET client_encoding = 'UTF8';\n\
         SET standard_conforming_strings = on;\n\
         CREATE EXTENSION IF NOT EXISTS vector;\n\
         {};\n",
        named(&table.definition)
    )
}

fn finish(table: &GetLegacyTableResponse) -> String {
    let statements =
        |list: &[String]| list.iter().map(|one| named(one) + ";\n").collect::<Vec<_>>().concat();
    format!(
        "{}\
         -- What binds the table to the other tables of an installation, where those are.\n\
         DO $synap$\nBEGIN\nIF to_regclass('entities') IS NOT NULL THEN\n{}END IF;\nEND\n$synap$;\n",
        statements(&table.finish),
        statements(&table.attach)
    )
}
