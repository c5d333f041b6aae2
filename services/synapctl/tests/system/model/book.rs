//! What the notes of one user must be, on plain values: the rules of the API and nothing of how it
//! is built.

use std::collections::HashMap;

use synap_proto::gateway::{ListNotesRequest, Note, SearchNotesRequest};
use synap_types::Checksum;

use super::change::{Change, FOREIGN};

/// Revisions that are kept of a note.
pub const KEPT: usize = 4;

/// A note at one of its versions.
#[derive(Debug, Clone)]
pub struct Version {
    /// As it was answered: without its content.
    pub note: Note,
    pub content: String,
    pub event: &'static str,
}

/// Why a call must be refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    NotFound,
    NotDeleted,
    /// With the current etag.
    Etag(String),
    RequestIdReused,
}

/// What a write must be answered with.
#[derive(Debug)]
pub enum Expected {
    Refused(Refusal),
    /// The answer of the first time.
    Replayed(Note),
    /// All that is known before it is written.
    Written(Version),
}

/// What a request id stands for.
struct Asked {
    change: Change,
    /// The note and its version, once it was written.
    done: Option<(String, usize)>,
}

/// The notes of one user.
#[derive(Default)]
pub struct Book {
    /// Their versions from the first on; notes in the order of their creation.
    notes: Vec<Vec<Version>>,
    by_id: HashMap<String, usize>,
    asked: HashMap<String, Asked>,
}

fn newest(versions: &[Version]) -> &Version {
    versions.last().unwrap()
}

fn is_live(version: &Version) -> bool {
    version.note.delete_time.is_none()
}

