//! Asks for bodies, one batch ahead of what is done with them, within bounds of memory.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use synap_proto::{
    entity::{ClaimBodiesRequest, ClaimBodiesResponse, ClaimedBody, LookedAt, Notable},
    field,
};
use synap_rpc::RpcError;
use synap_types::{IdGenerator as _, SystemIds};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Streaming};

use super::{
    Services, WantedArgs,
    room::{Place, Room},
    tally::Outcome,
};

/// A batch may take so long, at whatever pace it is taken.
const BATCH_LIMIT: Duration = Duration::from_hours(1);
/// How often others are asked whether they still hold what they held.
const HELD_PAUSE: Duration = Duration::from_millis(500);

/// A body to migrate.
pub(crate) struct Item {
    pub(crate) claim: ClaimedBody,
    pub(crate) body: Bytes,
    /// It was changed while it was under way before.
    retried: bool,
    _place: Place,
}

impl Item {
    /// How it ends if all goes well.
    pub(super) fn outcome(&self, existing: bool) -> Outcome {
        match (self.retried, existing) {
            (true, _) => Outcome::ConflictRetried,
            (_, true) => Outcome::AlreadyMigrated,
            _ if self.claim.content_type.is_empty() => Outcome::Migrated,
            _ => Outcome::MigratedAsMarkdown,
        }
    }
}

/// Which entities were asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// The next ones.
    Next,
    /// So many that were changed while they were under way.
    Again(i64),
    /// So many that somebody else held.
    Held(i64),
}

/// What was found beside bodies.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(super) asked: Asked,
    pub(super) entities: i64,
    pub(super) outcomes: HashMap<String, i64>,
    pub(super) notables: Vec<Notable>,
}

/// What is fed to whoever migrates.
pub(crate) enum Fed {
    Looked(Looked),
    Body(Item),
}

/// Asks for bodies.
pub(crate) struct Claims {
    services: Arc<Services>,
    room: Arc<Room>,
    wanted: WantedArgs,
    pause: Duration,
    claimant_id: String,
    sender: mpsc::Sender<Fed>,
    stop: CancellationToken,
    /// Bodies that may still be asked for.
    left: i64,
    /// Held by others when they were looked at.
    held: BTreeSet<String>,
    /// Taken over from others, and not yet passed.
    taken: HashSet<String>,
}

impl Claims {
    pub(crate) fn new(
        services: Arc<Services>,
        room: Arc<Room>,
        wanted: WantedArgs,
        pause: Duration,
        sender: mpsc::Sender<Fed>,
        stop: CancellationToken,
    ) -> Self {
        let claimant_id = SystemIds.next_id().to_string();
        let left = wanted.limit.unwrap_or(i64::MAX);
        let (held, taken) = (BTreeSet::new(), HashSet::new());
        Self { services, room, wanted, pause, claimant_id, sender, stop, left, held, taken }
    }

    /// Whose the claims are.
    pub(super) fn claimant(&self) -> String {
        self.claimant_id.clone()
    }

