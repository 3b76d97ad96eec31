//! From the command line as typed to what is to be mounted; pure: no path is looked at.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use rustix::mount::MountFlags;

use super::args::{Acl, Io, LogLevel, MountArgs, OnOff, Redirects, Whiteout};
use super::environment::Environment;
use super::failure::Failure;
use super::metacopy::Metacopies;
use super::options::{self, Setting, Treatment};
use super::owners::Owners;
use super::stat_override;
use super::values::{choice, dirs, dirs_and_data, size, switch, threads, timeout};
use super::words;
use crate::fuse::{IoMode, ServeOptions};
use crate::ops::{
    AclMode, Config, Durability, Origins, RedirectDir, StatOverride, UpperConfig, WhiteoutChoice,
};

/// Under which name the program was called, and so whose habits it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Personality {
    /// `unionmount`.
    #[default]
    Plain,
    /// `mount.fuse.unionmount`, by mount(8).
    Helper,
    /// `fuse-overlayfs`, by a container engine.
    FuseOverlayfs,
}

impl Personality {
    fn name(self) -> &'static str {
        match self {
            Personality::Plain | Personality::Helper => "unionmount",
            Personality::FuseOverlayfs => "fuse-overlayfs",
        }
    }
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Plan {
    /// A new union.
    Mount(Box<MountPlan>),
    /// Other flags for an existing mount.
    Remount(RemountPlan),
}

/// A union that is to be mounted.
#[derive(Debug)]
pub(crate) struct MountPlan {
    pub(crate) config: Config,
    pub(crate) mountpoint: PathBuf,
    /// What mountinfo shows as the source.
    pub(crate) source: OsString,
    /// What mountinfo shows as the type.
    pub(crate) fs_type: String,
    pub(crate) flags: FlagChange,
    pub(crate) allow_other: bool,
    pub(crate) serve: ServeOptions,
    pub(crate) foreground: bool,
    pub(crate) log: LogPlan,
    /// `context="LABEL"` and the like, as mount(2) takes them where there is SELinux.
    pub(crate) labels: Vec<String>,
    /// Things that were asked for and will not be done.
    pub(crate) warnings: Vec<String>,
    /// Nothing but failures goes to stderr: engines take anything there for a failure, or show it to
    /// people who gave no option.
    pub(crate) quiet: bool,
}

/// An existing mount that is to get other flags.
#[derive(Debug)]
pub(crate) struct RemountPlan {
    pub(crate) mountpoint: PathBuf,
    pub(crate) flags: FlagChange,
    pub(crate) warnings: Vec<String>,
}

/// Flags of a mount that were asked for explicitly, the last word about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlagChange {
    pub(crate) set: MountFlags,
    pub(crate) clear: MountFlags,
}

impl FlagChange {
    /// `flags` with the change made.
    pub(crate) fn apply(self, flags: MountFlags) -> MountFlags {
        (flags - self.clear) | self.set
    }

    fn set(&mut self, flag: MountFlags) {
        self.set |= flag;
        self.clear -= flag;
    }

    fn clear(&mut self, flag: MountFlags) {
        self.clear |= flag;
        self.set -= flag;
    }
}

/// How much is logged, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogPlan {
    pub(crate) level: LogLevel,
    pub(crate) file: Option<PathBuf>,
}

/// Decides what `args` mean.
pub(crate) fn plan(
    args: MountArgs,
    personality: Personality,
    environment: Environment,
) -> Result<Plan, Failure> {
    let mut draft = Draft::default();
    for text in &args.options {
        for (key, value) in words::split_options(text) {
            draft.take_option(&key, value, personality)?;
        }
    }
    for unknown in &args.unknown {
        draft.warn(&unknown.to_string_lossy(), UNKNOWN);
    }
    draft.take_arguments(args, personality)?;
    if personality == Personality::FuseOverlayfs {
        draft.as_fuse_overlayfs(environment)?;
    }
    draft.finish(personality)
}

const UNKNOWN: &str = "it is not known";

