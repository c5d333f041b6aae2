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
const USERS: &str = "users/";

/// What blobs are moved aside to.
const QUARANTINE: &str = "quarantine/";

/// Pages of 1 to [`PAGE`] things.
pub(crate) type Pages = BoxStream<'static, Result<Page, StoreError>>;

/// A part of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) blobs: Vec<Listed>,
    /// Names that are no keys of ours, where they were asked for.
    pub(crate) foreign: Vec<String>,
}

impl Page {
    pub(super) fn len(&self) -> usize {
        self.blobs.len() + self.foreign.len()
    }
}

/// What is listed.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    /// Only keys that begin so.
    pub(crate) prefix: String,
    /// Only those that come after this one.
    pub(crate) after: String,
    /// The whole store, what is not ours included.
    pub(crate) with_foreign: bool,
}

impl Listing {
    /// Blobs whose keys begin so.
    pub(crate) fn of(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), after: String::new(), with_foreign: false }
    }

    /// The prefix to ask for, or `None` if no key has it. A store may have other tenants: unless all of
    /// it is wanted, only our part is looked at.
    pub(super) fn narrowed(&self) -> Option<&str> {
        let prefix = self.prefix.as_str();
        if self.with_foreign {
            return Some(prefix);
        }
        if USERS.starts_with(prefix) {
            return Some(USERS);
        }
        [USERS, QUARANTINE].iter().any(|ours| prefix.starts_with(ours)).then_some(prefix)
    }
}

/// A blob in a listing.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) key: BlobKey,
    pub(crate) meta: BlobMeta,
}

pub(super) fn memory(objects: &InMemory, listing: Listing) -> Pages {
    let Some(prefix) = listing.narrowed().map(str::to_owned) else {
        return stream::empty().boxed();
    };
    objects
        .list(None)
        .map_err(StoreError::from)
        .try_filter(move |object| {
            let name = object.location.as_ref();
            future::ready(name.starts_with(&prefix) && name > listing.after.as_str())
        })
        .try_chunks(PAGE)
        .map_err(|stream::TryChunksError(_, error)| error)
        .map_ok(move |objects| page(&objects, listing.with_foreign))
        .try_filter(|page| future::ready(page.len() > 0))
        .boxed()
}

pub(super) fn s3(s3: Arc<S3>, listing: Listing) -> Pages {
    let Some(prefix) = listing.narrowed().map(str::to_owned) else {
        return stream::empty().boxed();
    };
    let first = PaginatedListOptions {
        offset: Some(listing.after).filter(|after| !after.is_empty()),
        max_keys: Some(PAGE),
        ..PaginatedListOptions::default()
    };
    let with_foreign = listing.with_foreign;
    let pages = stream::try_unfold(Some(first), move |options| {
        let (s3, prefix) = (Arc::clone(&s3), prefix.clone());
        async move {
            let Some(options) = options else { return Ok(None) };
            let found = s3.objects.list_paginated(Some(&prefix), options).await?;
            let next = found.page_token.map(|token| PaginatedListOptions {
                page_token: Some(token),
                max_keys: Some(PAGE),
                ..PaginatedListOptions::default()
            });
            Ok(Some((page(&found.result.objects, with_foreign), next)))
        }
    });
    pages.try_filter(|page| future::ready(page.len() > 0)).boxed()
}

/// Parts what is a blob of ours from what is none.
fn page(objects: &[ObjectMeta], with_foreign: bool) -> Page {
    let mut page = Page::default();
    for object in objects {
        let meta = BlobMeta { size: object.size, updated: object.last_modified };
        match BlobKey::parse(object.location.as_ref()) {
            Ok(key) => page.blobs.push(Listed { key, meta }),
            Err(_) if with_foreign => page.foreign.push(object.location.to_string()),
            Err(_) => {}
        }
    }
    page
}
