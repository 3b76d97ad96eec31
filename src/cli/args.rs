//! The command line as typed: names, shapes, help texts. No meaning yet (that is `plan`).

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};

const USAGE: &str =
    "unionmount [mount] --lower DIR[:DIR]... [--upper DIR --work DIR] [OPTIONS] MOUNTPOINT
       unionmount umount [--complete] MOUNTPOINT
       unionmount complete UPPER --lower DIR[:DIR]... [--work DIR]
       unionmount inspect|stats [--json] MOUNTPOINT
       unionmount sync MOUNTPOINT
       unionmount refresh [--json] MOUNTPOINT [PATH]
       unionmount check-host [--json]";

const EXAMPLES: &str = r"Examples:
  Two read-only trees under one writable directory, and out again:
    unionmount --lower app:base --upper changes --work work /mnt/c
    unionmount umount /mnt/c
  A read-only union (no --upper):
    unionmount --lower a:b:c /mnt/view
  In the foreground, as a service would run it:
    unionmount -f --lower base --upper u --work w --log info /mnt/c
  From /etc/fstab, with mount.fuse.unionmount linked to this program:
    data /mnt/c fuse.unionmount lowerdir=/a:/b,upperdir=/u,workdir=/w 0 0

Words for -o: lowerdir= (also LOWER::DATA), upperdir=, workdir=, remount, ro, rw, nodev, nosuid, noexec, noatime and
the other flags of mount(8), fsname=, allow_other, and most options above (timeout=, volatile...).
Words that only other union filesystems know are accepted where that does no harm.

The leftmost lower is topmost. In DIR, `\:` is a colon and `\\` a backslash; in -o, `\,` is a comma.
Without -f the command returns once the mount is usable. Exit status: 0, 1 failed, 2 wrong usage.";

const REFRESH_EXAMPLES: &str = r"Examples:
  After an update of a lower:
    rsync -a new/ lower/ && unionmount refresh /mnt/c
  Of one directory, which is quicker:
    unionmount refresh /mnt/c usr/share/zoneinfo
For layers that change all the time, mount with --timeout 0 instead.";

/// Shows many read-only directories under one writable directory as a single tree.
#[derive(Debug, Parser)]
#[command(
    name = "unionmount",
    bin_name = "unionmount",
    version,
    override_usage = USAGE,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Control>,
    #[command(flatten)]
    pub(crate) mount: MountArgs,
}

/// The commands that are written as a word.
#[derive(Debug, Subcommand)]
pub(crate) enum Control {
    /// Mount a union (the word may be left out)
    #[command(
        override_usage = "unionmount mount --lower DIR[:DIR]... [--upper DIR --work DIR] [OPTIONS] MOUNTPOINT"
    )]
    Mount(Box<MountArgs>),
    /// Unmount, and return when the daemon is gone and everything is written
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Give metadata-only copies of an upper their data, so that it stands alone
    Complete(CompleteArgs),
    /// Look for what is wrong with an upper that is not mounted: bad markers, lost data, leftovers
    ///
    /// Each line is a path and what is wrong there. Without --repair nothing at all is written. With it, what
    /// was never finished, entries of the link index that nothing leads to, and malformed origins are removed:
    /// nothing that is shown changes by that.
    #[command(after_help = CHECK_STATUS)]
    Check(CheckArgs),
    /// Show the layers, options, process and version behind a mount
    Inspect(QueryArgs),
    /// Show requests with their latencies, caches and copy-ups of a mount
    Stats(QueryArgs),
    /// Return when everything written so far is on disk (sync(1) does not reach a FUSE server)
    Sync(TargetArgs),
    /// See what was changed in the layers since they were mounted, behind the union
    ///
    /// Names, attributes and data that were read from the layers are kept until this tells to read them
    /// again: of everything, or of PATH and all below it. Files that are open stay as they are if they
    /// were removed or replaced; those changed in place show their new data.
    #[command(after_help = REFRESH_EXAMPLES)]
    Refresh(RefreshArgs),
    /// Try which ways to mount work on this machine, and say what is missing for the others
    CheckHost(HostArgs),
}

