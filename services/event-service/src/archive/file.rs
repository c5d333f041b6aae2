//! One file of the archive: Parquet with zstd, in groups of rows.
//!
//! Rows are in the order of user, stream and version, by bytes. So the events of one user, which is
//! what every read is of, are in few groups, and the smallest and largest user of each group, which
//! the footer tells, say in which. All times are microseconds; when an event was recorded is counted
//! from when it happened, which is a small number.

use std::{io::Write, sync::Arc};

use bytes::{Buf as _, Bytes};
use chrono::{DateTime, TimeDelta, Utc};
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    column::reader::get_typed_column_reader,
    data_type::{
        ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int64Type,
    },
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData},
        properties::{ReaderProperties, WriterProperties},
        reader::{ChunkReader, Length, RowGroupReader},
        serialized_reader::SerializedRowGroupReader,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};
use synap_types::Hasher;
use uuid::Uuid;

use crate::domain::StoredEvent;

/// Rows of a group at most: what one read fetches at least, and an export holds in memory.
pub(super) const GROUP_ROWS: usize = 10_000;

/// Bytes of data and metadata of a group, give or take one event.
pub(super) const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// The number of the schema below; a file keeps the one that it was written with.
pub(crate) const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = "message event {
    REQUIRED BINARY user_id (STRING);
    REQUIRED BINARY aggregate_type (STRING);
    REQUIRED FIXED_LEN_BYTE_ARRAY (16) aggregate_id (UUID);
    REQUIRED INT64 version;
    REQUIRED FIXED_LEN_BYTE_ARRAY (16) event_id (UUID);
    REQUIRED BINARY event_type (STRING);
    REQUIRED INT64 occurred_at (TIMESTAMP(MICROS, true));
    REQUIRED BINARY data (JSON);
    REQUIRED BINARY metadata (JSON);
    OPTIONAL FIXED_LEN_BYTE_ARRAY (16) causation_id (UUID);
    OPTIONAL FIXED_LEN_BYTE_ARRAY (16) correlation_id (UUID);
    REQUIRED BINARY source (STRING);
    REQUIRED INT64 epoch;
    REQUIRED INT64 xid;
    REQUIRED INT64 pos;
    REQUIRED INT64 recorded_after;
}";

/// Columns whose values are all different: a dictionary of them would be as large as they are. The
/// first bytes of ids are of their time, the first of data are those of the row before.
const UNIQUE: [(&str, Encoding); 6] = [
    ("event_id", Encoding::BYTE_STREAM_SPLIT),
    ("data", Encoding::DELTA_BYTE_ARRAY),
    ("occurred_at", Encoding::DELTA_BINARY_PACKED),
    ("xid", Encoding::DELTA_BINARY_PACKED),
    ("pos", Encoding::DELTA_BINARY_PACKED),
    ("recorded_after", Encoding::DELTA_BINARY_PACKED),
];

/// An event with everything that its row has.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) event: StoredEvent,
    pub(crate) recorded_at: DateTime<Utc>,
}

/// Feeds a row into the hash of a file: every field with its length before it. Files in the archive
/// are compared with it, so it stays what it is.
pub(super) fn hash(row: &Row, into: &mut Hasher) {
    let event = &row.event;
    let optional = |id: Option<Uuid>| id.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    for field in [
        event.user_id.as_bytes(),
        event.aggregate_type.as_bytes(),
        event.aggregate_id.as_bytes(),
        &event.version.to_be_bytes(),
        event.event_id.as_bytes(),
        event.event_type.as_bytes(),
        &event.occurred_at.timestamp_micros().to_be_bytes(),
        event.data.as_bytes(),
        event.metadata.as_bytes(),
        &optional(event.causation_id),
        &optional(event.correlation_id),
        event.source.as_bytes(),
        &event.epoch.to_be_bytes(),
        &event.xid.to_be_bytes(),
        &event.pos.to_be_bytes(),
        &row.recorded_at.timestamp_micros().to_be_bytes(),
    ] {
        into.update(&(field.len() as u64).to_be_bytes());
        into.update(field);
    }
}

/// Writes a file piece by piece.
pub(super) struct FileWriter(SerializedFileWriter<Vec<u8>>);

