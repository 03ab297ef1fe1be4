// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text of a doc comment as man(7) wants it.

/// Escaped as it stands.
pub fn literal(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    match text.starts_with('.') {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// Program text: each line as it stands, and none wider than a terminal.
pub fn example(text: &str) -> String {
    const WIDTH: usize = 73;
    let wide = text.lines().find(|line| line.chars().count() > WIDTH);
    assert!(wide.is_none(), "an example is too wide: {}", wide.unwrap_or_default());
    let lines = text.trim_matches('\n').lines().map(literal).collect::<Vec<_>>();
    format!(".EX\n{}\n.EE\n", lines.join("\n"))
}

/// Prose: each sentence on a line, with names in bold and `such words` in italics. `own` are the functions of the page.
pub fn prose(text: &str, own: &[&str]) -> String {
    let lines = sentences(text).iter().map(|it| formatted(it, own)).collect::<Vec<_>>();
    lines.join("\n")
}

fn sentences(text: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    for word in text.split(' ') {
        let last = sentences.last_mut().expect("there is one");
        let ended = last.ends_with('.') || last.ends_with(".)");
        if ended
            && !last.ends_with("..")
            && !last.ends_with("...)")
            && word.starts_with(|c: char| c.is_uppercase() || "(`".contains(c))
        {
            sentences.push(word.to_string());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    sentences
}

/// Names stand out: functions, constants, errnos, fields.
fn formatted(text: &str, own: &[&str]) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = text;
    let mut after_name = false;
    while let Some(c) = rest.chars().next() {
        if let Some((inner, after)) = rest.strip_prefix('`').and_then(|it| it.split_once('`')) {
            out += &format!("\\fI{}\\fP", literal(inner));
            (rest, after_name) = (after, true);
            continue;
        }
        if c == '-' && !after_name {
            let end = rest[1..].find(|c| !is_name(c)).map_or(rest.len(), |at| at + 1);
            let is_errno = end > 3 && rest[1..].starts_with('E');
            out += &if is_errno { bold(&rest[..end]) } else { literal(&rest[..end]) };
            (rest, after_name) = (&rest[end..], true);
            continue;
        }
        if !is_name(c) {
            match c {
                '\\' => out += "\\e",
                '.' | '\'' if out.is_empty() => out += &format!("\\&{c}"),
                _ => out.push(c),
            }
            (rest, after_name) = (&rest[c.len_utf8()..], false);
            continue;
        }
        let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        (rest, after_name) = (after, true);
        let is_call = after.starts_with("()");
        let is_page =
            after.starts_with('(') && after[1..].starts_with(|c: char| c.is_ascii_digit());
        if is_call && name.starts_with("msi_") && !own.contains(&name) {
            out += &format!("{}(3)", bold(name));
            rest = &after[2..];
        } else if is_call || is_page || name.starts_with("msi_") || is_constant(name) {
            out += &bold(name);
        } else if name.contains('_') && c.is_lowercase() {
            out += &format!("\\fI{name}\\fP");
        } else {
            out += name;
        }
    }
    out
}

/// With a capital and a full stop.
pub fn sentence(text: &str) -> String {
    let mut text = text.trim().to_string();
    if !text.ends_with('.') && !text.ends_with(".)") {
        text.push('.');
    }
    let is_word = !text.split(' ').next().unwrap_or_default().contains(['_', '(', '`', '/']);
    match text.get(..1) {
        Some(first) if is_word => first.to_uppercase() + &text[1..],
        _ => text,
    }
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fP", literal(text))
}

fn is_constant(name: &str) -> bool {
    ["MSIROUTE_", "KVM_", "EFD_", "RLIMIT_"].iter().any(|prefix| name.starts_with(prefix))
        || name == "NULL"
        || name == "POLLIN"
}
