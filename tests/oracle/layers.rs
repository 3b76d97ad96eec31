//! The lower layers that the sequences start from: some of everything that a layer can hold.

use std::fmt::Write;

// No xattr whiteouts: kernel 6.18 never removes a directory that merges with one that holds any
// (rmdir says ENOTEMPTY although it is empty). The mounted tests have them.
const TOP: &str = "
f both top=0 mtime=1.5
d merged mode=0750 uid=3 gid=4 user.d=top
f merged/top one
f merged/shadowed upper-one
w merged/hidden
d merged/sub mode=02775 gid=7
f merged/sub/a aa
d opaque
o opaque
f opaque/only-top t
w gone-dir
w gone-file
f dir-over-file/child c
f file-over-dir f
f links/a linked mtime=77.000000001
h links/b links/a
h links/deep/c links/a
l link both
l dangling nowhere
l to-dir merged
p fifo mode=0640
c null 1:3 mode=0666
s sock
f sparse size=200000 at=65536:island at=150000:second
f caps pattern=5000 mode=4755
f owned data uid=1000 gid=1000 mode=0600 user.a=1 trusted.t=2
f old past mtime=-5.75
";

const MIDDLE: &str = "
f both middle
d merged mode=0700 user.d=middle
f merged/middle pattern=70000
f merged/shadowed middle-one
f merged/hidden h
f merged/sub/b bb
d merged/sub/deep/er/est
f merged/sub/deep/er/est/file bottom
f opaque/hidden never
f gone-dir/x x
f gone-file x
f dir-over-file x
d file-over-dir/x
f tree/1/2/3/f pattern=4097
f tree/1/2/g g
f tree/1/h h mode=0444
l tree/1/l ../h
d tree/empty mode=01777
w tree/blocked
f links/d other
h links/e links/d
f sparse hidden
";

const BOTTOM: &str = "
d . mode=0755
f both bottom
f merged/bottom pattern=10
f merged/sub/c cc
f tree/1/2/z z user.z=zz
f tree/blocked/below b
f tree/empty-not e
d locked mode=0000
f locked/in in mode=0000
h bottom-link merged/bottom
b blk 240:7 mode=0660 gid=6
c chr 240:9
f big pattern=300000
f one-byte x
f empty
";

const LOWEST: &str = "
f lowest/f lowest
f merged/lowest l
f tree/1/2/3/lowest l
d gone-dir/below
w whiteout-of-nothing
w lowest/also-nothing
";

/// The texts of the lower layers for a seed, topmost first: two to four.
pub fn lowers(seed: u64) -> Vec<String> {
    let count = 2 + (seed % 3) as usize;
    let mut texts: Vec<String> = [TOP, MIDDLE, BOTTOM, LOWEST]
        .iter()
        .take(count)
        .map(|&text| text.to_owned())
        .collect();
    let mut random = fastrand::Rng::with_seed(seed ^ 0x6c61_7965_7273);
    for (n, text) in texts.iter_mut().enumerate() {
        more(n, text, &mut random);
    }
    texts
}

/// Adds names that meet those of the generator, so that lower objects lie below its new ones.
fn more(layer: usize, text: &mut String, random: &mut fastrand::Rng) {
    for dir in ["g0", "g1", "merged/g2"] {
        for name in 0..6 {
            let path = format!("{dir}/n{name}");
            let line = match random.u8(0..10) {
                0 => format!("w {path}"),
                1 => format!("d {path} mode=07{}5", random.u8(0..8)),
                2 => format!("f {path}/n0 {layer}\nf {path}/n{layer} in"),
                3 => format!("l {path} n{}", random.u8(0..6)),
                4..7 => {
                    format!(
                        "f {path} pattern={} user.layer={layer}",
                        random.u32(0..20_000)
                    )
                }
                _ => continue,
            };
            writeln!(text, "{line}").unwrap();
        }
    }
}
