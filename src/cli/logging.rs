//! Where log lines go: a file, or stderr as long as somebody reads it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::args::LogLevel;
use super::failure::{Failure, reason};
use super::plan::LogPlan;
use crate::error::best_effort;

/// Where log lines go, for what is asked for and no matter of level.
#[derive(Debug)]
pub(crate) struct Log {
    /// `None`: stderr.
    file: Option<File>,
}

impl Log {
    /// Writes `text` there.
    pub(crate) fn print(&self, text: &str) {
        let written = match &self.file {
            Some(file) => (&*file).write_all(text.as_bytes()),
            None => std::io::stderr().write_all(text.as_bytes()),
        };
        best_effort("print to the log", written);
    }
}

/// Starts logging. Called before the process forks and changes its directory.
pub(crate) fn start(plan: &LogPlan, foreground: bool) -> Result<Log, Failure> {
    let level = match plan.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let file = match &plan.file {
        Some(path) => Some(open(path)?),
        None => None,
    };
    let copy = file.as_ref().map(File::try_clone).transpose();
    let copy = copy.map_err(|e| Failure::new(format!("cannot log: {}", reason(e))))?;
    let result = match copy {
        Some(file) => tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(Mutex::new(file))
            .try_init(),
        // In the background stderr becomes /dev/null: only what happens until then can be seen,
        // and nothing is worth formatting later but a warning.
        None => tracing_subscriber::fmt()
            .with_max_level(if foreground {
                level
            } else {
                level.min(LevelFilter::WARN)
            })
            .with_writer(std::io::stderr)
            .event_format(Plain)
            .try_init(),
    };
    best_effort("start logging", result);
    log_panics();
    Ok(Log { file })
}

/// What a panic says, and where it was, is logged: in the background nobody reads stderr.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));
}

fn open(path: &std::path::Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|e| {
        Failure::new(format!(
            "cannot open log file {path:?}: {} (choose another --log-file)",
            reason(e)
        ))
    })
}

/// `unionmount: warning: MESSAGE`, as the program's own complaints look.
#[derive(Debug)]
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write!(writer, "unionmount: {level}: ")?;
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_panic_says_and_its_place_are_logged() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let before = std::panic::take_hook();
        log_panics();
        let ended = tracing::subscriber::with_default(subscriber, || {
            std::panic::catch_unwind(|| panic!("of a test"))
        });
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(
            text.contains("of a test") && text.contains(file!()),
            "{text}"
        );
    }
}
