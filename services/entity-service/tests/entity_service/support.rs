//! A running service, and short ways to talk to it.

mod database;

pub(crate) use database::*;

use std::time::{Duration, Instant};

use clap::Parser;
use synap_entity_service::{Config, MIGRATION_TABLE, MIGRATOR, Service};
use synap_postgres::MigrateError;
use synap_proto::{
    entity::{
        self as pb, adoption_service_client::AdoptionServiceClient,
        begin_operation_response::Outcome, entity_service_client::EntityServiceClient,
        operation_service_client::OperationServiceClient,
        storage_service_client::StorageServiceClient,
    },
    reason,
};
use synap_rpc::{Channel, RpcError};
use synap_testkit::postgres::{TestDatabase, TestServer};
use synap_types::{Checksum, IdGenerator as _, SystemIds};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(1);

/// A service of this process; stopped when dropped.
pub(crate) struct Running {
    pub(crate) api: Api,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Starts a service; it may not be ready yet.
    pub(crate) async fn start(database_url: &str, more: &[&str]) -> Self {
        let service = Service::bind(config(database_url, more)).await.unwrap();
        let url = format!("http://{}", service.local_addr().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(Box::pin(service.run(stop.clone())));
        let channel = Channel::connect("entity-service", &url).unwrap();
        Self { api: Api(channel), stop, task }
    }

    pub(crate) async fn ready(self) -> Self {
        until("the service to be ready", || self.api.0.is_ready()).await;
        self
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn config(database_url: &str, more: &[&str]) -> Config {
    try_config(database_url, more).unwrap()
}

pub(crate) fn try_config(database_url: &str, more: &[&str]) -> Result<Config, clap::Error> {
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }
    let fixed = ["entity-service", "--listen", "127.0.0.1:0", "--database-url", database_url];
    // What is tested of a database of V0.2 is mostly what comes after its adoption.
    let adopts = !more.contains(&"--auto-adopt");
    let adopt: &[&str] = if adopts { &["--auto-adopt", "true"] } else { &[] };
    Ok(Command::try_parse_from(fixed.iter().chain(adopt).chain(more))?.config)
}

pub(crate) async fn migrate(url: String) -> Result<(), MigrateError> {
    synap_postgres::migrate(&url, &MIGRATOR, MIGRATION_TABLE).await
}

/// A database with the newest migration.
pub(crate) async fn database() -> TestDatabase {
    TestServer::shared().await.database("entity", migrate).await
}

/// A database with nothing in it.
pub(crate) async fn empty_database() -> TestDatabase {
    let nothing = async |_| Ok::<_, String>(());
    TestServer::shared().await.database("empty", nothing).await
}

/// A database, and a service that is ready.
pub(crate) async fn service(more: &[&str]) -> (TestDatabase, Running) {
    let database = database().await;
    let running = Running::start(&database.url, more).await.ready().await;
    (database, running)
}

pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) type Answer<T> = Result<T, RpcError>;

/// The service's methods.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Channel);

impl Api {
    fn operations(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.0.clone())
    }

    pub(crate) async fn begin(&self, request: pb::BeginOperationRequest) -> Answer<Outcome> {
        let answer = self.operations().begin_operation(request).await?;
        Ok(answer.into_inner().outcome.unwrap())
    }

    /// Begins an operation that this caller is going to own.
    pub(crate) async fn start(&self, user: &str, request: &str) -> pb::OperationStarted {
        match self.begin(begin_request(user, request)).await.unwrap() {
            Outcome::Started(started) => started,
            other => panic!("not started: {other:?}"),
        }
    }

    pub(crate) async fn commit(&self, request: pb::CommitOperationRequest) -> Answer<pb::Entity> {
        let answer = self.operations().commit_operation(request).await?;
        Ok(answer.into_inner().entity.unwrap())
    }

