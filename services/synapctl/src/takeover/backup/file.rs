//! The files of a backup: SQL, compressed.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use synap_types::{Checksum, Hasher};

use super::Part;

const END: &[u8] = b"\\.\n";

/// Passes bytes on, and hashes them.
struct Hashed<T> {
    inner: T,
    hasher: Hasher,
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}

type Gzip = GzEncoder<Hashed<BufWriter<File>>>;

fn compress(draft: &Path) -> io::Result<Gzip> {
    let inner = BufWriter::new(File::create(draft)?);
    let hashed = Hashed { inner, hasher: Hasher::default() };
    Ok(GzEncoder::new(hashed, Compression::default()))
}

/// Ends a file, durably, and tells its hash.
fn end(gzip: Gzip) -> io::Result<Checksum> {
    let Hashed { inner, hasher } = gzip.finish()?;
    inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(hasher.finish())
}

/// Gives a whole file its name: whatever has that name is whole.
pub(super) fn give_name(directory: &Path, draft: &Path, name: &str) -> io::Result<()> {
    fs::rename(draft, directory.join(name))?;
    File::open(directory)?.sync_all()
}

/// Writes a file of SQL and tells its hash.
pub(super) fn write_text(directory: &Path, name: &str, sql: &str) -> anyhow::Result<String> {
    let draft = directory.join(format!("{name}.draft"));
    let write = || {
        let mut gzip = compress(&draft)?;
        gzip.write_all(sql.as_bytes())?;
        let hash = end(gzip)?;
        give_name(directory, &draft, name)?;
        io::Result::Ok(hash.to_string())
    };
    write().with_context(|| draft.display().to_string())
}

/// How the rows of a part begin.
fn header(columns: &[String]) -> String {
    let quoted: Vec<_> =
        columns.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    format!("COPY content_blocks ({}) FROM stdin;\n", quoted.join(", "))
}

/// Writes a part.
pub(super) struct Writer {
    directory: PathBuf,
    name: String,
    draft: PathBuf,
    gzip: Gzip,
    hasher: Hasher,
    bytes: u64,
    rows: i64,
}

impl Writer {
    pub(super) fn create(directory: &Path, name: &str, columns: &[String]) -> anyhow::Result<Self> {
        let draft = directory.join(format!("{name}.draft"));
        let begin = || {
            let mut gzip = compress(&draft)?;
            gzip.write_all(header(columns).as_bytes())?;
            io::Result::Ok(gzip)
        };
        let gzip = begin().with_context(|| draft.display().to_string())?;
        let (directory, name) = (directory.to_owned(), name.to_owned());
        Ok(Self { directory, name, draft, gzip, hasher: Hasher::default(), bytes: 0, rows: 0 })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn rows(&self) -> i64 {
        self.rows
    }

    pub(super) fn write(&mut self, data: &[u8], rows: i64) -> anyhow::Result<()> {
        self.gzip.write_all(data).with_context(|| self.draft.display().to_string())?;
        self.hasher.update(data);
        self.bytes += data.len() as u64;
        self.rows += rows;
        Ok(())
    }

    /// Ends the part; without its file unless that `is_one`.
    pub(super) fn finish(
        mut self,
        is_one: bool,
        after_id: String,
        last_id: String,
    ) -> anyhow::Result<Part> {
        let write = || {
            self.gzip.write_all(END)?;
            let hash = end(self.gzip)?;
            if is_one {
                give_name(&self.directory, &self.draft, &self.name)?;
            } else {
                fs::remove_file(&self.draft)?;
            }
            io::Result::Ok(hash)
        };
        let file_sha256 = write().with_context(|| self.name.clone())?.to_string();
        let sha256 = self.hasher.finish().to_string();
        let Self { name: file, rows, bytes, .. } = self;
        Ok(Part { file, after_id, last_id, rows, bytes, sha256, file_sha256 })
    }
}

/// Reads the rows of a part, one after the other.
pub(crate) struct Reader {
    lines: BufReader<MultiGzDecoder<BufReader<Hashed<File>>>>,
    line: Vec<u8>,
    hasher: Hasher,
    rows: i64,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || {
            let hashed = Hashed { inner: File::open(path)?, hasher: Hasher::default() };
            let mut lines = BufReader::new(MultiGzDecoder::new(BufReader::new(hashed)));
            let mut line = Vec::new();
            lines.read_until(b'\n', &mut line)?;
            io::Result::Ok(Self { lines, line, hasher: Hasher::default(), rows: 0 })
        };
        open().with_context(|| path.display().to_string())
    }

    /// The next row, with its end of line.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        self.lines.read_until(b'\n', &mut self.line)?;
        if self.line == END {
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.hasher.update(&self.line);
        self.rows += 1;
        Ok(Some(&self.line))
    }

    /// Whether what was read is what the manifest says, to the last byte of the file.
    fn is(mut self, part: &Part) -> io::Result<bool> {
        io::copy(&mut self.lines, &mut io::sink())?;
        let file = self.lines.into_inner().into_inner().into_inner().hasher.finish().to_string();
        let rows = self.hasher.finish().to_string();
        Ok(file == part.file_sha256 && (self.rows, &rows) == (part.rows, &part.sha256))
    }

    /// Reads on to the end.
    pub(crate) fn check(self, part: &Part) -> anyhow::Result<()> {
        ensure!(self.is(part)?, "{} is not what the manifest says", part.file);
        Ok(())
    }
}

/// Whether a file is there, can be read, and holds what the manifest says.
pub(super) fn holds(path: &Path, part: &Part) -> bool {
    let Ok(mut reader) = Reader::open(path) else { return false };
    let read = || {
        while reader.next()?.is_some() {}
        reader.is(part)
    };
    // What cannot be uncompressed is damaged, like what has other bytes.
    read().unwrap_or(false)
}
