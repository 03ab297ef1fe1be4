// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plots. No background and middle tones, so that they can be read on white and on black.

use plotters::prelude::*;

use crate::figures::Run;
use crate::Result;

const INK: RGBColor = RGBColor(125, 133, 144);
const BLUE: RGBColor = RGBColor(47, 129, 247);
const GREEN: RGBColor = RGBColor(46, 160, 67);
const TEAL: RGBColor = RGBColor(27, 154, 170);
const ORANGE: RGBColor = RGBColor(219, 109, 40);
const RED: RGBColor = RGBColor(218, 68, 83);
const PURPLE: RGBColor = RGBColor(150, 100, 215);
const OLIVE: RGBColor = RGBColor(158, 132, 30);
const BROWN: RGBColor = RGBColor(150, 95, 60);
const PINK: RGBColor = RGBColor(205, 90, 165);
const GREY: RGBColor = RGBColor(140, 140, 140);

pub struct Line {
    label: &'static str,
    colour: RGBColor,
    dashed: bool,
    points: Vec<(f64, f64)>,
}

/// Every plot: its name and the SVG.
pub fn all(run: &Run) -> Result<Vec<(String, String)>> {
    let mut plots = Vec::new();
    let enabling = |figure: &dyn Fn(u32) -> String| points(run, &[64, 256, 1024, 2048], figure);
    let mut lines = Vec::new();
    for (peer, label, colour) in POLICIES {
        let points = enabling(&|n| format!("enable_one_by_one_{n}_{peer}_caller_us"));
        lines.push(Line { label, colour, dashed: false, points });
    }
    let points_at_once = enabling(&|n| format!("enable_at_once_{n}_msiroute_caller_us"));
    lines.push(Line {
        label: "msiroute, in a transaction",
        colour: BLUE,
        dashed: true,
        points: points_at_once,
    });
    plots.push(("enable".into(), chart("Enabling vectors, one by one", "vectors", lines)?));

    for (name, title) in [
        ("affinity", "Mask, new message, unmask: one vector"),
        ("mask_unmask", "Mask, unmask: one vector"),
    ] {
        let mut lines = Vec::new();
        for (peer, label, colour) in POLICIES {
            let points = points(run, &[64, 1000, 2400], &|n| format!("{name}_{n}_{peer}_us"));
            lines.push(Line { label, colour, dashed: false, points });
        }
        plots.push((name.into(), chart(title, "vectors in the VM, each with an eventfd", lines)?));
    }

    let mut lines = Vec::new();
    for (how, dashed) in [("uniform", false), ("zipf", true)] {
        for (side, label, colour) in [
            ("qemu", ["QEMU's way, uniform", "QEMU's way, Zipf"], RED),
            ("msiroute", ["msiroute, uniform", "msiroute, Zipf"], BLUE),
        ] {
            let points = points(run, &[200, 1000, 4000, 5000, 20000], &|n| {
                format!("thrash_{n}_{how}_{side}_us")
            });
            lines.push(Line { label: label[usize::from(dashed)], colour, dashed, points });
        }
    }
    plots.push((
        "thrash".into(),
        chart("A message without KVM_SIGNAL_MSI", "messages in turn", lines)?,
    ));

    for (place, title) in
        [("kvm", "One operation, kernel included"), ("user", "One operation, in user space alone")]
    {
        let mut lines = Vec::new();
        for (operation, label, colour) in OPERATIONS {
            let points = points(run, &[16, 64, 256, 1024, 4000], &|n| {
                format!("growth_{operation}_{place}_{n}_us")
            });
            lines.push(Line { label, colour, dashed: false, points });
        }
        plots.push((
            format!("growth-{place}"),
            chart(title, "vectors in the VM, each with an eventfd", lines)?,
        ));
    }
    Ok(plots)
}

