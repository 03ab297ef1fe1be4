// SPDX-License-Identifier: MIT OR Apache-2.0
//! What functions return, as their doc comments say it.

use crate::c::Item;
use crate::page::label_of;

/// What errnos mean that mean the same everywhere.
const ERRORS: [(&str, &str); 6] = [
    ("-ENODEV", "The device was closed: msi_device_close()."),
    ("-ESHUTDOWN", "The cache was freed: msi_route_cache_free()."),
    ("-E2BIG", "A struct is longer than this library's, and not zero in what it does not know."),
    ("-EMFILE", "No descriptor is left (RLIMIT_NOFILE)."),
    ("-ENOMEM", "No memory is left."),
    ("-ENOSPC", "No route is free."),
];

/// How doc comments say that the kernel's errors mean the same.
const KERNEL_TOO: &str = "or what the kernel says ";

/// Of control functions.
const REENTRY: &str =
    "Called from inside a function of msi_route_cache_ops, or from inside `translate`.";

/// Whether it says errors at all.
pub fn can_fail(function: &Item) -> bool {
    Results::of(function).is_some_and(|results| !results.errors.is_empty())
}

/// For a page's list.
pub struct Error<'a> {
    /// The errno, or "others".
    pub tag: String,
    pub text: String,
    /// The functions that have it, in these words.
    pub of: Vec<&'a str>,
}

/// Of all these functions, sorted; what several say in the same words is there once.
pub fn errors<'a>(functions: &[&'a Item]) -> Vec<Error<'a>> {
    let mut list: Vec<Error> = Vec::new();
    for function in functions {
        let Some(mut result) = Results::of(function) else { continue };
        if label_of(function) == "control" {
            result.errors.push(("-EDEADLK".into(), REENTRY.into()));
        }
        for (errno, why) in result.errors {
            let (tag, text) = match (errno.starts_with('-'), why.strip_prefix(KERNEL_TOO)) {
                (true, Some(why)) => (format!("{errno}, others"), why.to_string()),
                (true, None) => (errno, why),
                (false, _) => ("others".into(), errno),
            };
            match list.iter_mut().find(|error| error.tag == tag && error.text == text) {
                Some(error) => error.of.push(function.name()),
                None => list.push(Error { tag, text, of: vec![function.name()] }),
            }
        }
    }
    // What all have comes first.
    list.sort_by_key(|error| (error.tag.clone(), std::cmp::Reverse(error.of.len())));
    list
}

/// A `\return`, taken apart: `0; -EINVAL (why); -ENODEV; what the kernel says. Further sentences.`
pub struct Results {
    pub good: Vec<String>,
    pub errors: Vec<(String, String)>,
    pub notes: String,
}

impl Results {
    pub fn of(function: &Item) -> Option<Self> {
        let text = function.result()?;
        let (list, notes) = match top_level(&text, ". ").split_first() {
            Some((list, notes)) => (list.to_string(), notes.join(". ")),
            None => return None,
        };
        let mut results = Results { good: Vec::new(), errors: Vec::new(), notes };
        for item in top_level(list.trim_end_matches('.'), "; ") {
            if item.starts_with("-E") {
                results.take_errno(item, function);
            } else if results.errors.is_empty() && !item.starts_with("what ") {
                results.good.push(item.to_string());
            } else {
                results.errors.push((item.to_string(), String::new()));
            }
        }
        Some(results)
    }

    /// `-EINVAL`, `-EINVAL (why)`, `-EINVAL (also why)`, `-ENOSPC or what the kernel says if`.
    fn take_errno(&mut self, item: &str, function: &Item) {
        let (name, why) = item.split_at(item.find(' ').unwrap_or(item.len()));
        let why = why.trim();
        let inner = why.strip_prefix('(').and_then(|why| why.strip_suffix(')'));
        let why = inner.unwrap_or(why).trim_start_matches("also ");
        let usual = match ERRORS.iter().find(|(errno, _)| *errno == name) {
            Some((_, text)) if why.is_empty() => Some(text.to_string()),
            _ if name == "-EINVAL" => Some(invalid(function)),
            _ => None,
        };
        let why = Some(why.to_string()).filter(|why| !why.is_empty());
        assert!(usual.is_some() || why.is_some(), "{}: why {name}?", function.name());
        let texts = usual.into_iter().chain(why);
        self.errors.extend(texts.map(|text| (name.to_string(), text)));
    }
}

/// What is an invalid argument of any function with such parameters.
fn invalid(function: &Item) -> String {
    let names = function.parameters();
    let has = |name: &str| names.iter().any(|it| it.ends_with(&format!(" {name}")));
    match has("index") {
        true => "A pointer is NULL or misaligned, or there is no such vector.".into(),
        false => "A pointer is NULL or misaligned.".into(),
    }
}

/// Split where no parenthesis is open.
fn top_level<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= start && text[at..].starts_with(separator) => {
                parts.push(&text[start..at]);
                start = at + separator.len();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
