//! content-service.

mod ahead;
mod files;

use bytes::{Bytes, BytesMut};
use futures::stream;
use synap_proto::content::{
    DeleteBlobsRequest, GetBlobRequest, PutBlobRequest, PutBlobSpec,
    content_service_client::ContentServiceClient,
};
use synap_rpc::{CHUNK_BYTES, Channel, RpcError, retry};
use tonic::Code;

pub(crate) use ahead::BodyAhead;
pub(crate) use files::{BodyStream, SignedUrl};

use self::files::Lanes;
use super::promised;
use crate::{domain::Body, error::Error};

const SERVICE: &str = "content-service";

/// Bytes that are read at most where the row does not say how many there are.
const MAX_UNKNOWN_BYTES: usize = 64 * 1024 * 1024;

/// Blobs.
#[derive(Clone)]
pub(crate) struct ContentClient {
    stub: ContentServiceClient<Channel>,
    lanes: Lanes,
}

impl ContentClient {
    /// A client over one connection for notes and questions, and others for the bodies of files: a
    /// reader who stalls holds back whatever shares a connection with it.
    pub(crate) fn new(channel: Channel, lanes: Vec<Channel>) -> Self {
        Self { stub: ContentServiceClient::new(channel), lanes: Lanes::new(lanes) }
    }

    /// Writes a body under a key that was never used, and returns its public name or nothing.
    /// Only ends it where it is on its way. Repeated when the service is away: the same bytes under
    /// the same key are no conflict.
    pub(crate) async fn put(
        &self,
        key: &str,
        body: &Body,
        ahead: Option<BodyAhead>,
    ) -> Result<String, Error> {
        let mut ahead = ahead.filter(|ahead| ahead.is_at(key));
        let answer = retry(|| {
            let ahead = ahead.take();
            let messages = stream::iter(put_messages(key, body));
            let mut stub = self.stub.clone();
            async move {
                match ahead {
                    Some(ahead) => ahead.finish().await,
                    None => Ok(stub.put_blob(messages).await?.into_inner()),
                }
            }
        })
        .await?;
        Ok(promised(SERVICE, "blob", answer.blob)?.url)
    }

    /// Reads a whole body; `None` if there is none under the key. `size` is what the row says, and
    /// hardly more than that is read; early V0.3 left rows without one, which is 0 here.
    pub(crate) async fn get(&self, key: &str, size: i64) -> Result<Option<Bytes>, Error> {
        let body = retry(|| self.read(key, size)).await;
        match body {
            Ok(body) => Ok(Some(body)),
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self, key: &str, size: i64) -> Result<Bytes, RpcError> {
        let request = GetBlobRequest { key: key.to_owned(), ..GetBlobRequest::default() };
        let mut chunks =
            self.stub.clone().get_blob(request).await.map_err(RpcError::from)?.into_inner();
        let size = usize::try_from(size).ok().filter(|size| *size > 0);
        let mut body = BytesMut::new();
        while let Some(chunk) = chunks.message().await.map_err(RpcError::from)? {
            if body.is_empty() && size == Some(chunk.data.len()) {
                // All of it in one message: nothing to put together.
                return Ok(chunk.data);
            }
            if body.is_empty() {
                body.reserve(size.unwrap_or_default());
            }
            body.extend_from_slice(&chunk.data);
            if body.len() > size.unwrap_or(MAX_UNKNOWN_BYTES) {
                // Longer than its row says: whoever compares will see it.
                break;
            }
        }
        Ok(body.freeze())
    }

    /// Deletes blobs; a key that does not exist is deleted already.
    pub(crate) async fn delete(&self, keys: Vec<String>) -> Result<(), Error> {
        retry(|| {
            let request = DeleteBlobsRequest { keys: keys.clone() };
            let mut stub = self.stub.clone();
            async move { stub.delete_blobs(request).await.map_err(RpcError::from) }
        })
        .await?;
        Ok(())
    }
}

/// The body in chunks that share its memory; the first message also says what it will be.
fn put_messages(key: &str, body: &Body) -> impl Iterator<Item = PutBlobRequest> + Send + 'static {
    let mut rest = body.bytes().clone();
    let mut spec = Some(PutBlobSpec {
        key: key.to_owned(),
        size: i64::try_from(rest.len()).ok(),
        sha256: Bytes::copy_from_slice(body.checksum().as_bytes()),
    });
    std::iter::from_fn(move || {
        if spec.is_none() && rest.is_empty() {
            return None;
        }
        let data = rest.split_to(rest.len().min(CHUNK_BYTES));
        Some(PutBlobRequest { spec: spec.take(), data })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_is_one_message_and_a_large_one_is_cut() {
        for (size, messages) in
            [(1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (3 * CHUNK_BYTES, 3)]
        {
            let body = Body::new("x".repeat(size));
            let sent: Vec<_> = put_messages("k", &body).collect();
            assert_eq!(sent.len(), messages);
            assert!(sent[0].spec.is_some() && sent[1..].iter().all(|m| m.spec.is_none()));
            assert_eq!(sent.iter().map(|m| m.data.len()).sum::<usize>(), size);
        }
    }
}