    /// Until nothing is left, or nothing more is wanted; tells which.
    pub(super) async fn feed(mut self) -> Result<bool, RpcError> {
        let mut after = String::new();
        loop {
            if self.is_stopped() {
                return Ok(false);
            }
            if self.left == 0 {
                break;
            }
            self.again().await?;
            let looked = self.ask(Asked::Next, &after, Vec::new()).await?;
            if looked.done {
                break;
            }
            after = looked.last_id;
            if !self.pause.is_zero() {
                self.room.empty().await;
                tokio::select! {
                    () = tokio::time::sleep(self.pause) => {}
                    () = self.stop.cancelled() => {}
                }
            }
        }
        loop {
            self.room.empty().await;
            if self.is_stopped() {
                return Ok(false);
            }
            if self.again().await? {
                continue;
            }
            if self.left == 0 {
                return Ok(false);
            }
            if self.held.is_empty() || self.wanted.dry_run {
                return Ok(true);
            }
            self.ask_for_held().await?;
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled() || self.room.is_closed()
    }

    /// Asks for what was changed while it was under way; tells whether there was any.
    async fn again(&mut self) -> Result<bool, RpcError> {
        let ids = self.room.again();
        for ids in ids.chunks(self.batch()) {
            let asked = Asked::Again(count(ids.len()));
            self.ask(asked, "", ids.to_vec()).await?;
        }
        Ok(!ids.is_empty())
    }

    /// Asks for what others held. What they still hold is asked for later.
    async fn ask_for_held(&mut self) -> Result<(), RpcError> {
        let ids: Vec<String> = std::mem::take(&mut self.held).into_iter().collect();
        for ids in ids.chunks(self.batch()) {
            let asked = Asked::Held(count(ids.len()));
            self.ask(asked, "", ids.to_vec()).await?;
        }
        if self.held.len() == ids.len() {
            tokio::select! {
                () = tokio::time::sleep(HELD_PAUSE) => {}
                () = self.stop.cancelled() => {}
            }
        }
        Ok(())
    }

    fn batch(&self) -> usize {
        usize::try_from(self.wanted.batch_size).unwrap_or(1)
    }

    async fn ask(
        &mut self,
        asked: Asked,
        after_id: &str,
        entity_ids: Vec<String>,
    ) -> Result<LookedAt, RpcError> {
        let is_next = matches!(asked, Asked::Next);
        let limit = if is_next { self.left.min(self.wanted.batch_size.into()) } else { i64::MAX };
        let request = ClaimBodiesRequest {
            claimant_id: self.claimant_id.clone(),
            limit: i32::try_from(limit).unwrap_or(self.wanted.batch_size),
            after_id: after_id.to_owned(),
            entity_ids,
            user_id: self.wanted.user.clone().unwrap_or_default(),
            since: self.wanted.since.filter(|_| is_next).map(field::timestamp),
            retry_failed: self.wanted.retry_failed,
            dry_run: self.wanted.dry_run,
        };
        let services = Arc::clone(&self.services);
        let (looked, messages) = services
            .patiently(|| async {
                let mut call = Request::new(request.clone());
                call.set_timeout(BATCH_LIMIT);
                let mut messages = services.entity.clone().claim_bodies(call).await?.into_inner();
                let first = messages.message().await?.unwrap_or_default();
                Ok((first.looked.unwrap_or_default(), messages))
            })
            .await?;
        self.found(asked, &looked).await;
        self.receive(asked, &looked, messages).await;
        Ok(looked)
    }

    /// Notes what was found.
    async fn found(&mut self, asked: Asked, looked: &LookedAt) {
        let is_next = matches!(asked, Asked::Next);
        self.room.claimed(&looked.claimed_ids);
        if is_next {
            self.left = self.left.saturating_sub(count(looked.claimed_ids.len()));
        }
        let ahead = |id: &&String| is_next && **id > looked.last_id;
        self.taken.extend(looked.claimed_ids.iter().filter(ahead).cloned());
        for id in &looked.held_ids {
            if !self.taken.contains(id) {
                self.held.insert(id.clone());
            }
        }
        for id in &looked.claimed_ids {
            self.held.remove(id);
        }
        let looked = Looked {
            asked,
            entities: looked.entities,
            outcomes: looked.outcomes.clone(),
            notables: looked.notables.clone(),
        };
        // Nobody listens only where all is over.
        let _ = self.sender.send(Fed::Looked(looked)).await;
    }

    /// Passes bodies on. What does not come is handed out again when its lease has run out.
    async fn receive(
        &mut self,
        asked: Asked,
        looked: &LookedAt,
        mut messages: Streaming<ClaimBodiesResponse>,
    ) {
        let retried = matches!(asked, Asked::Again(_));
        let mut missing: HashSet<&String> = looked.claimed_ids.iter().collect();
        let mut next = None;
        while !self.is_stopped() {
            let message = match next.take() {
                Some(message) => message,
                None => match messages.message().await {
                    Ok(Some(message)) => message,
                    // A broken stream is asked for again like anything that others hold.
                    Ok(None) | Err(_) => break,
                },
            };
            let Some(claim) = message.claim else { continue };
            let Some(place) = self.room.enter(claim.size).await else { break };
            let Some((body, after)) = whole(&claim, message.data, &mut messages).await else {
                break;
            };
            next = after;
            missing.remove(&claim.entity_id);
            let item = Item { claim, body, retried, _place: place };
            if self.sender.send(Fed::Body(item)).await.is_err() {
                break;
            }
        }
        for id in missing {
            self.room.leave(id, false);
            self.held.insert(id.clone());
        }
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The rest of a body, and the message after it; `None` if the stream breaks.
async fn whole(
    claim: &ClaimedBody,
    first: Bytes,
    messages: &mut Streaming<ClaimBodiesResponse>,
) -> Option<(Bytes, Option<ClaimBodiesResponse>)> {
    let is_whole = |bytes: usize| i64::try_from(bytes).is_ok_and(|bytes| bytes >= claim.size);
    if is_whole(first.len()) || first.is_empty() {
        return Some((first, None));
    }
    let mut body = BytesMut::with_capacity(usize::try_from(claim.size).unwrap_or_default());
    body.extend_from_slice(&first);
    while !is_whole(body.len()) {
        match messages.message().await {
            Ok(Some(message)) if message.claim.is_some() => {
                return Some((body.freeze(), Some(message)));
            }
            Ok(Some(message)) => body.extend_from_slice(&message.data),
            Ok(None) => break,
            Err(_) => return None,
        }
    }
    Some((body.freeze(), None))
}
