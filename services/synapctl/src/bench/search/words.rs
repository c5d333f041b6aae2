//! Searches by words.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::PgPool;
use synap_proto::{
    entity::{SearchEntitiesRequest, entity_service_client::EntityServiceClient},
    gateway::{CreateNoteRequest, SearchNotesRequest, note_service_client::NoteServiceClient},
};

use super::{Bench, Turns};
use crate::bench::{
    corpus,
    load::Done,
    report,
    system::{BenchSystem, request},
};

/// Writers of the notes.
const WRITERS: usize = 16;
/// Results of a page.
const LIMIT: i32 = 20;
/// Different searches.
const SEARCHES: usize = 200;

/// What entity-service runs for a page.
const SEARCH: &str = "
    SELECT e.id, e.user_id, e.type, e.title, e.preview, e.tags, e.file_url, e.file_path,
           e.file_size, e.file_type, e.checksum, e.file_name, e.version, e.created_at,
           e.updated_at, e.deleted_at, f.score
    FROM synap_search($2, synap_search_language('english'), 'note', 2000, NULL, NULL, $3) f,
         LATERAL (SELECT * FROM entities WHERE id = f.entity_id AND (user_id = $1) IS TRUE
                  OFFSET 0) AS e
    ORDER BY f.score DESC, f.entity_id DESC";

pub(super) async fn bench(bench: &Bench, system: &BenchSystem) -> anyhow::Result<()> {
    let texts = corpus::notes()?;
    write(system, &texts, bench.args.notes).await?;
    // As autovacuum would have done by the time that so many notes are there.
    sqlx::raw_sql("VACUUM (ANALYZE) entities, entity_search").execute(&bench.pool).await?;
    let searches = Turns::new(searches(&texts));
    let entities = EntityServiceClient::new(system.entity()?);
    let (notes, header) = (NoteServiceClient::new(system.gateway()?), system.bearer()?);

    let floor = {
        let (pool, searches) = (bench.pool.clone(), searches.clone());
        move |_| -> Done { Box::pin(directly(pool.clone(), BenchSystem::USER, searches.next())) }
    };
    let of_service = {
        let searches = searches.clone();
        move |_| -> Done {
            let (mut entities, query) = (entities.clone(), searches.next());
            Box::pin(async move {
                let request = SearchEntitiesRequest {
                    user_id: BenchSystem::USER.to_owned(),
                    entity_type: "note".to_owned(),
                    query,
                    limit: LIMIT,
                    after: None,
                };
                entities.search_entities(request).await?;
                Ok(())
            })
        }
    };
    let of_system = move |_| -> Done {
        let (mut notes, query) = (notes.clone(), searches.next());
        let search = SearchNotesRequest { query, limit: LIMIT, ..SearchNotesRequest::default() };
        let request = request(&header, search);
        Box::pin(async move {
            notes.search_notes(request).await?;
            Ok(())
        })
    };
    let count = bench.args.notes;
    let title = format!("words in {count} notes, SearchEntities against its SQL");
    report::print_title(bench.args.json, &title);
    bench.measure("search_entities", count, of_service, floor.clone()).await?;
    let title = format!("words in {count} notes, SearchNotes with snippets against the SQL alone");
    report::print_title(bench.args.json, &title);
    bench.measure("search_notes", count, of_system, floor).await
}

/// Writes notes as clients do.
async fn write(system: &BenchSystem, texts: &[String], count: usize) -> anyhow::Result<()> {
    let (stub, header) = (NoteServiceClient::new(system.gateway()?), system.bearer()?);
    let requests = texts.iter().cycle().take(count).map(|content| {
        let note = CreateNoteRequest { content: content.clone(), ..CreateNoteRequest::default() };
        request(&header, note)
    });
    let writes = requests.map(|request| {
        let mut stub = stub.clone();
        async move { stub.create_note(request).await }
    });
    let writes: Vec<_> = writes.collect();
    stream::iter(writes).buffer_unordered(WRITERS).try_for_each(async |_| Ok(())).await?;
    Ok(())
}

/// Two words of a note each: what somebody would look for who remembers it.
pub(in crate::bench) fn searches(texts: &[String]) -> Vec<String> {
    let of_text = |text: &String| {
        let is_word = |word: &&str| word.len() > 4 && word.bytes().all(|b| b.is_ascii_lowercase());
        let words: Vec<&str> = text.split_whitespace().filter(is_word).collect();
        let (first, other) = (words.get(words.len() / 3)?, words.get(words.len() / 2)?);
        Some(format!("{first} {other}"))
    };
    let step = (texts.len() / SEARCHES).max(1);
    texts.iter().step_by(step).filter_map(of_text).collect()
}

/// The newest matches of a user, by the SQL that entity-service runs.
pub(in crate::bench) async fn directly(
    pool: PgPool,
    user: &str,
    query: String,
) -> anyhow::Result<()> {
    let (first, other) = query.split_once(' ').unwrap_or((&query, &query));
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "SELECT set_config('role', 'synap_entity', true),
                set_config('app.current_user_id', $1, true)",
    )
    .bind(user)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(SEARCH)
        .bind(user)
        .bind(format!("'{first}' & '{other}'"))
        .bind(i64::from(LIMIT))
        .fetch_all(&mut *transaction)
        .await?;
    Ok(())
}
