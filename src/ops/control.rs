//! What the union tells about itself.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{LayerReport, Role, Stats, Union};
use crate::layer::Layer;
use crate::upper::Safety;

impl Union {
    /// The layers, top to bottom.
    pub fn report_layers(&self) -> Vec<LayerReport> {
        self.layers
            .iter()
            .map(|layer| self.report_layer(layer))
            .collect()
    }

    fn report_layer(&self, layer: &Layer) -> LayerReport {
        let upper = self.upper.as_ref().filter(|u| u.layer == layer.id);
        let mut capabilities = Vec::new();
        if layer.private_mount {
            capabilities.push("private-mount".to_owned());
        }
        if let Some(upper) = upper {
            for (name, has) in [
                ("rename-whiteout", upper.rename_whiteout),
                ("redirects", self.redirects.write),
                ("xattr", upper.namespace.is_some()),
                ("reflink", upper.reflink),
                ("ordered-journal", upper.safety == Safety::DataFirst),
            ] {
                if has {
                    capabilities.push(name.to_owned());
                }
            }
        }
        let (major, minor) = (rustix::fs::major(layer.dev), rustix::fs::minor(layer.dev));
        LayerReport {
            role: if upper.is_some() {
                Role::Upper
            } else {
                Role::Lower
            },
            path: layer.path.to_string_lossy().into_owned(),
            device: format!("{major}:{minor}"),
            filesystem: layer.filesystem(),
            whiteout: upper.map(|u| u.dialect.as_str().to_owned()),
            markers: upper
                .and_then(|u| u.namespace)
                .map(|n| n.prefix().to_owned()),
            capabilities,
        }
    }

    /// The counters; requests are filled in by whoever serves them.
    pub fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let cache = self.indexes.size();
        let (dirs, files) = (&self.dir_fds, &self.file_fds);
        Stats {
            requests: Vec::new(),
            inodes: self.table.len() as u64,
            indexes: cache.indexes,
            index_entries: cache.names,
            index_bytes: cache.bytes,
            index_limit: cache.limit,
            index_hits: get(&self.counters.index_hits),
            index_misses: get(&self.counters.index_misses),
            descriptor_hits: get(&dirs.stats.hits) + get(&files.stats.hits),
            descriptor_misses: get(&dirs.stats.misses) + get(&files.stats.misses),
            descriptors_open: (self.layers.len() + dirs.len() + files.len()) as u64
                + get(&self.counters.pins),
            copy_ups: get(&self.counters.copy_ups),
            copied_bytes: get(&self.counters.copied_bytes),
            panics: 0,
        }
    }
}
