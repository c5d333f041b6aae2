//! The ways that a file can take.

use std::{
    convert::Infallible, net::SocketAddr, path::Path as Directory, sync::Arc, time::Duration,
};

use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use object_store::{
    ObjectStore, ObjectStoreExt as _, WriteMultipart, aws::AmazonS3, path::Path,
    signer::Signer as _,
};
use reqwest::Method;
use synap_proto::gateway::{
    CompleteUploadRequest, CreateDownloadUrlRequest, CreateUploadUrlRequest, DeleteFileRequest,
    DownloadFileRequest, FileMetadata, UploadFileRequest, file_service_client::FileServiceClient,
};
use synap_rpc::Channel;
use synap_types::{BlobKey, EntityType, IdGenerator as _, SystemIds, UserId};
use tokio::time::Instant;
use tonic::{Request, metadata::AsciiMetadataValue};

use super::body::{Body, CONTENT_TYPE, Comparison};
use crate::bench::{
    stores::{self, StoreKind},
    system::BenchSystem,
};

/// How long one file may take.
const LIMIT: Duration = Duration::from_mins(30);
/// What object_store uploads at once: parts of this size, this many.
const PART_BYTES: usize = 8 * 1024 * 1024;
const PARTS_AT_ONCE: usize = 4;

/// FileService of the gateway, and the URLs that it signs.
pub(super) struct Gateway {
    stub: FileServiceClient<Channel>,
    bearer: AsciiMetadataValue,
    http: reqwest::Client,
}

impl Gateway {
    pub(super) fn connect(address: SocketAddr, bearer: AsciiMetadataValue) -> anyhow::Result<Self> {
        let channel = Channel::connect("gateway", &format!("http://{address}"))?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { stub: FileServiceClient::new(channel), bearer, http })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request.set_timeout(LIMIT);
        request
    }

    /// The file's id, and how long it took.
    pub(super) async fn upload(&self, body: &Body) -> anyhow::Result<(String, Duration)> {
        let mut metadata = Some(metadata(body)?);
        let messages =
            body.iter().map(move |data| UploadFileRequest { metadata: metadata.take(), data });
        let begun = Instant::now();
        let request = self.request(stream::iter(messages));
        let answer = self.stub.clone().upload_file(request).await?.into_inner();
        let file = answer.file.context("no file in the answer")?;
        anyhow::ensure!(file.checksum == body.checksum().to_string(), "another checksum");
        Ok((file.id, begun.elapsed()))
    }

    pub(super) async fn download(&self, id: &str, body: &Body) -> anyhow::Result<Duration> {
        let request = DownloadFileRequest { id: id.to_owned(), ..DownloadFileRequest::default() };
        let mut comparison = body.comparison();
        let begun = Instant::now();
        let request = self.request(request);
        let mut chunks = self.stub.clone().download_file(request).await?.into_inner();
        while let Some(chunk) = chunks.message().await? {
            comparison.next(&chunk.data)?;
        }
        comparison.end()?;
        Ok(begun.elapsed())
    }

    /// The file's id, how long the upload took, and how long it took to complete it.
    pub(super) async fn upload_by_url(
        &self,
        body: &Body,
    ) -> anyhow::Result<(String, Duration, Duration)> {
        let metadata = Some(metadata(body)?);
        let begun = Instant::now();
        let request = self.request(CreateUploadUrlRequest { metadata });
        let upload = self.stub.clone().create_upload_url(request).await?.into_inner();
        let mut put = self.http.put(&upload.url).header("content-length", body.size());
        for (name, value) in &upload.headers {
            put = put.header(name, value);
        }
        let chunks = stream::iter(body.iter().map(Ok::<_, Infallible>));
        let answer = put.body(reqwest::Body::wrap_stream(chunks)).send().await?;
        let status = answer.status();
        anyhow::ensure!(status.is_success(), "PUT: {status} {}", answer.text().await?);
        let uploaded = begun.elapsed();

        let begun = Instant::now();
        let request = self.request(CompleteUploadRequest { upload_id: upload.upload_id });
        let answer = self.stub.clone().complete_upload(request).await?.into_inner();
        Ok((answer.file.context("no file in the answer")?.id, uploaded, begun.elapsed()))
    }

    pub(super) async fn download_by_url(&self, id: &str, body: &Body) -> anyhow::Result<Duration> {
        let comparison = body.comparison();
        let begun = Instant::now();
        let request = CreateDownloadUrlRequest { id: id.to_owned(), expires_in: None };
        let request = self.request(request);
        let signed = self.stub.clone().create_download_url(request).await?.into_inner();
        get(&self.http, &signed.url, comparison).await?;
        Ok(begun.elapsed())
    }

    pub(super) async fn delete(&self, id: &str) -> anyhow::Result<()> {
        let request = DeleteFileRequest { id: id.to_owned(), ..DeleteFileRequest::default() };
        self.stub.clone().delete_file(self.request(request)).await?;
        Ok(())
    }
}

