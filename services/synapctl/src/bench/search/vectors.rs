//! Searches by vectors.

mod cloud;

use std::collections::HashSet;

use pgvector::Vector;
use serde::Serialize;
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};
use synap_proto::entity::{SearchVectorsRequest, entity_service_client::EntityServiceClient};
use uuid::Uuid;

use self::cloud::{Cloud, SIZES};
use super::{Bench, Turns};
use crate::bench::{load::Done, report, system::BenchSystem};

const MODEL: &str = "text-embedding-3-small";
/// How many are asked for.
const LIMIT: i32 = 10;
/// Different searches of a user.
const SEARCHES: usize = 50;
/// And of each user, where all take turns.
const OF_EACH: usize = 4;
/// The users that are measured by themselves, by their place among the 50: the greatest has a third of all.
const MEASURED: [usize; 4] = [0, 2, 9, 49];
/// Up to here entity-service compares all vectors, unless it is told otherwise.
const EXACT: usize = 20_000;

/// What entity-service runs for a user with few vectors, and for one with many.
const ALL: &str = "
    SELECT v.entity_id, v.distance
    FROM (SELECT entity_id, (embedding <=> $3) + 0 AS distance
          FROM entity_vectors
          WHERE user_id = $1 AND embedding_model = $2 AND embedding IS NOT NULL
          ORDER BY distance) AS v
    JOIN entities e ON e.id = v.entity_id AND e.user_id = $1
    WHERE e.type = 'note' AND e.deleted_at IS NULL
    ORDER BY v.distance
    LIMIT $4";
const NEAREST: &str = "
    SELECT v.entity_id, v.embedding <=> $3 AS distance
    FROM entity_vectors v JOIN entities e ON e.id = v.entity_id AND e.user_id = $1
    WHERE v.user_id = $1 AND v.embedding_model = $2 AND e.type = 'note' AND e.deleted_at IS NULL
    ORDER BY v.embedding <=> $3
    LIMIT $4";

/// What a user's searches find of what is nearest.
#[derive(Debug, Serialize)]
struct Found {
    operation: &'static str,
    rows: usize,
    searches: usize,
    /// The mean share of the ten nearest that is found.
    #[serde(rename = "recall_at_10")]
    share: f64,
    /// The fewest hits of a search.
    fewest: usize,
}

pub(super) async fn bench(bench: &Bench, system: &BenchSystem) -> anyhow::Result<()> {
    let sizes = cloud::sizes(bench.args.vectors);
    load(&bench.pool, &sizes).await?;
    let entities = EntityServiceClient::new(system.entity()?);
    let title = format!("vectors of {SIZES} users with {} in all, in turns", bench.args.vectors);
    // The users in turns, so that any stretch of time has all of them.
    let of_each: Vec<_> = (0..SIZES).map(|rank| Cloud::new().queries(rank, OF_EACH)).collect();
    let searches = (0..OF_EACH).flat_map(|turn| {
        let search = |(rank, queries): (usize, &Vec<Vec<f32>>)| Search {
            user: user(rank),
            few: sizes[rank] <= EXACT,
            query: queries[turn].clone(),
        };
        of_each.iter().enumerate().map(search).collect::<Vec<_>>()
    });
    let searches = searches.collect();
    measure(bench, &entities, &title, bench.args.vectors, searches).await?;
    for rank in MEASURED {
        let (user, rows) = (user(rank), sizes[rank]);
        let queries = Cloud::new().queries(rank, SEARCHES);
        recall(bench, &entities, &user, rows, &queries).await?;

        let way = if rows > EXACT { "by the index" } else { "all compared" };
        let title = format!("vectors of a user with {rows} of {}, {way}", bench.args.vectors);
        let search = |query| Search { user: user.clone(), few: rows <= EXACT, query };
        let searches = queries.into_iter().map(search).collect();
        measure(bench, &entities, &title, rows, searches).await?;
    }
    Ok(())
}

/// A search of one user.
#[derive(Clone)]
struct Search {
    user: String,
    /// Whether all of the user's vectors are compared.
    few: bool,
    query: Vec<f32>,
}

async fn measure(
    bench: &Bench,
    entities: &EntityServiceClient<synap_rpc::Channel>,
    title: &str,
    rows: usize,
    searches: Vec<Search>,
) -> anyhow::Result<()> {
    report::print_title(bench.args.json, title);
    let requests = searches.iter().map(|search| request(&search.user, &search.query)).collect();
    let (requests, searches) = (Turns::new(requests), Turns::new(searches));
    let entities = entities.clone();
    let of_service = move |_| -> Done {
        let (mut entities, request) = (entities.clone(), requests.next());
        Box::pin(async move {
            entities.search_vectors(request).await?;
            Ok(())
        })
    };
    let pool = bench.pool.clone();
    let floor = move |_| -> Done {
        let (pool, Search { user, few, query }) = (pool.clone(), searches.next());
        Box::pin(async move {
            directly(&pool, &user, &query, few).await?;
            Ok(())
        })
    };
    bench.measure("search_vectors", rows, of_service, floor).await
}

