//! The private attributes of the root, by which `unionmount inspect`, `stats` and `sync` reach the
//! daemon through the mount itself.
//!
//! `unionmount.inspect@N` and `unionmount.stats@N` give up to [`CHUNK`] bytes of the JSON text from
//! byte N on (an attribute holds 64 KiB at most); a shorter answer is the end. `unionmount.sync`
//! gives an empty value once everything is on disk. `unionmount.complete` completes metadata-only copies
//! for a moment and gives what was done so far as JSON, whole; it is asked again until all is done.

use std::time::Duration;

use crate::error::{Errno, Result};
use crate::ops::{Caller, Inspect, Union};
use crate::tree::ROOT;

use super::counters::Counters;

/// Bytes of an answer at a time.
const CHUNK: usize = 32768;
/// How long one step of completing metadata-only copies takes.
const STEP: Duration = Duration::from_millis(500);
const PREFIX: &[u8] = b"unionmount.";

/// Whether an attribute is one of these.
pub(super) fn is_control(ino: u64, name: &[u8]) -> bool {
    ino == ROOT && name.starts_with(PREFIX)
}

/// Answers one of these; only to root and the daemon's own user.
pub(super) fn answer(
    union: &Union,
    counters: &Counters,
    inspect: &Inspect,
    caller: Caller,
    name: &[u8],
) -> Result<Vec<u8>> {
    if caller.uid != 0 && caller.uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM.into());
    }
    let command = name.strip_prefix(PREFIX).unwrap_or_default();
    let (command, offset) = match command.iter().position(|b| *b == b'@') {
        Some(at) => (command.get(..at), command.get(at + 1..)),
        None => (Some(command), Some(&b"0"[..])),
    };
    let offset = std::str::from_utf8(offset.unwrap_or_default())
        .ok()
        .and_then(|o| o.parse().ok());
    let offset: usize = offset.ok_or(Errno::INVAL)?;
    let text = match command.unwrap_or_default() {
        b"inspect" => {
            let inspect = Inspect {
                layers: union.report_layers(),
                ..inspect.clone()
            };
            serde_json::to_vec(&inspect)
        }
        b"stats" => serde_json::to_vec(&counters.complete(union.stats())),
        b"complete" => serde_json::to_vec(&union.complete(STEP)?),
        b"sync" => {
            union.sync_all()?;
            return Ok(Vec::new());
        }
        _ => return Err(Errno::NODATA.into()),
    };
    let text = text.map_err(|_| Errno::IO)?;
    let most = match command {
        Some(b"complete") => usize::MAX,
        _ => CHUNK,
    };
    Ok(text.into_iter().skip(offset).take(most).collect())
}
