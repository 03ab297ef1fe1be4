// SPDX-License-Identifier: MIT OR Apache-2.0
//! `man/source/system-calls`: which system calls each function makes. c-tests/seccomp.c reads the same file and proves it.

use crate::roff::{literal, sentence};

/// See the [module](self).
pub struct Calls {
    /// A word and what it means.
    conditions: Vec<(String, String)>,
    phases: Vec<Phase>,
}

struct Phase {
    name: String,
    what: String,
    functions: Vec<String>,
    also: Vec<String>,
    calls: Vec<Call>,
}

struct Call {
    name: String,
    argument: Option<String>,
    when: Option<String>,
    why: String,
}

impl Calls {
    /// The file says itself what its lines mean.
    pub fn parse(text: &str) -> Self {
        let mut calls = Calls { conditions: Vec::new(), phases: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (left, right) = line.split_once(" : ").unwrap_or((line, ""));
            let words: Vec<&str> = left.split_whitespace().collect();
            match (words.as_slice(), calls.phases.last_mut()) {
                (["when", word], _) => calls.conditions.push((word.to_string(), right.into())),
                (["phase", name], _) => calls.phases.push(Phase {
                    name: name.to_string(),
                    what: right.into(),
                    functions: Vec::new(),
                    also: Vec::new(),
                    calls: Vec::new(),
                }),
                (["of", names @ ..], Some(phase)) => {
                    phase.functions.extend(names.iter().map(|it| it.to_string()))
                }
                (["also", names @ ..], Some(phase)) => {
                    phase.also.extend(names.iter().map(|it| it.to_string()));
                }
                ([name, argument, when], Some(phase)) => phase.calls.push(Call {
                    name: name.to_string(),
                    argument: (*argument != "-").then(|| argument.to_string()),
                    when: (*when != "-").then(|| when.to_string()),
                    why: right.into(),
                }),
                _ => panic!("man/source/system-calls: {line}"),
            }
        }
        calls
    }

    pub fn of(&self, function: &str) -> Option<&str> {
        let phase =
            self.phases.iter().find(|phase| phase.functions.iter().any(|it| it == function))?;
        Some(&phase.name)
    }

    fn condition(&self, when: &str) -> &str {
        if when == "may" {
            return "only some builds and C libraries make it";
        }
        let found = self.conditions.iter().find(|(word, _)| word == when);
        found.map(|(_, what)| what.as_str()).unwrap_or_else(|| panic!("system-calls: when {when}?"))
    }

    fn phase(&self, name: &str) -> &Phase {
        let found = self.phases.iter().find(|phase| phase.name == name);
        found.unwrap_or_else(|| panic!("system-calls: phase {name}?"))
    }

    /// For the page of these functions: by phase, without conditions.
    pub fn section(&self, functions: &[&str]) -> String {
        let mut out = String::new();
        for phase in &self.phases {
            let is_of = |name: &&&str| phase.functions.iter().any(|it| it == **name);
            let of: Vec<_> = functions.iter().filter(is_of).collect();
            if of.is_empty() {
                continue;
            }
            if of.len() < functions.len() {
                let names: Vec<_> = of.iter().map(|name| format!("\\fB{name}\\fP()")).collect();
                out += &format!(".TP\n{}\n", names.join(", "));
            } else if !out.is_empty() {
                out += &format!(".P\n{}:\n", literal(&phase.what));
            }
            let (mut calls, mut besides) = (Vec::new(), Vec::new());
            self.collect(phase, &mut calls, &mut besides);
            let besides = besides.iter().map(|phase| phase.what.to_lowercase());
            let besides = besides.collect::<Vec<_>>().join(", ");
            out += &match (calls.is_empty(), besides.is_empty()) {
                (true, true) => "None.\n".to_string(),
                (true, false) => format!("None but for {besides}.\n"),
                (false, true) => format!("{}.\n", summary(&calls)),
                (false, false) => format!("{};\nand for {besides}.\n", summary(&calls)),
            };
        }
        out + ".P\nUnder which conditions:\n.BR msiroute\\-seccomp (7).\n"
    }

    /// The phase's calls, and those of phases of functions that it takes along; the other phases.
    fn collect<'a>(
        &'a self,
        phase: &'a Phase,
        calls: &mut Vec<&'a Call>,
        besides: &mut Vec<&'a Phase>,
    ) {
        calls.extend(phase.calls.iter().filter(|call| call.when.as_deref() != Some("may")));
        for also in phase.also.iter().map(|name| self.phase(name)) {
            match also.functions.is_empty() {
                true => besides.push(also),
                false => self.collect(also, calls, besides),
            }
        }
    }

    /// All phases, for the page about them.
    pub fn tables(&self) -> String {
        self.phases.iter().map(|phase| self.table(phase)).collect()
    }

    fn table(&self, phase: &Phase) -> String {
        let mut out = format!(".SS {}\n", literal(&phase.what));
        let functions = phase.functions.iter().map(|name| format!("\\fB{name}\\fP(3)"));
        let functions = functions.collect::<Vec<_>>().join(",\n");
        if !functions.is_empty() {
            out += &format!("{functions}.\n");
        }
        for call in &phase.calls {
            let argument =
                call.argument.as_ref().map_or(String::new(), |it| format!(" {}", literal(it)));
            let when = call
                .when
                .as_deref()
                .map_or(String::new(), |it| format!("; {}", self.condition(it)));
            let why = literal(&sentence(&format!("{}{when}", call.why)));
            out += &format!(".TP\n\\fB{}\\fP{argument}\n{why}\n", call.name);
        }
        if !phase.also.is_empty() {
            let names = phase
                .also
                .iter()
                .map(|name| format!("\\(lq{}\\(rq", literal(&self.phase(name).what)));
            let besides = if phase.calls.is_empty() { "No call but" } else { "And" };
            out += if functions.is_empty() && phase.calls.is_empty() { "" } else { ".P\n" };
            out += &format!("{besides} those under {}.\n", names.collect::<Vec<_>>().join(",\n"));
        }
        out
    }
}

fn summary(calls: &[&Call]) -> String {
    let mut names: Vec<(&str, Vec<&str>)> = Vec::new();
    for call in calls {
        let argument = call.argument.as_deref();
        match names.iter_mut().find(|(name, _)| *name == call.name) {
            Some((_, arguments)) => arguments.extend(argument.filter(|it| !arguments.contains(it))),
            None => names.push((&call.name, argument.into_iter().collect())),
        }
    }
    let list = names.iter().map(|(name, arguments)| {
        let arguments = arguments.iter().map(|it| literal(it)).collect::<Vec<_>>().join(", ");
        let arguments = if arguments.is_empty() { arguments } else { format!(" ({arguments})") };
        format!("\\fB{name}\\fP{arguments}")
    });
    list.collect::<Vec<_>>().join(",\n")
}
