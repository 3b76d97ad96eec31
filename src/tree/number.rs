//! Inode numbers: what the kernel and programs see, unique among live objects.
//!
//! fuser sends `st_ino` as the node id, so two live objects with one number would share one page
//! cache. The wanted number of an object is that of the real object that first provided it, with the
//! device in the high bits; if another live object has it, a synthetic one is taken.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// Number of the root directory, fixed by the FUSE protocol.
pub const ROOT: u64 = 1;

/// Real numbers keep this many bits; the index of the device sits above.
const INO_BITS: u32 = 52;
/// The index of no device: numbers above it are made up. All stay below 2^63.
const SYNTHETIC: u64 = 0x7ff;

/// Gives every device a small index, the first one 0.
#[derive(Debug, Default)]
pub struct Devices {
    devices: RwLock<Vec<u64>>,
    synthetic: AtomicU64,
}

impl Devices {
    /// The index of device `dev`.
    pub fn index(&self, dev: u64) -> u16 {
        let find = |devices: &[u64]| devices.iter().position(|d| *d == dev);
        if let Some(i) = find(&self.devices.read()) {
            return i as u16;
        }
        let mut devices = self.devices.write();
        let at = find(&devices).unwrap_or_else(|| {
            devices.push(dev);
            devices.len() - 1
        });
        at.min(usize::from(u16::MAX)) as u16
    }

    /// The number that inode `ino` of the device with index `dev` should have, if it can have one.
    pub fn wanted(&self, dev: u16, ino: u64) -> Option<u64> {
        let dev = u64::from(dev);
        let fits = ino >> INO_BITS == 0 && dev < SYNTHETIC;
        let number = (dev << INO_BITS) | ino;
        (fits && number > ROOT).then_some(number)
    }

    /// A number that no object had before.
    pub fn synthetic(&self) -> u64 {
        // Relaxed: only uniqueness matters.
        (SYNTHETIC << INO_BITS) | self.synthetic.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_across_devices_and_below_the_sign_bit() {
        let d = Devices::default();
        assert_eq!((d.index(77), d.index(5), d.index(77)), (0, 1, 0));
        assert_eq!(d.wanted(0, 12), Some(12));
        assert_eq!(d.wanted(1, 12), Some((1 << 52) | 12));
        assert_eq!(d.wanted(0, 1), None, "1 is the root");
        assert_eq!(d.wanted(0, 1 << 52), None);
        let (a, b) = (d.synthetic(), d.synthetic());
        assert!(a != b && a < 1 << 63 && b < 1 << 63);
    }
}
