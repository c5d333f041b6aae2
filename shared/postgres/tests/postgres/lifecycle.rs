//! Servers of our own: started anywhere, crashed in every way, never left behind.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    bare_machine, connect, fast_options, holder, is_alive, is_root, options, parent_and_group,
    public_copy_of_the_cache, scratch, signal, socket_dir, start, try_start, uid_of, wait_until,
};
use sqlx::{Connection as _, Row as _};
use synap_postgres::{EmbeddedMajor, ProvideError};

const NOBODY: u32 = 65534;

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// Not a test: the body of the process that [`holder`] starts.
#[tokio::test]
#[ignore = "run by other tests, as a process to be killed"]
async fn hold_a_server() {
    let dir = std::env::var_os("SYNAP_TEST_HOLD").expect("only run by other tests");
    let mut options = options(Path::new(&dir));
    options.ephemeral = std::env::var_os("SYNAP_TEST_EPHEMERAL").is_some();
    let provided = start(options).await;
    println!("\nholding {} {}", provided.postmaster_pid().unwrap(), provided.url());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_server_on_a_long_path_has_pgvector_unicode_and_durable_settings() {
    let scratch = scratch();
    let dir = scratch.path().join("d".repeat(100)).join("e".repeat(100)).join("with a space");
    let server = start(options(&dir)).await;
    assert!(server.is_embedded());
    assert!(server.warnings().is_empty(), "{:?}", server.warnings());
    let described = server.description();
    assert!(described.starts_with("PostgreSQL 18.4, pgvector 0.8.5 (embedded, /"), "{described}");
    let mut db = connect(server.url()).await;
    sqlx::raw_sql("CREATE EXTENSION vector").execute(&mut db).await.unwrap();
    let row = sqlx::query(
        "SELECT current_database() = 'synap', '[1,2]'::vector <=> '[1,2]' = 0, lower('ÄΣ') = 'äσ',
                current_setting('fsync') = 'on', current_setting('synchronous_commit') = 'on',
                current_setting('data_checksums') = 'on', current_setting('TimeZone') = 'UTC',
                current_setting('listen_addresses') = ''",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    let facts: Vec<bool> = (0..row.len()).map(|column| row.get(column)).collect();
    assert!(facts.iter().all(|fact| *fact), "{facts:?}");
    drop(db);
    server.stop().await;
    assert!(!is_alive_server(&dir), "stop waits for the end");
}

#[tokio::test]
async fn two_servers_run_at_once_and_one_directory_has_one_owner() {
    let scratch = scratch();
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    let (first, second) = tokio::join!(start(fast_options(&one)), start(fast_options(&two)));
    assert_ne!(first.postmaster_pid(), second.postmaster_pid());
    connect(first.url()).await;
    connect(second.url()).await;
    let error = try_start(fast_options(&one)).await.unwrap_err();
    let me = std::process::id().to_string();
    assert!(matches!(&error, ProvideError::InUse { pid, .. } if *pid == me), "{error}");
    assert!(error.to_string().contains(&format!("in use by process {me}")), "{error}");
    // Given up without waiting, and taken again at once.
    drop(first);
    let again = start(fast_options(&one)).await;
    connect(again.url()).await;
}

#[tokio::test]
async fn committed_data_survives_a_killed_server_and_the_url_stays() {
    let scratch = scratch();
    let server = start(options(scratch.path().join("data"))).await;
    let mut db = connect(server.url()).await;
    sqlx::raw_sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g")
        .execute(&mut db)
        .await
        .unwrap();
    // By its own pid, as the kernel would, not through the watchdog.
    assert!(signal("KILL", server.postmaster_pid().unwrap()));
    // The dead server's backends are still ending when the next one starts.
    server.restart().await.unwrap();
    assert_eq!(count(server.url()).await, 1000);
    server.kill().await;
    assert!(sqlx::PgConnection::connect(server.url()).await.is_err());
    server.restart().await.unwrap();
    assert_eq!(count(server.url()).await, 1000);
}

#[tokio::test]
async fn a_server_ends_with_its_killed_parent_and_the_next_one_finds_its_data() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let mut holder = holder(&this_program(), |command| {
        command.env("SYNAP_TEST_HOLD", &dir);
    });
    let mut db = connect(&holder.url).await;
    sqlx::raw_sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 10) g")
        .execute(&mut db)
        .await
        .unwrap();
    let error = try_start(options(&dir)).await.unwrap_err();
    let owner = holder.child.id().to_string();
    assert!(matches!(&error, ProvideError::InUse { pid, .. } if *pid == owner), "{error}");
    holder.kill();
    // At once, while the old server is still shutting down.
    let server = start(options(&dir)).await;
    assert!(!is_alive(holder.postmaster), "the killed process's server still runs");
    assert!(!socket_dir(&holder.url).exists(), "its socket is still there");
    assert_eq!(count(server.url()).await, 10);
}

