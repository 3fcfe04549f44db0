//! Numbered files of JSON lines: the newest is written to, the oldest are removed.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
    str::FromStr,
};

use super::Line;

/// The size at which the next file begins.
const SEGMENT_BYTES: u64 = 8 << 20;
/// How many files an app keeps.
const SEGMENTS: usize = 4;
/// About how many bytes one read returns.
const READ_BYTES: u64 = 1 << 20;

/// A place between two lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    segment: u64,
    offset: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.segment, self.offset)
    }
}

impl FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (segment, offset) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Self { segment: segment.parse()?, offset: offset.parse()? })
    }
}

/// The files of one app.
#[derive(Debug, Clone)]
pub struct Segments {
    folder: PathBuf,
    /// The numbers of the existing files, the newest last.
    numbers: VecDeque<u64>,
    /// The size of the newest file.
    size: u64,
}

impl Segments {
    /// Opens the files of an earlier process. An incomplete last line is cut off.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        let mut numbers = Vec::new();
        match fs::read_dir(&folder) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name();
                    numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")?.parse::<u64>().ok()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        numbers.sort_unstable();
        let mut segments = Self { folder, numbers: numbers.into(), size: 0 };
        if let Some(newest) = segments.numbers.back() {
            let file = OpenOptions::new().read(true).write(true).open(segments.path(*newest))?;
            segments.size = whole_lines(&file)?;
            file.set_len(segments.size)?;
        }
        Ok(segments)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.jsonl"))
    }

    /// Adds lines, to a new file if the newest is full.
    pub fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut encoded = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut encoded, line)?;
            encoded.push(b'\n');
        }
        if self.numbers.is_empty() || self.size >= SEGMENT_BYTES {
            let next = self.numbers.back().map_or(1, |newest| newest + 1);
            self.numbers.push_back(next);
            self.size = 0;
            while self.numbers.len() > SEGMENTS {
                if let Some(oldest) = self.numbers.pop_front() {
                    match fs::remove_file(self.path(oldest)) {
                        // It was too old already.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        removed => removed?,
                    }
                }
            }
        }
        let newest = self.numbers.back().copied().unwrap_or(1);
        // Opened for each write: an app that prints nothing holds no file, and old files are removed at the same time.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.path(newest))?;
        file.write_all(&encoded)?;
        self.size += encoded.len() as u64;
        Ok(())
    }

    /// Lines from a position on. Lines that were removed are skipped.
    pub fn read(&self, from: Position) -> io::Result<(Vec<Line>, Position)> {
        let (mut lines, mut at, mut room) = (Vec::new(), from, READ_BYTES);
        for number in self.numbers.iter().copied().filter(|number| *number >= from.segment) {
            if number > at.segment {
                at = Position { segment: number, offset: 0 };
            }
            let mut file = match File::open(self.path(number)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            file.seek(SeekFrom::Start(at.offset))?;
            let mut reader = BufReader::new(file);
            let mut text = String::new();
            while room > 0 && reader.read_line(&mut text)? > 0 && text.ends_with('\n') {
                lines.push(serde_json::from_str(&text)?);
                at.offset += text.len() as u64;
                room = room.saturating_sub(text.len() as u64);
                text.clear();
            }
            if room == 0 {
                break;
            }
        }
        Ok((lines, at))
    }
}

fn whole_lines(file: &File) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut whole, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        whole += line.len() as u64;
        line.clear();
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::{super::Source, *};

    fn line(data: &str) -> Line {
        Line {
            at: 1,
            source: Source::Stdout,
            task_id: "ta-1".to_owned(),
            function_id: "fu-1".to_owned(),
            call_id: String::new(),
            input_id: String::new(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn lines_are_read_once_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(folder.path().join("app")).unwrap();
        assert_eq!(segments.read(Position::default()).unwrap().0, []);
        segments.append(&[line("one\n"), line("two\n")]).unwrap();
        let (lines, position) = segments.read(Position::default()).unwrap();
        assert_eq!(lines, [line("one\n"), line("two\n")]);
        segments.append(&[line("three")]).unwrap();
        let position: Position = position.to_string().parse().unwrap();
        assert_eq!(segments.read(position).unwrap().0, [line("three")]);

        // An incomplete line, from a crash, is no line.
        let path = segments.path(1);
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"{\"t\":").unwrap();
        let mut again = Segments::open(folder.path().join("app")).unwrap();
        again.append(&[line("four")]).unwrap();
        assert_eq!(again.read(position).unwrap().0, [line("three"), line("four")]);
    }

    #[test]
    fn oldest_segments_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(folder.path().join("app")).unwrap();
        let long = "x".repeat(SEGMENT_BYTES as usize / 4);
        for n in 0..40 {
            segments.append(&[line(&format!("{n} {long}"))]).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path().join("app")).unwrap().count(), SEGMENTS);
        let (mut position, mut seen) = (Position::default(), Vec::new());
        loop {
            let (lines, next) = segments.read(position).unwrap();
            if lines.is_empty() {
                break;
            }
            seen.extend(lines.iter().map(|line| line.data.split(' ').next().unwrap().parse::<u32>().unwrap()));
            position = next;
        }
        assert_eq!(seen.last(), Some(&39));
        assert!(seen.len() >= 12 && seen.windows(2).all(|pair| pair[1] == pair[0] + 1));
    }
}
