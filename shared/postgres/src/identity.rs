//! Who the server runs as. PostgreSQL refuses to run as root, and containers often give nothing else.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        fs::{MetadataExt as _, lchown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{ProvideError, Search, installed::Installation, provide_error::IoContext as _};

/// An identity under which PostgreSQL's programs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Our own.
    Own,
    /// Our own, shown to the server as an ordinary one: a user namespace. All files stay ours, so
    /// this works below a home directory that nobody else may enter.
    Namespace { unshare: PathBuf, uid: u32, gid: u32 },
    /// Another user's, which root can take without any tool.
    User { uid: u32, gid: u32 },
}

impl Identity {
    /// Finds an identity under which the installation runs and the data directory is writable.
    pub(crate) fn choose(
        search: &Search,
        installation: &Installation,
        data_dir: &Path,
    ) -> Result<Self, ProvideError> {
        let own = own_uid().doing(|| "finding out which user this is".to_owned())?;
        let users = Users::read();
        if own != 0 && users.has(own) {
            return Ok(Self::Own);
        }
        let owner = fs::metadata(data_dir)
            .doing(|| format!("looking at {}", data_dir.display()))
            .map(|data| (data.uid(), data.gid()))?;
        let mut reasons = Vec::new();
        for identity in candidates(own, owner, search, &users) {
            match identity.try_out(installation, data_dir) {
                Ok(()) => return Ok(identity),
                Err(reason) => reasons.push(format!("{}: {reason}", identity.describe())),
            }
        }
        Err(ProvideError::Identity {
            data_dir: data_dir.to_owned(),
            installation: installation.bin.clone(),
            reasons,
        })
    }

    /// The words that run a program under this identity, for a command prepared by [`Self::take`].
    pub(crate) fn words(&self, program: &Path) -> Vec<OsString> {
        let mut words = Vec::new();
        if let Self::Namespace { unshare, uid, gid } = self {
            words.push(unshare.into());
            words.push("--user".into());
            words.push(format!("--map-user={uid}").into());
            words.push(format!("--map-group={gid}").into());
            words.push("--".into());
        }
        words.push(program.into());
        words
    }

