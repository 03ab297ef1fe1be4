// SPDX-License-Identifier: MIT OR Apache-2.0
//! A declaration for SYNOPSIS.

use crate::c::Item;
use crate::roff::literal;

/// Names of parameters in italics, lines no longer than a terminal's.
pub fn prototype(item: &Item) -> String {
    const WIDTH: usize = 71;
    let code = item.code.as_str();
    let list = if item.is_pointer() {
        code.find(")(").map_or(0, |at| at + 1)
    } else {
        code.find('(').unwrap_or(0)
    };
    let head = &code[..=list];
    let indent = if head.len() > 36 { 4 } else { head.len() };
    let function = Item { doc: Vec::new(), code: code[list..].to_string(), fields: Vec::new() };
    let parameters = function.parameters();
    let mut lines = vec![(head.len(), format!(".BI \"{}", literal(head)))];
    if indent == 4 && head.len() + parameters.iter().map(|it| it.len() + 2).sum::<usize>() > WIDTH {
        lines.last_mut().expect("a line").1 += "\"";
        lines.push((4, ".BI \"    ".into()));
    }
    for (at, parameter) in parameters.iter().enumerate() {
        let end = if at + 1 == parameters.len() { ");" } else { "," };
        let (width, line) = lines.last_mut().expect("a line");
        if *width + parameter.len() + end.len() > WIDTH && at > 0 {
            *line = format!("{}\"", line.trim_end());
            lines.push((indent, format!(".BI \"{}", " ".repeat(indent))));
        }
        let (width, line) = lines.last_mut().expect("a line");
        let name_at = match parameter.contains("(*") {
            true => None,
            false => parameter.rfind([' ', '*']).map(|at| at + 1),
        };
        match name_at {
            Some(split) => {
                let (kind, name) = parameter.split_at(split);
                *line += &format!("{}\" {name} \"{end} ", literal(kind));
            }
            None => *line += &format!("{}{end} ", literal(parameter)),
        }
        *width += parameter.len() + 2;
    }
    if parameters.is_empty() {
        lines.last_mut().expect("a line").1 += "void);";
    }
    let (_, last) = lines.last_mut().expect("a line");
    *last = format!("{}\"", last.trim_end());
    lines.iter().map(|(_, line)| format!("{line}\n")).collect()
}
