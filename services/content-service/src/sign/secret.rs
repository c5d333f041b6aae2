//! The secret that signs URLs of our own.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::config::{Place, Secret};

/// The file that keeps the secret; beside `users`, where no key can be.
const FILE: &str = ".url-secret";
/// Bytes of a secret that is made here: as many as an HMAC-SHA256 has.
const BYTES: usize = 32;

/// Where the secret comes from.
#[derive(Debug, Clone)]
pub(crate) enum SecretSource {
    /// From the configuration.
    Given(Secret),
    /// From a file in this directory, which is made if it is not there. Replicas share the
    /// directory, and so the secret.
    Beside(PathBuf),
    /// Made for this process: blobs in its memory do not outlive it either.
    Fresh,
}

impl SecretSource {
    /// Where it comes from for a store, if this one was given.
    pub(crate) fn of(place: &Place, given: Option<&Secret>) -> Self {
        match (given, place) {
            (Some(secret), _) => Self::Given(secret.clone()),
            (None, Place::Local(directory)) => Self::Beside(directory.clone()),
            (None, Place::Memory | Place::S3(_)) => Self::Fresh,
        }
    }

    /// The secret. Blocks on the disk.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Given(secret) => Ok(secret.reveal().as_bytes().to_vec()),
            Self::Beside(directory) => beside(directory),
            Self::Fresh => Ok(fresh()?.to_vec()),
        }
    }
}

fn fresh() -> io::Result<[u8; BYTES]> {
    let mut secret = [0; BYTES];
    rand::fill(&mut secret).map_err(no_randomness)?;
    Ok(secret)
}

fn no_randomness(_: aws_lc_rs::error::Unspecified) -> io::Error {
    io::Error::other("the system gives no randomness")
}

fn beside(directory: &Path) -> io::Result<Vec<u8>> {
    let file = directory.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => decode(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(directory, &file)?;
            // What another replica wrote, if it was faster.
            decode(&fs::read_to_string(&file)?)
        }
        Err(error) => Err(error),
    }
}

/// Writes a new secret, unless there is one. The file has its name only once it is whole and on
/// disk: half a secret would make URLs that nobody can check tomorrow.
fn create(directory: &Path, file: &Path) -> io::Result<()> {
    // `#` and digits: swept, like staging files of blobs, should we die here.
    let mut number = [0; 8];
    rand::fill(&mut number).map_err(no_randomness)?;
    let staging = directory.join(format!("{FILE}#{}", u64::from_le_bytes(number)));
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staging)?;
    written.write_all(STANDARD.encode(fresh()?).as_bytes())?;
    written.sync_all()?;
    let linked = fs::hard_link(&staging, file);
    fs::remove_file(&staging)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(directory)?.sync_all(),
    }
}

fn decode(text: &str) -> io::Result<Vec<u8>> {
    let secret = STANDARD.decode(text.trim()).ok().filter(|secret| secret.len() == BYTES);
    secret.ok_or_else(|| {
        let what = format!("{FILE} in BLOB_DIR is damaged; remove it, and all signed URLs with it");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, thread};

    use super::*;

    #[test]
    fn all_replicas_have_one_secret_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let secrets: Vec<_> = thread::scope(|scope| {
            let replicas: Vec<_> =
                (0..8).map(|_| scope.spawn(|| beside(directory.path()).unwrap())).collect();
            replicas.into_iter().map(|replica| replica.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        let file = directory.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_ne!(beside(tempfile::tempdir().unwrap().path()).unwrap(), secrets[0]);

        fs::write(&file, "half").unwrap();
        let error = beside(directory.path()).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
    }
}
