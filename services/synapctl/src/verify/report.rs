//! What a verification comes to.

use std::fmt;

use serde::Serialize;
use synap_proto::entity::GetVerificationSummaryResponse;

use crate::{looks::Finding, statistics};

/// How sure the word about a sample is.
const CONFIDENCE: f64 = 0.95;

/// The report: what V0.2's script counted, what this run looked at, and what may be done.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Objects that this run looked at.
    pub(super) looked: i64,
    /// Whether it read them to their end.
    read: bool,
    /// Entities that were written again, or purged, while they were looked at.
    pub(super) changed: i64,
    missing: i64,
    size_differs: i64,
    checksum_differs: i64,
    no_file: i64,
    content_differs: i64,
    /// Content blocks that were compared; `None` in phases that do not write them.
    pub(super) content_compared: Option<i64>,
    pub(super) sampled: Option<Sampled>,
    phase: &'static str,
    /// Of all runs: what the last look at each object found, under the key that it has now.
    all: All,
    safe_to_drop: bool,
    /// Why not.
    lacking: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct All {
    entities: i64,
    with_file_url: i64,
    with_file: i64,
    without_file: i64,
    objects_exist: i64,
    objects_missing: i64,
    checksum_matches: i64,
    not_looked_at: i64,
}

/// What a sample says of all.
#[derive(Debug, Serialize)]
pub(super) struct Sampled {
    files: i64,
    bad: i64,
    /// With 95 % confidence no more percent of all files are bad.
    at_most_percent: f64,
}

impl Sampled {
    pub(super) fn of(files: i64, bad: i64) -> Self {
        let (k, n) = (bad.unsigned_abs(), files.unsigned_abs());
        let at_most = if n == 0 { 1.0 } else { statistics::upper_bound(k, n, CONFIDENCE) };
        Self { files, bad, at_most_percent: at_most * 100.0 }
    }
}

impl Report {
    pub(super) fn new(read: bool) -> Self {
        Self { read, ..Self::default() }
    }

    pub(super) fn count(&mut self, finding: &Finding) {
        *match finding.what {
            "missing" => &mut self.missing,
            "size_differs" => &mut self.size_differs,
            "no_file" => &mut self.no_file,
            "content_differs" => &mut self.content_differs,
            _ => &mut self.checksum_differs,
        } += 1;
    }

    /// Objects that are not what their rows say.
    pub(super) fn bad(&self) -> i64 {
        self.missing + self.size_differs + self.checksum_differs
    }

    pub(super) fn has_findings(&self) -> bool {
        self.bad() + self.no_file + self.content_differs > 0
    }

    /// What may be done, from what is there now and from nothing else.
    pub(super) fn conclude(&mut self, now: &GetVerificationSummaryResponse, phase: &'static str) {
        let exist = now.sound + now.size_differs + now.checksum_differs;
        self.all = All {
            entities: now.entities,
            with_file_url: now.with_file_url,
            with_file: now.with_file,
            without_file: now.without_file,
            objects_exist: exist,
            objects_missing: now.missing,
            checksum_matches: now.verified,
            not_looked_at: now.with_file - exist - now.missing,
        };
        let unread =
            now.with_file - now.verified - now.missing - now.size_differs - now.checksum_differs;
        self.lacking = [
            (now.without_file, "entities have a text and no file"),
            (now.missing, "objects are missing"),
            (now.size_differs, "objects have another size"),
            (now.checksum_differs, "objects have another checksum"),
            (unread, "objects were not read since they were written"),
            (self.content_differs, "content blocks are not what their rows say"),
            (now.open_claims, "claims of the migration are open"),
        ]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
        if phase != "object_only" {
            self.lacking.push(format!("the phase is {phase}, not object_only"));
        }
        self.safe_to_drop = self.lacking.is_empty();
        self.phase = phase;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let All { entities, with_file_url, with_file, without_file, .. } = self.all;
        let All { objects_exist, objects_missing, checksum_matches, not_looked_at, .. } = self.all;
        for (number, what) in [
            (entities, "entities"),
            (with_file_url, "with a file URL"),
            (with_file, "with a file"),
            (without_file, "missing their file"),
            (objects_exist, "objects exist"),
            (objects_missing, "objects missing"),
            (checksum_matches, "checksums match"),
            (not_looked_at, "objects not looked at"),
        ] {
            writeln!(f, "{number:>12}  {what}")?;
        }
        let how = if self.read { "read" } else { "asked for" };
        writeln!(
            f,
            "this run: {} objects {how}, {} missing, {} of another size, {} of another checksum; {} \
             changed meanwhile",
            self.looked, self.missing, self.size_differs, self.checksum_differs, self.changed
        )?;
        match self.content_compared {
            Some(compared) => writeln!(
                f,
                "content blocks: {compared} compared, {} are not what their rows say",
                self.content_differs
            )?,
            None => writeln!(f, "content blocks: not written in phase {}", self.phase)?,
        }
        if let Some(Sampled { files, bad, at_most_percent }) = &self.sampled {
            writeln!(
                f,
                "sample: {bad} of {files} bad; with 95 % confidence at most {at_most_percent:.3} % of \
                 all files are"
            )?;
        }
        if self.phase == "legacy_dropped" {
            f.write_str("content_blocks is not in use any more")
        } else if self.safe_to_drop {
            f.write_str("Safe to drop content_blocks")
        } else {
            write!(f, "Not safe to drop content_blocks: {}", self.lacking.join("; "))
        }
    }
}
