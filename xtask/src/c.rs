// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the header declares, as cbindgen writes it: a doc comment, then a declaration.

/// A declaration with its doc comment.
pub struct Item {
    /// The comment's lines, without its frame.
    pub doc: Vec<String>,
    /// On one line; of a struct with fields the first line, up to the brace.
    pub code: String,
    pub fields: Vec<Item>,
}

impl Item {
    /// Of a function, a struct, a constant or a type of function.
    pub fn name(&self) -> &str {
        let code = self.code.trim_end_matches([';', '{', ' ']);
        if let Some(constant) = code.strip_prefix("#define ") {
            return constant.split(' ').next().unwrap_or_default();
        }
        if self.is_pointer() {
            let (_, rest) = code.split_once("(*").unwrap_or_default();
            return rest.split(')').next().unwrap_or_default();
        }
        let before = code.split('(').next().unwrap_or_default();
        before.rsplit([' ', '*']).next().unwrap_or_default()
    }

    /// To a function. (One that only takes such a pointer is not.)
    pub fn is_pointer(&self) -> bool {
        self.code.split_once('(').is_some_and(|(_, rest)| rest.starts_with('*'))
    }

    pub fn is_function(&self) -> bool {
        self.code.ends_with(");") && !self.is_pointer() && self.name().starts_with("msi_")
    }

    /// A function's parameters, as declared.
    pub fn parameters(&self) -> Vec<&str> {
        let Some((_, list)) = self.code.split_once('(') else { return Vec::new() };
        let list = list.trim_end_matches(");");
        let (mut depth, mut start, mut parameters) = (0, 0, Vec::new());
        for (at, c) in list.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                ',' if depth == 0 => {
                    parameters.push(list[start..at].trim());
                    start = at + 1;
                }
                _ => {}
            }
        }
        parameters.push(list[start..].trim());
        parameters.retain(|parameter| *parameter != "void");
        parameters
    }

    /// The comment up to its first `\param` or `\return`: its paragraphs, each on one line.
    pub fn text(&self) -> Vec<String> {
        let end = self.doc.iter().position(|line| line.starts_with('\\'));
        let lines = &self.doc[..end.unwrap_or(self.doc.len())];
        let paragraphs = lines.split(|line| line.is_empty()).map(|lines| lines.join(" "));
        paragraphs.filter(|paragraph| !paragraph.is_empty()).collect()
    }

    /// What the comment says under `\param name`.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.tagged("\\param ").find_map(|text| {
            let (of, text) = text.split_once(' ')?;
            (of == name).then(|| text.trim().to_string())
        })
    }

    /// What it says under `\return`.
    pub fn result(&self) -> Option<String> {
        self.tagged("\\return ").next()
    }

    fn tagged<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = String> + 'a {
        let starts = (0..self.doc.len()).filter(move |&at| self.doc[at].starts_with(tag));
        starts.map(move |at| {
            let more = self.doc[at + 1..].iter().take_while(|line| line.starts_with(' '));
            let lines =
                std::iter::once(&self.doc[at][tag.len()..]).chain(more.map(|line| line.trim()));
            lines.collect::<Vec<_>>().join(" ")
        })
    }
}

/// All that has a doc comment.
pub fn items(header: &str) -> Vec<Item> {
    parse(&mut header.lines())
}

/// Up to the end, or that of the struct.
fn parse(lines: &mut std::str::Lines) -> Vec<Item> {
    let mut items = Vec::new();
    while let Some(line) = lines.next() {
        match line.trim() {
            "};" => return items,
            "/**" => {
                let doc = lines.by_ref().map(str::trim_start).take_while(|line| *line != "*/");
                let doc = doc.map(|line| line.trim_start_matches('*')).collect::<Vec<_>>();
                let doc = doc.iter().map(|line| line.strip_prefix(' ').unwrap_or(line).to_string());
                let mut item = Item { doc: doc.collect(), code: String::new(), fields: Vec::new() };
                for line in lines.by_ref() {
                    let line = line.trim();
                    // A list of parameters has a line for each.
                    let space =
                        if item.code.ends_with('(') || item.code.is_empty() { "" } else { " " };
                    item.code = format!("{}{space}{line}", item.code);
                    if line.ends_with('{') {
                        item.fields = parse(lines);
                        break;
                    }
                    if line.ends_with(';') || line.starts_with("#define") {
                        break;
                    }
                }
                items.push(item);
            }
            _ => {}
        }
    }
    items
}