    /// Steps 1 and 3 of a new operation.
    pub(crate) async fn write(&self, user: &str) -> (pb::OperationStarted, pb::Entity) {
        let started = self.start(user, &id()).await;
        let entity = self.commit(commit_request(&started, "body")).await.unwrap();
        (started, entity)
    }

    pub(crate) async fn finish(&self, operations: Vec<pb::OperationRef>) -> Answer<()> {
        self.operations().finish_operations(pb::FinishOperationsRequest { operations }).await?;
        Ok(())
    }

    pub(crate) async fn abort(&self, operation: Option<pb::OperationRef>) -> Answer<()> {
        self.operations().abort_operation(pb::AbortOperationRequest { operation }).await?;
        Ok(())
    }

    pub(crate) async fn operation(
        &self,
        user: &str,
        request: &str,
    ) -> Answer<pb::GetOperationResponse> {
        let request =
            pb::GetOperationRequest { user_id: user.to_owned(), request_id: request.to_owned() };
        Ok(self.operations().get_operation(request).await?.into_inner())
    }

    /// Extends an attempt by seconds, and returns how many it has.
    pub(crate) async fn extend(
        &self,
        operation: Option<pb::OperationRef>,
        seconds: i64,
    ) -> Answer<i64> {
        let lease = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = pb::ExtendOperationRequest { operation, lease };
        let answer = self.operations().extend_operation(request).await?.into_inner();
        Ok(answer.lease.unwrap().seconds)
    }

    pub(crate) async fn claim(&self, limit: i32) -> Answer<pb::ClaimOperationsResponse> {
        let request = pb::ClaimOperationsRequest { limit };
        Ok(self.operations().claim_operations(request).await?.into_inner())
    }

    pub(crate) async fn claim_deletions(&self, limit: i32) -> Answer<Vec<String>> {
        let request = pb::ClaimBlobDeletionsRequest { limit };
        Ok(self.operations().claim_blob_deletions(request).await?.into_inner().keys)
    }

    pub(crate) async fn complete_deletions(&self, keys: Vec<String>) -> Answer<()> {
        let request = pb::CompleteBlobDeletionsRequest { keys };
        self.operations().complete_blob_deletions(request).await?;
        Ok(())
    }

    /// Reads an entity, and its body if it is in content_blocks.
    pub(crate) async fn get(&self, user: &str, id: &str) -> Answer<pb::GetEntityResponse> {
        let request = pb::GetEntityRequest {
            user_id: user.to_owned(),
            id: id.to_owned(),
            include_content_block: true,
            ..pb::GetEntityRequest::default()
        };
        let client = EntityServiceClient::new(self.0.clone());
        Ok(client.max_decoding_message_size(64 << 20).get_entity(request).await?.into_inner())
    }

    pub(crate) async fn change_phase(
        &self,
        expected: pb::StoragePhase,
        next: pb::StoragePhase,
    ) -> Answer<prost_types::Timestamp> {
        let mut client = StorageServiceClient::new(self.0.clone());
        let (expected, next) = (expected.into(), next.into());
        let request = pb::SetStoragePhaseRequest { expected, next };
        Ok(client.set_storage_phase(request).await?.into_inner().change_time.unwrap())
    }

    /// Reads an entity as it was at a version.
    pub(crate) async fn get_at(&self, user: &str, id: &str, version: i32) -> Answer<pb::Entity> {
        let request = pb::GetEntityRequest {
            user_id: user.to_owned(),
            id: id.to_owned(),
            version,
            ..pb::GetEntityRequest::default()
        };
        let answer = EntityServiceClient::new(self.0.clone()).get_entity(request).await?;
        Ok(answer.into_inner().entity.unwrap())
    }

    /// The revisions below a version.
    pub(crate) async fn revisions(
        &self,
        user: &str,
        id: &str,
        before_version: i32,
        limit: i32,
    ) -> Answer<Vec<pb::Entity>> {
        let request = pb::ListRevisionsRequest {
            user_id: user.to_owned(),
            id: id.to_owned(),
            before_version,
            limit,
        };
        let answer = EntityServiceClient::new(self.0.clone()).list_revisions(request).await?;
        Ok(answer.into_inner().revisions)
    }

