//! What was said of metadata-only copies, and which words do not go together: as in the kernel.

use super::args::{OnOff, Verity};
use super::failure::Failure;
use crate::ops::{MetacopyConfig, RedirectDir, VerityMode};

/// The last word about each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Metacopies {
    pub(crate) metacopy: Option<OnOff>,
    pub(crate) verity: Option<Verity>,
    /// `-o userxattr`: markers are those that any user can write.
    pub(crate) userxattr: bool,
}

impl Metacopies {
    /// What they mean together, and with what was said of redirects: a copy that is renamed needs
    /// one, so they come with it.
    pub(crate) fn finish(
        self,
        redirects: RedirectDir,
    ) -> Result<(MetacopyConfig, RedirectDir), Failure> {
        let verity = match self.verity {
            None | Some(Verity::Off) => VerityMode::Off,
            Some(Verity::On) => VerityMode::On,
            Some(Verity::Require) => VerityMode::Require,
        };
        let checked = verity != VerityMode::Off;
        let on = match self.metacopy {
            Some(OnOff::Off) if checked => {
                return Err(conflict(
                    "verity",
                    "metacopy=off: digests are in metacopies",
                ));
            }
            Some(choice) => choice == OnOff::On,
            None => checked,
        };
        if self.userxattr && on {
            let word = if checked { "verity" } else { "metacopy=on" };
            return Err(conflict(
                word,
                "userxattr: such markers are not to be trusted",
            ));
        }
        let redirects = match redirects {
            RedirectDir::Auto | RedirectDir::On if on => RedirectDir::On,
            RedirectDir::Off | RedirectDir::Follow | RedirectDir::NoFollow if on => {
                return Err(conflict(
                    "metacopy=on",
                    "any redirect_dir but on: a renamed metacopy needs a redirect",
                ));
            }
            other => other,
        };
        Ok((MetacopyConfig { on, verity }, redirects))
    }
}

fn conflict(word: &str, other: &str) -> Failure {
    Failure::Usage(format!(
        "option {word:?} conflicts with {other} (drop one of them)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_together() {
        use OnOff::{Off, On};
        let off = Some((false, VerityMode::Off));
        for (metacopy, verity, userxattr, want) in [
            (None, None, false, off),
            (None, None, true, off),
            (Some(Off), None, true, off),
            (Some(On), None, false, Some((true, VerityMode::Off))),
            (Some(On), None, true, None),
            (None, Some(Verity::On), false, Some((true, VerityMode::On))),
            (None, Some(Verity::Require), true, None),
            (Some(Off), Some(Verity::Require), false, None),
            (Some(Off), Some(Verity::Off), false, off),
            (
                Some(On),
                Some(Verity::Require),
                false,
                Some((true, VerityMode::Require)),
            ),
        ] {
            let said = Metacopies {
                metacopy,
                verity,
                userxattr,
            };
            let got = said.finish(RedirectDir::Auto).ok();
            let got = got.map(|(config, redirects)| {
                assert_eq!(redirects == RedirectDir::On, config.on, "{said:?}");
                (config.on, config.verity)
            });
            assert_eq!(got, want, "{said:?}");
        }
        let on = Metacopies {
            metacopy: Some(On),
            ..Metacopies::default()
        };
        for (redirects, works) in [
            (RedirectDir::On, true),
            (RedirectDir::Off, false),
            (RedirectDir::Follow, false),
            (RedirectDir::NoFollow, false),
        ] {
            assert_eq!(on.finish(redirects).is_ok(), works, "{redirects:?}");
        }
    }
}
