//! Files of every kind, and calls that bring and fetch them.

use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use synap_proto::gateway::{
    CompleteUploadRequest, CreateUploadUrlRequest, CreateUploadUrlResponse, DeleteFileRequest,
    DownloadFileRequest, File, FileMetadata, GetFileRequest, UploadFileRequest,
    file_service_client::FileServiceClient,
};
use synap_rpc::Channel;
use tonic::Status;

use super::{Client, SOON};

/// What a client sends at a time.
pub const CHUNK: usize = 256 * 1024;

/// The beginnings of real files, with the media type and the kind that they are of.
pub fn samples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let ebml = |doc: &[u8]| {
        let length = 0x80 | u8::try_from(doc.len()).unwrap();
        [b"\x1a\x45\xdf\xa3\x93\x42\x82", &[length][..], doc, &[0; 300]].concat()
    };
    let ftyp = |brand: &[u8]| [b"\0\0\0\x14ftyp", brand, b"\0\0\0\0", brand].concat();
    vec![
        ("text/markdown", "markdown", "# Ein Füßchen\n".as_bytes().to_vec()),
        ("application/pdf", "pdf", b"%PDF-1.7\n".to_vec()),
        ("audio/mpeg", "audio", b"ID3\x04\0\0\0\0\0\0".to_vec()),
        ("audio/mp4", "audio", ftyp(b"M4A ")),
        ("audio/wav", "audio", b"RIFF\x24\0\0\0WAVEfmt ".to_vec()),
        ("audio/ogg", "audio", b"OggS\0\x02".to_vec()),
        ("audio/flac", "audio", b"fLaC\0\0\0\x22".to_vec()),
        ("audio/aac", "audio", b"\xff\xf1\x50\x80".to_vec()),
        ("audio/webm", "audio", ebml(b"webm")),
        ("video/mp4", "video", ftyp(b"isom")),
        ("video/webm", "video", ebml(b"webm")),
        ("video/quicktime", "video", ftyp(b"qt  ")),
        ("video/x-matroska", "video", ebml(b"matroska")),
        ("image/png", "image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()),
        ("image/jpeg", "image", b"\xff\xd8\xff\xe0\0\x10JFIF\0".to_vec()),
        ("image/gif", "image", b"GIF89a\x01\0\x01\0".to_vec()),
        ("image/webp", "image", b"RIFF\x24\0\0\0WEBPVP8 ".to_vec()),
        ("image/avif", "image", ftyp(b"avif")),
        ("image/heic", "image", ftyp(b"heic")),
        ("image/tiff", "image", b"II*\0\x08\0\0\0\0\0\0\0".to_vec()),
    ]
}

/// A PDF, as far as its first bytes say; no two seeds make the same.
pub fn pdf(seed: u64, size: usize) -> Vec<u8> {
    let mut body = format!("%PDF-1.7\n%{seed}\n").into_bytes();
    let mut state = seed | 1;
    while body.len() < size {
        // xorshift: bytes that no compression makes small.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        body.extend_from_slice(&state.to_le_bytes());
    }
    body.truncate(size);
    body
}

pub fn metadata(content_type: &str, request_id: &str) -> FileMetadata {
    FileMetadata {
        file_name: "Paper.pdf".to_owned(),
        content_type: content_type.to_owned(),
        request_id: request_id.to_owned(),
        ..FileMetadata::default()
    }
}

/// The messages of an upload.
pub fn messages(metadata: FileMetadata, body: &[u8]) -> Vec<UploadFileRequest> {
    let first = UploadFileRequest { metadata: Some(metadata), ..UploadFileRequest::default() };
    let chunk = |chunk: &[u8]| UploadFileRequest { metadata: None, data: chunk.to_vec().into() };
    std::iter::once(first).chain(body.chunks(CHUNK).map(chunk)).collect()
}

impl Client {
    pub fn files(&self) -> FileServiceClient<Channel> {
        FileServiceClient::new(self.channel.clone())
    }

