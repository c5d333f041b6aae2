//! s3s-fs, and of R2 what it lacks: it lists multipart uploads that are not finished, wants all
//! parts but the last of one size, and has words for an upload, and a bucket, that is not there.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CompletedPart, CopyObjectInput, CopyObjectOutput,
        CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
        DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, GetBucketLocationInput,
        GetBucketLocationOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
        HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput,
        ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
        ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, MultipartUpload,
        PutObjectInput, PutObjectOutput, UploadPartInput, UploadPartOutput,
    },
    s3_error,
};
use s3s_fs::FileSystem;

/// The server behind the HTTP.
#[derive(Debug)]
pub(super) struct Strict {
    files: FileSystem,
    root: PathBuf,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unfinished {
    /// The key that it would get.
    pub key: String,
    /// The server's id of it.
    pub id: String,
}

type Answer<T> = S3Result<S3Response<T>>;

impl Strict {
    pub(super) fn new(files: FileSystem, root: &Path) -> Self {
        Self { files, root: root.to_owned() }
    }

    fn known(&self, id: &str) -> S3Result<()> {
        // It becomes part of a path.
        let id_is_one = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if id_is_one && info(&self.root, id).exists() {
            return Ok(());
        }
        Err(s3_error!(NoSuchUpload))
    }

    fn check_parts(&self, id: &str, parts: &[CompletedPart]) -> S3Result<()> {
        let mut sizes = Vec::new();
        for part in parts {
            let number = part.part_number.unwrap_or_default();
            let file = self.root.join(format!(".upload_id-{id}.part-{number}"));
            let size = fs::metadata(file).map_err(|error| s3_error!(error, InvalidPart))?.len();
            sizes.push(size);
        }
        let Some((last, others)) = sizes.split_last() else { return Ok(()) };
        if others.iter().any(|size| *size != others[0] || size < last) {
            return Err(s3_error!(
                InvalidPart,
                "All non-trailing parts must have the same length."
            ));
        }
        Ok(())
    }
}

/// What s3s-fs keeps of an upload until it is completed or aborted.
fn info(root: &Path, id: &str) -> PathBuf {
    root.join(format!(".upload-{id}.json"))
}

/// The uploads that s3s-fs keeps below `root`, by key. A completion whose caller went away half way
/// leaves the attributes of an upload that is none any more.
pub(super) fn unfinished(root: &Path, bucket: &str) -> io::Result<Vec<Unfinished>> {
    let bucket = URL_SAFE_NO_PAD.encode(bucket);
    let mut uploads = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        uploads.extend(attributes_of_upload(&name, &bucket));
    }
    uploads.retain(|upload| info(root, &upload.id).exists());
    uploads.sort();
    Ok(uploads)
}

/// `.bucket-{bucket}.object-{key}.upload-{id}.metadata.json`
fn attributes_of_upload(name: &OsString, bucket: &str) -> Option<Unfinished> {
    let name = name.to_str()?.strip_prefix(&format!(".bucket-{bucket}.object-"))?;
    let (key, id) = name.strip_suffix(".metadata.json")?.split_once(".upload-")?;
    let key = String::from_utf8(URL_SAFE_NO_PAD.decode(key).ok()?).ok()?;
    Some(Unfinished { key, id: id.to_owned() })
}

#[async_trait]
impl S3 for Strict {
    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let ListMultipartUploadsInput {
            bucket,
            prefix,
            key_marker,
            upload_id_marker,
            max_uploads,
            ..
        } = req.input;
        let all = unfinished(&self.root, &bucket).map_err(|e| s3_error!(e, InternalError))?;
        let last = (key_marker.unwrap_or_default(), upload_id_marker.unwrap_or_default());
        let begin = prefix.clone().unwrap_or_default();
        let mut left = all
            .into_iter()
            .filter(|one| one.key.starts_with(&begin) && (&one.key, &one.id) > (&last.0, &last.1))
            .peekable();
        let most = usize::try_from(max_uploads.unwrap_or(1000)).unwrap_or_default();
        let mut page = Vec::new();
        for upload in left.by_ref().take(most) {
            let info = fs::metadata(info(&self.root, &upload.id));
            let Ok(time) = info.and_then(|info| info.modified()) else { continue };
            page.push(MultipartUpload {
                key: Some(upload.key),
                upload_id: Some(upload.id),
                initiated: Some(time.into()),
                ..MultipartUpload::default()
            });
        }
        let more = left.peek().is_some();
        let last = page.last().filter(|_| more).cloned().unwrap_or_default();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(bucket),
            prefix,
            is_truncated: Some(more),
            next_key_marker: last.key,
            next_upload_id_marker: last.upload_id,
            uploads: Some(page),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        self.known(&req.input.upload_id)?;
        self.files.upload_part(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let id = &req.input.upload_id;
        self.known(id)?;
        let parts = req.input.multipart_upload.as_ref().and_then(|upload| upload.parts.as_deref());
        self.check_parts(id, parts.unwrap_or_default())?;
        self.files.complete_multipart_upload(req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        self.known(&req.input.upload_id)?;
        self.files.abort_multipart_upload(req).await
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        // Of which s3s-fs says that the key is not there.
        if !self.root.join(&req.input.bucket).exists() {
            return Err(s3_error!(NoSuchBucket));
        }
        self.files.get_object(req).await
    }

    // All below is s3s-fs as it is.

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.files.create_multipart_upload(req).await
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.files.list_parts(req).await
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        self.files.put_object(req).await
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        self.files.copy_object(req).await
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        self.files.head_object(req).await
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        self.files.delete_object(req).await
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> Answer<DeleteObjectsOutput> {
        self.files.delete_objects(req).await
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        self.files.list_objects(req).await
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        self.files.list_objects_v2(req).await
    }

    async fn list_buckets(&self, req: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        self.files.list_buckets(req).await
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.files.head_bucket(req).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        self.files.get_bucket_location(req).await
    }
}
