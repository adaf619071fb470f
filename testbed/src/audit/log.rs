//! Effects: files — a log of one JSON value per line that grows while it is read.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use serde_json::Value;

/// A place in a log; what was written later is "since" it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditMark(u64);

/// The end of the log now.
pub(crate) fn end(path: &Path) -> io::Result<AuditMark> {
    fs::metadata(path).map(|metadata| AuditMark(metadata.len()))
}

/// The values written since `mark`. A line that is still being written is left for the next time.
pub(crate) fn since(path: &Path, AuditMark(start): AuditMark) -> io::Result<Vec<Value>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start.saturating_sub(1)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // A line that was being written at the mark began before it.
    let begun = match start {
        0 => 0,
        _ => bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(bytes.len(), |end| end + 1),
    };
    let bytes = bytes.get(begun..).unwrap_or_default();
    let complete = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |last| last + 1);
    let lines = bytes
        .get(..complete)
        .unwrap_or_default()
        .split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(io::Error::from))
        .collect()
}

/// The text at a JSON pointer, empty where there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    #[test]
    fn only_complete_lines_after_the_mark_are_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"{\"a\":1}\n").unwrap();
        let mark = super::end(file.path()).unwrap();
        file.write_all(b"{\"a\":2}\n{\"a\":").unwrap();
        let values = super::since(file.path(), mark).unwrap();
        assert_eq!(values, [serde_json::json!({"a": 2})]);

        let within_a_line = super::end(file.path()).unwrap();
        file.write_all(b"3}\n{\"a\":4}\n").unwrap();
        let values = super::since(file.path(), within_a_line).unwrap();
        assert_eq!(values, [serde_json::json!({"a": 4})]);
    }
}
