//! What is compiled in.

use synap_event_service::MIGRATOR;
use synap_testkit::migrations::assert_compiled_in;

/// Which also says that their checksums are those that are in every database.
#[tokio::test]
async fn all_files_are_compiled_in_as_they_are() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/event");
    assert_compiled_in(&MIGRATOR, folder).await;
}