impl FileWriter {
    pub(super) fn new() -> Result<Self> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(9)?))
            .set_created_by(format!("synap event-service, schema {SCHEMA_VERSION}"))
            .set_data_page_row_count_limit(GROUP_ROWS)
            .set_offset_index_disabled(true);
        for (name, encoding) in UNIQUE {
            let column = ColumnPath::from(name);
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, encoding);
        }
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let properties = Arc::new(properties.build());
        Ok(Self(SerializedFileWriter::new(Vec::new(), schema, properties)?))
    }

    /// Adds a group of rows, and gives the bytes that the file is longer by.
    pub(super) fn group(&mut self, rows: &[Row]) -> Result<Bytes> {
        let mut group = self.0.next_row_group()?;
        let text = |of: fn(&StoredEvent) -> &str| -> Vec<ByteArray> {
            rows.iter().map(|row| ByteArray::from(of(&row.event).as_bytes().to_vec())).collect()
        };
        let number = |of: fn(&Row) -> i64| -> Vec<i64> { rows.iter().map(of).collect() };
        let id = |of: fn(&StoredEvent) -> Option<Uuid>| -> (Vec<FixedLenByteArray>, Vec<i16>) {
            let ids = rows.iter().map(|row| of(&row.event));
            let present = ids.clone().map(|id| i16::from(id.is_some())).collect();
            (ids.flatten().map(|id| id.as_bytes().to_vec().into()).collect(), present)
        };
        put::<ByteArrayType>(&mut group, &text(|event| &event.user_id), None)?;
        put::<ByteArrayType>(&mut group, &text(|event| &event.aggregate_type), None)?;
        put_ids(&mut group, &id(|event| Some(event.aggregate_id)), false)?;
        put::<Int64Type>(&mut group, &number(|row| row.event.version), None)?;
        put_ids(&mut group, &id(|event| Some(event.event_id)), false)?;
        put::<ByteArrayType>(&mut group, &text(|event| &event.event_type), None)?;
        let micros = number(|row| row.event.occurred_at.timestamp_micros());
        put::<Int64Type>(&mut group, &micros, None)?;
        put::<ByteArrayType>(&mut group, &text(|event| &event.data), None)?;
        put::<ByteArrayType>(&mut group, &text(|event| &event.metadata), None)?;
        put_ids(&mut group, &id(|event| event.causation_id), true)?;
        put_ids(&mut group, &id(|event| event.correlation_id), true)?;
        put::<ByteArrayType>(&mut group, &text(|event| &event.source), None)?;
        put::<Int64Type>(&mut group, &number(|row| row.event.epoch), None)?;
        put::<Int64Type>(&mut group, &number(|row| row.event.xid), None)?;
        put::<Int64Type>(&mut group, &number(|row| row.event.pos), None)?;
        let after = number(|row| micros_between(row.event.occurred_at, row.recorded_at));
        put::<Int64Type>(&mut group, &after, None)?;
        group.close()?;
        Ok(self.taken())
    }

    /// The last bytes of the file.
    pub(super) fn finish(mut self) -> Result<Bytes> {
        self.0.finish()?;
        Ok(self.taken())
    }

    fn taken(&mut self) -> Bytes {
        // The writer counts its bytes itself: the buffer is only where they pass by.
        std::mem::take(self.0.inner_mut()).into()
    }
}

/// Years 1 to 9999 are far fewer microseconds than fit.
fn micros_between(from: DateTime<Utc>, to: DateTime<Utc>) -> i64 {
    to.timestamp_micros() - from.timestamp_micros()
}

fn put<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
    present: Option<&[i16]>,
) -> Result<()> {
    let missing = || ParquetError::General("the schema has fewer columns".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, present, None)?;
    column.close()
}

fn put_ids(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    (ids, present): &(Vec<FixedLenByteArray>, Vec<i16>),
    is_optional: bool,
) -> Result<()> {
    put::<FixedLenByteArrayType>(group, ids, is_optional.then_some(present))
}

