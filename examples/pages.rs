//! Writes man pages and completions, from the same definitions as `--help`, and the links that a
//! package has: `cargo run --example pages -- DIR`.
//!
//! An example and not a command, so that the program carries nothing that is of use only once.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: cargo run --example pages -- DIR");
        return ExitCode::from(2);
    };
    match write_all(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pages: {}: {e}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(dir: &Path) -> io::Result<()> {
    let [man, completions, links] = ["man", "completions", "links"].map(|name| dir.join(name));
    for dir in [&man, &completions, &links] {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
    }
    fs::write(dir.join("copyright"), copyright())?;
    fs::write(dir.join("changelog"), changelog())?;
    clap_mangen::generate_to(unionmount::cli::command(), &man)?;
    fs::write(man.join("mount.fuse.unionmount.8"), mount_helper()?)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(
            shell,
            &mut unionmount::cli::command(),
            "unionmount",
            &completions,
        )?;
    }
    symlink("../bin/unionmount", links.join("mount.fuse.unionmount"))?;
    symlink("../../bin/unionmount", links.join("fuse-overlayfs"))
}

/// LICENSE without the text that Debian has already.
fn copyright() -> String {
    let all = include_str!("../LICENSE");
    let own = all.split("\n-------------------------------------------------");
    let own: Vec<&str> = own.take(2).collect();
    let apache = "The Apache License, Version 2.0, is on Debian systems in\n/usr/share/common-licenses/Apache-2.0.\n";
    format!(
        "{}\n{apache}",
        own.join("\n-------------------------------------------------")
    )
}

/// What Debian wants beside CHANGELOG.md: that there is this version.
fn changelog() -> String {
    format!(
        "unionmount ({}-1) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n \
         -- The unionmount authors <unionmount@localhost>  Thu, 01 Jan 1970 00:00:00 +0000\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// mount.fuse.unionmount(8): clap does not know this command line, which is mount(8)'s.
fn mount_helper() -> io::Result<Vec<u8>> {
    let name = "mount.fuse.unionmount";
    let head = unionmount::cli::command().name(name);
    let mut page = Vec::new();
    Man::new(head).section("8").render_title(&mut page)?;
    page.extend_from_slice(HELPER_PAGE.as_bytes());
    let mut group = "";
    for word in unionmount::cli::option_words() {
        if word.group != group {
            group = word.group;
            page.extend_from_slice(format!(".SS {}\n", roff(group)).as_bytes());
        }
        let (name, verdict, how) = (roff(word.word), roff(word.verdict), roff(&word.how));
        page.extend_from_slice(format!(".TP\n\\fB{name}\\fR\n{verdict}: {how}\n").as_bytes());
    }
    page.extend_from_slice(SEE_ALSO.as_bytes());
    Ok(page)
}

/// Plain text for a man page: the backquotes of Markdown go.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('`', "")
}

const HELPER_PAGE: &str = "\
.SH NAME
mount.fuse.unionmount \\- mount a union by mount(8) and /etc/fstab
.SH SYNOPSIS
\\fBmount \\-t fuse.unionmount\\fR \\fISOURCE\\fR \\fIMOUNTPOINT\\fR \\fB\\-o\\fR \\fIOPTIONS\\fR
.br
\\fBmount.fuse.unionmount\\fR \\fISOURCE\\fR \\fIMOUNTPOINT\\fR [\\fB\\-sfnv\\fR] [\\fB\\-o\\fR \\fIOPTIONS\\fR]
.SH DESCRIPTION
mount(8) runs this link to unionmount(1) for mounts of the type fuse.unionmount. \\fISOURCE\\fR is a
name to be shown; it means nothing. The layers are among the options. In /etc/fstab:
.PP
.nf
data /mnt/c fuse.unionmount lowerdir=/a:/b,upperdir=/u,workdir=/w 0 0
.fi
.PP
It returns when the mount can be used. Exit status: 0, 1 failed, 2 wrong usage.
.SH OPTIONS
These words and no other may stand in \\fIOPTIONS\\fR. A value in double quotes may hold commas.
\"no effect, logged\" means that there is a warning; \"refused\" is an error.
";

const SEE_ALSO: &str = "\
.SH SEE ALSO
unionmount(1), mount(8), fstab(5)
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn succeeds(program: &str, args: &[&str], file: &Path) -> Outcome {
        let ran = Command::new(program).args(args).arg(file).output()?;
        let said = String::from_utf8_lossy(&ran.stderr);
        if !ran.status.success() || !said.trim().is_empty() {
            return Err(format!("{program}: {}: {said}", file.display()).into());
        }
        Ok(())
    }

    #[test]
    fn what_is_written_can_be_read() -> Outcome {
        let scratch = tempfile::tempdir()?;
        write_all(scratch.path())?;
        // Twice: what an older version wrote goes.
        fs::write(scratch.path().join("man/old.1"), "")?;
        write_all(scratch.path())?;
        let mut pages = Vec::new();
        for entry in fs::read_dir(scratch.path().join("man"))? {
            let path = entry?.path();
            succeeds(
                "man",
                &["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"],
                &path,
            )?;
            pages.push(
                path.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        pages.sort();
        let mut want = vec![
            "mount.fuse.unionmount.8".to_owned(),
            "unionmount.1".to_owned(),
        ];
        for command in unionmount::cli::command().get_subcommands() {
            want.push(format!("unionmount-{}.1", command.get_name()));
        }
        want.sort();
        assert_eq!(pages, want);
        let completions = scratch.path().join("completions");
        succeeds("bash", &["-n"], &completions.join("unionmount.bash"))?;
        for file in ["unionmount.bash", "_unionmount", "unionmount.fish"] {
            let text = fs::read_to_string(completions.join(file))?;
            assert!(
                text.contains("check-host") && text.contains("whiteout"),
                "{file}"
            );
        }
        for link in ["mount.fuse.unionmount", "fuse-overlayfs"] {
            let target = fs::read_link(scratch.path().join("links").join(link))?;
            assert!(target.ends_with("bin/unionmount"), "{link}");
        }
        Ok(())
    }
}
