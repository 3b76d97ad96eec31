//! SIGINT and SIGTERM: the first ends the run between two steps, the second unmounts at once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on signals are taken note of; `scratch` is what the second one clears.
pub fn watch(scratch: PathBuf) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // Relaxed: the flag guards no other data.
            if ASKED.swap(true, Ordering::Relaxed) {
                crate::scratch::sweep(&scratch);
                if let Err(why) = std::fs::remove_dir_all(&scratch) {
                    eprintln!("{}: {why}", scratch.display());
                }
                std::process::exit(130);
            }
            eprintln!("stopping; once more to stop at once");
        }
    });
    Ok(())
}

/// Fails once the run is to end.
pub fn check() -> Result<()> {
    if asked() {
        bail!("interrupted");
    }
    Ok(())
}

/// Whether the run is to end.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
