//! The results as a chart: ratios to kernel overlayfs, a group of bars for each row.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Results;
use crate::row::{Row, Unit, three_digits};

const WIDTH: u32 = 1000;
const LEFT: i32 = 330;
const RIGHT: i32 = 40;
const TOP: i32 = 90;
const BAR: i32 = 7;
const GAP: i32 = 8;

/// The axis reaches from a hundredth of the kernel's time to a hundred times it.
const LOW: f64 = 0.01;
const HIGH: f64 = 100.0;

/// Peers that are drawn, with their colours; colour-blind safe.
const COLOURS: &[(&str, RGBColor)] = &[
    ("native", RGBColor(187, 187, 187)),
    ("fuse-overlayfs-1", RGBColor(230, 159, 0)),
    ("fuse-overlayfs-2", RGBColor(213, 94, 0)),
    ("unionmount", RGBColor(0, 114, 178)),
    ("unionmount-wb", RGBColor(86, 180, 233)),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the chart to an SVG file.
pub fn draw(results: &Results, rows: &[Row], path: &Path) -> Result<()> {
    let peers: Vec<(&str, RGBColor)> = COLOURS
        .iter()
        .copied()
        .filter(|(name, _)| results.peers.iter().any(|peer| peer.name == *name))
        .collect();
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.unit != Unit::Times && results.median(row.slug, "kernel").is_some())
        .collect();
    let group = BAR * peers.len() as i32 + GAP;
    let bottom = TOP + group * rows.len() as i32;
    let area = SVGBackend::new(path, (WIDTH, (bottom + 40) as u32)).into_drawing_area();
    let failed = |why: DrawingAreaErrorKind<_>| anyhow!("{}: {why}", path.display());
    area.fill(&WHITE).map_err(failed)?;
    heading(&area, &peers).map_err(failed)?;
    axis(&area, bottom).map_err(failed)?;
    for (n, row) in rows.iter().enumerate() {
        let top = TOP + group * n as i32 + GAP / 2;
        let style = font(13).pos(Pos::new(HPos::Right, VPos::Center));
        let middle = (LEFT - 8, top + (group - GAP) / 2);
        area.draw(&Text::new(row.title, middle, style))
            .map_err(failed)?;
        for (k, (peer, colour)) in peers.iter().enumerate() {
            if let Some(ratio) = results.ratio(row.slug, peer) {
                bar(&area, top + BAR * k as i32, ratio, *colour).map_err(failed)?;
            }
        }
    }
    area.present().map_err(failed)?;
    Ok(())
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK)
}

/// Where a ratio lies from left to right.
fn across(ratio: f64) -> i32 {
    let share = (ratio.clamp(LOW, HIGH) / LOW).ln() / (HIGH / LOW).ln();
    LEFT + (share * f64::from(WIDTH as i32 - LEFT - RIGHT)) as i32
}

fn heading(area: &Area<'_>, peers: &[(&str, RGBColor)]) -> Drawn {
    let title = "Time in relation to kernel overlayfs (left is faster)";
    area.draw(&Text::new(title, (LEFT, 14), font(18)))?;
    for (n, (name, colour)) in peers.iter().enumerate() {
        let left = 20 + n as i32 * 165;
        let mark = [(left, 46), (left + 14, 56)];
        area.draw(&Rectangle::new(mark, colour.filled()))?;
        area.draw(&Text::new(*name, (left + 20, 44), font(14)))?;
    }
    Ok(())
}

fn axis(area: &Area<'_>, bottom: i32) -> Drawn {
    let ticks = [
        0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
    ];
    for tick in ticks {
        let x = across(tick);
        let line = vec![(x, TOP - 4), (x, bottom)];
        let strong = tick == 1.0;
        let colour = if strong {
            BLACK
        } else {
            RGBColor(221, 221, 221)
        };
        area.draw(&PathElement::new(line, colour.stroke_width(1)))?;
        for y in [TOP - 12, bottom + 12] {
            let style = font(12).pos(Pos::new(HPos::Center, VPos::Center));
            area.draw(&Text::new(tick.to_string(), (x, y), style))?;
        }
    }
    Ok(())
}

/// From the line of the kernel to the ratio; one that leaves the axis has its number in it.
fn bar(area: &Area<'_>, top: i32, ratio: f64, colour: RGBColor) -> Drawn {
    let (from, to) = (across(1.0), across(ratio));
    let corners = [
        (from.min(to), top),
        (from.max(to).max(from + 1), top + BAR - 1),
    ];
    area.draw(&Rectangle::new(corners, colour.filled()))?;
    if !(LOW..=HIGH).contains(&ratio) {
        let (side, inwards) = match ratio < LOW {
            true => (HPos::Left, 3),
            false => (HPos::Right, -3),
        };
        let style = font(10).pos(Pos::new(side, VPos::Center));
        let within = (to + inwards, top + BAR / 2);
        area.draw(&Text::new(three_digits(ratio), within, style))?;
    }
    Ok(())
}
