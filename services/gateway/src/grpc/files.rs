//! synap.gateway.v1.FileService

use std::pin::Pin;

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use synap_proto::{
    field::{self, Violation},
    gateway::{
        CompleteUploadRequest, CompleteUploadResponse, CreateDownloadUrlRequest,
        CreateDownloadUrlResponse, CreateUploadUrlRequest, CreateUploadUrlResponse,
        DeleteFileRequest, DeleteFileResponse, DownloadFileRequest, DownloadFileResponse,
        GetFileRequest, GetFileResponse, UploadFileRequest, UploadFileResponse,
        file_service_server::FileService,
    },
};
use tonic::{Request, Response, Status, Streaming};

use super::caller;
use crate::{error::Error, files::FileApi};

/// Files over gRPC.
pub(crate) struct Files {
    pub(crate) api: FileApi,
}

#[tonic::async_trait]
impl FileService for Files {
    async fn upload_file(
        &self,
        request: Request<Streaming<UploadFileRequest>>,
    ) -> Result<Response<UploadFileResponse>, Status> {
        let user = caller(&request)?;
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap_or_default();
        let rest = messages.map(|message| {
            let message = message.map_err(|status| Error::Stream(Box::new(status)))?;
            if message.metadata.is_some() {
                let twice = Violation::new("metadata", "belongs into the first message only");
                return Err(twice.into());
            }
            Ok(message.data)
        });
        let body = stream::iter([Ok(first.data)]).chain(rest).boxed();
        let written = self.api.upload(user, first.metadata, body).await?;
        Ok(Response::new(UploadFileResponse {
            file: Some(written.entity.into()),
            event_pending: written.event_pending,
        }))
    }

    type DownloadFileStream =
        Pin<Box<dyn Stream<Item = Result<DownloadFileResponse, Status>> + Send>>;

    async fn download_file(
        &self,
        request: Request<DownloadFileRequest>,
    ) -> Result<Response<Self::DownloadFileStream>, Status> {
        let user = caller(&request)?;
        let (entity, body) = self.api.download(&user, request.get_ref()).await?;
        // Taken by the first message.
        let mut file = Some(entity.into());
        let messages = body
            .map_ok(move |data| DownloadFileResponse { file: file.take(), data })
            .map_err(Status::from);
        Ok(Response::new(messages.boxed()))
    }

    async fn create_upload_url(
        &self,
        request: Request<CreateUploadUrlRequest>,
    ) -> Result<Response<CreateUploadUrlResponse>, Status> {
        let user = caller(&request)?;
        let upload = self.api.create_upload_url(user, request.into_inner()).await?;
        Ok(Response::new(CreateUploadUrlResponse {
            upload_id: upload.upload_id.to_string(),
            url: upload.signed.url,
            method: upload.signed.method,
            headers: upload.signed.headers,
            expire_time: Some(field::timestamp(upload.signed.expires_at)),
        }))
    }

    async fn complete_upload(
        &self,
        request: Request<CompleteUploadRequest>,
    ) -> Result<Response<CompleteUploadResponse>, Status> {
        let user = caller(&request)?;
        let written = self.api.complete_upload(user, &request.get_ref().upload_id).await?;
        Ok(Response::new(CompleteUploadResponse {
            file: Some(written.entity.into()),
            event_pending: written.event_pending,
        }))
    }

    async fn create_download_url(
        &self,
        request: Request<CreateDownloadUrlRequest>,
    ) -> Result<Response<CreateDownloadUrlResponse>, Status> {
        let user = caller(&request)?;
        let signed = self.api.create_download_url(&user, request.get_ref()).await?;
        Ok(Response::new(CreateDownloadUrlResponse {
            url: signed.url,
            expire_time: Some(field::timestamp(signed.expires_at)),
        }))
    }

    async fn get_file(
        &self,
        request: Request<GetFileRequest>,
    ) -> Result<Response<GetFileResponse>, Status> {
        let user = caller(&request)?;
        let file = self.api.get(&user, &request.get_ref().id).await?;
        Ok(Response::new(GetFileResponse { file: Some(file.into()) }))
    }

    async fn delete_file(
        &self,
        request: Request<DeleteFileRequest>,
    ) -> Result<Response<DeleteFileResponse>, Status> {
        let user = caller(&request)?;
        let deleted = self.api.delete(user, request.get_ref()).await?;
        Ok(Response::new(DeleteFileResponse {
            file: Some(deleted.entity.into()),
            event_pending: deleted.event_pending,
        }))
    }
}
