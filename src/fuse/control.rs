//! The private attributes of the root, by which `unionmount inspect`, `stats`, `sync` and `refresh`
//! reach the daemon through the mount itself.
//!
//! `unionmount.inspect@N` and `unionmount.stats@N` give up to [`CHUNK`] bytes of the JSON text from
//! byte N on (an attribute holds 64 KiB at most); a shorter answer is the end. `unionmount.sync`
//! gives an empty value once everything is on disk. `unionmount.complete` completes metadata-only copies
//! for a moment and gives what was done so far as JSON, whole; it is asked again until all is done.
//! `unionmount.refresh@N` forgets what is known of object N and all below it, and gives the JSON text of
//! how much that was.

use std::time::Duration;

use crate::error::{Errno, Result};
use crate::ops::{Caller, Inspect, Outdated, Union};
use crate::tree::ROOT;

use super::counters::Counters;

/// Bytes of an answer at a time.
const CHUNK: usize = 32768;
/// How long one step of completing metadata-only copies takes.
const STEP: Duration = Duration::from_millis(500);
const PREFIX: &[u8] = b"unionmount.";
const REFRESH: &[u8] = b"unionmount.refresh@";

/// Whether an attribute is one of these.
pub(super) fn is_control(ino: u64, name: &[u8]) -> bool {
    ino == ROOT && name.starts_with(PREFIX)
}

/// Only root and the daemon's own user may ask.
fn check(caller: Caller) -> Result<()> {
    if caller.uid != 0 && caller.uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM.into());
    }
    Ok(())
}

/// Whether an attribute asks for a refresh, for which the kernel must be told things, and so may have
/// to be waited for.
pub(super) fn is_refresh(name: &[u8]) -> bool {
    name.starts_with(REFRESH)
}

/// Forgets what is known of the object that attribute `name` names, which is for `tell` to pass on.
pub(super) fn refresh(
    union: &Union,
    caller: Caller,
    name: &[u8],
    tell: impl FnOnce(&Outdated),
) -> Result<Vec<u8>> {
    check(caller)?;
    let ino = name.strip_prefix(REFRESH).unwrap_or_default();
    let ino = std::str::from_utf8(ino).ok().and_then(|n| n.parse().ok());
    let outdated = union.refresh(ino.ok_or(Errno::INVAL)?)?;
    tell(&outdated);
    Ok(serde_json::to_vec(&outdated.count).map_err(|_| Errno::IO)?)
}

/// Answers one of the others.
pub(super) fn answer(
    union: &Union,
    counters: &Counters,
    inspect: &Inspect,
    caller: Caller,
    name: &[u8],
) -> Result<Vec<u8>> {
    check(caller)?;
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