const POLICIES: [(&str, &str, RGBColor); 8] = [
    ("qemu", "QEMU's way", RED),
    ("kvmtool", "kvmtool's", OLIVE),
    ("cloud_hypervisor", "cloud-hypervisor's", ORANGE),
    ("firecracker", "firecracker's", PURPLE),
    ("msiroute", "msiroute", BLUE),
    ("msiroute_helpers", "", BLUE),
    ("msiroute_source", "msiroute, masked at the source", TEAL),
    ("msiroute_relay", "msiroute, relay", GREEN),
];

const OPERATIONS: [(&str, &str, RGBColor); 10] = [
    ("deliver", "deliver", BLUE),
    ("deliver_fallback", "deliver, fallback", TEAL),
    ("table_write_masked", "table write, masked", GREY),
    ("mask", "mask", OLIVE),
    ("unmask", "unmask", GREEN),
    ("unmask_relayed", "unmask, relay", PURPLE),
    ("affinity", "affinity change", RED),
    ("enable", "enable 16, transaction", ORANGE),
    ("unplug", "unplug 16", BROWN),
    ("invalidate", "invalidate a tag", PINK),
];

fn points(run: &Run, sizes: &[u32], figure: &dyn Fn(u32) -> String) -> Vec<(f64, f64)> {
    let value = |&n: &u32| run.get(&figure(n)).map(|us| (f64::from(n), us));
    sizes.iter().filter_map(value).collect()
}

/// Microseconds over a number, both logarithmic.
fn chart(title: &str, x_label: &str, lines: Vec<Line>) -> Result<String> {
    let lines: Vec<_> = lines
        .into_iter()
        .filter(|line| !line.label.is_empty() && !line.points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|line| line.points.iter());
    if !all().any(|point| point.0 > 0.0 && point.1 > 0.0) {
        return Err(format!("no figures for the plot \"{title}\"").into());
    }
    let (left, right) = bounds(all().map(|point| point.0));
    let (bottom, top) = bounds(all().map(|point| point.1));
    let bottom = 10f64.powf(bottom.log10().floor());
    let top = 10f64.powf(top.log10().ceil());

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (860, 420)).into_drawing_area();
        let (plot, legend) = area.split_horizontally(610);
        let mut chart = ChartBuilder::on(&plot)
            .margin(12)
            .caption(title, ("sans-serif", 18).into_font().color(&INK))
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.25))
            .axis_style(INK)
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .x_desc(x_label)
            .x_labels(6)
            .y_labels(12)
            .y_label_formatter(&|us| time(*us))
            .x_label_formatter(&|n| format!("{n}"))
            .draw()?;
        for (at, line) in lines.iter().enumerate() {
            let style = line.colour.stroke_width(2);
            if line.dashed {
                chart.draw_series(DashedLineSeries::new(
                    line.points.iter().copied(),
                    6,
                    5,
                    style,
                ))?;
            } else {
                chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
            }
            chart.draw_series(
                line.points.iter().map(|&point| Circle::new(point, 3, line.colour.filled())),
            )?;
            let y = 48 + 24 * at as i32;
            if line.dashed {
                legend.draw(&PathElement::new(vec![(4, y), (13, y)], style))?;
                legend.draw(&PathElement::new(vec![(19, y), (28, y)], style))?;
            } else {
                legend.draw(&PathElement::new(vec![(4, y), (28, y)], style))?;
            }
            legend.draw(&Text::new(
                line.label,
                (36, y - 6),
                ("sans-serif", 13).into_font().color(&INK),
            ))?;
        }
        area.present()?;
    }
    Ok(svg.replacen("<svg ", "<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->\n<svg ", 1)
        + "\n")
}

fn bounds(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max))
}

fn time(us: f64) -> String {
    match us {
        _ if us < 0.9995 => format!("{} ns", (us * 1e3).round()),
        _ if us < 999.5 => format!("{} µs", us.round()),
        _ if us < 999_500.0 => format!("{} ms", (us / 1e3).round()),
        _ => format!("{} s", (us / 1e6).round()),
    }
}
