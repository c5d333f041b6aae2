//! Commands that compare the store with the rows, and what there is for them to find.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::process::Command;

use super::{Name, System};

/// Notes of a test; a real installation has more.
pub fn notes() -> usize {
    std::env::var("SYNAP_TEST_VERIFY_NOTES").map_or(240, |count| count.parse().unwrap())
}

/// What a command printed: its exit code, its findings, and its last line.
pub struct Said {
    pub code: i32,
    pub findings: Vec<Value>,
    pub total: Value,
}

impl Said {
    /// The ids, or else the keys, of what was found to be so.
    pub fn found(&self, what: &str) -> BTreeSet<String> {
        let of = self.findings.iter().filter(|finding| finding["what"] == what);
        of.map(|finding| {
            let name = if finding["entity_id"].is_string() { "entity_id" } else { "key" };
            finding[name].as_str().unwrap().to_owned()
        })
        .collect()
    }

    /// How often each thing was found.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for finding in &self.findings {
            *counts.entry(finding["what"].as_str().unwrap()).or_default() += 1;
        }
        counts
    }
}

impl System {
    /// A command of synapctl that knows where the services are.
    pub fn synapctl(&self, args: &[&str]) -> Command {
        let url = |name| format!("http://{}", self.address(name));
        let mut command = Command::new(env!("CARGO_BIN_EXE_synapctl"));
        command
            .args(args)
            .args(["--output", "json"])
            .env("ENTITY_URL", url(Name::Entity))
            .env("CONTENT_URL", url(Name::Content))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub async fn ask(&self, args: &[&str]) -> Said {
        let output = self.synapctl(args).output().await.unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<Value> =
            stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let said = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("{args:?}: {said}"));
        if code > 1 {
            let total = Value::String(said);
            return Said { code, findings: lines, total };
        }
        let total = lines.pop().unwrap_or_else(|| panic!("{args:?} said nothing: {said}"));
        Said { code, findings: lines, total }
    }

    /// Notes of several users: ids and keys.
    pub async fn write_notes(&self, count: usize) -> Vec<(String, String)> {
        let write = |n: usize| async move {
            let client = self.client(["ada", "bob", "a/b c"][n % 3]);
            let text = format!("# Note {n}\n\n{}", "grün ".repeat(n % 40 + 1));
            let note = client.create(&text, "").await.unwrap().0;
            (note.id, note.file_path)
        };
        stream::iter(0..count).map(write).buffered(16).collect().await
    }

    /// Every row that a user could miss, and every object: what a command that only looks must leave.
    pub async fn everything(&self) -> (String, BTreeMap<String, Vec<u8>>) {
        let rows = "SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (
                SELECT e::text AS line FROM entities e UNION ALL SELECT r::text FROM entity_revisions r
                UNION ALL SELECT b::text FROM content_blocks b
                UNION ALL SELECT o::text FROM write_operations o
                UNION ALL SELECT g::text FROM blob_gc g) AS lines";
        let rows = sqlx::query_scalar(rows).fetch_one(&self.database.pool).await.unwrap();
        (rows, files_below(&self.objects()))
    }

    /// Puts an object that nobody knows, as old as that.
    pub fn put_stray(&self, key: &str, age: Duration) {
        let path = self.objects().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, key).unwrap();
        self.make_older(key, age);
    }

    /// The store took it so long ago.
    pub fn make_older(&self, key: &str, age: Duration) {
        let file = File::options().append(true).open(self.objects().join(key)).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the age of a file is told by this clock")]
        file.set_modified(SystemTime::now() - age).unwrap();
    }
}

/// Every file below a directory, but for what content-service keeps beside the blobs.
fn files_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut directories) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                directories.push(path);
            } else if !name.starts_with('.')
                && let Ok(bytes) = fs::read(&path)
            {
                files.insert(name, bytes);
            }
        }
    }
    files
}

pub const DAY: Duration = Duration::from_hours(24);

/// What was done to a system behind its back: ten of each.
pub struct Damage {
    pub deleted: BTreeSet<String>,
    pub truncated: BTreeSet<String>,
    pub flipped: BTreeSet<String>,
    pub edited: BTreeSet<String>,
    pub strays: BTreeSet<String>,
}

impl Damage {
    /// The first 50 notes, and ten objects that were never anybody's.
    pub async fn of(system: &System, notes: &[(String, String)]) -> Self {
        let ids = |range: std::ops::Range<usize>| {
            notes[range].iter().map(|(id, _)| id.clone()).collect::<BTreeSet<_>>()
        };
        for (n, (id, key)) in notes[..40].iter().enumerate() {
            let path = system.objects().join(key);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            match n / 10 {
                0 => {
                    fs::remove_file(path).unwrap();
                    continue;
                }
                1 => bytes.truncate(middle),
                2 => bytes[middle] ^= 1,
                _ => {
                    let edit = "UPDATE content_blocks SET content = content || '!'
                                WHERE entity_id = $1::uuid";
                    sqlx::query(edit).bind(id).execute(&system.database.pool).await.unwrap();
                    continue;
                }
            }
            fs::write(path, bytes).unwrap();
        }
        // Of the form of the write path, of that of V0.2, and of none.
        let strays: BTreeSet<_> = (0..10)
            .map(|n| match n % 3 {
                0 => format!("users/ada/notes/0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f{n:02}.md"),
                1 => format!("users/bob/notes/{}/r{n}.md", notes[60].0),
                _ => format!("users/nobody/things/{n}.bin"),
            })
            .collect();
        for key in &strays {
            system.put_stray(key, 3 * DAY);
        }
        Self {
            deleted: ids(0..10),
            truncated: ids(10..20),
            flipped: ids(20..30),
            edited: ids(30..40),
            strays,
        }
    }
}