/// Where the services keep the benchmark's file with this id.
pub(super) fn of_file(id: &str) -> anyhow::Result<Path> {
    let user = UserId::parse(BenchSystem::USER)?;
    let key = BlobKey::build(&user, &EntityType::file(), id, "pdf")?;
    Ok(Path::parse(key.as_str())?)
}

fn metadata(body: &Body) -> anyhow::Result<FileMetadata> {
    Ok(FileMetadata {
        file_name: "noise.pdf".to_owned(),
        content_type: CONTENT_TYPE.to_owned(),
        size: Some(i64::try_from(body.size())?),
        checksum: body.checksum().to_string(),
        ..FileMetadata::default()
    })
}

/// Reads what a URL is of.
async fn get(
    http: &reqwest::Client,
    url: &str,
    mut comparison: Comparison<'_>,
) -> anyhow::Result<()> {
    let mut chunks = http.get(url).send().await?.error_for_status()?.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        comparison.next(&chunk?)?;
    }
    comparison.end()
}

/// The services' own objects, read without them: from the directory, or by a URL that the store's
/// own client has signed, with the HTTP client that the services' URLs are read with.
pub(super) enum Beside {
    Local(Direct),
    S3 { store: AmazonS3, http: reqwest::Client },
}

impl Beside {
    pub(super) fn open(kind: StoreKind, directory: &Directory) -> anyhow::Result<Self> {
        Ok(match kind {
            StoreKind::Local => Self::Local(Direct { store: kind.open(directory)? }),
            StoreKind::S3 => Self::S3 { store: stores::s3()?, http: reqwest::Client::new() },
        })
    }

    pub(super) async fn download(&self, path: &Path, body: &Body) -> anyhow::Result<Duration> {
        match self {
            Self::Local(direct) => direct.download(path, body).await,
            Self::S3 { store, http } => {
                let comparison = body.comparison();
                let begun = Instant::now();
                let url = store.signed_url(Method::GET, path, LIMIT).await?;
                get(http, url.as_str(), comparison).await?;
                Ok(begun.elapsed())
            }
        }
    }
}

/// The store itself.
pub(super) struct Direct {
    pub(super) store: Arc<dyn ObjectStore>,
}

impl Direct {
    pub(super) async fn upload(&self, body: &Body) -> anyhow::Result<(Path, Duration)> {
        let path = Path::from(format!("users/floor/files/{}.pdf", SystemIds.next_id()));
        let begun = Instant::now();
        let upload = self.store.put_multipart(&path).await?;
        let mut write = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        for chunk in body.iter() {
            write.wait_for_capacity(PARTS_AT_ONCE).await?;
            write.put(chunk);
        }
        write.finish().await?;
        Ok((path, begun.elapsed()))
    }

    pub(super) async fn download(&self, path: &Path, body: &Body) -> anyhow::Result<Duration> {
        let mut comparison = body.comparison();
        let begun = Instant::now();
        let mut chunks = self.store.get(path).await?.into_stream();
        while let Some(chunk) = chunks.next().await {
            comparison.next(&chunk?)?;
        }
        comparison.end()?;
        Ok(begun.elapsed())
    }

    pub(super) async fn delete(&self, path: &Path) -> anyhow::Result<()> {
        Ok(self.store.delete(path).await?)
    }
}
