//! A backup of content_blocks: files that `zcat DIR/*.sql.gz | psql` restores, and a manifest.
//!
//! The files are SQL: one makes the table, any number hold rows as COPY writes them, and one has the
//! indexes and constraints. Each is a gzip file of its own, and so are all of them one after the other.
//! A part is there when it has its name, and the manifest is written after it: a backup that was
//! stopped goes on behind its last part.

mod file;
mod manifest;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use synap_proto::entity::{
    ExportContentBlocksRequest, ExportContentBlocksResponse, GetLegacyTableResponse,
    HashContentBlocksRequest, HashContentBlocksResponse,
};
use synap_rpc::RpcError;
use synap_types::Checksum;

pub(super) use file::Reader;
use file::Writer;
pub(super) use manifest::{Manifest, Part};

use super::{Services, page};
use crate::{output::Progress, patience::patiently};

/// A part that differs again and again has a table that is written all the while.
const TRIES: usize = 5;

/// A backup in a directory.
pub(super) struct Backup {
    pub(super) directory: PathBuf,
    pub(super) manifest: Manifest,
    /// Bytes of a part's rows: the next one begins when there are so many.
    part_bytes: u64,
}

impl Backup {
    /// The backup in a directory, or a new one.
    pub(super) fn open(
        directory: &Path,
        table: &GetLegacyTableResponse,
        part_bytes: u64,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let manifest = match Manifest::load(directory)? {
            Some(manifest) => manifest,
            None => Manifest::create(directory, table)?,
        };
        Self::of(directory, table, manifest, part_bytes)
    }

    /// The backup in a directory, which must be whole.
    pub(super) fn existing(
        directory: &Path,
        table: &GetLegacyTableResponse,
    ) -> anyhow::Result<Self> {
        let place = directory.display();
        let manifest = Manifest::load(directory)?;
        let manifest = manifest.with_context(|| format!("{place} has no manifest.json"))?;
        ensure!(manifest.complete, "the backup in {place} is not complete");
        Self::of(directory, table, manifest, 0)
    }

    fn of(
        directory: &Path,
        table: &GetLegacyTableResponse,
        manifest: Manifest,
        part_bytes: u64,
    ) -> anyhow::Result<Self> {
        let place = directory.display();
        ensure!(
            manifest.installation_id == table.installation_id,
            "{place} holds the backup of another installation"
        );
        ensure!(
            manifest.columns == table.columns,
            "{place} holds a backup of the table with other columns"
        );
        Ok(Self { directory: directory.to_owned(), manifest, part_bytes })
    }

    /// Writes the rows that come after those which are written.
    pub(super) async fn write(&mut self, services: &Services, rows: i64) -> anyhow::Result<()> {
        let (mut progress, before) = (Progress::new(), self.manifest.rows());
        loop {
            let number = self.manifest.parts.len();
            let after = self.manifest.last_id().to_owned();
            let part = self.write_part(services, number, &after, "").await?;
            if part.rows == 0 {
                break;
            }
            self.manifest.parts.push(part);
            self.manifest.save(&self.directory)?;
            let done = self.manifest.rows();
            progress.show("backup", done, rows.max(done), done - before);
        }
        progress.clear();
        self.manifest.complete = true;
        self.manifest.save(&self.directory)
    }

    /// Reads every part back and compares it with the table; writes again what differs. Tells how
    /// many parts did.
    pub(super) async fn compare(&mut self, services: &Services) -> anyhow::Result<usize> {
        let (mut progress, mut rewritten, mut done) = (Progress::new(), 0, 0);
        for index in 0..self.manifest.parts.len() {
            let mut tries = 0;
            while !self.is_as_in_table(services, &self.manifest.parts[index]).await? {
                if tries == TRIES {
                    bail!("content_blocks is written all the while: who does that?");
                }
                tries += 1;
                let Part { after_id, last_id, .. } = self.manifest.parts[index].clone();
                let part = self.write_part(services, index, &after_id, &last_id).await?;
                self.manifest.parts[index] = part;
                self.manifest.save(&self.directory)?;
            }
            rewritten += usize::from(tries > 0);
            done += self.manifest.parts[index].rows;
            progress.show("read back", done, self.manifest.rows(), done);
        }
        progress.clear();
        let parts = self.manifest.parts.len();
        self.write(services, self.manifest.rows()).await?;
        Ok(rewritten + self.manifest.parts.len() - parts)
    }

    async fn is_as_in_table(&self, services: &Services, part: &Part) -> anyhow::Result<bool> {
        let (path, expected) = (self.directory.join(&part.file), part.clone());
        let file = tokio::task::spawn_blocking(move || file::holds(&path, &expected)).await?;
        Ok(file && services.has_rows(part).await?)
    }

    /// Writes a part: the rows after one, up to another or until there are enough of them. One
    /// without rows gets no file, unless it takes the place of another.
    async fn write_part(
        &self,
        services: &Services,
        index: usize,
        after_id: &str,
        until_id: &str,
    ) -> anyhow::Result<Part> {
        let name = format!("100-rows-{:06}.sql.gz", index + 1);
        let mut writer = Writer::create(&self.directory, &name, &self.manifest.columns)?;
        let mut last_id = after_id.to_owned();
        while writer.bytes() < self.part_bytes || !until_id.is_empty() {
            let chunk = services.export(&last_id, until_id).await?;
            if chunk.last_id.is_empty() {
                break;
            }
            writer.write(&chunk.data, chunk.rows)?;
            last_id = chunk.last_id;
        }
        let is_one = writer.rows() > 0 || !until_id.is_empty();
        let last_id = if until_id.is_empty() { last_id } else { until_id.to_owned() };
        writer.finish(is_one, after_id.to_owned(), last_id)
    }
}

impl Services {
    async fn export(
        &self,
        after_id: &str,
        until_id: &str,
    ) -> Result<ExportContentBlocksResponse, RpcError> {
        let (after_id, until_id) = (after_id.to_owned(), until_id.to_owned());
        let request = ExportContentBlocksRequest { after_id, until_id };
        patiently(|| async {
            let request = page(request.clone());
            Ok(self.takeover.clone().export_content_blocks(request).await?.into_inner())
        })
        .await
    }

    /// Whether the table has these rows, and no others between them.
    pub(super) async fn has_rows(&self, part: &Part) -> anyhow::Result<bool> {
        let Part { after_id, last_id, .. } = part.clone();
        let request = HashContentBlocksRequest { after_id, last_id };
        let HashContentBlocksResponse { rows, sha256 } = patiently(|| async {
            let request = page(request.clone());
            Ok(self.takeover.clone().hash_content_blocks(request).await?.into_inner())
        })
        .await?;
        let sha256 = Checksum::from_bytes(&sha256)?.to_string();
        Ok((rows, sha256) == (part.rows, part.sha256.clone()))
    }
}
