//! Finds programs of outside suites: in $UNIONMOUNT_TOOLS, of cargo install, on the path.

use std::path::PathBuf;

/// Where `program` lies; `package` is what cargo install would be given. Panics if it is missing.
pub fn find(program: &str, package: &str) -> PathBuf {
    let tools = std::env::var_os("UNIONMOUNT_TOOLS").map(|dir| PathBuf::from(dir).join("bin"));
    let home = std::env::var_os("HOME").map(|dir| PathBuf::from(dir).join(".cargo/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = tools
        .into_iter()
        .chain(home)
        .chain(std::env::split_paths(&path));
    places
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is missing: run `cargo install --locked {package}`"))
}
