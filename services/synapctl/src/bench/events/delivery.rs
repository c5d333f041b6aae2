//! Live delivery: from before the call that appends an event until a subscriber has it. The floor: from
//! before the INSERT until a listener has its notification and has read the row.

use std::sync::Arc;

use anyhow::Context as _;
use sqlx::postgres::PgListener;
use synap_proto::event::{
    AppendEventsRequest, EventFilter, SubscribeRequest, SubscribeResponse,
    event_service_client::EventServiceClient, subscribe_request::Start,
    subscribe_response::Message,
};
use synap_rpc::Channel;
use synap_types::{IdGenerator as _, SystemIds};
use tokio::sync::Mutex;
use tonic::Streaming;
use uuid::Uuid;

use super::{Bench, append};
use crate::bench::{load::Done, report, system::BenchSystem};

/// Whose events they are: the subscriber filters by it.
const USER: &str = "bench-delivery";

const CHANNEL: &str = "bench_delivery";

pub(super) async fn bench(bench: &Bench, system: &BenchSystem) -> anyhow::Result<()> {
    let title = "delivery of an event to a subscriber, against INSERT, NOTIFY and SELECT";
    report::print_title(bench.args.json, title);
    let (system, floor) = (subscriber(system).await?, listener(bench).await?);
    bench.measure(("delivery", 1), None, system, floor).await
}

async fn subscriber(
    system: &BenchSystem,
) -> anyhow::Result<impl Fn(usize) -> Done + Clone + Send + Sync + 'static + use<>> {
    let client = EventServiceClient::new(system.event()?);
    let filter = EventFilter { user_id: USER.to_owned(), ..EventFilter::default() };
    let request = SubscribeRequest {
        filter: Some(filter),
        start: Some(Start::Now(())),
        ..SubscribeRequest::default()
    };
    let mut messages = client.clone().subscribe(request).await?.into_inner();
    // Whoever has a heartbeat misses nothing from then on.
    messages.message().await?.context("the subscription has ended")?;
    let shared = Arc::new((client, Mutex::new(messages)));
    Ok(move |_| -> Done {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (client, messages) = &*shared;
            deliver(client.clone(), &mut *messages.lock().await).await
        })
    })
}

async fn deliver(
    mut client: EventServiceClient<Channel>,
    messages: &mut Streaming<SubscribeResponse>,
) -> anyhow::Result<()> {
    let append = append::of_new_stream(USER);
    let id = append.events[0].event_id.clone();
    let request = AppendEventsRequest { appends: vec![append] };
    let appended = tokio::spawn(async move { client.append_events(request).await });
    loop {
        let response = messages.message().await?.context("the subscription has ended")?;
        if matches!(&response.message, Some(Message::Event(event)) if event.event_id == id) {
            break;
        }
    }
    appended.await??;
    Ok(())
}

async fn listener(
    bench: &Bench,
) -> anyhow::Result<impl Fn(usize) -> Done + Clone + Send + Sync + 'static + use<>> {
    let pool = bench.pool.clone();
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    let shared = Arc::new((pool, Mutex::new(listener)));
    Ok(move |_| -> Done {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            let (pool, listener) = &*shared;
            let mut listener = listener.lock().await;
            let id = SystemIds.next_id();
            let mut transaction = pool.begin().await?;
            append::insert_one(&mut transaction, id, USER).await?;
            let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(id.to_string());
            notify.execute(&mut *transaction).await?;
            transaction.commit().await?;
            let told: Uuid = listener.recv().await?.payload().parse()?;
            anyhow::ensure!(told == id, "another event was told of");
            let row =
                sqlx::query("SELECT event_id, data::text FROM bench_appends WHERE event_id = $1");
            row.bind(told).fetch_one(pool).await?;
            Ok(())
        })
    })
}
