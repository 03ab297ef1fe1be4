// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages: templates in which figures are named, and conclusions drawn from them.

use std::sync::Arc;

use minijinja::{context, Environment, UndefinedBehavior};

use crate::figures::Run;
use crate::Result;

pub const PAGE: &str = include_str!("../page.md.jinja");
/// The README's table.
pub const README: &str = include_str!("../readme.md.jinja");

pub fn render(run: &Run, template: &str) -> Result<String> {
    let figures = Arc::new(run.figures.clone());
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);

    // In the template: `has` a figure; its value `f`; and in words, "–" if there is none: a time `us` or `ns` with its
    // quartiles, `us1` without, a number `n` of so many digits.
    let of = figures.clone();
    environment.add_function("has", move |name: String| of.contains_key(&name));
    let of = figures.clone();
    environment.add_function("f", move |name: String| {
        let missing = || minijinja::Error::new(minijinja::ErrorKind::UndefinedError, name.clone());
        of.get(&name).copied().ok_or_else(missing)
    });
    let of = figures.clone();
    environment.add_function("us", move |name: String| with_quartiles(&of, &name, 1.0));
    let of = figures.clone();
    environment.add_function("ns", move |name: String| with_quartiles(&of, &name, 1e-3));
    let of = figures.clone();
    environment.add_function("us1", move |name: String| {
        of.get(&name).map_or("–".into(), |us| time(*us))
    });
    let of = figures.clone();
    environment.add_function("n", move |name: String, digits: usize| {
        of.get(&name).map_or("–".into(), |value| grouped(&format!("{value:.digits$}")))
    });
    environment.add_filter("time", |us: f64| time(us));
    environment.add_filter("times", |ratio: f64| significant(ratio));

    Ok(environment
        .render_str(template, context! { machine => &run.machine, library => &run.library })?)
}

type Figures = std::collections::BTreeMap<String, f64>;

fn with_quartiles(figures: &Figures, name: &str, unit: f64) -> String {
    let value = |name: &str| figures.get(name).map(|value| value * unit);
    let Some(middle) = value(name) else { return "–".into() };
    match (value(&format!("{name}_q1")), value(&format!("{name}_q3"))) {
        (Some(low), Some(high)) => {
            let (divisor, word) = scale(middle);
            let part = |us: f64| significant(us / divisor);
            format!("{} {word} ({}–{})", part(middle), part(low), part(high))
        }
        _ => time(middle),
    }
}

fn time(us: f64) -> String {
    let (divisor, word) = scale(us);
    format!("{} {word}", significant(us / divisor))
}

fn scale(us: f64) -> (f64, &'static str) {
    match us {
        _ if us < 0.9995 => (1e-3, "ns"),
        _ if us < 999.5 => (1.0, "µs"),
        _ if us < 999_500.0 => (1e3, "ms"),
        _ => (1e6, "s"),
    }
}

/// Three digits, or two where they are many enough to be believed.
fn significant(value: f64) -> String {
    match value.abs() {
        size if size >= 99.5 => grouped(&format!("{value:.0}")),
        size if size >= 9.95 => format!("{value:.0}"),
        size if size >= 0.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// 12345.6 as 12,345.6.
fn grouped(number: &str) -> String {
    let (whole, rest) = number.find('.').map_or((number, ""), |at| number.split_at(at));
    let mut text = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 && digit.is_ascii_digit() && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text + rest
}
