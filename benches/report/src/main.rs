// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the benchmarks printed, as a report.
//!
//! `report make FOLDER`: reads the figures in the folder's files (`name=value`, a line each), adds what machine this is,
//! writes `docs/benchmarks.json`, and of that the page.
//! `report page`: writes `docs/benchmarks.md`, the plots in `docs/benchmarks/` and the README's table, of `docs/benchmarks.json`.
//! `report check`: says whether they are what would be written.

mod figures;
mod page;
mod plots;

use std::path::Path;
use std::process::ExitCode;

use figures::Run;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["make", folder] => make(&root, Path::new(folder)),
        ["page"] => page(&root),
        ["check"] => check(&root),
        _ => Err("usage: report make FOLDER | page | check".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn make(root: &Path, folder: &Path) -> Result<()> {
    let run = Run::gather(folder, root)?;
    std::fs::write(root.join("docs/benchmarks.json"), serde_json::to_string_pretty(&run)? + "\n")?;
    page(root)
}

fn committed(root: &Path) -> Result<Run> {
    Ok(serde_json::from_str(&std::fs::read_to_string(root.join("docs/benchmarks.json"))?)?)
}

fn page(root: &Path) -> Result<()> {
    std::fs::create_dir_all(root.join("docs/benchmarks"))?;
    for (name, text) in written(root, &committed(root)?)? {
        std::fs::write(root.join(name), text)?;
    }
    Ok(())
}

fn check(root: &Path) -> Result<()> {
    for (name, text) in written(root, &committed(root)?)? {
        if std::fs::read_to_string(root.join(&name)).ok() != Some(text) {
            return Err(
                format!("{name} is not what docs/benchmarks.json makes: ./bench report").into()
            );
        }
    }
    Ok(())
}

/// Names, from the root, and what is in them.
fn written(root: &Path, run: &Run) -> Result<Vec<(String, String)>> {
    let mut files = vec![
        ("docs/benchmarks.md".to_string(), page::render(run, page::PAGE)?),
        ("README.md".to_string(), readme(root, &page::render(run, page::README)?)?),
    ];
    for (name, text) in plots::all(run)? {
        files.push((format!("docs/benchmarks/{name}.svg"), text));
    }
    Ok(files)
}

/// The README with this table between its marks.
fn readme(root: &Path, table: &str) -> Result<String> {
    const MARKS: [&str; 2] = ["<!-- figures -->\n", "<!-- /figures -->\n"];
    let text = std::fs::read_to_string(root.join("README.md"))?;
    let (before, rest) = text.split_once(MARKS[0]).ok_or("README.md has no <!-- figures -->")?;
    let (_, after) = rest.split_once(MARKS[1]).ok_or("README.md has no <!-- /figures -->")?;
    Ok([before, MARKS[0], "\n", table.trim(), "\n\n", MARKS[1], after].concat())
}
