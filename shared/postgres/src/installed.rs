//! Installations of PostgreSQL on this machine that have pgvector.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::version::{NEWEST_MAJOR, OLDEST_MAJOR, VectorVersion, major, server_version};

/// Where to look for programs: PostgreSQL, `pip`, `uv`, `unshare`.
#[derive(Debug, Clone)]
pub struct Search {
    /// Directories separated as in `$PATH`.
    pub path: OsString,
    /// Patterns of directories that may hold `initdb` and `postgres`; `*` stands for anything
    /// within the last-but-one name.
    pub bin_dirs: Vec<PathBuf>,
}

impl Search {
    /// This machine's `$PATH` and the places where packages put PostgreSQL.
    #[must_use]
    pub fn machine() -> Self {
        let places = [
            "/usr/lib/postgresql/*/bin",
            "/usr/pgsql-*/bin",
            "/opt/homebrew/opt/postgresql@*/bin",
            "/usr/local/opt/postgresql@*/bin",
            "/usr/local/pgsql/bin",
        ];
        Self {
            path: std::env::var_os("PATH").unwrap_or_default(),
            bin_dirs: places.iter().map(PathBuf::from).collect(),
        }
    }

    /// The program of that name, as the shell would find it.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|dir| dir.join(name)).find(|path| path.is_file())
    }

    /// `pg_config` on the path speaks first, then the patterns in their order.
    fn candidates(&self) -> Vec<PathBuf> {
        let on_path = self.program("pg_config").and_then(|program| ask(&program, "--bindir"));
        let places = self.bin_dirs.iter().flat_map(|pattern| expand(pattern));
        let mut found: Vec<PathBuf> = Vec::new();
        for dir in on_path.map(PathBuf::from).into_iter().chain(places) {
            if dir.join("postgres").is_file() && !found.contains(&dir) {
                found.push(dir);
            }
        }
        found
    }
}

/// The programs of one PostgreSQL, which has pgvector.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    /// The directory of `initdb` and `postgres`.
    pub(crate) bin: PathBuf,
    pub(crate) major: u32,
    pub(crate) vector: VectorVersion,
}

impl Installation {
    /// Looks at one `bin` directory; the error says in one line why it does not serve.
    pub(crate) fn inspect(bin: &Path) -> Result<Self, String> {
        let unfit = |why: String| format!("{}: {why}", bin.display());
        let text = ask(&bin.join("postgres"), "--version")
            .ok_or_else(|| unfit("its `postgres` does not run here".to_owned()))?;
        let major = server_version(&text)
            .and_then(|version| major(&version))
            .ok_or_else(|| unfit(format!("unknown version `{text}`")))?;
        if !(OLDEST_MAJOR..=NEWEST_MAJOR).contains(&major) {
            let range = format!("{OLDEST_MAJOR} to {NEWEST_MAJOR}");
            return Err(unfit(format!("is PostgreSQL {major}; {range} are supported")));
        }
        let vector = share_dirs(bin, major)
            .iter()
            .find_map(|dir| fs::read_to_string(dir.join("extension/vector.control")).ok())
            .ok_or_else(|| unfit(format!("PostgreSQL {major} without pgvector")))?;
        let vector = default_version(&vector)
            .ok_or_else(|| unfit("its vector.control names no version".to_owned()))?;
        Ok(Self { bin: bin.to_owned(), major, vector })
    }
}

/// Every usable installation, the one on the path first, then the newest, and why others are not.
pub(crate) fn installations(search: &Search) -> (Vec<Installation>, Vec<String>) {
    let candidates = search.candidates();
    if candidates.is_empty() {
        return (Vec::new(), vec!["no PostgreSQL is installed in the usual places".to_owned()]);
    }
    let (mut usable, mut unfit) = (Vec::new(), Vec::new());
    for bin in candidates {
        match Installation::inspect(&bin) {
            Ok(installation) => usable.push(installation),
            Err(reason) => unfit.push(reason),
        }
    }
    (usable, unfit)
}

fn share_dirs(bin: &Path, major: u32) -> Vec<PathBuf> {
    let told = ask(&bin.join("pg_config"), "--sharedir").map(PathBuf::from);
    let usual = [
        bin.join("../share/postgresql"),
        bin.join("../share"),
        PathBuf::from(format!("/usr/share/postgresql/{major}")),
    ];
    // What pg_config says is the truth; the guesses are for packages that leave pg_config out.
    told.map_or_else(|| usual.to_vec(), |dir| vec![dir])
}

/// The value of `default_version = '0.8.5'`.
fn default_version(control: &str) -> Option<VectorVersion> {
    let line = control.lines().find(|line| line.trim_start().starts_with("default_version"))?;
    VectorVersion::parse(line.split('\'').nth(1)?)
}

fn ask(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The directories that match a pattern with one `*`, the highest number first.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let text = pattern.to_string_lossy();
    let Some((before, after)) = text.split_once('*') else {
        return vec![pattern.to_owned()];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let mut matches: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let rest = name.strip_prefix(prefix)?;
            let path = format!("{parent}/{name}{after}");
            Some((major(rest).unwrap_or_default(), PathBuf::from(path)))
        })
        .collect();
    matches.sort_by(|a, b| b.cmp(a));
    matches.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_give_the_highest_version_first() {
        let root = tempfile::tempdir().unwrap();
        for name in ["pgsql-9", "pgsql-15", "pgsql-17", "other-18"] {
            fs::create_dir_all(root.path().join(name).join("bin")).unwrap();
        }
        let found = expand(&root.path().join("pgsql-*/bin"));
        let expected = ["pgsql-17/bin", "pgsql-15/bin", "pgsql-9/bin"];
        assert_eq!(found, expected.map(|name| root.path().join(name)));
        assert!(expand(Path::new("/nowhere/at-all-*/bin")).is_empty());
    }

    #[test]
    fn the_control_file_names_the_version() {
        let control = "comment = 'vector'\ndefault_version = '0.8.5'\nrelocatable = true\n";
        assert_eq!(default_version(control), VectorVersion::parse("0.8.5"));
        assert_eq!(default_version("relocatable = true\n"), None);
    }
}
