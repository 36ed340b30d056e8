//! Logging: one line an event on standard error, in Weave Net's form or as JSON.

pub mod queue;

use std::fmt;
use std::io::IsTerminal;
use std::time::SystemTime;

use queue::LogQueue;
use report::time::log_time;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Sets logging up for the process. `level` is one of debug, info, warning, error; `format` is
/// text or json. The environment variable `WEFT_LOG` can name levels for single modules. Returns
/// the queue that lines take, which is to be flushed at the end.
pub fn init(level: &str, format: &str) -> Result<LogQueue, String> {
    let level = match level.to_ascii_lowercase().as_str() {
        "debug" => "debug",
        "info" => "info",
        "warning" | "warn" => "warn",
        // Weave Net has two that are above it.
        "error" | "fatal" | "panic" => "error",
        _ => {
            return Err(format!(
                "--log-level: {level:?} is none of debug, info, warning, error"
            ));
        }
    };
    let filter = std::env::var("WEFT_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| format!("WEFT_LOG: {error}"))?;
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let queue = LogQueue::start(std::io::stderr()).map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(queue.clone());
    let result = match format {
        "text" => builder.event_format(Line { colour }).try_init(),
        "json" => builder.json().flatten_event(true).try_init(),
        other => return Err(format!("--log-format: {other:?} is none of text, json")),
    };
    result.map_err(|error| error.to_string())?;
    Ok(queue)
}

/// `INFO: 2006/01/02 15:04:05.000000 text field=value`
struct Line {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (name, colour) = match *event.metadata().level() {
            Level::ERROR => ("ERRO", "31"),
            Level::WARN => ("WARN", "33"),
            Level::INFO => ("INFO", "32"),
            Level::DEBUG | Level::TRACE => ("DEBU", "36"),
        };
        if self.colour {
            write!(out, "\x1b[{colour}m{name}\x1b[0m: ")?;
        } else {
            write!(out, "{name}: ")?;
        }
        write!(out, "{} ", log_time(SystemTime::now()))?;
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(out, "[{fields}] ")?;
            }
        }
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}
