//! Texts that people really wrote: the Markdown of the crates under the cargo registry; on a machine
//! without one, this workspace's own.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Bytes of a note at most: longer files are cut into several.
const NOTE_BYTES: usize = 8 * 1024;

/// Notes, none empty, none with NUL; the same for every run on a machine.
pub(super) fn notes() -> anyhow::Result<Vec<String>> {
    let below = |name: &str, path: &str| env::var_os(name).map(|home| Path::new(&home).join(path));
    let registry =
        below("CARGO_HOME", "registry/src").or_else(|| below("HOME", ".cargo/registry/src"));
    let mut notes = Vec::new();
    if let Some(registry) = registry {
        read(&registry, 2, &mut notes);
    }
    if notes.is_empty() {
        read(Path::new("."), 2, &mut notes);
    }
    notes.first().context("no Markdown below the cargo registry, and none here")?;
    Ok(notes)
}

fn read(folder: &Path, depth: usize, notes: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && depth > 0 {
            read(&path, depth - 1, notes);
        } else if path.extension().is_some_and(|extension| extension == "md")
            && let Ok(text) = std::fs::read_to_string(&path)
            && !text.contains('\0')
        {
            cut(&text, notes);
        }
    }
}

fn cut(mut text: &str, notes: &mut Vec<String>) {
    while !text.trim().is_empty() {
        let (note, rest) = text.split_at(text.floor_char_boundary(NOTE_BYTES));
        notes.push(note.to_owned());
        text = rest;
    }
}
