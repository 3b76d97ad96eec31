//! Values of options: numbers, switches, names, lists; each complaint names the option.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::failure::Failure;
use super::words;

/// The directories of `DIR[:DIR...]`, given for `name`.
pub(crate) fn dirs(text: &OsStr, name: &str) -> Result<Vec<OsString>, Failure> {
    let dirs = words::split_dirs(text);
    if dirs.iter().any(|dir| dir.is_empty()) {
        return Err(Failure::Usage(format!(
            "empty directory name in {name} {text:?} (a colon inside a name is written \\:)"
        )));
    }
    Ok(dirs)
}

fn bad_value(word: &str, value: &OsStr, wanted: &str) -> Failure {
    Failure::Usage(format!(
        "bad value {value:?} for {word:?}: {wanted} is wanted"
    ))
}

/// A word that may have a value: on without one.
pub(crate) fn switch(word: &str, value: Option<&OsStr>) -> Result<bool, Failure> {
    match value.map(|v| v.to_string_lossy()).as_deref() {
        None | Some("1" | "on" | "true" | "yes") => Ok(true),
        Some("0" | "off" | "false" | "no") => Ok(false),
        Some(other) => Err(bad_value(word, OsStr::new(other), "0 or 1")),
    }
}

/// As many seconds as fuse-overlayfs has for "for ever".
const FOR_EVER: f64 = 1e9;

/// Seconds with a fraction; `None` is for ever.
pub(crate) fn timeout(word: &str, value: &OsStr) -> Result<Option<Duration>, Failure> {
    let bad = || bad_value(word, value, "a number of seconds");
    let seconds: f64 = value
        .to_str()
        .and_then(|s| s.parse().ok())
        .ok_or_else(bad)?;
    if seconds >= FOR_EVER {
        return Ok(None);
    }
    Duration::try_from_secs_f64(seconds)
        .map(Some)
        .map_err(|_| bad())
}

/// A number of threads.
pub(crate) fn threads(word: &str, value: &OsStr) -> Result<usize, Failure> {
    match value.to_str().and_then(|s| s.parse().ok()) {
        Some(count @ 1..=1024) => Ok(count),
        _ => Err(bad_value(word, value, "a number from 1 to 1024")),
    }
}

/// One of a few names.
pub(crate) fn choice<T: clap::ValueEnum>(word: &str, value: &OsStr) -> Result<T, Failure> {
    value
        .to_str()
        .and_then(|s| T::from_str(s, true).ok())
        .ok_or_else(|| {
            let names: Vec<_> = T::value_variants()
                .iter()
                .filter_map(|v| v.to_possible_value().map(|v| v.get_name().to_owned()))
                .collect();
            bad_value(word, value, &format!("one of {}", names.join(", ")))
        })
}
