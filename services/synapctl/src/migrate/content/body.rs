//! What happens to one body. Its key was recorded before it came here; whatever happens now, either
//! the entity names the object, or the key is given up and the object deleted.

use std::sync::Arc;

use bytes::Bytes;
use synap_proto::{
    content::Blob,
    entity::{Attachment, BlobCheck, ReleasedClaim, UploadedBody},
};
use synap_rpc::RpcError;
use synap_types::Checksum;

use super::{
    Pace, Services,
    claims::Item,
    puts::{NewObject, Put},
    services::is_of_one_body,
    tally::{Failure, Outcome},
};

/// Migrates bodies, any number at a time.
pub(crate) struct Mover {
    pub(crate) services: Arc<Services>,
    pub(crate) check: BlobCheck,
    pub(crate) objects: Option<Pace>,
    pub(crate) bytes: Option<Pace>,
    pub(crate) dry_run: bool,
}

/// What became of a body.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It is where it belongs; so many bytes were uploaded.
    Well(Outcome, usize),
    /// It was changed meanwhile: it is asked for again.
    Conflict,
    /// It cannot be migrated.
    Failed(Failure),
}

/// Where the object is, and how that is known.
struct Stored {
    url: String,
    existing: bool,
    check: BlobCheck,
    bytes: usize,
}

impl Mover {
    /// Migrates one body.
    ///
    /// # Errors
    /// If a service or the store stays away, or the storage phase was changed: the run cannot go on.
    pub(crate) async fn migrate(&self, item: &Item) -> Result<Ended, RpcError> {
        match self.try_to_migrate(item).await {
            Err(error) if is_of_one_body(&error) && !self.dry_run => {
                self.fail(item, "unexpected", error.message).await
            }
            outcome => outcome,
        }
    }

    async fn try_to_migrate(&self, item: &Item) -> Result<Ended, RpcError> {
        let checksum = Checksum::of(&item.body);
        let stored = match self.look_before(item, checksum).await? {
            Looked::There(stored) => stored,
            Looked::Other => return self.conflict(item).await,
            Looked::Nothing if self.dry_run => return Ok(Ended::Well(item.outcome(false), 0)),
            // It was cut while it was read.
            Looked::Nothing if i64::try_from(item.body.len()) != Ok(item.claim.size) => {
                return self.conflict(item).await;
            }
            Looked::Nothing => match self.upload(item, checksum).await? {
                Ok(stored) => stored,
                Err(ended) => return Ok(ended),
            },
        };
        let outcome = item.outcome(stored.existing);
        if self.dry_run {
            return Ok(Ended::Well(outcome, 0));
        }
        let body = UploadedBody {
            entity_id: item.claim.entity_id.clone(),
            key: item.claim.key.clone(),
            sha256: raw(checksum),
            url: stored.url,
            existing: stored.existing,
            check: stored.check.into(),
        };
        Ok(match self.services.attach(body).await? {
            Attachment::Attached => Ended::Well(outcome, stored.bytes),
            Attachment::Gone => Ended::Well(Outcome::Gone, stored.bytes),
            Attachment::Conflict | Attachment::Unspecified => Ended::Conflict,
        })
    }

    /// Whether these bytes are there already: where the entity says, or where an earlier holder of the
    /// claim has put them.
    async fn look_before(&self, item: &Item, checksum: Checksum) -> Result<Looked, RpcError> {
        let claim = &item.claim;
        let stored = |blob: Blob, existing| Stored {
            url: blob.url,
            existing,
            check: BlobCheck::Checksum,
            bytes: 0,
        };
        if !claim.existing_key.is_empty()
            && let Some(blob) = self.services.look(&claim.existing_key, true).await?
            && blob.sha256 == raw(checksum)
        {
            return Ok(Looked::There(stored(blob, true)));
        }
        if !claim.resumed {
            return Ok(Looked::Nothing);
        }
        Ok(match self.services.look(&claim.key, true).await? {
            Some(blob) if blob.sha256 == raw(checksum) => Looked::There(stored(blob, false)),
            Some(_) => Looked::Other,
            None => Looked::Nothing,
        })
    }

    async fn upload(
        &self,
        item: &Item,
        checksum: Checksum,
    ) -> Result<Result<Stored, Ended>, RpcError> {
        let (key, size) = (&item.claim.key, item.body.len());
        for (pace, amount) in [(&self.objects, 1), (&self.bytes, size)] {
            if let Some(pace) = pace {
                pace.take(amount).await;
            }
        }
        let object = NewObject {
            key: key.clone(),
            body: item.body.clone(),
            checksum,
            read_back: self.check == BlobCheck::Checksum,
        };
        let put = match self.services.put(&object).await? {
            Put::Done(_) if self.check == BlobCheck::Head => {
                let blob = self.services.look(key, false).await?;
                let is_whole = |blob: &Blob| usize::try_from(blob.size) == Ok(size);
                blob.filter(is_whole).map_or(Put::Different, |blob| Put::Done(blob.url))
            }
            put => put,
        };
        let url = match put {
            Put::Done(url) => url,
            Put::Taken => return Ok(Err(self.conflict(item).await?)),
            Put::Refused(why) => return Ok(Err(self.fail(item, "refused", why).await?)),
            Put::Different => {
                let why = "what was read back is not what was uploaded".to_owned();
                return Ok(Err(self.fail(item, "readback", why).await?));
            }
        };
        Ok(Ok(Stored { url, existing: false, check: self.check, bytes: size }))
    }

    async fn conflict(&self, item: &Item) -> Result<Ended, RpcError> {
        self.release(item, String::new(), String::new()).await?;
        Ok(Ended::Conflict)
    }

    async fn fail(
        &self,
        item: &Item,
        failure: &'static str,
        detail: String,
    ) -> Result<Ended, RpcError> {
        self.release(item, failure.to_owned(), detail.clone()).await?;
        let (entity_id, user_id) = (item.claim.entity_id.clone(), item.claim.user_id.clone());
        let outcome = format!("failed:{failure}");
        Ok(Ended::Failed(Failure { entity_id, user_id, outcome, detail }))
    }

    async fn release(&self, item: &Item, failure: String, detail: String) -> Result<(), RpcError> {
        let (entity_id, key) = (item.claim.entity_id.clone(), item.claim.key.clone());
        self.services.release(ReleasedClaim { entity_id, key, failure, detail }).await
    }
}

/// What is there before an upload.
enum Looked {
    Nothing,
    There(Stored),
    /// Other bytes are under the claim's key.
    Other,
}

fn raw(checksum: Checksum) -> Bytes {
    Bytes::copy_from_slice(checksum.as_bytes())
}
