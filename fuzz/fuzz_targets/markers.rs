//! Values and names of markers: any bytes are read without a panic, and what is read is written the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use unionmount::marker::nlink::Nlink;
use unionmount::marker::origin::{HandleFormat, Origin};
use unionmount::marker::whiteout::Dialect;
use unionmount::marker::xattr::{OnDisk, on_disk, shown};
use unionmount::marker::override_stat::{self, OverrideStat, Store};
use unionmount::marker::{acl, opaque, whiteout};

fuzz_target!(|bytes: &[u8]| {
    if let Some(origin) = Origin::decode(bytes) {
        let again = origin.encode().and_then(|bytes| Origin::decode(&bytes));
        assert_eq!(again.as_ref(), Some(&origin));
        for format in [
            HandleFormat::Ino32,
            HandleFormat::Xfs,
            HandleFormat::Btrfs,
            HandleFormat::Tmpfs,
        ] {
            origin.inode_number(format);
        }
    }
    if let Some(nlink) = Nlink::decode(bytes) {
        assert_eq!(Nlink::decode(nlink.encode().as_bytes()), Some(nlink));
    }
    opaque::decode(bytes);
    if let Ok(kept) = OverrideStat::decode(bytes) {
        for store in Store::ALL {
            let again = OverrideStat::decode(&kept.encode(store));
            assert_eq!(again, Ok(kept));
        }
    }
    if let Some(own) = override_stat::unwrap(bytes) {
        assert_eq!(override_stat::wrap(own), bytes);
    }
    // What a user calls an attribute is what the user sees it called, and never a marker.
    if let Ok(disk) = on_disk(bytes) {
        assert_eq!(shown(&disk), OnDisk::Shown(bytes.into()));
    }
    for wh_files in [Dialect::CharDev, Dialect::Xattr, Dialect::File].map(Dialect::wh_files) {
        whiteout::classify(bytes, unionmount::attr::Kind::File, wh_files);
    }
    let mut list = bytes.to_vec();
    acl::map_ids(&mut list, |id| id ^ 1, |id| id ^ 1);
    acl::map_ids(&mut list, |id| id ^ 1, |id| id ^ 1);
    assert_eq!(list, bytes);
});
