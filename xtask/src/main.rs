// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo run -p xtask -- header`: writes `include/msiroute.h` from `src/capi`; `man`: the manual, from the header and
//! `man/source`. `check-header`, `check-man`: say whether what is committed is what would be written.

mod c;
mod calls;
mod man;
mod page;
mod prototype;
mod results;
mod roff;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cbindgen::{Builder, Config, DocumentationStyle, ExportConfig, Language, Style};

use man::Files;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root");
    match std::env::args().nth(1).as_deref() {
        Some("header") => write(root, &headers(root)),
        Some("check-header") => check(root, &headers(root), "header"),
        Some("man") => {
            for stale in made(root).iter().filter(|path| !manual(root).contains_key(*path)) {
                std::fs::remove_file(root.join(stale)).expect("man/ can be written");
            }
            write(root, &manual(root))
        }
        Some("check-man") => {
            let files = manual(root);
            match made(root).iter().find(|path| !files.contains_key(*path)) {
                Some(path) => outdated(path, "man"),
                None => check(root, &files, "man"),
            }
        }
        _ => {
            eprintln!("usage: cargo run -p xtask -- header | check-header | man | check-man");
            ExitCode::FAILURE
        }
    }
}

fn write(root: &Path, files: &Files) -> ExitCode {
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("in the root")).expect("a folder");
        std::fs::write(path, text).expect("it can be written");
    }
    ExitCode::SUCCESS
}

fn check(root: &Path, files: &Files, command: &str) -> ExitCode {
    let is_as_made = |(path, text): &(&String, &String)| {
        std::fs::read_to_string(root.join(path)).ok().as_ref() == Some(*text)
    };
    match files.iter().find(|file| !is_as_made(file)) {
        Some((path, _)) => outdated(path, command),
        None => ExitCode::SUCCESS,
    }
}

fn outdated(path: &str, command: &str) -> ExitCode {
    eprintln!("{path} is not what its sources make: cargo run -p xtask -- {command}");
    ExitCode::FAILURE
}

fn headers(root: &Path) -> Files {
    [("include/msiroute.h".to_string(), header(root))].into()
}

fn manual(root: &Path) -> Files {
    let pages = man::pages(root, &c::items(&header(root)));
    pages.into_iter().map(|(path, text)| (format!("man/{path}"), text)).collect()
}

/// What is in the folders that `man` fills.
fn made(root: &Path) -> Vec<String> {
    let list = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten();
        let paths = entries.map(|entry| entry.expect("a file").path());
        let relative = |path: PathBuf| path.strip_prefix(root).expect("in the root").to_path_buf();
        paths.map(|path| relative(path).to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    [list("man/man1"), list("man/man3"), list("man/man7")].concat()
}

fn header(root: &Path) -> String {
    let prelude = std::fs::read_to_string(root.join("src/capi/prelude.h")).expect("the prelude");
    let (top, after_includes) = prelude.split_once("/* includes */\n").expect("the marker");
    let config = Config {
        language: Language::C,
        cpp_compat: true,
        style: Style::Tag,
        include_guard: Some("MSIROUTE_H".into()),
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Doxy,
        line_length: 110,
        header: Some(top.trim_end().into()),
        after_includes: Some(format!("\n{}", after_includes.trim_end())),
        export: ExportConfig {
            // The kernel's: declared in the prelude.
            rename: [("kvm_irq_routing_entry".into(), "struct kvm_irq_routing_entry".into())]
                .into(),
            ..ExportConfig::default()
        },
        ..Config::default()
    };
    let builder = Builder::new().with_config(config).with_src(root.join("src/capi/mod.rs"));
    let mut text = Vec::new();
    builder.generate().expect("cbindgen understands src/capi").write(&mut text);
    String::from_utf8(text).expect("cbindgen writes UTF-8")
}
