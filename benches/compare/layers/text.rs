//! Content that looks like text: words and lines from a fixed seed.

/// The size of the block that all contents are cut from.
const BLOCK: usize = 4 << 20;

/// Cuts contents out of one block of words.
#[derive(Debug)]
pub struct Text {
    block: Vec<u8>,
    rng: fastrand::Rng,
}

impl Text {
    pub fn new(seed: u64) -> Text {
        let mut rng = fastrand::Rng::with_seed(seed);
        let words: Vec<String> = (0..2000)
            .map(|_| {
                let length = rng.usize(2..11);
                (0..length).map(|_| rng.lowercase()).collect()
            })
            .collect();
        let mut block = Vec::with_capacity(BLOCK + 64);
        while block.len() < BLOCK {
            block.extend_from_slice(words[rng.usize(..words.len())].as_bytes());
            block.push(if rng.u8(..10) == 0 { b'\n' } else { b' ' });
        }
        Text { block, rng }
    }

    /// So many bytes, at most a block.
    pub fn bytes(&mut self, length: usize) -> &[u8] {
        let length = length.min(BLOCK);
        let from = self.rng.usize(..=BLOCK - length);
        &self.block[from..from + length]
    }

    /// A file size as in a Debian root: log-normal, the median at 2 KiB, the mean near 14.
    pub fn size(&mut self) -> usize {
        let sum: f64 = (0..12).map(|_| self.rng.f64()).sum();
        let normal = sum - 6.0;
        (2048.0 * (1.97 * normal).exp()) as usize
    }
}
