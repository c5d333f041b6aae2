//! The crash matrix of CreateNote: at each step of the write protocol, the gateway or the service of
//! that step is killed with SIGKILL before the step, after its effect but before the reply, and
//! after the reply. Real processes; the failpoints exist in test builds only.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use futures::future::join_all;
use support::{Armed, Name, System, eventually};
use uuid::Uuid;

/// Notes being created while the process dies.
const CALLS: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Moment {
    Before,
    Effect,
    After,
}

/// Kills `victim` at a moment of a step that `service` carries out, and checks what is left.
async fn crash(step: &str, service: Name, moment: Moment, victim: Name) {
    let mut system = System::new().await;
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
    system.start_all(Some((who, Armed(place, action)))).await;

    let client = system.client("ada");
    let requests: Vec<(String, String)> = (0..CALLS)
        .map(|n| {
            (Uuid::from_u128(n as u128 + 1).to_string(), format!("{step} {moment:?}, note {n}"))
        })
        .collect();
    let calls = requests.iter().map(|(id, body)| {
        let client = client.clone();
        let (id, body) = (id.clone(), body.clone());
        tokio::spawn(async move { client.create(&body, &id).await })
    });
    let calls: Vec<_> = calls.collect();

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

    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    system.settled().await;
    let bodies = system.check_whole().await;

    // No acknowledged note is lost or differs.
    for ((_, body), answer) in requests.iter().zip(&answers) {
        if let Ok((note, _)) = answer {
            assert_eq!(bodies.get(&note.id), Some(body), "an acknowledged note is not there");
            assert_eq!(client.get(&note.id).await.unwrap().content, *body);
        }
    }
    // Whatever was not acknowledged can be repeated, and is there once.
    for ((id, body), answer) in requests.iter().zip(&answers) {
        let (again, _) = client.create(body, id).await.unwrap();
        if let Ok((first, _)) = answer {
            assert_eq!(again.id, first.id);
        }
    }
    system.settled().await;
    let bodies = system.check_whole().await;
    let mut there: Vec<_> = bodies.into_values().collect();
    let mut asked: Vec<_> = requests.into_iter().map(|(_, body)| body).collect();
    there.sort();
    asked.sort();
    assert_eq!(there, asked);
}

macro_rules! matrix {
    ($($test:ident: $step:literal, $service:ident;)*) => {$(
        mod $test {
            use super::*;

            #[tokio::test]
            async fn the_service_dies_before_it() {
                crash($step, Name::$service, Moment::Before, Name::$service).await;
            }

            #[tokio::test]
            async fn the_service_dies_after_the_effect() {
                crash($step, Name::$service, Moment::Effect, Name::$service).await;
            }

            #[tokio::test]
            async fn the_service_dies_after_the_reply() {
                crash($step, Name::$service, Moment::After, Name::$service).await;
            }

            #[tokio::test]
            async fn the_gateway_dies_before_it() {
                crash($step, Name::$service, Moment::Before, Name::Gateway).await;
            }

            #[tokio::test]
            async fn the_gateway_dies_after_the_effect() {
                crash($step, Name::$service, Moment::Effect, Name::Gateway).await;
            }

            #[tokio::test]
            async fn the_gateway_dies_after_the_reply() {
                crash($step, Name::$service, Moment::After, Name::Gateway).await;
            }
        }
    )*};
}

matrix! {
    step_1_begin: "begin", Entity;
    step_2_put: "put", Content;
    step_3_commit: "commit", Entity;
    step_4_append: "append", Event;
    step_5_finish: "finish", Entity;
}
