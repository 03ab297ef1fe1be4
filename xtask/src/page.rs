// SPDX-License-Identifier: MIT OR Apache-2.0
//! A page of section 3: of its source, and of the doc comments of what is on it.

use crate::c::Item;
use crate::calls::Calls;
use crate::prototype::prototype;
use crate::results::{self, Error, Results};
use crate::roff::{example, literal, prose, sentence};

/// What parameters mean that mean the same everywhere.
const PARAMETERS: [(&str, &str); 4] = [
    ("cache", "The handle, from msi_route_cache_new()."),
    ("dev", "The handle, from msi_device_new()."),
    ("index", "Which vector, from 0."),
    ("opaque", "Passed to the function as it is."),
];

/// Of a source: `man` says what they are.
const PARTS: [&str; 7] = ["intro", "struct", "constants", "type", "notes", "example", "see"];

/// See the [module](self).
pub struct Page<'a> {
    title: &'a str,
    summary: &'a str,
    pub functions: Vec<&'a Item>,
    parts: Vec<(&'a str, String)>,
    items: &'a [Item],
}

impl<'a> Page<'a> {
    pub fn of(title: &'a str, text: &'a str, items: &'a [Item]) -> Self {
        let mut lines = text.lines().filter(|line| !line.starts_with(".\\\""));
        let first = lines.next().unwrap_or_default();
        let (names, summary) =
            first.split_once(": ").unwrap_or_else(|| panic!("{title}: no names"));
        let find = |name: &str| items.iter().find(|item| item.is_function() && item.name() == name);
        let functions: Vec<_> = names.split(", ").filter_map(find).collect();
        assert!(names.starts_with(title), "{title} is not the first name");
        let mut parts: Vec<(&str, String)> = Vec::new();
        for line in lines {
            match (line.strip_prefix('@'), parts.last_mut()) {
                (Some(part), _) => {
                    let name = part.split(' ').next().unwrap_or_default();
                    assert!(PARTS.contains(&name), "{title}: @{name}?");
                    parts.push((part, String::new()));
                }
                (None, Some((_, text))) => *text += &format!("{line}\n"),
                (None, None) => assert!(line.is_empty(), "{title}: text outside of a part"),
            }
        }
        Page { title, summary, functions, parts, items }
    }