    pub async fn upload(
        &self,
        metadata: FileMetadata,
        body: &[u8],
    ) -> Result<(File, bool), Status> {
        // Not everything that is built for tests brings more than 4 MiB a second.
        let limit = SOON + Duration::from_secs(body.len() as u64 / (4 * 1024 * 1024));
        self.upload_within(limit, stream::iter(messages(metadata, body))).await
    }

    pub async fn upload_stream(
        &self,
        messages: impl Stream<Item = UploadFileRequest> + Send + 'static,
    ) -> Result<(File, bool), Status> {
        self.upload_within(SOON, messages).await
    }

    async fn upload_within(
        &self,
        limit: Duration,
        messages: impl Stream<Item = UploadFileRequest> + Send + 'static,
    ) -> Result<(File, bool), Status> {
        let mut request = self.request(messages);
        request.set_timeout(limit);
        let answer = self.files().upload_file(request).await?.into_inner();
        Ok((answer.file.unwrap(), answer.event_pending))
    }

    /// A range of a file; 0 and 0 is the whole.
    pub async fn download(
        &self,
        id: &str,
        offset: i64,
        length: i64,
    ) -> Result<(File, Vec<u8>), Status> {
        let request = DownloadFileRequest { id: id.to_owned(), offset, length };
        let mut chunks = self.files().download_file(self.request(request)).await?.into_inner();
        let (mut file, mut body) = (None, Vec::new());
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            assert!(file.is_none() || chunk.file.is_none(), "described twice");
            file = file.or(chunk.file);
            body.extend_from_slice(&chunk.data);
        }
        Ok((file.unwrap(), body))
    }

    pub async fn get_file(&self, id: &str) -> Result<File, Status> {
        let mut request = self.request(GetFileRequest { id: id.to_owned() });
        request.set_timeout(SOON);
        Ok(self.files().get_file(request).await?.into_inner().file.unwrap())
    }

    pub async fn delete_file(
        &self,
        id: &str,
        etag: &str,
        request_id: &str,
    ) -> Result<(File, bool), Status> {
        let mut request = self.request(DeleteFileRequest {
            id: id.to_owned(),
            etag: etag.to_owned(),
            request_id: request_id.to_owned(),
        });
        request.set_timeout(SOON);
        let answer = self.files().delete_file(request).await?.into_inner();
        Ok((answer.file.unwrap(), answer.event_pending))
    }

    pub async fn upload_url(
        &self,
        metadata: FileMetadata,
    ) -> Result<CreateUploadUrlResponse, Status> {
        let request = CreateUploadUrlRequest { metadata: Some(metadata) };
        Ok(self.files().create_upload_url(self.request(request)).await?.into_inner())
    }

    pub async fn complete(&self, upload_id: &str) -> Result<(File, bool), Status> {
        let request = CompleteUploadRequest { upload_id: upload_id.to_owned() };
        let answer = self.files().complete_upload(self.request(request)).await?.into_inner();
        Ok((answer.file.unwrap(), answer.event_pending))
    }
}

/// Sends a body where a URL says, as a client without a token does.
pub async fn put(url: &CreateUploadUrlResponse, body: Vec<u8>) -> reqwest::StatusCode {
    let method = url.method.parse().unwrap();
    let mut request = reqwest::Client::new().request(method, &url.url).timeout(SOON).body(body);
    for (name, value) in &url.headers {
        request = request.header(name, value);
    }
    request.send().await.unwrap().status()
}

/// A body that comes as far as it is let: the rest waits for the gate.
pub fn halfway(
    metadata: FileMetadata,
    body: &[u8],
) -> (impl Stream<Item = UploadFileRequest> + Send + 'static, tokio::sync::oneshot::Sender<()>) {
    let mut messages = messages(metadata, body);
    let rest = messages.split_off(messages.len().div_ceil(2));
    let (gate, opened) = tokio::sync::oneshot::channel::<()>();
    let rest = stream::once(async move {
        // A gate that is gone stays closed.
        if opened.await.is_err() {
            std::future::pending::<()>().await;
        }
        stream::iter(rest)
    });
    (stream::iter(messages).chain(rest.flatten()), gate)
}