impl Book {
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.notes.len()
    }

    pub fn at(&self, index: usize) -> &[Version] {
        &self.notes[index]
    }

    pub fn all(&self) -> impl Iterator<Item = &Version> {
        self.notes.iter().map(|versions| newest(versions))
    }

    fn find(&self, id: &str) -> Option<&Vec<Version>> {
        self.by_id.get(id).map(|index| &self.notes[*index])
    }

    pub fn live(&self, id: &str) -> Result<&[Version], Refusal> {
        let found = self.find(id).filter(|versions| is_live(newest(versions)));
        found.map(Vec::as_slice).ok_or(Refusal::NotFound)
    }

    /// A note at a version; 0 is the newest.
    pub fn get(&self, id: &str, revision: usize) -> Result<Note, Refusal> {
        let versions = self.live(id)?;
        let wanted = if revision == 0 { versions.len() } else { revision };
        let version = versions
            .get(wanted - 1)
            .filter(|_| wanted + KEPT > versions.len())
            .ok_or(Refusal::NotFound)?;
        Ok(Note { content: version.content.clone(), ..version.note.clone() })
    }

    /// The newest first.
    pub fn revisions(&self, id: &str) -> Result<Vec<Note>, Refusal> {
        let versions = self.live(id)?.iter().rev().take(KEPT);
        Ok(versions.map(|version| version.note.clone()).collect())
    }

    /// The type and version of each event; there are none of what there never was.
    pub fn history(&self, id: &str) -> Result<Vec<(String, i64)>, Refusal> {
        let versions = self.find(id).ok_or(Refusal::NotFound)?;
        let event = |one: &Version| (one.event.to_owned(), i64::from(one.note.version));
        Ok(versions.iter().map(event).collect())
    }

    /// The newest first, whatever the size of a page.
    pub fn list(&self, asked: &ListNotesRequest) -> Vec<Note> {
        let time = |time: Option<prost_types::Timestamp>| time.map(|at| (at.seconds, at.nanos));
        let within = |at, from, until| {
            let (at, from, until) = (time(at), time(from), time(until));
            from.is_none_or(|from| at.unwrap() >= from)
                && until.is_none_or(|until| at.unwrap() < until)
        };
        let wanted = |note: &&Note| {
            (asked.show_deleted || note.delete_time.is_none())
                && asked.tags.iter().all(|tag| note.tags.contains(tag))
                && within(note.create_time, asked.created_from, asked.created_until)
                && within(note.update_time, asked.updated_from, asked.updated_until)
        };
        let all = self.all().map(|version| &version.note);
        let mut found: Vec<Note> = all.filter(wanted).cloned().collect();
        found.sort_by_key(|note| std::cmp::Reverse((time(note.create_time), note.id.clone())));
        found
    }

    /// The live notes that have the words, in no order.
    pub fn search(&self, asked: &SearchNotesRequest) -> Vec<Note> {
        let words: Vec<&str> = asked.query.split(' ').collect();
        let has = |version: &Version, word: &str| {
            let Note { title, tags, .. } = &version.note;
            let mut all = std::iter::once(title).chain(tags).chain([&version.content]);
            all.any(|text| {
                text.split(|c: char| !c.is_alphanumeric()).any(|one| {
                    let one = one.to_lowercase();
                    word.strip_suffix('*').map_or(one == word, |start| one.starts_with(start))
                })
            })
        };
        let fits = |version: &&Version| match &words[..] {
            [one, "or", other] => has(version, one) || has(version, other),
            all => all.iter().all(|word| match word.strip_prefix('-') {
                Some(word) => !has(version, word),
                None => has(version, word),
            }),
        };
        let live = self.all().filter(|version| is_live(version));
        live.filter(fits).map(|version| version.note.clone()).collect()
    }

    /// The etag of a version of a note, as somebody has it who has seen that.
    pub fn etag(&self, id: &str, seen: Option<usize>) -> String {
        match (seen, self.find(id)) {
            (None, _) => String::new(),
            (Some(seen), Some(versions)) if seen != FOREIGN => versions[seen - 1].note.etag.clone(),
            _ => {
                let mut others = self.all().filter(|version| version.note.id != id);
                let other = others.next().map(|version| version.note.etag.clone());
                other.unwrap_or_else(|| "\"1-0123456789ab\"".to_owned())
            }
        }
    }

    /// What must come of a change.
    pub fn expect(&self, change: &Change, request_id: &str) -> Expected {
        match self.asked.get(request_id) {
            Some(asked) if asked.change.meaning() != change.meaning() => {
                return Expected::Refused(Refusal::RequestIdReused);
            }
            Some(Asked { done: Some((id, version)), .. }) => {
                let versions = self.find(id).unwrap();
                // One that is not kept any more is answered with what there is.
                let kept = version + KEPT > versions.len();
                let answer = if kept { &versions[version - 1] } else { newest(versions) };
                return Expected::Replayed(answer.note.clone());
            }
            _ => {}
        }
        self.attempt(change).map_or_else(Expected::Refused, Expected::Written)
    }

    fn attempt(&self, change: &Change) -> Result<Version, Refusal> {
        let Some(id) = change.id() else {
            let Change::Create { content, title, tags } = change.meaning() else { unreachable!() };
            let note = Note { title, tags, version: 1, ..Note::default() };
            return Ok(with_body(note, content, "entity.created"));
        };
        let versions = self.find(id).ok_or(Refusal::NotFound)?;
        let current = newest(versions);
        match (change, is_live(current)) {
            (Change::Undelete { .. }, true) => return Err(Refusal::NotDeleted),
            (Change::Update { .. } | Change::Delete { .. }, false) => {
                return Err(Refusal::NotFound);
            }
            _ => {}
        }
        if change.seen().is_some_and(|seen| seen != versions.len()) {
            return Err(Refusal::Etag(current.note.etag.clone()));
        }
        let version = current.note.version + 1;
        let mut note = Note { version, delete_time: None, ..current.note.clone() };
        let mut content = None;
        let event = match change.meaning() {
            Change::Update { content: body, title, tags, .. } => {
                note.title = title.unwrap_or(note.title);
                note.tags = tags.unwrap_or(note.tags);
                content = body;
                "entity.updated"
            }
            Change::Delete { .. } => "entity.deleted",
            Change::Undelete { .. } | Change::Create { .. } => "entity.restored",
        };
        Ok(match content {
            Some(content) => with_body(note, content, event),
            None => Version { note, content: current.content.clone(), event },
        })
    }

    /// A change was answered with success: that must be what was expected, and is remembered. What
    /// only the system knows is taken from the answer.
    pub fn write(&mut self, change: &Change, request_id: &str, expected: Version, answer: &Note) {
        let Version { note, content, event } = expected;
        let before = self.find(&answer.id).map(|versions| newest(versions).note.clone());
        let writes_body = change.writes_body();
        let is_deletion = matches!(change, Change::Delete { .. });
        let told = Note {
            id: before.as_ref().map_or(answer.id.clone(), |before| before.id.clone()),
            user_id: answer.user_id.clone(),
            file_path: if writes_body { answer.file_path.clone() } else { note.file_path.clone() },
            file_url: answer.file_url.clone(),
            etag: answer.etag.clone(),
            create_time: before.as_ref().map_or(answer.create_time, |before| before.create_time),
            update_time: answer.update_time,
            delete_time: is_deletion.then_some(answer.update_time.unwrap()),
            ..note
        };
        assert_eq!(*answer, told);
        let same_path = self.all().any(|one| one.note.file_path == answer.file_path);
        assert_eq!(same_path, !writes_body, "one key, two bodies: {answer:?}");
        let id = answer.id.clone();
        assert_eq!(change.id().is_none(), before.is_none(), "{answer:?}");
        let index = *self.by_id.entry(id.clone()).or_insert(self.notes.len());
        if before.is_none() {
            self.notes.push(Vec::new());
        }
        let versions = &mut self.notes[index];
        assert!(versions.iter().all(|one| one.note.etag != answer.etag), "an etag comes again");
        versions.push(Version { note: answer.clone(), content, event });
        let done = Some((id, versions.len()));
        self.asked.insert(request_id.to_owned(), Asked { change: change.clone(), done });
    }

    /// A change was refused: its request id stands for it all the same.
    pub fn refuse(&mut self, change: &Change, request_id: &str) {
        let asked = || Asked { change: change.clone(), done: None };
        self.asked.entry(request_id.to_owned()).or_insert_with(asked);
    }
}

fn with_body(mut note: Note, content: String, event: &'static str) -> Version {
    let words: Vec<_> = content.split_whitespace().collect();
    note.preview = words.join(" ").chars().take(200).collect();
    note.file_size = i64::try_from(content.len()).unwrap();
    "markdown".clone_into(&mut note.file_type);
    note.checksum = Checksum::of(content.as_bytes()).to_string();
    Version { note, content, event }
}
