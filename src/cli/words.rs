//! How lists are written on a command line: separators, backslashes, quotes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Splits at each `separator` that no backslash precedes. Backslashes are kept.
fn split_raw(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut escaped = false;
    text.split(|&byte| {
        let splits = byte == separator && !escaped;
        escaped = byte == b'\\' && !escaped;
        splits
    })
    .collect()
}

/// `\:`, `\,` and `\\` stand for the second character; any other backslash is an ordinary byte.
pub(crate) fn unescape(text: &OsStr) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let next = bytes.peek().copied();
        match (byte, next) {
            (b'\\', Some(special @ (b':' | b',' | b'\\'))) => {
                bytes.next();
                out.push(special);
            }
            _ => out.push(byte),
        }
    }
    OsString::from_vec(out)
}

/// The directories of `DIR[:DIR...]`.
pub(crate) fn split_dirs(text: &OsStr) -> Vec<OsString> {
    split_raw(text.as_bytes(), b':')
        .into_iter()
        .map(|d| unescape(OsStr::from_bytes(d)))
        .collect()
}

/// The items of a `-o` string, `(key, value)`; empty items are dropped. Values keep their
/// backslashes (a list of directories needs them); `KEY="VALUE"` may hold commas.
pub(crate) fn split_options(text: &OsStr) -> Vec<(OsString, Option<OsString>)> {
    let mut items = Vec::new();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (item, after) = match quoted_end(rest) {
            Some(end) => (rest.get(..end), rest.get(end + 1..)),
            None => {
                let len = split_raw(rest, b',')
                    .first()
                    .map_or(rest.len(), |item| item.len());
                (rest.get(..len), rest.get(len + 1..))
            }
        };
        rest = after.unwrap_or_default();
        let item = item.unwrap_or_default();
        if item.is_empty() {
            continue;
        }
        let mut halves = item.splitn(2, |&b| b == b'=');
        let key = halves.next().unwrap_or_default();
        let value = halves.next().map(strip_quotes);
        items.push((os(key), value.map(os)));
    }
    items
}

/// Where the item at the start of `text` ends, if it is `KEY="..."` followed by a comma or nothing.
fn quoted_end(text: &[u8]) -> Option<usize> {
    let equals = text.iter().position(|&b| b == b'=' || b == b',')?;
    if text.get(equals..equals + 2) != Some(b"=\"") {
        return None;
    }
    let start = equals + 2;
    let close = start + text.get(start..)?.iter().position(|&b| b == b'"')?;
    matches!(text.get(close + 1), None | Some(b',')).then_some(close + 1)
}

fn strip_quotes(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

fn os(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        for (text, want) in [
            ("a", &["a"][..]),
            ("a:b:c", &["a", "b", "c"]),
            (r"a\:b:c", &["a:b", "c"]),
            (r"a\\:b", &[r"a\", "b"]),
            (r"a\\\:b", &[r"a\:b"]),
            (r"a\x:b", &[r"a\x", "b"]),
            (r"a\,b", &["a,b"]),
            ("a:", &["a", ""]),
            (r"a\", &[r"a\"]),
        ] {
            assert_eq!(split_dirs(OsStr::new(text)), want, "{text}");
        }
    }

    #[test]
    fn options() {
        type Item<'a> = (&'a str, Option<&'a str>);
        let table: &[(&str, &[Item<'_>])] = &[
            ("", &[]),
            (",,ro,,", &[("ro", None)]),
            (
                "lowerdir=a:b,ro",
                &[("lowerdir", Some("a:b")), ("ro", None)],
            ),
            (
                r"lowerdir=a\,b:c,x",
                &[("lowerdir", Some(r"a\,b:c")), ("x", None)],
            ),
            (
                r"upperdir=a\\,x",
                &[("upperdir", Some(r"a\\")), ("x", None)],
            ),
            (
                r#"context="u:r:t:s0:c1,c2",ro"#,
                &[("context", Some("u:r:t:s0:c1,c2")), ("ro", None)],
            ),
            (r#"context="a,b""#, &[("context", Some("a,b"))]),
            (
                r#"lowerdir=/a"b,ro"#,
                &[("lowerdir", Some("/a\"b")), ("ro", None)],
            ),
            (r#"a="b,ro"#, &[("a", Some("\"b")), ("ro", None)]),
            ("a=b=c", &[("a", Some("b=c"))]),
            ("a=", &[("a", Some(""))]),
        ];
        for (text, want) in table {
            let got = split_options(OsStr::new(text));
            let got: Vec<_> = got
                .iter()
                .map(|(k, v)| (k.to_str().unwrap(), v.as_ref().map(|v| v.to_str().unwrap())))
                .collect();
            assert_eq!(got, *want, "{text}");
        }
    }
}
