//! Listing: pages of blobs, ascending by key, none of them held longer than it takes to send it.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, future, stream, stream::BoxStream};
use object_store::{
    ObjectMeta, ObjectStore as _,
    list::{PaginatedListOptions, PaginatedListStore as _},
    memory::InMemory,
};
use synap_types::BlobKey;

use super::{BlobMeta, S3, StoreError};

/// Blobs of one page: what S3 lists in one request.
pub(super) const PAGE: usize = 1000;

/// Every key begins so; what else is in a bucket or a directory is not ours.
pub(super) const USERS: &str = "users/";

/// Pages of 1 to [`PAGE`] blobs.
pub(crate) type Pages = BoxStream<'static, Result<Vec<Listed>, StoreError>>;

/// A blob in a listing.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) key: BlobKey,
    pub(crate) meta: BlobMeta,
}

/// The prefix of keys that begin so, or `None` if no key can.
pub(super) fn of_keys(prefix: &str) -> Option<&str> {
    if USERS.starts_with(prefix) {
        Some(USERS)
    } else {
        Some(prefix).filter(|p| p.starts_with(USERS))
    }
}

pub(super) fn memory(objects: &InMemory, prefix: &str, after: &str) -> Pages {
    let (prefix, after) = (prefix.to_owned(), after.to_owned());
    objects
        .list(None)
        .map_err(StoreError::from)
        .try_filter_map(|object| future::ready(Ok(listed(&object))))
        .try_filter(move |blob| {
            let key = blob.key.as_str();
            future::ready(key.starts_with(&prefix) && key > after.as_str())
        })
        .try_chunks(PAGE)
        .map_err(|stream::TryChunksError(_, error)| error)
        .boxed()
}

pub(super) fn s3(s3: Arc<S3>, prefix: &str, after: &str) -> Pages {
    let Some(prefix) = of_keys(prefix).map(str::to_owned) else {
        return stream::empty().boxed();
    };
    let first = PaginatedListOptions {
        offset: Some(after.to_owned()).filter(|after| !after.is_empty()),
        max_keys: Some(PAGE),
        ..PaginatedListOptions::default()
    };
    let pages = stream::try_unfold(Some(first), move |options| {
        let (s3, prefix) = (Arc::clone(&s3), prefix.clone());
        async move {
            let Some(options) = options else { return Ok(None) };
            let page = s3.objects.list_paginated(Some(&prefix), options).await?;
            let next = page.page_token.map(|token| PaginatedListOptions {
                page_token: Some(token),
                max_keys: Some(PAGE),
                ..PaginatedListOptions::default()
            });
            let blobs: Vec<_> = page.result.objects.iter().filter_map(listed).collect();
            Ok(Some((blobs, next)))
        }
    });
    pages.try_filter(|blobs| future::ready(!blobs.is_empty())).boxed()
}

/// `None` for what is no blob of ours.
fn listed(object: &ObjectMeta) -> Option<Listed> {
    let meta = BlobMeta { size: object.size, updated: object.last_modified };
    let key = BlobKey::parse(object.location.as_ref()).ok()?;
    Some(Listed { key, meta })
}
