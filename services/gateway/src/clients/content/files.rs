//! Bodies of files: they pass by in chunks, and are never held as a whole.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use synap_proto::content::{
    GetBlobRequest, GetBlobResponse, HeadBlobRequest, PutBlobRequest, PutBlobSpec, SignUrlRequest,
    SignedMethod, content_service_client::ContentServiceClient,
};
use synap_rpc::{CHUNK_BYTES, Channel, RpcError, retry};
use synap_types::Checksum;
use tokio::sync::mpsc;
use tonic::Code;

use super::{ContentClient, SERVICE, promised};
use crate::{
    clients::promised_time,
    domain::{FileDraft, StoredFile},
    error::Error,
};

/// The chunks of a body. One that ends without an error is complete.
pub(crate) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// A blob as content-service tells of it.
#[derive(Debug)]
pub(crate) struct StoredBlob {
    /// Public name, or empty.
    pub(crate) url: String,
    pub(crate) size: i64,
    pub(crate) checksum: Checksum,
}

/// A URL with which somebody without credentials can do one thing.
#[derive(Debug)]
pub(crate) struct SignedUrl {
    pub(crate) url: String,
    pub(crate) method: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) expires_at: DateTime<Utc>,
}

/// Connections that take turns.
#[derive(Clone)]
pub(super) struct Lanes {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
}

impl Lanes {
    pub(super) fn new(channels: Vec<Channel>) -> Self {
        Self { channels: channels.into(), next: Arc::default() }
    }

    fn take(&self) -> ContentServiceClient<Channel> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        ContentServiceClient::new(self.channels[turn % self.channels.len()].clone())
    }
}

/// What the pump hands to the call.
enum Part {
    Message(PutBlobRequest),
    /// The body is complete. A body that merely stops is not: it must never look like one that has
    /// ended.
    End,
}

impl ContentClient {
    /// Writes a body under a key that was never used, as it comes. Tried once: it cannot be
    /// replayed. A body that fails breaks the call off, and content-service keeps nothing of it.
    pub(crate) async fn put_stream(
        &self,
        key: &str,
        draft: &FileDraft,
        body: impl Stream<Item = Result<Bytes, Error>> + Send,
    ) -> Result<StoredBlob, Error> {
        let (sender, receiver) = mpsc::channel(1);
        let spec = PutBlobSpec {
            key: key.to_owned(),
            size: draft.size,
            sha256: draft.checksum.map_or_else(Bytes::new, raw),
        };
        let mut stub = self.lanes.take();
        let put = async move { stub.put_blob(messages(receiver)).await.map_err(RpcError::from) };
        let pump = pump(spec, body, &sender);
        tokio::pin!(put, pump);
        let answer = tokio::select! {
            biased;
            pumped = &mut pump => {
                pumped?;
                put.await?
            }
            // Before its end: only a refusal can be.
            answer = &mut put => {
                answer?;
                return Err(Error::contract(SERVICE, "an answer before the body's end"));
            }
        };
        stored(answer.into_inner().blob)
    }

