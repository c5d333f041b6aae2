//! Changes of notes, as they are asked for.

use fastrand::Rng;
use synap_proto::gateway::Note;

/// A version that no note has: the etag is another note's.
pub const FOREIGN: usize = usize::MAX;

/// Words that no rule of English makes the same, nor any that begin as one of them.
pub const WORDS: [&str; 41] = [
    "anchor",
    "basalt",
    "cactus",
    "dolphin",
    "ember",
    "falcon",
    "glacier",
    "harvest",
    "island",
    "jungle",
    "kettle",
    "lantern",
    "meadow",
    "nectar",
    "orchid",
    "pepper",
    "quartz",
    "raven",
    "saddle",
    "timber",
    "umbra",
    "velvet",
    "walnut",
    "yarrow",
    "zephyr",
    "größe",
    "łódź",
    "наука",
    "bramble",
    "copper",
    "drizzle",
    "fjord",
    "goblet",
    "hazel",
    "ivory",
    "juniper",
    "kelp",
    "lichen",
    "marble",
    "opal",
    "onyx",
];

/// A change; `seen` is the version whose etag is sent along.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Create {
        content: String,
        title: String,
        tags: Vec<String>,
    },
    Update {
        id: String,
        seen: Option<usize>,
        content: Option<String>,
        title: Option<String>,
        tags: Option<Vec<String>>,
    },
    Delete {
        id: String,
        seen: Option<usize>,
    },
    Undelete {
        id: String,
        seen: Option<usize>,
    },
}

pub fn words(rng: &mut Rng, count: usize) -> Vec<String> {
    std::iter::repeat_with(|| rng.choice(WORDS).unwrap().to_owned()).take(count).collect()
}

/// A body whose first line says what it is about; now and then a long one.
pub fn content(rng: &mut Rng) -> String {
    let count = rng.usize(1..4);
    let mut text = words(rng, count).join(" ");
    if rng.bool() {
        text.insert_str(0, rng.choice(["# ", "\n## ", "  "]).unwrap());
    }
    let count = if rng.u8(..20) == 0 { 300 } else { rng.usize(..6) };
    for word in words(rng, count) {
        text.push_str(rng.choice([" ", "\n", ", ", "\n\n", " – ", "\t🐋 "]).unwrap());
        text.push_str(&word);
    }
    text
}

pub fn title(rng: &mut Rng) -> String {
    let count = rng.usize(..4);
    words(rng, count).join(" ")
}

pub fn tags(rng: &mut Rng) -> Vec<String> {
    // Few of them, so that many notes have the same.
    let count = rng.usize(..3);
    std::iter::repeat_with(|| WORDS[rng.usize(..6)].to_owned()).take(count).collect()
}

/// The first line with text, without the marks of a heading.
pub fn derived_title(content: &str) -> String {
    let first = content.lines().find(|line| !line.trim().is_empty()).unwrap();
    first.trim().trim_start_matches('#').trim().chars().take(100).collect()
}

impl Change {
    pub fn create(rng: &mut Rng) -> Self {
        Self::Create { content: content(rng), title: title(rng), tags: tags(rng) }
    }

    /// Of any of the fields, but of one at least.
    pub fn update(rng: &mut Rng, id: String, seen: Option<usize>) -> Self {
        let which = rng.u8(1..8);
        Self::Update {
            id,
            seen,
            content: (which & 1 != 0).then(|| content(rng)),
            title: (which & 2 != 0).then(|| title(rng)),
            tags: (which & 4 != 0).then(|| tags(rng)),
        }
    }

    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Create { .. } => None,
            Self::Update { id, .. } | Self::Delete { id, .. } | Self::Undelete { id, .. } => {
                Some(id)
            }
        }
    }

    pub fn seen(&self) -> Option<usize> {
        match self {
            Self::Create { .. } => None,
            Self::Update { seen, .. } | Self::Delete { seen, .. } | Self::Undelete { seen, .. } => {
                *seen
            }
        }
    }

    pub fn writes_body(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Update { content: Some(_), .. })
    }

    /// What is asked for, however it is said: a title that is to be empty is the body's.
    pub fn meaning(&self) -> Self {
        let mut meaning = self.clone();
        match &mut meaning {
            Self::Create { content, title, .. }
            | Self::Update { content: Some(content), title: Some(title), .. }
                if title.is_empty() =>
            {
                *title = derived_title(content);
            }
            _ => {}
        }
        meaning
    }
}

/// An update as it goes over the wire, in one of the ways to say it.
pub fn masked(
    rng: &mut Rng,
    content: Option<String>,
    title: Option<String>,
    tags: Option<Vec<String>>,
) -> (Note, Vec<&'static str>) {
    let asked =
        [("content", content.is_some()), ("title", title.is_some()), ("tags", tags.is_some())];
    let mask: Vec<_> = asked.iter().filter(|(_, asked)| *asked).map(|(name, _)| *name).collect();
    let says_itself = title.as_ref().is_none_or(|title| !title.is_empty())
        && tags.as_ref().is_none_or(|tags| !tags.is_empty());
    let note = Note {
        content: content.unwrap_or_default(),
        title: title.unwrap_or_default(),
        tags: tags.unwrap_or_default(),
        ..Note::default()
    };
    match mask.len() {
        3 if rng.bool() => (note, vec!["*"]),
        _ if says_itself && rng.bool() => (note, Vec::new()),
        _ => (note, mask),
    }
}
