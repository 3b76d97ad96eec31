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

/// The directories of `DIR[:DIR...][::DATA...]`: those that show, and those of data alone, as the
/// kernel has it.
pub(crate) fn dirs_and_data(
    text: &OsStr,
    name: &str,
) -> Result<(Vec<OsString>, Vec<OsString>), Failure> {
    let all = words::split_dirs(text);
    let Some(at) = all
        .iter()
        .position(|dir| dir.is_empty())
        .filter(|at| *at > 0)
    else {
        return Ok((dirs(text, name)?, Vec::new()));
    };
    let (shown, rest) = all.split_at(at);
    let mut data = Vec::new();
    for pair in rest.chunks(2) {
        match pair {
            [empty, dir] if empty.is_empty() && !dir.is_empty() => data.push(dir.clone()),
            _ => {
                return Err(Failure::Usage(format!(
                    "{name} {text:?}: each directory behind \"::\" needs a \"::\" before it"
                )));
            }
        }
    }
    Ok((shown.to_vec(), data))
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

/// Bytes, or with K, M, G or T so many times 1024 of them.
pub(crate) fn size(word: &str, value: &OsStr) -> Result<u64, Failure> {
    let text = value.to_string_lossy();
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => (text.get(..at), Some(unit)),
        _ => (Some(&*text), None),
    };
    let shift = match unit.map(|unit| unit.to_ascii_uppercase()) {
        None => Some(0),
        Some('K') => Some(10),
        Some('M') => Some(20),
        Some('G') => Some(30),
        Some('T') => Some(40),
        Some(_) => None,
    };
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    let bytes = number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| bad_value(word, value, "a number of bytes, or one with K, M, G or T"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_data() {
        for (text, shown, data) in [
            ("a", &["a"][..], &[][..]),
            ("a:b::c", &["a", "b"], &["c"]),
            ("a::b::c", &["a"], &["b", "c"]),
        ] {
            let got = dirs_and_data(OsStr::new(text), "lowerdir").unwrap();
            assert_eq!((&*got.0, &*got.1), (&*os(shown), &*os(data)), "{text}");
        }
        for bad in [
            "", ":a", "::a", "a:", "a::", "a:::b", "a::b:c", "a::b::", "a:b:",
        ] {
            assert!(dirs_and_data(OsStr::new(bad), "lowerdir").is_err(), "{bad}");
        }
    }

    fn os(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("16K", Some(16 << 10)),
            ("64m", Some(64 << 20)),
            ("1G", Some(1 << 30)),
            ("2T", Some(2 << 40)),
            ("", None),
            ("M", None),
            ("-1", None),
            ("1.5G", None),
            ("10MB", None),
            ("10X", None),
            ("10\u{e9}", None),
            ("99999999999T", None),
        ] {
            assert_eq!(size("w", OsStr::new(text)).ok(), want, "{text:?}");
        }
    }
}
