//! A content-service of this process, on a folder: where the archive goes.

use std::path::{Path, PathBuf};

use clap::Parser;
use synap_content_service::{Config, Service};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Stopped when dropped, and its folder removed.
pub(crate) struct Content {
    pub(crate) url: String,
    folder: TempDir,
    _stop: DropGuard,
}

impl Content {
    pub(crate) async fn start() -> Self {
        #[derive(Parser)]
        struct Command {
            #[command(flatten)]
            config: Config,
        }
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        let arguments = ["content-service", "--listen", "127.0.0.1:0", "--blob-store", "local"];
        let more = ["--http-listen", "127.0.0.1:0", "--blob-dir", dir];
        let config = Command::try_parse_from(arguments.into_iter().chain(more)).unwrap().config;
        let service = Service::bind(config).await.unwrap();
        let url = format!("http://{}", service.local_addr());
        let stop = CancellationToken::new();
        tokio::spawn(service.run(stop.clone()));
        Self { url, folder, _stop: stop.drop_guard() }
    }

    /// The files of the archive.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        fn below(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => below(&path, found),
                    path if path.extension().is_some_and(|it| it == "parquet") => found.push(path),
                    _ => {}
                }
            }
        }
        let mut found = Vec::new();
        below(self.folder.path(), &mut found);
        found
    }
}