/// What a command about an existing mount is given.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Where the union is mounted
    #[arg(value_name = "MOUNTPOINT")]
    pub(crate) mountpoint: OsString,
}

/// What `umount` is given.
#[derive(Debug, Args)]
pub(crate) struct UmountArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Before, give metadata-only copies their data; if that fails, it stays mounted
    #[arg(long)]
    pub(crate) complete: bool,
    /// With --complete: print JSON for programs
    #[arg(long, requires = "complete")]
    pub(crate) json: bool,
}

/// What `complete` is given.
#[derive(Debug, Args)]
pub(crate) struct CompleteArgs {
    /// The upper; it may not be mounted
    #[arg(value_name = "UPPER")]
    pub(crate) upper: OsString,
    /// The lowers that it was mounted over, topmost first; may be repeated
    #[arg(long, value_name = "DIR[:DIR]...", required = true, action = clap::ArgAction::Append)]
    pub(crate) lower: Vec<OsString>,
    /// A layer of data alone; may be repeated
    #[arg(long, value_name = "DIR", action = clap::ArgAction::Append)]
    pub(crate) data: Vec<OsString>,
    /// Its work directory [default: one for the time, beside it]
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<OsString>,
    /// Follow user.overlay.* too, which anybody can write
    #[arg(long)]
    pub(crate) userxattr: bool,
    /// off, on or require: check fs-verity digests [default: off]
    #[arg(long, value_name = "MODE", value_enum, hide_possible_values = true)]
    pub(crate) verity: Option<Verity>,
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// How `check` ends.
const CHECK_STATUS: &str = "\
Exit status, as of fsck(8):
  0  nothing is wrong
  1  everything that was wrong is mended
  4  something is wrong
  8  it could not be checked";

/// What `check` is given.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The upper; it may not be mounted
    #[arg(value_name = "UPPER")]
    pub(crate) upper: OsString,
    /// Its work directory
    #[arg(long, value_name = "DIR")]
    pub(crate) work: OsString,
    /// The lowers that it is mounted over, topmost first; may be repeated
    #[arg(long, value_name = "DIR[:DIR]...", required = true, action = clap::ArgAction::Append)]
    pub(crate) lower: Vec<OsString>,
    /// A layer of data alone; may be repeated
    #[arg(long, value_name = "DIR", action = clap::ArgAction::Append)]
    pub(crate) data: Vec<OsString>,
    /// Follow user.overlay.* too, which anybody can write
    #[arg(long)]
    pub(crate) userxattr: bool,
    /// Mend what can be mended without a loss
    #[arg(long)]
    pub(crate) repair: bool,
    /// Remove deletions of what no lower has, too. Name all lowers: what is in another one comes back
    #[arg(long, requires = "repair")]
    pub(crate) prune: bool,
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a command that asks an existing mount is given.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `refresh` is given.
#[derive(Debug, Args)]
pub(crate) struct RefreshArgs {
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    /// What to read again, below MOUNTPOINT; of a missing name the directory that should hold it
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<OsString>,
}

/// What `check-host` is given.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Everything that can be said about a mount, as typed.
#[derive(Debug, Default, Args)]
pub(crate) struct MountArgs {
    /// Read-only directories, topmost first; may be repeated
    #[arg(long, value_name = "DIR[:DIR]...", action = clap::ArgAction::Append)]
    pub(crate) lower: Vec<OsString>,
    /// Writable directory for all changes; without it: read-only
    #[arg(long, value_name = "DIR")]
    pub(crate) upper: Option<OsString>,
    /// Empty directory beside --upper, for changes in the making
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<OsString>,
    /// Directory of data alone, for redirects of metacopies; may be repeated
    #[arg(long, value_name = "DIR", action = clap::ArgAction::Append)]
    pub(crate) data: Vec<OsString>,
    /// on: a change of attributes copies no data (kernel's metacopy) [default: off]
    #[arg(long, value_name = "on|off", value_enum, hide_possible_values = true)]
    pub(crate) metacopy: Option<OnOff>,
    /// off, on or require: check fs-verity digests of metacopies [default: off]
    #[arg(long, value_name = "MODE", value_enum, hide_possible_values = true)]
    pub(crate) verity: Option<Verity>,
    /// Stay in the foreground, silent; SIGTERM or SIGINT unmounts
    #[arg(long, short)]
    pub(crate) foreground: bool,
    /// Refuse every change, although there is an --upper
    #[arg(long)]
    pub(crate) read_only: bool,
    /// cached, or direct for layers that change behind the union
    #[arg(long, value_name = "MODE", value_enum, hide_possible_values = true)]
    pub(crate) io: Option<Io>,
    /// Let the kernel collect writes: faster, errors come later
    #[arg(long)]
    pub(crate) writeback: bool,
    /// Threads that answer requests [default: by number of CPUs]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<OsString>,
    /// How long the kernel may keep attributes [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<OsString>,
    /// Memory for listings of directories, e.g. 16M or 1G [default: 64M]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache_size: Option<OsString>,
    /// Show users by other numbers than on disk: DISK:SHOWN:COUNT, e.g. 0:100000:65536
    #[arg(long, value_name = "RANGES")]
    pub(crate) uid_map: Option<OsString>,
    /// The same for groups
    #[arg(long, value_name = "RANGES")]
    pub(crate) gid_map: Option<OsString>,
    /// Owners and modes in attributes: off, read, or kept so: containers, security [default: off]
    #[arg(long, value_name = "MODE", value_enum, hide_possible_values = true)]
    pub(crate) stat_override: Option<Override>,
    /// Access control lists: auto, or off for mode bits alone [default: auto]
    #[arg(long, value_name = "MODE", value_enum, hide_possible_values = true)]
    pub(crate) acl: Option<Acl>,
    /// Never sync: faster, the upper is lost if the machine crashes
    #[arg(long)]
    pub(crate) volatile: bool,
    /// Let other users in (always so when root mounts)
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// Deletions as auto, chardev, xattr or file [default: auto]
    #[arg(long, value_name = "FORM", value_enum, hide_possible_values = true)]
    pub(crate) whiteout: Option<Whiteout>,
    /// Redirects of renamed directories: on, off, follow, nofollow [default: on, if root mounts]
    #[arg(long, value_name = "MODE", value_enum, hide_possible_values = true)]
    pub(crate) redirect_dir: Option<Redirects>,
    /// error, warn, info, debug or trace [default: warn]
    #[arg(long, value_name = "LEVEL", value_enum, hide_possible_values = true)]
    pub(crate) log: Option<LogLevel>,
    /// Log to FILE; without it to stderr with -f, else nowhere
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<OsString>,
    /// Options of overlayfs, mount(8) and fuse-overlayfs (see below)
    #[arg(short = 'o', value_name = "KEY[=VALUE],...", action = clap::ArgAction::Append)]
    pub(crate) options: Vec<OsString>,
    /// Arguments of other programs' making that nobody knows.
    #[arg(skip)]
    pub(crate) unknown: Vec<OsString>,
    /// Where to mount: an existing directory (or /dev/fd/N: a /dev/fuse that the caller mounted)
    #[arg(value_name = "MOUNTPOINT", num_args = 0..=2)]
    pub(crate) operands: Vec<OsString>,
}

/// `--metacopy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

/// `--verity`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verity {
    Off,
    On,
    Require,
}

/// `--io`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Io {
    Cached,
    Direct,
}

/// `--stat-override`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Override {
    Off,
    Read,
    Containers,
    Security,
}

/// `--acl`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Acl {
    Auto,
    Off,
}

/// `--whiteout`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Whiteout {
    Auto,
    Chardev,
    Xattr,
    File,
}

/// `--redirect-dir`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Redirects {
    On,
    Off,
    Follow,
    Nofollow,
}

/// `--log`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}
