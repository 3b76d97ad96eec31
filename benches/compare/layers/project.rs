//! A C project: headers that include each other, sources that include headers, a makefile.

use std::path::Path;

use anyhow::Result;

use super::{Plan, empty, put};
use crate::sizes::Sizes;

const HEADERS: usize = 40;

const MAKEFILE: &str = "\
OBJECTS := $(patsubst src/%.c,out/%.o,$(wildcard src/*.c))
program: $(OBJECTS)
\tcc -o $@ $^
out/%.o: src/%.c | out
\tcc -O0 -Iinclude -MMD -c -o $@ $<
out:
\tmkdir -p $@
";

pub fn make(root: &Path, sizes: &Sizes) -> Result<Plan> {
    let plan = empty(root, 2)?;
    let mut rng = fastrand::Rng::with_seed(5);
    if let Some(bottom) = plan.lowers.last() {
        for n in 0..HEADERS {
            let path = bottom.join(format!("project/include/part{n}.h"));
            put(&path, header(n).as_bytes())?;
        }
        put(&bottom.join("project/Makefile"), MAKEFILE.as_bytes())?;
    }
    if let Some(top) = plan.lowers.first() {
        for n in 0..sizes.units {
            let path = top.join(format!("project/src/unit{n}.c"));
            put(&path, source(n, &mut rng).as_bytes())?;
        }
    }
    Ok(plan)
}

fn header(n: usize) -> String {
    let mut text = format!("#ifndef PART{n}_H\n#define PART{n}_H\n#include <stdio.h>\n");
    text.push_str("#include <stdlib.h>\n#include <string.h>\n#include <errno.h>\n");
    if n > 0 {
        text.push_str(&format!("#include \"part{}.h\"\n", n / 2));
    }
    text.push_str(&format!(
        "struct part{n} {{ int count; char name[{}]; }};\n",
        n + 8
    ));
    for k in 0..30 {
        text.push_str(&format!(
            "static inline int part{n}_{k}(int x) {{ return x * {k} + {n}; }}\n"
        ));
    }
    text + "#endif\n"
}

fn source(n: usize, rng: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    let used: Vec<usize> = (0..12).map(|_| rng.usize(..HEADERS)).collect();
    for part in &used {
        text.push_str(&format!("#include \"part{part}.h\"\n"));
    }
    for k in 0..20 {
        let part = used[k % used.len()];
        text.push_str(&format!(
            "int unit{n}_{k}(int x) {{ struct part{part} it = {{0}}; it.count = part{part}_{k}(x);\n"
        ));
        text.push_str("  return it.count + (int)strlen(it.name); }\n");
    }
    if n == 0 {
        text.push_str("int main(void) { return unit0_0(0) == 1; }\n");
    }
    text
}