    /// What is under a key, hashed; `None` if there is nothing.
    pub(crate) async fn hash(&self, key: &str) -> Result<Option<StoredBlob>, Error> {
        let answer = retry(|| {
            let request = HeadBlobRequest { key: key.to_owned(), with_sha256: true };
            let mut stub = self.lanes.take();
            async move { stub.head_blob(request).await.map_err(RpcError::from) }
        })
        .await;
        match answer {
            Ok(answer) => Ok(Some(stored(answer.into_inner().blob)?)),
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a file's body, or a range of it; `None` if there is none under the key. `length` 0
    /// reads to the end. A whole body is checked against its checksum on the way.
    pub(crate) async fn read_stream(
        &self,
        file: &StoredFile,
        offset: i64,
        length: i64,
    ) -> Result<Option<BodyStream>, Error> {
        let whole = offset == 0 && (length == 0 || length >= file.size);
        let checksum = file.checksum.parse::<Checksum>().ok().filter(|_| whole);
        let request = GetBlobRequest {
            key: file.path.clone(),
            offset,
            length: if whole { 0 } else { length },
            sha256: checksum.map_or_else(Bytes::new, raw),
        };
        let opened = retry(|| {
            let (request, mut stub) = (request.clone(), self.lanes.take());
            async move {
                let mut chunks = stub.get_blob(request).await.map_err(RpcError::from)?.into_inner();
                // What is wrong from the beginning shows with the first message.
                let first = chunks.message().await.map_err(RpcError::from)?;
                Ok((first, chunks))
            }
        })
        .await;
        let (first, rest) = match opened {
            Ok(opened) => opened,
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let rest = rest.map_err(|status| Error::from(RpcError::from(status)));
        let data = |message: GetBlobResponse| message.data;
        Ok(Some(stream::iter(first.map(Ok)).chain(rest).map_ok(data).boxed()))
    }

    /// A URL that writes the draft's body, once, under a key that was never used.
    pub(crate) async fn sign_put(
        &self,
        key: &str,
        draft: &FileDraft,
        expires_in: Duration,
    ) -> Result<SignedUrl, Error> {
        self.sign(SignUrlRequest {
            key: key.to_owned(),
            method: SignedMethod::Put.into(),
            expires_in: expires_in.try_into().ok(),
            size: draft.size.unwrap_or_default(),
            sha256: draft.checksum.map_or_else(Bytes::new, raw),
            file_name: String::new(),
        })
        .await
    }

    /// A URL that reads a file.
    pub(crate) async fn sign_get(
        &self,
        file: &StoredFile,
        expires_in: Duration,
    ) -> Result<SignedUrl, Error> {
        self.sign(SignUrlRequest {
            key: file.path.clone(),
            method: SignedMethod::Get.into(),
            expires_in: expires_in.try_into().ok(),
            file_name: file.name.clone(),
            ..SignUrlRequest::default()
        })
        .await
    }

    async fn sign(&self, request: SignUrlRequest) -> Result<SignedUrl, Error> {
        let answer = retry(|| {
            let (request, mut stub) = (request.clone(), self.stub.clone());
            async move { stub.sign_url(request).await.map_err(RpcError::from) }
        })
        .await?
        .into_inner();
        Ok(SignedUrl {
            url: answer.url,
            method: answer.method,
            headers: answer.headers,
            expires_at: promised_time(SERVICE, "expire_time", answer.expire_time)?,
        })
    }
}

/// Passes a body on, message by message, at the pace of whoever takes them. The sender is not its
/// own: it must outlive the call, so that a body that fails does not look like one that has ended.
async fn pump(
    spec: PutBlobSpec,
    body: impl Stream<Item = Result<Bytes, Error>> + Send,
    sender: &mpsc::Sender<Part>,
) -> Result<(), Error> {
    tokio::pin!(body);
    let mut spec = Some(spec);
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk?;
        while !chunk.is_empty() {
            let data = chunk.split_to(chunk.len().min(CHUNK_BYTES));
            let message = PutBlobRequest { spec: spec.take(), data };
            if sender.send(Part::Message(message)).await.is_err() {
                // Nobody takes any more: the call's answer says why.
                return std::future::pending().await;
            }
        }
    }
    let _ = sender.send(Part::End).await;
    Ok(())
}

/// The messages of the call: it ends where the body does, and where the pump stops it waits to be
/// broken off.
fn messages(receiver: mpsc::Receiver<Part>) -> impl Stream<Item = PutBlobRequest> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Some(Part::Message(message)) => Some((message, receiver)),
            Some(Part::End) => None,
            None => std::future::pending().await,
        }
    })
}

fn stored(blob: Option<synap_proto::content::Blob>) -> Result<StoredBlob, Error> {
    let blob = promised(SERVICE, "blob", blob)?;
    let checksum = Checksum::from_bytes(&blob.sha256);
    Ok(StoredBlob {
        url: blob.url,
        size: blob.size,
        checksum: checksum.map_err(|_| Error::contract(SERVICE, "sha256"))?,
    })
}

fn raw(checksum: Checksum) -> Bytes {
    Bytes::copy_from_slice(checksum.as_bytes())
}