fn user(rank: usize) -> String {
    format!("vectors-{rank}")
}

fn request(user: &str, query: &[f32]) -> SearchVectorsRequest {
    SearchVectorsRequest {
        user_id: user.to_owned(),
        entity_type: "note".to_owned(),
        embedding_model: MODEL.to_owned(),
        embedding: query.to_vec(),
        limit: LIMIT,
    }
}

async fn recall(
    bench: &Bench,
    entities: &EntityServiceClient<synap_rpc::Channel>,
    user: &str,
    rows: usize,
    queries: &[Vec<f32>],
) -> anyhow::Result<()> {
    let (mut hits_found, mut wanted, mut fewest) = (0_u32, 0_u32, usize::MAX);
    for query in queries {
        let nearest = directly(&bench.pool, user, query, true).await?;
        let nearest: HashSet<String> = nearest.iter().map(Uuid::to_string).collect();
        let hits = entities.clone().search_vectors(request(user, query)).await?.into_inner().hits;
        fewest = fewest.min(hits.len());
        wanted += u32::try_from(nearest.len())?;
        let hits = hits.into_iter().filter_map(|hit| hit.entity);
        hits_found += u32::try_from(hits.filter(|entity| nearest.contains(&entity.id)).count())?;
    }
    let found = Found {
        operation: "recall",
        rows,
        searches: queries.len(),
        share: f64::from(hits_found) / f64::from(wanted),
        fewest,
    };
    if bench.args.json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        println!("\nrecall@10 of a user with {rows}: {:.4}, at least {fewest} hits", found.share);
    }
    Ok(())
}

/// The same search in the database alone.
async fn directly(
    pool: &PgPool,
    user: &str,
    query: &[f32],
    few: bool,
) -> anyhow::Result<Vec<Uuid>> {
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "SELECT set_config('role', 'synap_entity', true),
                set_config('app.current_user_id', $1, true)",
    )
    .bind(user)
    .execute(&mut *transaction)
    .await?;
    if !few {
        sqlx::query(
            "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true),
                    set_config('hnsw.ef_search', '600', true),
                    set_config('hnsw.max_scan_tuples', '2147483647', true),
                    set_config('hnsw.scan_mem_multiplier', '32', true),
                    set_config('enable_sort', 'off', true)",
        )
        .execute(&mut *transaction)
        .await?;
    }
    let (statement, limit) = if few { (ALL, LIMIT) } else { (NEAREST, LIMIT * 4) };
    let rows = sqlx::query(statement)
        .bind(user)
        .bind(MODEL)
        .bind(Vector::from(query.to_vec()))
        .bind(i64::from(limit))
        .fetch_all(&mut *transaction)
        .await?;
    rows.iter().map(|row| Ok(row.try_get("entity_id")?)).collect()
}

/// Vectors of 50 users, and the index over all of them made at the end: as it would be after a
/// migration.
async fn load(pool: &PgPool, sizes: &[usize; SIZES]) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?.detach();
    sqlx::raw_sql("DROP INDEX entity_vectors_embedding_idx").execute(&mut connection).await?;
    let mut cloud = Cloud::new();
    for (rank, &size) in sizes.iter().enumerate() {
        let user = user(rank);
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "INSERT INTO entities (id, user_id, type, title)
             SELECT gen_random_uuid(), $1, 'note', 'A note' FROM generate_series(1, $2)
             RETURNING id",
        )
        .bind(&user)
        .bind(i32::try_from(size)?)
        .fetch_all(&mut connection)
        .await?;
        for ids in ids.chunks(1000) {
            copy(&mut connection, &user, ids, &cloud.of(rank, ids.len())).await?;
        }
    }
    eprintln!("building the index of all vectors");
    sqlx::raw_sql(
        "SET maintenance_work_mem = '2GB';
         CREATE INDEX entity_vectors_embedding_idx ON entity_vectors
             USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)",
    )
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql("VACUUM (ANALYZE) entities, entity_vectors").execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// COPY in its binary form: a header, rows of four columns, a trailer.
async fn copy(
    connection: &mut PgConnection,
    user: &str,
    ids: &[Uuid],
    vectors: &[Vec<f32>],
) -> anyhow::Result<()> {
    let mut rows = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for (id, vector) in ids.iter().zip(vectors) {
        rows.extend(4_i16.to_be_bytes());
        let mut embedding = u16::try_from(vector.len())?.to_be_bytes().to_vec();
        embedding.extend([0, 0]);
        embedding.extend(vector.iter().flat_map(|number| number.to_be_bytes()));
        for column in [id.as_bytes().as_slice(), user.as_bytes(), b"note", &embedding] {
            rows.extend(i32::try_from(column.len())?.to_be_bytes());
            rows.extend(column);
        }
    }
    rows.extend((-1_i16).to_be_bytes());
    let copy = "COPY entity_vectors (entity_id, user_id, entity_type, embedding)
                FROM STDIN WITH (FORMAT binary)";
    let mut sink = connection.copy_in_raw(copy).await?;
    sink.send(rows).await?;
    sink.finish().await?;
    Ok(())
}
