//! The crash matrix of every write: at each step of the write protocol, the gateway or the service
//! of that step is killed with SIGKILL before the step, after its effect but before the reply, and
//! after the reply. Real processes; the failpoints exist in test builds only.

use crate::support::{
    Armed, Client, Name, System, eventually,
    files::{metadata, pdf},
};
use futures::future::join_all;
use tonic::Status;
use uuid::Uuid;

#[derive(Debug, Clone, Copy)]
enum Moment {
    Before,
    Effect,
    After,
}

/// What is being done while the process dies.
#[derive(Debug, Clone, Copy)]
enum Work {
    Notes,
    Files,
    /// Each of more than one part; on S3.
    LargeFiles,
    Deletions,
}

/// One call: its request id, its body, and the file that it deletes.
#[derive(Clone)]
struct Call {
    work: Work,
    request: String,
    body: Vec<u8>,
    file: String,
}

impl Work {
    fn calls(self) -> u64 {
        match self {
            Self::Notes | Self::Files | Self::Deletions => 6,
            Self::LargeFiles => 2,
        }
    }

    fn call(self, n: u64) -> Call {
        let body = match self {
            Self::Notes => format!("note {n}").into_bytes(),
            Self::Files | Self::Deletions => pdf(n, 1000),
            Self::LargeFiles => pdf(n, 9 * 1024 * 1024),
        };
        let request = Uuid::from_u128(u128::from(n) + 1).to_string();
        Call { work: self, request, body, file: String::new() }
    }
}

impl Call {
    /// Returns the id of the note or file.
    async fn make(&self, client: &Client) -> Result<String, Status> {
        match self.work {
            Work::Notes => {
                let text = std::str::from_utf8(&self.body).unwrap();
                Ok(client.create(text, &self.request).await?.0.id)
            }
            Work::Files | Work::LargeFiles => {
                let what = metadata("application/pdf", &self.request);
                Ok(client.upload(what, &self.body).await?.0.id)
            }
            Work::Deletions => {
                let (file, _) = client.delete_file(&self.file, "\"1\"", &self.request).await?;
                assert_eq!((file.version, &file.id), (2, &self.file));
                Ok(file.id)
            }
        }
    }
}

/// Kills `victim` at a moment of a step that `service` carries out, and checks what is left.
async fn crash(work: Work, step: &str, service: Name, moment: Moment, victim: Name) {
    let mut system = System::new().await;
    if matches!(work, Work::LargeFiles) {
        system.use_s3().await;
    }
    let at_gateway = victim == Name::Gateway;
    // Who has the failpoint, and whether it kills or lets us kill.
    let (who, place, action) = match (moment, at_gateway) {
        (Moment::Before, true) => (Name::Gateway, format!("gateway.{step}.before"), "kill"),
        (Moment::After, true) => (Name::Gateway, format!("gateway.{step}.after"), "kill"),
        (Moment::Before, false) => (service, format!("{step}.before"), "kill"),
        (Moment::Effect, false) => (service, format!("{step}.effect"), "kill"),
        // The service has had its effect and waits: the gateway dies without a reply.
        (Moment::Effect, true) => (service, format!("{step}.effect"), "pause"),
        // The gateway has the reply and waits: the service dies after it.
        (Moment::After, false) => (Name::Gateway, format!("gateway.{step}.after"), "pause"),
    };
    let armed = Armed(place, action);
    let mut calls: Vec<Call> = (0..work.calls()).map(|n| work.call(n)).collect();
    if matches!(work, Work::Deletions) {
        // What is going to be deleted is made in peace.
        system.start_all(None).await;
        let client = system.client("ada");
        for call in &mut calls {
            let made = client.upload(metadata("application/pdf", ""), &call.body).await;
            call.file = made.unwrap().0.id;
        }
        system.settled().await;
        system.kill(who).await;
        system.spawn(who, Some(armed));
        system.ready(who).await;
    } else {
        system.start_all(Some((who, armed))).await;
    }

    let client = system.client("ada");
    let made: Vec<_> = calls
        .iter()
        .map(|call| {
            let (client, call) = (client.clone(), call.clone());
            tokio::spawn(async move { call.make(&client).await })
        })
        .collect();

    if action == "kill" {
        system.died(victim).await;
    } else {
        let mark = system.mark();
        eventually("the failpoint is reached", || async { mark.exists() }).await;
        system.kill(victim).await;
        std::fs::remove_file(&mark).unwrap();
    }
    system.spawn(victim, None);
    system.ready(victim).await;

    let answers: Vec<_> = join_all(made).await.into_iter().map(Result::unwrap).collect();
    system.settled().await;
    let kept = system.check_everything().await;

    // Nothing that was acknowledged is lost or differs.
    for (call, answer) in calls.iter().zip(&answers) {
        let Ok(id) = answer else { continue };
        let there =
            kept.get(id).unwrap_or_else(|| panic!("{}, acknowledged, is lost", call.request));
        assert!(there.body == call.body, "another body");
        assert_eq!(there.deleted, matches!(work, Work::Deletions));
        match work {
            Work::Notes => assert_eq!(client.get(id).await.unwrap().content.as_bytes(), call.body),
            Work::Files | Work::LargeFiles => {
                assert!(client.download(id, 0, 0).await.unwrap().1 == call.body);
            }
            Work::Deletions => assert!(client.get_file(id).await.is_err()),
        }
    }
    // Whatever was not acknowledged can be repeated, and is there once.
    for (call, answer) in calls.iter().zip(&answers) {
        let again = call.make(&client).await.unwrap();
        if let Ok(first) = answer {
            assert_eq!(again, *first);
        }
    }
    system.settled().await;
    let kept = system.check_everything().await;
    assert!(kept.values().all(|one| one.deleted == matches!(work, Work::Deletions)));
    let mut there: Vec<_> = kept.into_values().map(|one| one.body).collect();
    let mut asked: Vec<_> = calls.into_iter().map(|call| call.body).collect();
    there.sort();
    asked.sort();
    assert!(there == asked, "{} are there of {}", there.len(), asked.len());
    assert_eq!(system.unfinished_uploads(), Vec::<String>::new());
}

