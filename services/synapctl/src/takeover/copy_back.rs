//! Bodies from the object store back into content_blocks.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use synap_proto::{
    content::GetBlobRequest,
    entity::{
        BodyToCopyBack, ContentBlock, ListBodiesToCopyBackRequest, ListBodiesToCopyBackResponse,
        PutContentBlocksRequest,
    },
};
use synap_rpc::RpcError;
use synap_types::Checksum;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::Code;

use super::{Services, page};
use crate::{output::Progress, patience::patiently};

/// Bodies that are read at once.
const READERS: usize = 8;
/// KiB of bodies that are held at once, and of one call.
const HELD_KIB: u32 = 32 * 1024;
const BATCH_BYTES: usize = 4 << 20;
const BATCH: usize = 100;
/// Entities that are named of those whose body cannot be copied.
const NAMED: usize = 20;
/// Bodies that a rehearsal reads, to tell how long all of them take.
const SAMPLE: usize = 32;

/// What a walk over all entities met.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) entities: i64,
    /// Bodies that content_blocks lacks.
    pub(super) lacking: i64,
    pub(super) bytes: i64,
    /// Bodies that were written; the others' entities were changed meanwhile.
    pub(super) written: i64,
    /// Whose blob cannot be read, or is no text: how many, and some of them.
    pub(super) unreadable: i64,
    /// Whose block was written behind our back.
    pub(super) unknown: i64,
    pub(super) named: Vec<String>,
    /// A rehearsal's: how long it took to read as many as it did.
    sampled: usize,
    sampling: Duration,
}

impl Walked {
    fn name(&mut self, id: String) {
        if self.named.len() < NAMED {
            self.named.push(id);
        }
    }

    /// How long it will take to copy what is lacking, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 rows")]
    pub(super) fn estimate(&self) -> f64 {
        let each = self.sampling.as_secs_f64() / self.sampled.max(1) as f64;
        each * self.lacking as f64
    }
}

fn count<T>(list: &[T]) -> i64 {
    i64::try_from(list.len()).unwrap_or(i64::MAX)
}

type Read = Result<(ContentBlock, OwnedSemaphorePermit), String>;

impl Services {
    /// Walks over all entities once and copies what content_blocks lacks; or only counts it.
    pub(super) async fn copy_back(&self, rehearse: bool) -> anyhow::Result<Walked> {
        let mut walked = Walked::default();
        let (mut progress, room) = (Progress::new(), Arc::new(Semaphore::new(HELD_KIB as usize)));
        let mut after_id = String::new();
        loop {
            let stretch = self.bodies_to_copy_back(&after_id).await?;
            walked.entities += stretch.seen;
            walked.lacking += count(&stretch.bodies);
            walked.bytes += stretch.bodies.iter().map(|body| body.size).sum::<i64>();
            walked.unknown += count(&stretch.unknown_ids);
            stretch.unknown_ids.into_iter().for_each(|id| walked.name(id));
            let mut bodies = stretch.bodies;
            let begun = Instant::now();
            if rehearse {
                bodies.truncate(SAMPLE.saturating_sub(walked.sampled));
                walked.sampled += bodies.len();
            }
            let mut reads = stream::iter(bodies)
                .map(|body| self.read(body, Arc::clone(&room)))
                .buffer_unordered(READERS);
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(read) = reads.next().await {
                match read? {
                    Ok(_) if rehearse => {}
                    Ok((block, held)) => {
                        bytes += block.content.len();
                        batch.push((block, held));
                    }
                    Err(id) => {
                        walked.unreadable += 1;
                        walked.name(id);
                    }
                }
                if bytes >= BATCH_BYTES || batch.len() >= BATCH {
                    walked.written += self.put(std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
            }
            walked.written += self.put(batch).await?;
            if rehearse {
                walked.sampling += begun.elapsed();
            }
            let total = stretch.total.max(walked.entities);
            progress.show("copy back", walked.entities, total, walked.entities);
            after_id = stretch.next_after_id;
            if after_id.is_empty() {
                progress.clear();
                return Ok(walked);
            }
        }
    }

    async fn bodies_to_copy_back(
        &self,
        after_id: &str,
    ) -> Result<ListBodiesToCopyBackResponse, RpcError> {
        patiently(|| async {
            let request = ListBodiesToCopyBackRequest { after_id: after_id.to_owned() };
            Ok(self.takeover.clone().list_bodies_to_copy_back(page(request)).await?.into_inner())
        })
        .await
    }

    /// A body, as soon as there is room for it; or the entity's id if there is none that could be
    /// written.
    async fn read(&self, body: BodyToCopyBack, room: Arc<Semaphore>) -> Result<Read, RpcError> {
        let kib = u32::try_from(body.size / 1024).unwrap_or(HELD_KIB).clamp(1, HELD_KIB);
        let Ok(held) = room.acquire_many_owned(kib).await else {
            return Ok(Err(body.entity_id));
        };
        let sha256 = body.checksum.parse::<Checksum>().map(|sum| sum.as_bytes().to_vec());
        let request = GetBlobRequest {
            key: body.key.clone(),
            sha256: sha256.unwrap_or_default().into(),
            ..GetBlobRequest::default()
        };
        let read = patiently(|| async {
            let answer = self.content.clone().get_blob(page(request.clone())).await?;
            let (mut chunks, mut bytes) = (answer.into_inner(), Vec::new());
            while let Some(chunk) = chunks.message().await? {
                bytes.extend_from_slice(&chunk.data);
            }
            Ok(bytes)
        });
        let bytes = match read.await {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.code, Code::NotFound | Code::DataLoss) => {
                return Ok(Err(body.entity_id));
            }
            Err(error) => return Err(error),
        };
        let BodyToCopyBack { entity_id, key, .. } = body;
        // PostgreSQL's text has no U+0000.
        Ok(match String::from_utf8(bytes) {
            Ok(content) if !content.contains('\0') => {
                Ok((ContentBlock { entity_id, key, content }, held))
            }
            _ => Err(entity_id),
        })
    }

    async fn put(&self, batch: Vec<(ContentBlock, OwnedSemaphorePermit)>) -> Result<i64, RpcError> {
        if batch.is_empty() {
            return Ok(0);
        }
        let (blocks, held): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let request = PutContentBlocksRequest { blocks };
        let answer = patiently(|| async {
            Ok(self.takeover.clone().put_content_blocks(page(request.clone())).await?.into_inner())
        });
        let written = answer.await?.written;
        drop(held);
        Ok(written)
    }
}