    /// The ids of what is due to be purged.
    pub(crate) async fn purgeable(&self) -> Vec<String> {
        let request = pb::ListPurgeableEntitiesRequest { limit: 100 };
        let answer = self.operations().list_purgeable_entities(request).await.unwrap();
        answer.into_inner().entities.into_iter().map(|entity| entity.entity_id).collect()
    }

    /// Begins a write and owns it.
    pub(crate) async fn started(&self, request: pb::BeginOperationRequest) -> pb::OperationStarted {
        match self.begin(request).await.unwrap() {
            Outcome::Started(started) => started,
            other => panic!("not started: {other:?}"),
        }
    }

    /// Gives a note a new body.
    pub(crate) async fn update(&self, user: &str, entity: &str, body: &str) -> pb::Entity {
        let request = edit_request(pb::OperationKind::Update, user, entity, "md");
        let started = self.started(request).await;
        self.commit(update_commit(&started, body)).await.unwrap()
    }

    /// Deletes or undeletes a note.
    pub(crate) async fn mark(
        &self,
        kind: pb::OperationKind,
        user: &str,
        entity: &str,
        expected_version: i32,
    ) -> Answer<pb::Entity> {
        let started = self.started(edit_request(kind, user, entity, "")).await;
        let delete = pb::EntityDeletion { expected_version };
        let undelete = pb::EntityUndeletion { expected_version };
        let is_deletion = kind == pb::OperationKind::Delete;
        self.commit(pb::CommitOperationRequest {
            operation: started.operation.clone(),
            phase: started.phase,
            delete: is_deletion.then_some(delete),
            undelete: (!is_deletion).then_some(undelete),
            event: Some(pb::EventDraft { r#type: "entity.marked".into(), data: "{}".into() }),
            ..pb::CommitOperationRequest::default()
        })
        .await
    }

    pub(crate) async fn inspect(&self) -> Answer<pb::InspectDatabaseResponse> {
        let mut client = AdoptionServiceClient::new(self.0.clone());
        Ok(client.inspect_database(pb::InspectDatabaseRequest {}).await?.into_inner())
    }

    /// Adopts the database, and leaves after so many messages; all of them, in their order.
    pub(crate) async fn adopt(&self, messages: usize) -> Answer<Vec<pb::AdoptDatabaseResponse>> {
        let mut client = AdoptionServiceClient::new(self.0.clone());
        let mut updates = client.adopt_database(pb::AdoptDatabaseRequest {}).await?.into_inner();
        let mut heard = Vec::new();
        while heard.len() < messages
            && let Some(update) = updates.message().await?
        {
            heard.push(update);
        }
        Ok(heard)
    }

    pub(crate) async fn statistics(&self) -> Answer<pb::GetStatisticsResponse> {
        let mut client = AdoptionServiceClient::new(self.0.clone());
        Ok(client.get_statistics(pb::GetStatisticsRequest {}).await?.into_inner())
    }

    pub(crate) async fn status(&self) -> Answer<pb::GetStorageStatusResponse> {
        let mut client = StorageServiceClient::new(self.0.clone());
        Ok(client.get_storage_status(pb::GetStorageStatusRequest {}).await?.into_inner())
    }
}

/// A new id.
pub(crate) fn id() -> String {
    SystemIds.next_id().to_string()
}

/// A new attempt at an operation.
pub(crate) fn begin_request(user: &str, request: &str) -> pb::BeginOperationRequest {
    pb::BeginOperationRequest {
        user_id: user.to_owned(),
        request_id: request.to_owned(),
        kind: pb::OperationKind::Create.into(),
        fingerprint: vec![7; 32].into(),
        entity_type: "note".to_owned(),
        extension: "md".to_owned(),
        attempt_id: id(),
        ..pb::BeginOperationRequest::default()
    }
}

/// What an attempt commits, in the phase it was started in.
pub(crate) fn commit_request(
    started: &pb::OperationStarted,
    body: &str,
) -> pb::CommitOperationRequest {
    use pb::StoragePhase::{Legacy, LegacyDropped, ObjectOnly};
    let phase = started.phase();
    let file = pb::File {
        url: format!("https://blobs.example.org/{}", started.key),
        path: started.key.clone(),
        size: i64::try_from(body.len()).unwrap(),
        r#type: "markdown".to_owned(),
        checksum: Checksum::of(body.as_bytes()).to_string(),
        name: String::new(),
    };
    pb::CommitOperationRequest {
        operation: started.operation.clone(),
        phase: phase.into(),
        create: Some(pb::EntityDraft {
            title: "A title".to_owned(),
            preview: "A preview".to_owned(),
            tags: vec!["one".to_owned(), "two".to_owned()],
            file: (phase != Legacy).then_some(file),
            content_block: (!matches!(phase, ObjectOnly | LegacyDropped)).then(|| body.to_owned()),
            search_text: Some(body.to_owned()).filter(|body| body.len() <= 64 * 1024),
        }),
        event: Some(pb::EventDraft {
            r#type: "entity.created".to_owned(),
            data: EVENT_DATA.to_owned(),
        }),
        ..pb::CommitOperationRequest::default()
    }
}

/// A new attempt at a write on a note that is there; an update gets a body where there is an
/// extension.
pub(crate) fn edit_request(
    kind: pb::OperationKind,
    user: &str,
    entity: &str,
    extension: &str,
) -> pb::BeginOperationRequest {
    pb::BeginOperationRequest {
        kind: kind.into(),
        extension: extension.to_owned(),
        entity_id: entity.to_owned(),
        ..begin_request(user, &id())
    }
}

/// What an attempt at an update commits: a new title and a new body, in the phase it was started in.
pub(crate) fn update_commit(
    started: &pb::OperationStarted,
    body: &str,
) -> pb::CommitOperationRequest {
    let create = commit_request(started, body);
    let draft = create.create.unwrap();
    let body = pb::EntityBody {
        preview: format!("{body}…"),
        file: draft.file,
        content_block: draft.content_block,
        search_text: Some(body.to_owned()),
    };
    let update = pb::EntityUpdate {
        title: Some("Another".to_owned()),
        body: Some(body),
        ..pb::EntityUpdate::default()
    };
    pb::CommitOperationRequest {
        create: None,
        update: Some(update),
        event: Some(pb::EventDraft { r#type: "entity.updated".into(), data: "{}".into() }),
        ..create
    }
}

/// As no serializer would write it: it must come back as it is.
pub(crate) const EVENT_DATA: &str = r#"{"z":1e2, "a" : -0.0,"size":12345678901234567890123}"#;

#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(answer: Answer<T>, code: Code, reason: &str) {
    let error = answer.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (code, reason), "{error:?}");
}

/// The same attempt, whatever is left of its lease.
#[track_caller]
pub(crate) fn assert_same_attempt(one: &pb::OperationStarted, other: &pb::OperationStarted) {
    let lease = None;
    let without_lease =
        |started: &pb::OperationStarted| pb::OperationStarted { lease, ..started.clone() };
    assert_eq!(without_lease(one), without_lease(other));
}

#[track_caller]
pub(crate) fn assert_fenced<T: std::fmt::Debug>(answer: Answer<T>) {
    assert_refused(answer, Code::Aborted, reason::OPERATION_FENCED);
}

#[track_caller]
pub(crate) fn assert_invalid<T: std::fmt::Debug>(answer: Answer<T>, field: &str) {
    let error = answer.unwrap_err();
    let fields: Vec<_> = error.violations.iter().map(|one| one.field.as_str()).collect();
    let found = (error.code, error.reason.as_str(), &fields[..]);
    assert_eq!(found, (Code::InvalidArgument, reason::INVALID_FIELD, &[field][..]), "{error:?}");
}