macro_rules! matrix {
    ($($work:ident, $test:ident: $step:literal, $service:ident;)*) => {$(
        mod $test {
            use super::*;

            #[tokio::test]
            async fn the_service_dies_before_it() {
                crash(Work::$work, $step, Name::$service, Moment::Before, Name::$service).await;
            }

            #[tokio::test]
            async fn the_service_dies_after_the_effect() {
                crash(Work::$work, $step, Name::$service, Moment::Effect, Name::$service).await;
            }

            #[tokio::test]
            async fn the_service_dies_after_the_reply() {
                crash(Work::$work, $step, Name::$service, Moment::After, Name::$service).await;
            }

            #[tokio::test]
            async fn the_gateway_dies_before_it() {
                crash(Work::$work, $step, Name::$service, Moment::Before, Name::Gateway).await;
            }

            #[tokio::test]
            async fn the_gateway_dies_after_the_effect() {
                crash(Work::$work, $step, Name::$service, Moment::Effect, Name::Gateway).await;
            }

            #[tokio::test]
            async fn the_gateway_dies_after_the_reply() {
                crash(Work::$work, $step, Name::$service, Moment::After, Name::Gateway).await;
            }
        }
    )*};
}

matrix! {
    Notes, note_step_1_begin: "begin", Entity;
    Notes, note_step_2_put: "put", Content;
    Notes, note_step_3_commit: "commit", Entity;
    Notes, note_step_4_append: "append", Event;
    Notes, note_step_5_finish: "finish", Entity;
    Files, file_step_1_begin: "begin", Entity;
    Files, file_step_2_put: "put", Content;
    Files, file_step_3_commit: "commit", Entity;
    Files, file_step_4_append: "append", Event;
    Files, file_step_5_finish: "finish", Entity;
    LargeFiles, large_file_step_1_begin: "begin", Entity;
    LargeFiles, large_file_step_2_put: "put", Content;
    LargeFiles, large_file_step_3_commit: "commit", Entity;
    LargeFiles, large_file_step_4_append: "append", Event;
    LargeFiles, large_file_step_5_finish: "finish", Entity;
    Deletions, deletion_step_1_begin: "begin", Entity;
    Deletions, deletion_step_3_commit: "commit", Entity;
    Deletions, deletion_step_4_append: "append", Event;
    Deletions, deletion_step_5_finish: "finish", Entity;
}
