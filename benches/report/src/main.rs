// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the benchmarks printed, as a report.
//!
//! `report make FOLDER`: reads the figures in the folder's files (`name=value`, a line each), adds what machine this is,
//! and writes `docs/benchmarks.json`, `docs/benchmarks.md` and the plots in `docs/benchmarks/`.
//! `report check`: says whether the latter are what the former makes.

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
        ["check"] => check(&root),
        _ => Err("usage: report make FOLDER | check".into()),
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
    std::fs::create_dir_all(root.join("docs/benchmarks"))?;
    std::fs::write(root.join("docs/benchmarks.json"), serde_json::to_string_pretty(&run)? + "\n")?;
    for (name, text) in written(&run)? {
        std::fs::write(root.join(name), text)?;
    }
    Ok(())
}

fn check(root: &Path) -> Result<()> {
    let run: Run =
        serde_json::from_str(&std::fs::read_to_string(root.join("docs/benchmarks.json"))?)?;
    for (name, text) in written(&run)? {
        if std::fs::read_to_string(root.join(&name)).ok() != Some(text) {
            return Err(
                format!("{name} is not what docs/benchmarks.json makes: ./bench report").into()
            );
        }
    }
    Ok(())
}

/// Names, from the root, and what is in them.
fn written(run: &Run) -> Result<Vec<(String, String)>> {
    let mut files = vec![("docs/benchmarks.md".to_string(), page::page(run)?)];
    for (name, text) in plots::all(run)? {
        files.push((format!("docs/benchmarks/{name}.svg"), text));
    }
    Ok(files)
}