    /// A command of that program under this identity, without the variables (`PGPORT`, `PGDATA`,
    /// …) by which a user's environment would change what PostgreSQL's programs do.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let words = self.words(program);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        self.take(&mut command);
        command
    }

    /// Lets a command run as the other user, if there is one.
    pub(crate) fn take(&self, command: &mut Command) {
        if let Self::User { uid, gid } = self {
            // The standard library drops the supplementary groups too.
            command.uid(*uid).gid(*gid);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        // Messages in English: some of them are read.
        command.env("LC_ALL", "C").stdin(Stdio::null());
    }

    /// Hands a file or directory that we made to the identity.
    pub(crate) fn give(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::User { uid, gid } => lchown(path, Some(*uid), Some(*gid)),
            Self::Own | Self::Namespace { .. } => Ok(()),
        }
    }

    fn try_out(&self, installation: &Installation, data_dir: &Path) -> Result<(), String> {
        if let Self::User { .. } = self {
            self.give_all(data_dir).map_err(|error| error.to_string())?;
        }
        let output = self
            .command(Path::new("/bin/sh"))
            .args(["-c", "test -w \"$1\" && exec \"$2\" --version", "sh"])
            .arg(data_dir)
            .arg(installation.bin.join("postgres"))
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let text = text.trim();
        Err(if text.is_empty() { "may not write the data directory" } else { text }.to_owned())
    }

    /// Hands over what root left in a data directory: all of it when it was root's until now.
    fn give_all(&self, data_dir: &Path) -> io::Result<()> {
        self.give_tree(data_dir)?;
        for entry in fs::read_dir(data_dir)? {
            self.give_tree(&entry?.path())?;
        }
        Ok(())
    }

    fn give_tree(&self, path: &Path) -> io::Result<()> {
        let data = fs::symlink_metadata(path)?;
        if data.uid() != 0 {
            return Ok(());
        }
        self.give(path)?;
        if data.is_dir() {
            for entry in fs::read_dir(path)? {
                self.give_tree(&entry?.path())?;
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        match self {
            Self::Own => "the current user".to_owned(),
            Self::Namespace { uid, .. } => format!("unshare --map-user={uid}"),
            Self::User { uid, .. } => format!("user {uid}"),
        }
    }
}

fn candidates(own: u32, owner: (u32, u32), search: &Search, users: &Users) -> Vec<Identity> {
    let mut list = Vec::new();
    if own == 0 && owner.0 != 0 {
        // A volume that belongs to someone: the server runs as that someone, as it did before.
        return vec![Identity::User { uid: owner.0, gid: owner.1 }];
    }
    if let (Some(unshare), Some((uid, gid))) = (search.program("unshare"), users.any_ordinary()) {
        list.push(Identity::Namespace { unshare, uid, gid });
    }
    match (own, users.nobody()) {
        (0, Some((uid, gid))) => list.push(Identity::User { uid, gid }),
        (0, None) => {}
        // initdb wants a name for its user, but a user directory other than the file may have one.
        _ => list.push(Identity::Own),
    }
    list
}

/// The owner of a file that we make is us; asking the system directly takes unsafe code.
fn own_uid() -> io::Result<u32> {
    Ok(tempfile::tempfile()?.metadata()?.uid())
}

/// `/etc/passwd`: name, uid, gid.
struct Users(Vec<(String, u32, u32)>);

impl Users {
    fn read() -> Self {
        Self::parse(&fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1).and_then(number)?;
            Some((name, uid, fields.next().and_then(number)?))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    /// macOS has no entry for its ordinary users in the file, but they all have a name.
    fn has(&self, uid: u32) -> bool {
        cfg!(target_os = "macos") || self.0.iter().any(|user| user.1 == uid)
    }

    /// Any name will do: initdb refuses a user without one.
    fn any_ordinary(&self) -> Option<(u32, u32)> {
        let mut ordinary = self.0.iter().filter(|user| user.1 != 0);
        ordinary.next().map(|user| (user.1, user.2))
    }

    fn nobody(&self) -> Option<(u32, u32)> {
        self.0.iter().find(|user| user.0 == "nobody").map(|user| (user.1, user.2))
    }
}

/// Ids are unsigned, but macOS writes nobody as -2.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| text.parse().ok().map(i32::cast_unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:2:d:/:/bin/false\n\
                          nobody:*:-2:65534:n:/:/bin/false\nbroken\n";

    fn search_without_programs() -> Search {
        Search { path: OsString::new(), bin_dirs: Vec::new() }
    }

    #[test]
    fn the_user_file_is_read() {
        let users = Users::parse(PASSWD);
        assert_eq!(users.any_ordinary(), Some((1, 2)));
        assert_eq!(users.nobody(), Some((u32::MAX - 1, 65534)));
        assert!(users.has(1) && !users.has(4711) || cfg!(target_os = "macos"));
    }

    #[test]
    fn root_keeps_the_owner_of_a_data_directory() {
        let users = Users::parse(PASSWD);
        let search = search_without_programs();
        let owned = candidates(0, (999, 998), &search, &users);
        assert_eq!(owned, [Identity::User { uid: 999, gid: 998 }]);
        let fresh = candidates(0, (0, 0), &search, &users);
        assert_eq!(fresh, [Identity::User { uid: u32::MAX - 1, gid: 65534 }]);
    }

    #[test]
    fn an_unnamed_user_still_gets_a_try() {
        let users = Users::parse(PASSWD);
        let list = candidates(4711, (4711, 4711), &search_without_programs(), &users);
        assert_eq!(list, [Identity::Own]);
    }
}