#[tokio::test]
async fn an_ephemeral_server_leaves_nothing_behind_when_its_parent_is_killed() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let mut holder = holder(&this_program(), |command| {
        command.env("SYNAP_TEST_HOLD", &dir).env("SYNAP_TEST_EPHEMERAL", "1");
    });
    assert!(dir.exists());
    // Also when the server died before.
    assert!(signal("KILL", holder.postmaster));
    wait_until("the server is gone", || !is_alive(holder.postmaster));
    assert!(dir.exists(), "kept while its owner lives, which may restart it");
    holder.kill();
    wait_until("the directories are gone", || !dir.exists() && !socket_dir(&holder.url).exists());
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_server_without_a_watchdog_is_ended_by_the_next_start() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let mut holder = holder(&this_program(), |command| {
        command.env("SYNAP_TEST_HOLD", &dir);
    });
    let (watchdog, group) = parent_and_group(holder.postmaster);
    assert_eq!(group, watchdog, "Ctrl-C in a terminal must not reach the server");
    let children = format!("/proc/{watchdog}/task/{watchdog}/children");
    let children = fs::read_to_string(children).unwrap();
    let listener = children.split_whitespace().map(|pid| pid.parse().unwrap());
    for pid in listener.filter(|pid| *pid != holder.postmaster) {
        assert!(signal("KILL", pid));
    }
    assert!(signal("KILL", watchdog));
    holder.kill();
    assert!(is_alive(holder.postmaster), "nobody is left to end it");
    let server = start(options(&dir)).await;
    assert!(!is_alive(holder.postmaster));
    assert!(!socket_dir(&holder.url).exists());
    connect(server.url()).await;
}

#[tokio::test]
async fn a_stale_pid_file_with_the_number_of_an_innocent_process_harms_neither() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let server = start(fast_options(&dir)).await;
    server.kill().await;
    drop(server);
    let pid_file = dir.join("pgdata/postmaster.pid");
    let text = fs::read_to_string(&pid_file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    let mut innocent = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(&pid_file, format!("{}\n{rest}", innocent.id())).unwrap();
    let server = start(fast_options(&dir)).await;
    connect(server.url()).await;
    assert!(innocent.try_wait().unwrap().is_none(), "still running");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    drop(server);
    // And one that is empty, as after a power failure.
    wait_until("the server has stopped", || !pid_file.exists());
    fs::write(&pid_file, "").unwrap();
    connect(start(fast_options(&dir)).await.url()).await;
}

#[tokio::test]
async fn the_data_directory_decides_which_major_version_runs() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    let mut sixteen = fast_options(&dir);
    sixteen.embedded_major = EmbeddedMajor::V16;
    let server = start(sixteen).await;
    assert!(server.description().starts_with("PostgreSQL 16.14, pgvector 0.8.5"));
    let mut db = connect(server.url()).await;
    sqlx::raw_sql("CREATE EXTENSION vector; CREATE TABLE t AS SELECT 1")
        .execute(&mut db)
        .await
        .unwrap();
    drop(db);
    server.stop().await;
    drop(server);
    let server = start(fast_options(&dir)).await;
    assert!(server.description().starts_with("PostgreSQL 16.14"), "{}", server.description());
    assert_eq!(count(server.url()).await, 1);
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn an_ordinary_user_needs_nothing_special() {
    if !is_root() {
        eprintln!("not root: the other tests run as an ordinary user already");
        return;
    }
    let scratch = scratch();
    let cache = public_copy_of_the_cache(scratch.path()).await;
    let program = scratch.path().join("program");
    fs::copy(this_program(), &program).unwrap();
    let dir = scratch.path().join("home/data");
    fs::create_dir(dir.parent().unwrap()).unwrap();
    std::os::unix::fs::chown(dir.parent().unwrap(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut holder = holder(&program, |command| {
        command.env("SYNAP_TEST_HOLD", &dir).env("SYNAP_CACHE_DIR", &cache);
        command.current_dir("/").uid(NOBODY).gid(NOBODY);
    });
    assert_eq!(uid_of(holder.postmaster), NOBODY);
    connect(&holder.url).await;
    holder.kill();
    wait_until("the server is gone", || !is_alive(holder.postmaster));
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn root_without_user_namespaces_drops_to_another_user_or_says_what_to_do() {
    if !is_root() {
        eprintln!("not root: there is no identity to drop");
        return;
    }
    let scratch = scratch();
    let cache = public_copy_of_the_cache(scratch.path()).await;
    let dir = scratch.path().join("data");
    let mut without_unshare = fast_options(&dir);
    without_unshare.search = bare_machine(Path::new("/nowhere"));
    without_unshare.cache_dir = Some(cache.clone());
    let server = start(without_unshare.clone()).await;
    assert_eq!(uid_of(server.postmaster_pid().unwrap()), NOBODY);
    connect(server.url()).await;
    server.stop().await;
    drop(server);
    // Where namespaces are permitted again, the data keeps its owner.
    let mut with_unshare = fast_options(&dir);
    with_unshare.cache_dir = Some(cache);
    let server = start(with_unshare).await;
    assert_eq!(uid_of(server.postmaster_pid().unwrap()), NOBODY);
    server.stop().await;
    drop(server);
    // Behind a closed door.
    let closed = scratch.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    without_unshare.data_dir = closed.join("data");
    let error = try_start(without_unshare).await.unwrap_err();
    assert!(matches!(error, ProvideError::Identity { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("user 65534") && text.contains("SYNAP_CACHE_DIR"), "{text}");
}

async fn count(url: &str) -> i64 {
    let mut db = connect(url).await;
    sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut db).await.unwrap()
}

fn is_alive_server(dir: &Path) -> bool {
    dir.join("pgdata/postmaster.pid").exists()
}
