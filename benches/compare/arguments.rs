//! What the command line may ask for.

use std::path::PathBuf;

use clap::Parser;

/// Compares unionmount with a plain directory, kernel overlayfs and fuse-overlayfs.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench compare --")]
pub struct Arguments {
    /// Fewer rounds and smaller sizes, for a first look
    #[arg(long)]
    pub quick: bool,
    /// Only workloads whose name has one of these words in it
    #[arg(long, value_name = "WORD,...", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these peers (--list names them)
    #[arg(long, value_name = "NAME,...")]
    pub peer: Option<String>,
    /// Rounds of each workload; the table shows their median [default: 5, with --quick 3]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Adds unionmount with these options as a peer
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub options: Option<String>,
    /// Adds another build of unionmount as a peer; may be repeated
    #[arg(long, value_name = "NAME=PATH")]
    pub binary: Vec<String>,
    /// The image with all layers lies in this directory, on a disk, instead of in memory
    #[arg(long, value_name = "DIR")]
    pub disk: Option<PathBuf>,
    /// Where all figures go as JSON
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/compare/compare.json"
    )]
    pub json: PathBuf,
    /// Draws the ratios to kernel overlayfs
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Writes the tables as Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Rewrites the tables in docs/PERFORMANCE.md, and docs/performance.svg
    #[arg(long)]
    pub doc: bool,
    /// With --doc or --svg: takes the figures from a JSON file instead of measuring
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Fails if a goal is missed
    #[arg(long)]
    pub check: bool,
    /// Lists workloads and peers
    #[arg(long)]
    pub list: bool,
    /// What cargo passes
    #[arg(long, hide = true)]
    pub bench: bool,
}
