//! Texts that people really wrote: the Markdown of the crates under the cargo registry; on a
//! machine without one, this workspace's own.

use std::path::{Path, PathBuf};

/// Bytes of a KiB.
pub const KIB: usize = 1024;
/// Bytes of a MiB.
pub const MIB: usize = 1024 * 1024;

/// What real files have too little of: emoji of several code points, right-to-left text,
/// combining marks, line ends of every kind, a byte order mark, the last code point.
const RARE: &str = "\u{feff}# 👩‍👩‍👧‍👦🏳️‍🌈 日本語の\u{3000}ノート\r\nשלום \u{202e}עולם\u{202c} \
                    مرحبا بالعالم\rZ̸̡͓a\u{301}\u{323}lgo e\u{301} é 한국어 각\u{2028}\u{2029}\u{85}\t\u{7f}\u{1}\u{1b}[0m 𝒳\
                    \u{e000}\u{fffd}\u{fdd0}\u{10ffff}\n";

/// About 45 texts from 0.1 KiB to 3 MiB.
///
/// # Panics
/// As [`files`].
#[must_use]
pub fn samples() -> Vec<String> {
    let files = files();
    let mut all = String::from(RARE);
    for file in files.iter().cycle() {
        all.push_str(file);
        if all.len() >= 3 * MIB + 4 {
            break;
        }
    }
    let mut samples = vec![RARE.to_owned(), every_script()];
    // Evenly from the smallest file to the largest.
    samples.extend(files.iter().step_by(files.len().div_ceil(32)).cloned());
    // The sizes at which something changes: of messages, of batches, of reads.
    for size in [KIB / 10, 4 * KIB, 256 * KIB, 256 * KIB + 1, MIB, MIB + 1, 2 * MIB, 3 * MIB] {
        samples.push(beginning(&all, size).to_owned());
    }
    samples
}

/// The first `size` bytes, or a few less where that would cut a character.
fn beginning(text: &str, size: usize) -> &str {
    &text[..text.floor_char_boundary(size)]
}

/// Every 61st character that there is, but NUL.
fn every_script() -> String {
    (1..=0x0010_ffff).step_by(61).filter_map(char::from_u32).collect()
}

/// Markdown files by size; at least one, none empty, none with NUL, none of more than 3 MiB.
///
/// # Panics
/// If there is no Markdown, not even this workspace's.
#[must_use]
pub fn files() -> Vec<String> {
    let home =
        |name: &str, below: &str| std::env::var_os(name).map(|home| Path::new(&home).join(below));
    let registry =
        home("CARGO_HOME", "registry/src").or_else(|| home("HOME", ".cargo/registry/src"));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = registry.map(|registry| read_markdown(&registry, 2)).unwrap_or_default();
    if files.is_empty() {
        files = read_markdown(&workspace, 1);
    }
    assert!(!files.is_empty(), "no Markdown in {}", workspace.display());
    files.sort_by_key(String::len);
    files
}

fn read_markdown(folder: &Path, depth: usize) -> Vec<String> {
    let mut texts = Vec::new();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && depth > 0 {
            texts.extend(read_markdown(&path, depth - 1));
        } else if path.extension().is_some_and(|extension| extension == "md")
            && let Ok(text) = std::fs::read_to_string(&path)
            && (1..=3 * MIB).contains(&text.len())
            && !text.contains('\0')
        {
            texts.push(text);
        }
    }
    texts
}