/// What has been understood so far.
#[derive(Debug)]
struct Draft {
    lowers: Vec<OsString>,
    data: Vec<OsString>,
    metacopies: Metacopies,
    upper: Option<OsString>,
    work: Option<OsString>,
    whiteout: WhiteoutChoice,
    redirect_dir: RedirectDir,
    origins: Origins,
    durability: Durability,
    cache_size: u64,
    owners: Owners,
    stat_override: Option<StatOverride>,
    acl: AclMode,
    serve: ServeOptions,
    allow_other: bool,
    foreground: bool,
    flags: FlagChange,
    fs_name: Option<OsString>,
    source: Option<OsString>,
    mountpoint: OsString,
    remount: bool,
    log: LogPlan,
    labels: Vec<String>,
    warnings: Vec<String>,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            lowers: Vec::new(),
            data: Vec::new(),
            metacopies: Metacopies::default(),
            upper: None,
            work: None,
            whiteout: WhiteoutChoice::Auto,
            redirect_dir: RedirectDir::Auto,
            origins: Origins::Named,
            durability: Durability::Synced,
            cache_size: Config::CACHE_SIZE,
            owners: Owners::default(),
            stat_override: None,
            acl: AclMode::Auto,
            serve: ServeOptions::default(),
            allow_other: false,
            foreground: false,
            flags: FlagChange {
                set: MountFlags::empty(),
                clear: MountFlags::empty(),
            },
            fs_name: None,
            source: None,
            mountpoint: OsString::new(),
            remount: false,
            log: LogPlan::default(),
            labels: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Draft {
    fn take_option(
        &mut self,
        key: &OsStr,
        value: Option<OsString>,
        who: Personality,
    ) -> Result<(), Failure> {
        let word = key.to_string_lossy();
        // fuse-overlayfs has sync=0 for what mount(8) cannot mean by it.
        let treatment = match (word.as_ref(), &value) {
            ("sync", Some(_)) => Some(Treatment::Ours(Setting::Fsync)),
            _ => options::treatment(&word),
        };
        let shown = match &value {
            Some(value) => format!("{word}={}", value.to_string_lossy()),
            None => word.to_string(),
        };
        let is_one_of = |allowed: &[&str]| {
            value
                .as_ref()
                .is_some_and(|value| allowed.iter().any(|known| value == known))
        };
        match treatment {
            Some(Treatment::Ours(setting)) => return self.take_setting(&word, setting, value),
            Some(Treatment::Set(flag)) => self.flags.set(flag),
            Some(Treatment::Clear(flag)) => self.flags.clear(flag),
            Some(Treatment::Accept | Treatment::Moot(_)) => {}
            Some(Treatment::Warn(why)) => self.warn(&shown, why),
            Some(Treatment::WarnUnless(allowed, why)) => {
                if !is_one_of(allowed) {
                    self.warn(&shown, why);
                }
            }
            Some(Treatment::Refuse(why)) => return Err(refused(&shown, why)),
            None if who == Personality::FuseOverlayfs => self.warn(&shown, UNKNOWN),
            None => {
                return Err(Failure::Usage(format!(
                    "unknown mount option {word:?} (unionmount --help lists the known ones)"
                )));
            }
        }
        Ok(())
    }

    fn warn(&mut self, shown: &str, why: &str) {
        let line = format!("option {shown:?} has no effect: {why}");
        if !self.warnings.contains(&line) {
            self.warnings.push(line);
        }
    }

    fn take_setting(
        &mut self,
        word: &str,
        setting: Setting,
        value: Option<OsString>,
    ) -> Result<(), Failure> {
        let needed = || match value.clone() {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(Failure::Usage(format!(
                "option {word:?} needs a value: {word}=..."
            ))),
        };
        match setting {
            Setting::LowerDir => (self.lowers, self.data) = dirs_and_data(&needed()?, word)?,
            Setting::DataDirAdd => self.data.push(words::unescape(&needed()?)),
            Setting::Metacopy => self.metacopies.metacopy = Some(choice(word, &needed()?)?),
            Setting::Verity => self.metacopies.verity = Some(choice(word, &needed()?)?),
            Setting::UserXattr => self.metacopies.userxattr = true,
            Setting::LowerDirAdd => self.lowers.push(words::unescape(&needed()?)),
            Setting::UpperDir => self.upper = Some(words::unescape(&needed()?)),
            Setting::WorkDir => self.work = Some(words::unescape(&needed()?)),
            Setting::Volatile => self.durability = Durability::Volatile,
            Setting::Fsync => {
                if !switch(word, value.as_deref())? && self.durability == Durability::Synced {
                    self.durability = Durability::Unsynced;
                }
            }
            Setting::Timeout => self.serve.timeout = timeout(word, &needed()?)?,
            Setting::Threads => self.serve.threads = Some(threads(word, &needed()?)?),
            Setting::CacheSize => self.cache_size = size(word, &needed()?)?,
            Setting::UidMap => self.owners.map_users(word, &needed()?)?,
            Setting::GidMap => self.owners.map_groups(word, &needed()?)?,
            Setting::SquashToRoot => {
                let on = switch(word, value.as_deref())?;
                self.owners.squash_to_root(on);
            }
            Setting::SquashToUid => self.owners.squash_users(word, &needed()?)?,
            Setting::SquashToGid => self.owners.squash_groups(word, &needed()?)?,
            Setting::StatOverride => {
                self.stat_override = Some(stat_override::meant(choice(word, &needed()?)?));
            }
            Setting::XattrPermissions => {
                self.stat_override = Some(stat_override::numbered(&needed()?)?);
            }
            Setting::Acl if value.is_none() => self.acl = AclMode::Auto,
            Setting::Acl => self.acl = acl_mode(choice(word, &needed()?)?),
            Setting::NoAcl => {
                self.acl = match switch(word, value.as_deref())? {
                    true => AclMode::Off,
                    false => AclMode::Auto,
                }
            }
            Setting::Writeback => self.serve.writeback = switch(word, value.as_deref())?,
            Setting::Whiteout => self.whiteout = whiteout(choice(word, &needed()?)?),
            Setting::RedirectDir => self.redirect_dir = redirects(choice(word, &needed()?)?),
            Setting::Uuid => self.origins = origins(&needed()?)?,
            Setting::Io => self.serve.io = io_mode(choice(word, &needed()?)?),
            Setting::AllowOther => self.allow_other = true,
            Setting::FsName => self.fs_name = Some(words::unescape(&needed()?)),
            Setting::Remount => self.remount = true,
            Setting::Log => self.log.level = choice(word, &needed()?)?,
            Setting::LogFile => self.log.file = Some(words::unescape(&needed()?).into()),
            Setting::Debug => {
                self.log.level = LogLevel::Debug;
                self.foreground = true;
            }
            Setting::Label => self.labels.push(label(word, &needed()?)?),
        }
        Ok(())
    }

    /// The habits of fuse-overlayfs that its callers rely on without asking for them.
    fn as_fuse_overlayfs(&mut self, environment: Environment) -> Result<(), Failure> {
        if let Some(plugin) = self.lowers.iter().find(|lower| is_plugin(lower)) {
            return Err(refused(&plugin.to_string_lossy(), options::PLUGINS));
        }
        if self.whiteout == WhiteoutChoice::Auto {
            self.whiteout = match environment.wh_files {
                true => WhiteoutChoice::PreferFile,
                false => WhiteoutChoice::Found,
            };
        }
        if environment.debug_log.is_some() && self.log.file.is_none() {
            self.log = LogPlan {
                level: LogLevel::Debug.max(self.log.level),
                file: environment.debug_log,
            };
        }
        // The engines take these words out of what they pass on.
        let atime = MountFlags::RELATIME | MountFlags::STRICTATIME | MountFlags::NOATIME;
        let said = self.flags.set | self.flags.clear;
        if !said.contains(MountFlags::NODEV) {
            self.flags.set |= MountFlags::NODEV;
        }
        if !said.intersects(atime) {
            self.flags.set |= MountFlags::NOATIME;
        }
        Ok(())
    }

    fn take_arguments(&mut self, args: MountArgs, who: Personality) -> Result<(), Failure> {
        let by_option = !args.lower.is_empty();
        if by_option && !self.lowers.is_empty() {
            return Err(twice("--lower", "lowerdir"));
        }
        for text in &args.lower {
            self.lowers.append(&mut dirs(text, "--lower")?);
        }
        self.data.extend(args.data);
        self.metacopies.metacopy = args.metacopy.or(self.metacopies.metacopy);
        self.metacopies.verity = args.verity.or(self.metacopies.verity);
        merge_dir(&mut self.upper, args.upper, "--upper", "upperdir")?;
        merge_dir(&mut self.work, args.work, "--work", "workdir")?;
        if let Some(text) = &args.timeout {
            self.serve.timeout = timeout("--timeout", text)?;
        }
        if let Some(text) = &args.threads {
            self.serve.threads = Some(threads("--threads", text)?);
        }
        if let Some(text) = &args.cache_size {
            self.cache_size = size("--cache-size", text)?;
        }
        if let Some(map) = &args.uid_map {
            self.owners.map_users("--uid-map", map)?;
        }
        if let Some(map) = &args.gid_map {
            self.owners.map_groups("--gid-map", map)?;
        }
        if let Some(mode) = args.stat_override {
            self.stat_override = Some(stat_override::meant(mode));
        }
        if let Some(mode) = args.acl {
            self.acl = acl_mode(mode);
        }
        if let Some(io) = args.io {
            self.serve.io = io_mode(io);
        }
        if let Some(form) = args.whiteout {
            self.whiteout = whiteout(form);
        }
        if let Some(mode) = args.redirect_dir {
            self.redirect_dir = redirects(mode);
        }
        if let Some(level) = args.log {
            self.log.level = level;
        }
        if let Some(file) = args.log_file {
            self.log.file = Some(file.into());
        }
        self.serve.writeback |= args.writeback;
        if args.volatile {
            self.durability = Durability::Volatile;
        }
        self.allow_other |= args.allow_other;
        self.foreground |= args.foreground;
        if args.read_only {
            self.flags.set(MountFlags::RDONLY);
        }
        let mut operands = args.operands.into_iter().rev();
        self.mountpoint = match operands.next() {
            Some(path) if !path.is_empty() => path,
            _ => return Err(Failure::Usage("no MOUNTPOINT given".to_owned())),
        };
        self.source = operands.next();
        match (&self.source, who) {
            (Some(first), Personality::Plain) if by_option => Err(Failure::Usage(format!(
                "two operands, {first:?} and {:?}: only MOUNTPOINT is expected \
                 (directories of --lower are joined by colons)",
                self.mountpoint
            ))),
            _ => Ok(()),
        }
    }

    fn finish(mut self, who: Personality) -> Result<Plan, Failure> {
        if who == Personality::FuseOverlayfs && self.metacopies.metacopy == Some(OnOff::On) {
            // It never had any, and the engines that speak it take an upper for the whole.
            self.metacopies.metacopy = None;
            self.warn("metacopy=on", "fuse-overlayfs always copies the data");
        }
        let mountpoint = PathBuf::from(self.mountpoint);
        if self.remount {
            let (flags, warnings) = (self.flags, self.warnings);
            return Ok(Plan::Remount(RemountPlan {
                mountpoint,
                flags,
                warnings,
            }));
        }
        if self.lowers.is_empty() {
            return Err(Failure::Usage(
                "no lower directory given (--lower DIR[:DIR]...)".into(),
            ));
        }
        let upper = match (self.upper, self.work) {
            (None, None) => None,
            (Some(upper), Some(work)) => Some(UpperConfig {
                upper: upper.into(),
                work: work.into(),
                whiteout: self.whiteout,
                durability: self.durability,
                origins: self.origins,
            }),
            (Some(_), None) => {
                return Err(Failure::Usage(
                    "an upper directory needs a work directory on the same filesystem (--work DIR)"
                        .to_owned(),
                ));
            }
            (None, Some(_)) => {
                return Err(Failure::Usage(
                    "a work directory is only used with an upper directory (--upper DIR)"
                        .to_owned(),
                ));
            }
        };
        if self.serve.writeback && self.serve.io == IoMode::Direct {
            return Err(Failure::Usage(
                "writeback needs the page cache, which --io direct does without: drop one of them"
                    .to_owned(),
            ));
        }
        if upper.is_none() {
            self.flags.set(MountFlags::RDONLY);
        }
        let (metacopy, redirect_dir) = self.metacopies.finish(self.redirect_dir)?;
        let read_only = self.flags.set.contains(MountFlags::RDONLY);
        self.serve.writeback &= !read_only;
        // The engines that speak fuse-overlayfs put a word there that means nothing.
        let source = self.source.filter(|_| who != Personality::FuseOverlayfs);
        let source = self.fs_name.or(source).unwrap_or_else(|| who.name().into());
        Ok(Plan::Mount(Box::new(MountPlan {
            config: Config {
                lowers: self.lowers.into_iter().map(PathBuf::from).collect(),
                data: self.data.into_iter().map(PathBuf::from).collect(),
                metacopy,
                upper,
                read_only,
                redirect_dir: redirects_for(who, redirect_dir),
                changing_layers: self.serve.expects_changes(),
                ids: self.owners.finish(),
                stat_override: self.stat_override.unwrap_or(stat_override::usual(who)),
                acl: self.acl,
                cache_size: self.cache_size,
            },
            mountpoint,
            source,
            fs_type: format!("fuse.{}", who.name()),
            flags: self.flags,
            allow_other: self.allow_other,
            serve: self.serve,
            foreground: self.foreground,
            log: self.log,
            labels: self.labels,
            warnings: self.warnings,
            quiet: who == Personality::FuseOverlayfs,
        })))
    }
}

fn merge_dir(
    slot: &mut Option<OsString>,
    typed: Option<OsString>,
    option: &str,
    word: &str,
) -> Result<(), Failure> {
    match typed {
        None => Ok(()),
        Some(_) if slot.is_some() => Err(twice(option, word)),
        Some(typed) if typed.is_empty() => Err(Failure::Usage(format!(
            "{option} needs a directory, not an empty name"
        ))),
        Some(typed) => {
            *slot = Some(words::unescape(&typed));
            Ok(())
        }
    }
}

fn twice(option: &str, word: &str) -> Failure {
    Failure::Usage(format!(
        "both {option} and -o {word}= are given: use one of them"
    ))
}

fn refused(shown: &str, why: &str) -> Failure {
    Failure::Failed(format!(
        "cannot use option {shown:?}: {why} (drop the option)"
    ))
}

/// A label for mount(2): in quotes, for there may be commas in it.
fn label(word: &str, value: &OsStr) -> Result<String, Failure> {
    match value.to_str() {
        Some(label) if !label.contains(['"', '\\']) => Ok(format!("{word}=\"{label}\"")),
        _ => Err(Failure::Usage(format!(
            "bad value {value:?} for {word:?}: a label without quotes is wanted"
        ))),
    }
}

/// `//NAME//DATA/PATH`: a layer that a plug-in of fuse-overlayfs is to provide.
fn is_plugin(lower: &OsStr) -> bool {
    let bytes = lower.as_encoded_bytes();
    let rest = bytes.strip_prefix(b"//");
    rest.is_some_and(|rest| rest.windows(2).any(|two| two == b"//"))
}

fn whiteout(form: Whiteout) -> WhiteoutChoice {
    match form {
        Whiteout::Auto => WhiteoutChoice::Auto,
        Whiteout::Chardev => WhiteoutChoice::CharDev,
        Whiteout::Xattr => WhiteoutChoice::Xattr,
        Whiteout::File => WhiteoutChoice::File,
    }
}

/// What the kernel's `uuid=` says of markers.
fn origins(word: &OsStr) -> Result<Origins, Failure> {
    match word.as_encoded_bytes() {
        b"off" => Ok(Origins::Anonymous),
        b"null" | b"auto" | b"on" => Ok(Origins::Named),
        _ => Err(Failure::Usage(format!(
            "{word:?} is not a value of uuid (use off, null, auto or on)"
        ))),
    }
}

/// fuse-overlayfs knows no redirects, and may be given the upper back.
fn redirects_for(who: Personality, redirects: RedirectDir) -> RedirectDir {
    match (who, redirects) {
        (Personality::FuseOverlayfs, RedirectDir::Auto) => RedirectDir::Off,
        _ => redirects,
    }
}

fn redirects(mode: Redirects) -> RedirectDir {
    match mode {
        Redirects::On => RedirectDir::On,
        Redirects::Off => RedirectDir::Off,
        Redirects::Follow => RedirectDir::Follow,
        Redirects::Nofollow => RedirectDir::NoFollow,
    }
}

fn acl_mode(mode: Acl) -> AclMode {
    match mode {
        Acl::Auto => AclMode::Auto,
        Acl::Off => AclMode::Off,
    }
}

fn io_mode(io: Io) -> IoMode {
    match io {
        Io::Cached => IoMode::Cached,
        Io::Direct => IoMode::Direct,
    }
}

#[cfg(test)]
mod tests;
