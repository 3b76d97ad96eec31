//! Command lines of other programs' making: mount(8) helpers and fuse-overlayfs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::args::{LogLevel, MountArgs};
use super::failure::Failure;
use super::plan::Personality;

/// What the caller wants to know of the program itself.
#[derive(Debug)]
pub(crate) enum Request {
    Mount(Box<MountArgs>),
    Help,
    Version,
}

/// Whose habits belong to the name that the program was called under.
pub(crate) fn personality(argv0: &OsStr) -> Personality {
    let name = Path::new(argv0).file_name().unwrap_or_default().as_bytes();
    match name {
        b"mount.unionmount" | b"mount.fuse.unionmount" | b"mount.fuse3.unionmount" => {
            Personality::Helper
        }
        b"fuse-overlayfs" => Personality::FuseOverlayfs,
        _ => Personality::Plain,
    }
}

/// Reads `SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]`, as mount(8) calls its helpers, or the
/// command line of fuse-overlayfs; both allow options after operands.
pub(crate) fn parse(args: &[OsString], who: Personality) -> Result<Request, Failure> {
    let mut out = MountArgs::default();
    let mut args = args.iter();
    let mut only_operands = false;
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if only_operands || bytes.first() != Some(&b'-') || bytes == b"-" {
            out.operands.push(arg.clone());
            continue;
        }
        match bytes {
            b"--" => only_operands = true,
            b"-h" | b"--help" => return Ok(Request::Help),
            b"-V" | b"--version" => return Ok(Request::Version),
            b"--foreground" => out.foreground = true,
            b"--debug" => debug(&mut out),
            [b'-', b'-', ..] => unknown(arg, &mut out, who)?,
            [_, flags @ ..] => match take_flags(flags, &mut args, &mut out, who) {
                Some(taken) => taken?,
                None => unknown(arg, &mut out, who)?,
            },
            [] => {}
        }
    }
    if who == Personality::Helper && out.operands.len() != 2 {
        return Err(Failure::Usage(
            "expected: SOURCE MOUNTPOINT [-o OPTIONS]".to_owned(),
        ));
    }
    Ok(Request::Mount(Box::new(out)))
}

/// Engines may pass what only another version of fuse-overlayfs knows, and it goes on.
fn unknown(arg: &OsString, out: &mut MountArgs, who: Personality) -> Result<(), Failure> {
    if who != Personality::FuseOverlayfs {
        return Err(Failure::Usage(format!("unknown option {arg:?}")));
    }
    out.unknown.push(arg.clone());
    Ok(())
}

/// As in libfuse, `-d` stays in the foreground.
fn debug(out: &mut MountArgs) {
    out.log = Some(LogLevel::Debug);
    out.foreground = true;
}

/// One argument of single-letter flags (`-fn`, `-oX`); `None` if a letter is unknown.
fn take_flags(
    flags: &[u8],
    args: &mut std::slice::Iter<'_, OsString>,
    out: &mut MountArgs,
    who: Personality,
) -> Option<Result<(), Failure>> {
    let mut rest = flags;
    while let [letter, after @ ..] = rest {
        rest = after;
        match (letter, who) {
            (b'o' | b't', _) => {
                let value = match (after.is_empty(), args.as_slice()) {
                    (false, _) => OsString::from_vec(after.to_vec()),
                    (true, []) => {
                        let letter = char::from(*letter);
                        return Some(Err(Failure::Usage(format!("-{letter} needs a value"))));
                    }
                    (true, _) => args.next().cloned().unwrap_or_default(),
                };
                if *letter == b'o' {
                    out.options.push(value);
                }
                return Some(Ok(()));
            }
            (b'f', Personality::FuseOverlayfs) => out.foreground = true,
            // mount(8): sloppy, fake, no mtab, verbose; mount -f does not get as far as a helper.
            (b's' | b'f' | b'n' | b'v', Personality::Helper) => {}
            (b'd', Personality::FuseOverlayfs) => debug(out),
            // libfuse: one thread. Any number gives the same answers.
            (b's', Personality::FuseOverlayfs) => {}
            _ => return None,
        }
    }
    Some(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (argv0, want) in [
            ("unionmount", Personality::Plain),
            ("/usr/bin/unionmount", Personality::Plain),
            ("/sbin/mount.fuse.unionmount", Personality::Helper),
            ("mount.unionmount", Personality::Helper),
            ("/usr/bin/fuse-overlayfs", Personality::FuseOverlayfs),
            ("", Personality::Plain),
        ] {
            assert_eq!(personality(OsStr::new(argv0)), want, "{argv0}");
        }
    }

    #[test]
    fn command_lines() {
        let helper = Personality::Helper;
        let overlayfs = Personality::FuseOverlayfs;
        let table: &[(Personality, &str, &[&str], &[&str])] = &[
            (
                helper,
                "src /mnt -o rw,lowerdir=/l",
                &["src", "/mnt"],
                &["rw,lowerdir=/l"],
            ),
            (
                helper,
                "src /mnt -sn -v -t fuse.unionmount -o a",
                &["src", "/mnt"],
                &["a"],
            ),
            (helper, "-n src /mnt -oa -ob", &["src", "/mnt"], &["a", "b"]),
            (
                overlayfs,
                "-o lowerdir=/l /mnt",
                &["/mnt"],
                &["lowerdir=/l"],
            ),
            (
                overlayfs,
                "overlay /mnt -o lowerdir=/l,dev",
                &["overlay", "/mnt"],
                &["lowerdir=/l,dev"],
            ),
            (overlayfs, "-f -o x /mnt", &["/mnt"], &["x"]),
            (overlayfs, "-x --new -o x -oy /mnt", &["/mnt"], &["x", "y"]),
            (overlayfs, "a b /mnt -o x", &["a", "b", "/mnt"], &["x"]),
        ];
        for (who, line, operands, options) in table {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let Ok(Request::Mount(got)) = parse(&args, *who) else {
                panic!("{line}")
            };
            assert_eq!(got.operands, *operands, "{line}");
            assert_eq!(got.options, *options, "{line}");
        }
    }

    #[test]
    fn refused_command_lines() {
        for (who, line) in [
            (Personality::Helper, "/mnt"),
            (Personality::Helper, "a b c"),
            (Personality::Helper, "a b -x"),
            (Personality::Helper, "a b -o"),
            (Personality::FuseOverlayfs, "/mnt -o"),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(
                matches!(parse(&args, who), Err(Failure::Usage(_))),
                "{line}"
            );
        }
    }
}
