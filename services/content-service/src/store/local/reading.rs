//! Reading a file: few trips to the threads that may block, and the next piece is read while the
//! one before is on its way.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use synap_rpc::CHUNK_BYTES;
use tokio::task::JoinHandle;

use super::{BlobMeta, OpenBlob, Range, StoreError, blocking};
use crate::store::read::ONE_READ;

/// What the file system knows about a blob; "not found" unless it is a file.
pub(super) fn meta(metadata: &Metadata) -> io::Result<BlobMeta> {
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(BlobMeta { size: metadata.len(), updated: metadata.modified()?.into() })
}

/// Opens a file and reads the first piece: of a small blob that is all.
pub(super) async fn open(path: PathBuf, range: Range) -> Result<OpenBlob, StoreError> {
    let opened = blocking(move || {
        let mut file = File::open(path)?;
        let meta = meta(&file.metadata()?)?;
        let (at, end) = match range.in_blob(meta.size) {
            Ok(bounds) => bounds,
            Err(refused) => return Ok(Err(refused)),
        };
        if at > 0 {
            file.seek(SeekFrom::Start(at))?;
        }
        let whole = end - at <= ONE_READ;
        let first = piece(&file, end - at, if whole { ONE_READ } else { CHUNK_BYTES as u64 })?;
        Ok(Ok((meta, file, first, end - at)))
    });
    let (meta, file, mut first, length) = opened.await??;
    let left = length - first.len() as u64;
    let cut = std::iter::from_fn(move || {
        (!first.is_empty()).then(|| first.split_to(first.len().min(CHUNK_BYTES)))
    });
    // An empty blob is one empty chunk.
    let empty = (length == 0).then(Bytes::new);
    let head = stream::iter(empty.into_iter().chain(cut)).map(Ok);
    Ok(OpenBlob { meta, chunks: head.chain(rest(file, left)).boxed() })
}

/// The pieces that follow; each is read while the one before is sent.
fn rest(file: File, left: u64) -> impl Stream<Item = Result<Bytes, StoreError>> {
    stream::try_unfold(ahead(file, left), |reading| async {
        let Some((reading, left)) = reading else { return Ok(None) };
        match reading.await {
            Ok(outcome) => {
                let (file, piece) = outcome?;
                let left = left - piece.len() as u64;
                Ok(Some((piece, ahead(file, left))))
            }
            Err(cause) => Err(object_store::Error::from(cause).into()),
        }
    })
}

type Reading = JoinHandle<io::Result<(File, Bytes)>>;

fn ahead(file: File, left: u64) -> Option<(Reading, u64)> {
    let read = move || {
        let piece = piece(&file, left, CHUNK_BYTES as u64)?;
        Ok((file, piece))
    };
    (left > 0).then(|| (tokio::task::spawn_blocking(read), left))
}

/// The next bytes of a file, as many as are wanted; all of them are there, or the file was cut.
fn piece(file: &File, left: u64, most: u64) -> io::Result<Bytes> {
    let wanted = left.min(most);
    let mut bytes = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
    file.take(wanted).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.into())
}