    /// Under which it is found: functions, structs, types.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let types = ["struct", "type"].into_iter().flat_map(|part| self.parts(part));
        self.functions.iter().map(|item| item.name()).chain(types.map(|(name, _)| name))
    }

    fn own(&self) -> Vec<&'a str> {
        self.functions.iter().map(|item| item.name()).collect()
    }

    fn prose(&self, text: &str) -> String {
        prose(text, &self.own())
    }

    fn parts<'b>(&'b self, name: &'b str) -> impl Iterator<Item = (&'b str, &'b str)> + 'b {
        self.parts.iter().filter_map(move |(part, text)| {
            let (of, argument) = part.split_once(' ').unwrap_or((part, ""));
            (of == name).then_some((argument, text.as_str()))
        })
    }

    pub fn render(&self, calls: &Calls) -> String {
        let names = if self.functions.is_empty() { vec![self.title] } else { self.own() };
        let mut out = format!(".SH NAME\n{} \\- {}\n", names.join(", "), literal(self.summary));
        out += &self.synopsis();
        out += ".SH DESCRIPTION\n";
        out += &self.description();
        if !self.functions.is_empty() {
            out += &self.results();
            out += &self.errors();
            out += &self.threads();
            out += ".SH SYSTEM CALLS\n";
            out += &calls.section(&self.own());
        }
        for (_, text) in self.parts("notes") {
            out += &format!(".SH NOTES\n{}", self.paragraphs(text));
        }
        for (_, code) in self.parts("example") {
            out += &format!(".SH EXAMPLES\n{}", example(code));
        }
        let see = self.parts("see").map(|(_, text)| text.trim()).collect::<Vec<_>>().join(", ");
        let see = if see.is_empty() { "msiroute(7)".into() } else { format!("{see}, msiroute(7)") };
        let pages = see.split(", ").filter_map(|page| page.trim_end_matches(')').split_once('('));
        let pages = pages.map(|(name, section)| format!(".BR {name} ({section})"));
        out + ".SH SEE ALSO\n" + &pages.collect::<Vec<_>>().join(" ,\n") + "\n"
    }

    fn paragraphs(&self, text: &str) -> String {
        let paragraphs = text.trim().split("\n\n");
        let paragraphs = paragraphs.map(|it| self.prose(&it.replace('\n', " ")));
        format!("{}\n", paragraphs.collect::<Vec<_>>().join("\n.P\n"))
    }

    // ---- SYNOPSIS ----

    fn synopsis(&self) -> String {
        let mut out = ".SH SYNOPSIS\n.nf\n.B #include <msiroute.h>\n".to_string();
        for (name, _) in self.parts("struct") {
            out += &format!(".P\n{}", self.fields(name));
        }
        for (name, _) in self.parts("type") {
            out += &format!(".P\n{}", prototype(self.item(name)));
        }
        for function in &self.functions {
            out += &format!(".P\n{}", prototype(function));
        }
        out + ".fi\n"
    }

    fn item(&self, name: &str) -> &'a Item {
        let item = self.items.iter().find(|item| item.name() == name);
        item.unwrap_or_else(|| panic!("{}: the header has no {name}", self.title))
    }

    fn fields(&self, name: &str) -> String {
        let fields = self.item(name).fields.iter().map(|field| match field.code.contains("(*") {
            true => prototype(field).replace(".BI \"", ".BI \"    "),
            false => format!(".B \"    {}\"\n", literal(&field.code)),
        });
        format!(".B struct {name} {{\n{}.B }};\n", fields.collect::<String>())
    }

    // ---- DESCRIPTION ----

    fn description(&self) -> String {
        let mut out = String::new();
        for (_, text) in self.parts("intro") {
            out += &format!("{}.P\n", self.paragraphs(text));
        }
        let mut told = Vec::new();
        for function in &self.functions {
            if self.functions.len() > 1 {
                out += &format!(".SS {}()\n", function.name());
            }
            for (at, paragraph) in function.text().iter().enumerate() {
                out += if at > 0 { ".P\n" } else { "" };
                out += &format!("{}\n", self.prose(without_label(paragraph)));
            }
            out += &self.parameters(function, &mut told);
        }
        for (name, _) in self.parts("type") {
            let item = self.item(name);
            out += &format!(".SS {name}\n{}\n", self.prose(&item.text().join(" ")));
            out += &self.parameters(item, &mut Vec::new());
            out += &format!(".P\nReturns: {}\n", self.prose(&item.result().unwrap_or_default()));
        }
        for (name, _) in self.parts("struct") {
            out += &self.structure(name);
        }
        for (argument, _) in self.parts("constants") {
            let (prefix, title) = argument.split_once(' ').unwrap_or((argument, "Flags"));
            out += &format!(".SS {}\n{}", self.prose(title), self.constants(prefix));
        }
        out
    }

    fn structure(&self, name: &str) -> String {
        let item = self.item(name);
        let mut out =
            format!(".SS struct {name}\n{}\n", self.paragraphs(&item.text().join("\n\n")));
        for field in &item.fields {
            let name = match field.code.contains("(*") {
                true => field.name(),
                false => {
                    field.code.trim_end_matches(';').rsplit([' ', '*']).next().unwrap_or_default()
                }
            };
            out += &format!(".TP\n.I {name}\n{}\n", self.prose(&field.text().join(" ")));
        }
        out
    }

    fn constants(&self, prefix: &str) -> String {
        let names = prefix.split('|').collect::<Vec<_>>();
        let is_meant = |item: &&Item| {
            item.code.starts_with("#define")
                && names.iter().any(|name| {
                    item.name() == *name || name.ends_with('_') && item.name().starts_with(name)
                })
        };
        let found: Vec<_> = self.items.iter().filter(is_meant).collect();
        assert!(!found.is_empty(), "{}: no {prefix}", self.title);
        let list = found.iter().map(|item| {
            format!(".TP\n.B {}\n{}\n", item.name(), self.prose(&item.text().join(" ")))
        });
        list.collect()
    }

    /// But for those that are `told` already, in the same words.
    fn parameters(&self, function: &Item, told: &mut Vec<(String, String)>) -> String {
        let mut out = String::new();
        for parameter in function.parameters() {
            let name = match parameter.split_once("(*") {
                Some((_, rest)) => rest.split(')').next().unwrap_or_default(),
                None => parameter.rsplit([' ', '*']).next().unwrap_or_default(),
            };
            let usual = PARAMETERS
                .iter()
                .find(|(usual, _)| *usual == name)
                .map(|(_, text)| text.to_string());
            let said = function.parameter(name).or(usual).unwrap_or_else(|| {
                panic!("{}: its doc comment says nothing of `{name}`", function.name())
            });
            if !told.contains(&(name.into(), said.clone())) {
                out += &format!(".TP\n.I {name}\n{}\n", self.prose(&sentence(&said)));
                told.push((name.into(), said));
            }
        }
        out
    }

    // ---- RETURN VALUE, ERRORS ----

    fn results(&self) -> String {
        let mut list: Vec<(String, Vec<String>)> = Vec::new();
        let mut can_fail = false;
        for function in &self.functions {
            let Some(result) = Results::of(function) else {
                assert!(function.code.starts_with("void "), "{} has no \\return", function.name());
                continue;
            };
            can_fail |= !result.errors.is_empty();
            let good = match result.good.join("; ") {
                good if good == "0" => "0 on success.".to_string(),
                good => sentence(&good),
            };
            let text = format!("{good} {}", result.notes);
            let tag = format!("\\fB{}\\fP()", function.name());
            match list.iter_mut().find(|(other, _)| *other == text) {
                Some((_, tags)) => tags.push(tag),
                None => list.push((text, vec![tag])),
            }
        }
        let mut out = ".SH RETURN VALUE\n".to_string();
        let is_one = list.len() == 1 && list[0].1.len() == self.functions.len();
        for (text, tags) in &list {
            out += &if is_one { String::new() } else { format!(".TP\n{}\n", tags.join(", ")) };
            out += &format!("{}\n", self.prose(text.trim()));
        }
        if list.is_empty() {
            out += "None.\n";
        }
        if can_fail {
            out += ".P\nA failure is a negative errno.\n\
                    .BR msi_route_cache_last_error (3)\nhas it in words; \\fIerrno\\fP is left alone.\n";
        }
        out
    }

    fn errors(&self) -> String {
        let mut out = String::new();
        let failing = self.functions.iter().filter(|function| results::can_fail(function)).count();
        for Error { tag, text, of } in results::errors(&self.functions) {
            let of = match of.len() == failing {
                true => String::new(),
                false => {
                    let names = of.iter().map(|name| format!("{name}()")).collect::<Vec<_>>();
                    format!("({}) ", names.join(", "))
                }
            };
            let text = self.prose(&format!("{of}{}", sentence(&text)));
            out += &format!(".TP\n.B {}\n{text}\n", literal(&tag));
        }
        match out.is_empty() {
            true => out,
            false => format!(".SH ERRORS\n{out}"),
        }
    }

    fn threads(&self) -> String {
        let mut out = ".SH ATTRIBUTES\n".to_string();
        for label in ["fast", "control"] {
            let of = self.functions.iter().filter(|it| label_of(it) == label);
            let of: Vec<_> = of.map(|it| format!("{}()", it.name())).collect();
            if !of.is_empty() {
                out += &format!(".TP\nMT-Safe, {label}\n{}.\n", self.prose(&of.join(", ")));
            }
        }
        out + ".P\nWhat the labels promise is said in\n.BR msiroute (7).\n"
    }
}

/// The thread label in brackets: every function has one.
pub fn label_of(function: &Item) -> &'static str {
    let text = function.text().join(" ");
    let labels = ["fast", "control"].into_iter().find(|label| text.contains(&format!("[{label}]")));
    labels.unwrap_or_else(|| panic!("{} has no thread label", function.name()))
}

fn without_label(text: &str) -> &str {
    text.trim_end_matches("[control]").trim_end_matches("[fast]").trim_end()
}
