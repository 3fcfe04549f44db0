//! Output of containers, on its way into the log of their app.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rustix::fs::{FileType, Mode, mknodat};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::{self, Receiver},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    logs::{AppLog, Line, Source},
    shared::Shared,
    state::{CrashNote, Definition},
};

/// How long a line may stay incomplete before it is shown.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longer lines are split.
const LONGEST_LINE: usize = 64 << 10;
/// How much of the last output is kept for error messages.
const TAIL_BYTES: usize = 4_000;

/// The named pipes that a container prints to. A process that is not a child can open them, too.
pub struct Output {
    stdout: Receiver,
    stderr: Receiver,
    app: Arc<AppLog>,
    task_id: String,
    function_id: String,
    tail: Tail,
}

/// The last output of a container.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<String>>);

impl Tail {
    fn push(&self, text: &str) {
        let mut tail = self.0.lock();
        tail.push_str(text);
        if tail.len() > 2 * TAIL_BYTES {
            let cut = tail.ceil_char_boundary(tail.len() - TAIL_BYTES);
            tail.drain(..cut);
        }
    }

    /// The text.
    pub fn text(&self) -> String {
        self.0.lock().clone()
    }
}

/// Where a container's standard output and error go, in its folder.
pub fn paths(folder: &Path) -> [PathBuf; 2] {
    [folder.join("stdout"), folder.join("stderr")]
}

impl Output {
    /// Makes the pipes of a container in its folder.
    pub fn create(
        shared: &Shared,
        folder: &Path,
        app_id: &str,
        function_id: &str,
        task_id: &str,
    ) -> Result<Self, Error> {
        let app = shared.logs.app(app_id).map_err(Error::io("open", "the app's log"))?;
        let [stdout, stderr] = paths(folder).map(|path| {
            mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            // Opened for writing, too, so that it does not end before the container has opened it.
            pipe::OpenOptions::new().read_write(true).open_receiver(&path)
        });
        let failed = || Error::io("create", "a container's pipe");
        Ok(Self {
            stdout: stdout.map_err(failed())?,
            stderr: stderr.map_err(failed())?,
            app,
            task_id: task_id.to_owned(),
            function_id: function_id.to_owned(),
            tail: Tail::default(),
        })
    }

    /// The last output, which keeps growing.
    pub fn tail(&self) -> Tail {
        self.tail.clone()
    }

    /// Copies the output to the log until `ended`, and then the rest of the pipes.
    pub async fn pump(self, shared: Arc<Shared>, ended: CancellationToken) {
        let Self { stdout, stderr, app, task_id, function_id, tail } = self;
        let pump = |pipe, source| {
            let (shared, app, tail) = (shared.clone(), app.clone(), tail.clone());
            let writer =
                Writer { shared, app, source, task_id: task_id.clone(), function_id: function_id.clone(), tail };
            writer.pump(pipe, ended.clone())
        };
        tokio::join!(pump(stdout, Source::Stdout), pump(stderr, Source::Stderr));
    }
}

struct Writer {
    shared: Arc<Shared>,
    app: Arc<AppLog>,
    source: Source,
    task_id: String,
    function_id: String,
    tail: Tail,
}

impl Writer {
    async fn pump(self, mut pipe: Receiver, ended: CancellationToken) {
        let mut unfinished = Vec::new();
        let mut chunk = vec![0; 16 << 10];
        loop {
            let read = tokio::select! {
                biased;
                read = pipe.read(&mut chunk) => read,
                () = tokio::time::sleep(PATIENCE), if !unfinished.is_empty() => {
                    self.write(&std::mem::take(&mut unfinished));
                    continue;
                }
                // The pipe is empty.
                () = ended.cancelled() => break,
            };
            match read {
                Ok(count) => unfinished.extend_from_slice(&chunk[..count]),
                Err(error) => {
                    tracing::warn!(%error, task.id = self.task_id, "a container's output could not be read");
                    break;
                }
            }
            let end = unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            let end = if unfinished.len() - end > LONGEST_LINE { unfinished.len() } else { end };
            if end > 0 {
                let lines: Vec<u8> = unfinished.drain(..end).collect();
                self.write(&lines);
            }
        }
        if !unfinished.is_empty() {
            self.write(&unfinished);
        }
    }

    fn write(&self, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        self.tail.push(&text);
        let (call_id, input_id) = self.shared.read(|state| state.input_of_output(&self.task_id)).unwrap_or_default();
        let line = |data: &str| Line {
            at: now(),
            source: self.source,
            task_id: self.task_id.clone(),
            function_id: self.function_id.clone(),
            call_id: call_id.clone(),
            input_id: input_id.clone(),
            data: data.to_owned(),
        };
        let lines: Vec<Line> = text.split_inclusive('\n').map(line).collect();
        if let Err(error) = self.app.append(&lines) {
            tracing::warn!(%error, task.id = self.task_id, "the output of a container could not be stored");
        }
    }
}

/// Logs that an input runs again, because its caller does not learn of it.
pub fn log_crash(shared: &Shared, definition: &Definition, task_id: &str, note: CrashNote) {
    let line = Line {
        at: now(),
        source: Source::Stderr,
        task_id: task_id.to_owned(),
        function_id: definition.function_id.clone(),
        call_id: note.call_id,
        input_id: note.input_id,
        data: note.text,
    };
    let logged = shared.logs.app(&definition.app_id).and_then(|app| app.append(&[line]));
    if let Err(error) = logged {
        tracing::warn!(%error, task.id = task_id, "the end of a container could not be logged");
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
