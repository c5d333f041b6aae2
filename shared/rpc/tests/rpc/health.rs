//! Alive from the start, ready when it says so.

use synap_rpc::ServerArgs;
use tonic::{Code, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use crate::running::{Running, args};

pub(crate) struct Probe(pub(crate) HealthClient<Channel>);

impl Probe {
    pub(crate) async fn of(server: &Running) -> Self {
        Self(HealthClient::new(server.plain().await))
    }

    pub(crate) async fn check(&mut self, service: &str) -> ServingStatus {
        let service = service.to_owned();
        let answer = self.0.check(HealthCheckRequest { service }).await.unwrap();
        answer.get_ref().status()
    }

    pub(crate) async fn watch(&mut self, service: &str) -> Streaming<HealthCheckResponse> {
        let service = service.to_owned();
        let answer = self.0.watch(HealthCheckRequest { service }).await.unwrap();
        answer.into_inner()
    }
}

pub(crate) async fn next(watch: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    watch.message().await.unwrap().unwrap().status()
}

#[tokio::test]
async fn readiness_goes_back_and_forth_and_liveness_stays() {
    // The server asks at once: not ready has to be said before it is started.
    let (content, _stage) = crate::content::Content::new();
    let server = Running::start(&args(), content).await;
    server.ready.send_replace(false);
    let mut probe = Probe::of(&server).await;
    let mut readiness = probe.watch("readiness").await;
    let mut overall = probe.watch("").await;
    // It may or may not have seen the first `true`.
    while next(&mut readiness).await != ServingStatus::NotServing {}
    while next(&mut overall).await != ServingStatus::NotServing {}
    assert!(!server.channel().is_ready().await);

    for ready in [true, false, true] {
        server.ready.send_replace(ready);
        let expected = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        assert_eq!(next(&mut readiness).await, expected);
        assert_eq!(next(&mut overall).await, expected);
        assert_eq!(probe.check("readiness").await, expected);
        assert_eq!(probe.check("").await, expected);
        assert_eq!(probe.check("liveness").await, ServingStatus::Serving);
        assert_eq!(server.channel().is_ready().await, ready);
    }
}

#[tokio::test]
async fn a_server_begins_unready() {
    let server = synap_rpc::Server::bind("content-service", crate::running::ANY_PORT, &args())
        .await
        .unwrap();
    let address = server.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let serving = tokio::spawn(server.serve(stop.clone(), move || {
        asked.send(()).unwrap();
        // A check that hangs is one that failed.
        std::future::pending()
    }));
    was_asked.recv().await.unwrap();
    let url = format!("http://{address}");
    let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
    let mut probe = Probe(HealthClient::new(endpoint.connect().await.unwrap()));
    assert_eq!(probe.check("liveness").await, ServingStatus::Serving);
    for service in ["readiness", ""] {
        assert_eq!(probe.check(service).await, ServingStatus::NotServing);
    }
    let unknown = HealthCheckRequest { service: "nobody".to_owned() };
    let status = probe.0.check(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    // Given up, and asked again.
    was_asked.recv().await.unwrap();
    assert_eq!(probe.check("readiness").await, ServingStatus::NotServing);
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let (server, _stage) = Running::scripted(&ServerArgs { ..args() }).await;
    let refused = synap_rpc::Server::bind("event-service", server.address, &args()).await;
    let Err(error) = refused else { panic!("two servers on one port") };
    let text = error.to_string();
    assert!(text.contains("event-service") && text.contains(&server.address.to_string()), "{text}");
}
