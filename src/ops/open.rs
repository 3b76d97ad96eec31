//! Opens a union: every layer, then the root.

use std::sync::Arc;

use parking_lot::Mutex;

use super::acl::Lists;
use super::redirect::Redirects;
use super::{Config, Counters, Union, UpperConfig, WhiteoutChoice, owners};
use crate::attr::Kind;
use crate::error::SetupError;
use crate::layer::{Layer, LayerId, compare_handles};
use crate::marker::whiteout::{Dialect, WhFiles};
use crate::merge::{IndexCache, Stack};
use crate::tree::{Devices, FdCache, Inode, ROOT, RealId, Table};
use crate::upper::{Form, Upper, UpperOptions};

impl Union {
    /// Opens every layer and takes the upper for this process alone. Nothing is mounted yet.
    ///
    /// # Errors
    /// A sentence that names the layer, the cause and the remedy.
    pub fn open(config: &Config) -> Result<Union, SetupError> {
        let mut layers = Vec::with_capacity(config.lowers.len() + 1);
        let mut upper = None;
        if let Some(given) = &config.upper {
            let (opened, layer) = open_upper(given, config.read_only)?;
            upper = Some(opened);
            layers.push(layer);
        }
        for path in &config.lowers {
            let id = LayerId::try_from(layers.len())
                .map_err(|_| SetupError::new("cannot mount: more than 65535 layers"))?;
            layers.push(Layer::open(id, path, WhFiles::Meant)?);
        }
        let mut data_layers = Vec::with_capacity(config.data.len());
        for path in &config.data {
            let id = LayerId::try_from(layers.len() + data_layers.len())
                .map_err(|_| SetupError::new("cannot mount: more than 65535 layers"))?;
            data_layers.push(Layer::open(id, path, WhFiles::Plain)?);
        }
        compare_handles(
            layers
                .get_mut(usize::from(upper.is_some())..)
                .unwrap_or_default(),
        );
        let written = upper.is_some() && !config.read_only;
        let owners_aside =
            owners::settle(config.stat_override, &mut layers, upper.as_mut(), written)?;
        let Some(top) = layers.first() else {
            return Err(SetupError::new(
                "cannot mount: no layer given (--lower DIR)",
            ));
        };
        let stat = top
            .root_place()
            .stat()
            .map_err(|e| SetupError::at("read layer", &top.path, e))?;
        let devices = Devices::default();
        for layer in &layers {
            // In the order of the stack, so that numbers come out the same at every mount.
            devices.index(layer.dev);
        }
        let id = RealId {
            layer: 0,
            dev: devices.index(stat.dev),
            ino: stat.attr.ino,
            born: 0, // the root is what it is
        };
        let stack = Stack::candidates((0..layers.len() as LayerId).collect());
        let root = Arc::new(Inode::new(ROOT, Kind::Dir, id, None, Some(stack)));
        let limit = descriptor_limit();
        Ok(Union {
            data_layers,
            metacopy: super::complete::MetacopySwitch::new(config.metacopy.on),
            completion: Mutex::default(),
            follow_user_metacopies: config.metacopy.on,
            verity: config.metacopy.verity,
            writable: !config.read_only,
            lasting: !config.changing_layers,
            refreshed: std::sync::atomic::AtomicBool::new(false),
            redirects: Redirects::of(config.redirect_dir, upper.as_ref()),
            table: Table::new(root, devices),
            ids: config.ids.clone(),
            owners_aside,
            lists: Lists::of(
                config.acl,
                upper.as_ref().filter(|_| !config.read_only),
                &layers,
            ),
            indexes: IndexCache::new(config.cache_size),
            dir_fds: FdCache::new((limit / 8).clamp(8, 1024)),
            file_fds: FdCache::new((limit / 8).clamp(8, 512)),
            renames: Mutex::new(()),
            moves: super::place::Moves::default(),
            numbers: Mutex::default(),
            counters: Counters::default(),
            peak: super::memory::Peak::default(),
            dirty_limit: (limit / 4).clamp(16, 4096),
            pin_limit: (limit / 4) as u64,
            upper,
            layers,
        })
    }
}

/// How many descriptors may be open at once.
pub(super) fn descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(1 << 20).min(1 << 20) as usize
}

fn open_upper(given: &UpperConfig, read_only: bool) -> Result<(Upper, Layer), SetupError> {
    Upper::open(&UpperOptions {
        upper: &given.upper,
        work: &given.work,
        form: match given.whiteout {
            WhiteoutChoice::Auto => Form::Best,
            WhiteoutChoice::CharDev => Form::Only(Dialect::CharDev),
            WhiteoutChoice::Xattr => Form::Only(Dialect::Xattr),
            WhiteoutChoice::File => Form::Only(Dialect::File),
            WhiteoutChoice::Found => Form::Found,
            WhiteoutChoice::PreferFile => Form::PreferFile,
        },
        durability: given.durability,
        origins: given.origins,
        read_only,
    })
}
