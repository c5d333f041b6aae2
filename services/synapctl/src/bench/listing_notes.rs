//! `bench listing-notes`.

use std::{collections::HashSet, time::Duration};

use clap::Args;
use sqlx::PgPool;
use synap_postgres::PoolOptions;
use synap_proto::gateway::{
    CreateNoteRequest, ListNotesRequest, ListNotesResponse, note_service_client::NoteServiceClient,
};
use synap_rpc::Channel;
use tonic::metadata::AsciiMetadataValue;

use super::{
    load::{self, Done},
    report::{self, Subject},
    system::{BenchSystem, request},
};
use crate::cli::Exit;

/// ListNotes of one user with many notes, while others are written: whether each note comes once,
/// and what the first page costs and the last one, against the same SQL run directly.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  cargo run --release -- bench listing-notes --notes 100000 --page-size 50"
)]
pub struct ListingNotesArgs {
    /// Notes of the user.
    #[arg(long, default_value_t = 100_000)]
    notes: usize,
    /// Notes of a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i32).range(1..=200))]
    page_size: i32,
    /// Seconds that each side is measured for each line.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A page in the database: the newest, or the last before a time.
const PAGE: &str = "
    SELECT id, user_id, type, title, preview, tags, file_url, file_path, file_size, file_type,
           checksum, file_name, version, created_at, updated_at, deleted_at
    FROM entities
    WHERE user_id = $1 AND type = 'note' AND deleted_at IS NULL
      AND created_at < coalesce((SELECT min(created_at) + make_interval(secs => $2 * 60)
                                 FROM entities WHERE user_id = $1 AND type = 'note' AND $3),
                                'infinity')
    ORDER BY created_at DESC, id DESC
    LIMIT $2";

/// Runs the benchmark.
pub(super) async fn bench(args: ListingNotesArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(args.notes > 0 && args.seconds > 0, "--notes and --seconds are at least 1");
    let system = BenchSystem::start().await?;
    let options = PoolOptions { by_key: true, ..PoolOptions::new("bench") };
    let pool = synap_postgres::connect_pool(system.database.url(), &options)?;
    insert(&pool, args.notes).await?;
    let lister = Lister {
        stub: NoteServiceClient::new(system.gateway()?),
        header: system.bearer()?,
        page_size: args.page_size,
    };
    let last = lister.walk(args.notes).await?;

    for (page, token) in [("first", String::new()), ("last", last)] {
        let title = format!("the {page} page of {} notes", args.notes);
        report::print_title(args.json, &title);
        let of_system = {
            let lister = lister.clone();
            move |_| -> Done {
                let (lister, token) = (lister.clone(), token.clone());
                Box::pin(async move {
                    let page = lister.page(token).await?;
                    anyhow::ensure!(!page.notes.is_empty(), "an empty page");
                    Ok(())
                })
            }
        };
        let (pool, size, is_last) = (pool.clone(), args.page_size, page == "last");
        let floor = move |_| -> Done { Box::pin(directly(pool.clone(), size, is_last)) };
        let time = Duration::from_secs(args.seconds);
        let (of_system, of_floor) = load::in_turns(1, time, of_system, floor).await?;
        let operation = if is_last { "list_last" } else { "list_first" };
        let subject = Subject { store: "postgres", operation, bytes: 0, rows: Some(args.notes) };
        report::Line::new(1, of_system.into(), of_floor.into())
            .about(subject, Vec::new())
            .print(args.json)?;
    }
    pool.close().await;
    system.stop().await?;
    Ok(Exit::Well)
}

#[derive(Clone)]
struct Lister {
    stub: NoteServiceClient<Channel>,
    header: AsciiMetadataValue,
    page_size: i32,
}

impl Lister {
    async fn page(&self, page_token: String) -> anyhow::Result<ListNotesResponse> {
        let page_size = self.page_size;
        let message = ListNotesRequest { page_size, page_token, ..ListNotesRequest::default() };
        let answer = self.stub.clone().list_notes(request(&self.header, message)).await?;
        Ok(answer.into_inner())
    }

    /// Every page, with a note written before each tenth of them; returns the last page's token.
    async fn walk(&self, notes: usize) -> anyhow::Result<String> {
        let (mut seen, mut token, mut pages, mut again) = (HashSet::new(), String::new(), 0_u32, 0);
        loop {
            if pages % 10 == 0 {
                let content = "written meanwhile".to_owned();
                let note = CreateNoteRequest { content, ..CreateNoteRequest::default() };
                self.stub.clone().create_note(request(&self.header, note)).await?;
            }
            let page = self.page(token.clone()).await?;
            pages += 1;
            for note in page.notes {
                again += u32::from(!seen.insert(note.id));
            }
            if page.next_page_token.is_empty() {
                break;
            }
            token = page.next_page_token;
        }
        eprintln!("{} notes on {pages} pages, {again} of them again", seen.len());
        anyhow::ensure!(again == 0 && seen.len() >= notes, "not each note once");
        Ok(token)
    }
}

/// Notes as rows: what is listed is no more of them.
async fn insert(pool: &PgPool, notes: usize) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO entities (id, user_id, type, title, preview, tags, created_at, updated_at)
         SELECT gen_random_uuid(), $1, 'note', 'Note number ' || n,
                repeat('The beginning of a note. ', 8), ARRAY['tag-' || n % 10], t, t
         FROM generate_series(1, $2) AS n,
              LATERAL (SELECT now() - make_interval(mins => n)) AS at (t)",
    )
    .bind(BenchSystem::USER)
    .bind(i32::try_from(notes)?)
    .execute(pool)
    .await?;
    sqlx::raw_sql("VACUUM (ANALYZE) entities").execute(pool).await?;
    Ok(())
}

async fn directly(pool: PgPool, size: i32, is_last: bool) -> anyhow::Result<()> {
    let rows =
        sqlx::query(PAGE).bind(BenchSystem::USER).bind(size).bind(is_last).fetch_all(&pool).await?;
    anyhow::ensure!(!rows.is_empty(), "an empty page");
    Ok(())
}