/// Parts of a file that were fetched.
pub(super) struct Fetched {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl ChunkReader for Fetched {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let length = self.len().saturating_sub(start);
        Ok(self.get_bytes(start, usize::try_from(length)?)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let not_fetched = || ParquetError::EOF(format!("{length} bytes at {start}: not fetched"));
        let from = start.checked_sub(self.offset).ok_or_else(not_fetched)?;
        let from = usize::try_from(from)?;
        let to = from.checked_add(length).filter(|to| *to <= self.bytes.len());
        Ok(self.bytes.slice(from..to.ok_or_else(not_fetched)?))
    }
}

/// Where a group lies in its file.
pub(super) fn place(group: &RowGroupMetaData) -> (u64, u64) {
    let ranges = group.columns().iter().map(ColumnChunkMetaData::byte_range);
    let begin = ranges.clone().map(|(start, _)| start).min().unwrap_or_default();
    let end = ranges.map(|(start, length)| start + length).max().unwrap_or_default();
    (begin, end - begin)
}

/// About what a group takes in memory once it is decoded. What its texts are long is in the footer:
/// encoded, they may be far shorter.
pub(super) fn decoded_bytes(group: &RowGroupMetaData) -> usize {
    let texts =
        group.columns().iter().filter_map(ColumnChunkMetaData::unencoded_byte_array_data_bytes);
    let texts = usize::try_from(texts.sum::<i64>()).unwrap_or(usize::MAX);
    let rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
    rows.saturating_mul(size_of::<Row>()).saturating_add(texts)
}

/// Whether a group may have events of a user. Without statistics it may.
pub(super) fn may_have(group: &RowGroupMetaData, user: &str) -> bool {
    let Some(statistics) = group.columns().first().and_then(|column| column.statistics()) else {
        return true;
    };
    statistics.min_bytes_opt().is_none_or(|min| min <= user.as_bytes())
        && statistics.max_bytes_opt().is_none_or(|max| max >= user.as_bytes())
}

/// The rows of one group.
pub(super) fn read_group(
    metadata: &ParquetMetaData,
    index: usize,
    fetched: Fetched,
) -> Result<Vec<Row>> {
    let group = SerializedRowGroupReader::new(
        Arc::new(fetched),
        metadata.row_group(index),
        metadata.page_index_for_row_group(index),
        Arc::new(ReaderProperties::builder().build()),
    )?;
    let mut users = texts(&group, 0)?;
    let mut aggregate_types = texts(&group, 1)?;
    let mut aggregate_ids = ids(&group, 2)?;
    let mut versions = numbers(&group, 3)?;
    let mut event_ids = ids(&group, 4)?;
    let mut event_types = texts(&group, 5)?;
    let mut occurred = times(&group, 6)?;
    let mut data = texts(&group, 7)?;
    let mut metadatas = texts(&group, 8)?;
    let mut causations = ids(&group, 9)?;
    let mut correlations = ids(&group, 10)?;
    let mut sources = texts(&group, 11)?;
    let mut epochs = numbers(&group, 12)?;
    let mut xids = numbers(&group, 13)?;
    let mut positions = numbers(&group, 14)?;
    let mut recorded_after = numbers(&group, 15)?;
    let rows = usize::try_from(metadata.row_group(index).num_rows())?;
    let mut row = || {
        let occurred_at = occurred.next()??;
        Some(Row {
            event: StoredEvent {
                user_id: users.next()?,
                aggregate_type: aggregate_types.next()?,
                aggregate_id: aggregate_ids.next()??,
                version: versions.next()?,
                event_id: event_ids.next()??,
                event_type: event_types.next()?,
                occurred_at,
                data: data.next()?,
                metadata: metadatas.next()?,
                causation_id: causations.next()?,
                correlation_id: correlations.next()?,
                source: sources.next()?,
                epoch: epochs.next()?,
                xid: xids.next()?,
                pos: positions.next()?,
            },
            recorded_at: occurred_at + TimeDelta::microseconds(recorded_after.next()?),
        })
    };
    let read: Option<Vec<Row>> = (0..rows).map(|_| row()).collect();
    read.ok_or_else(|| ParquetError::General("a column is shorter than its group".to_owned()))
}

/// The values of a column, and for an optional one whether each is there.
fn column<T: DataType>(group: &dyn RowGroupReader, index: usize) -> Result<(Vec<T::T>, Vec<i16>)> {
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(index)?);
    let rows = usize::try_from(group.metadata().num_rows())?;
    let is_optional = group.metadata().column(index).column_descr().max_def_level() > 0;
    let (mut values, mut present, mut read) = (Vec::with_capacity(rows), Vec::new(), 0);
    while read < rows {
        let levels = is_optional.then_some(&mut present);
        let (records, ..) = reader.read_records(rows - read, levels, None, &mut values)?;
        if records == 0 {
            break;
        }
        read += records;
    }
    Ok((values, present))
}

fn texts(group: &dyn RowGroupReader, index: usize) -> Result<impl Iterator<Item = String>> {
    let (values, _) = column::<ByteArrayType>(group, index)?;
    let texts: Vec<String> =
        values.iter().map(|value| value.as_utf8().map(str::to_owned)).collect::<Result<_>>()?;
    Ok(texts.into_iter())
}

fn numbers(group: &dyn RowGroupReader, index: usize) -> Result<impl Iterator<Item = i64>> {
    Ok(column::<Int64Type>(group, index)?.0.into_iter())
}

fn times(
    group: &dyn RowGroupReader,
    index: usize,
) -> Result<impl Iterator<Item = Option<DateTime<Utc>>>> {
    Ok(numbers(group, index)?.map(DateTime::from_timestamp_micros))
}

fn ids(group: &dyn RowGroupReader, index: usize) -> Result<impl Iterator<Item = Option<Uuid>>> {
    let (values, present) = column::<FixedLenByteArrayType>(group, index)?;
    let present = if present.is_empty() { vec![1; values.len()] } else { present };
    let mut values = values.into_iter();
    Ok(present.into_iter().map(move |present| {
        (present == 1)
            .then(|| values.next())
            .flatten()
            .and_then(|id| Uuid::from_slice(id.data()).ok())
    }))
}
