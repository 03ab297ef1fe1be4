// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo run -p xtask -- header`: writes `include/msiroute.h` from `src/capi`.
//! `cargo run -p xtask -- check-header`: says whether the committed one is what would be written.

use std::path::Path;
use std::process::ExitCode;

use cbindgen::{Builder, Config, DocumentationStyle, ExportConfig, Language, Style};

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root");
    let path = root.join("include/msiroute.h");
    match std::env::args().nth(1).as_deref() {
        Some("header") => {
            std::fs::write(&path, header(root)).expect("include/ can be written");
            ExitCode::SUCCESS
        }
        Some("check-header") => {
            if std::fs::read_to_string(&path).ok() == Some(header(root)) {
                return ExitCode::SUCCESS;
            }
            eprintln!(
                "include/msiroute.h is not what src/capi makes: cargo run -p xtask -- header"
            );
            ExitCode::FAILURE
        }
        _ => {
            eprintln!("usage: cargo run -p xtask -- header | check-header");
            ExitCode::FAILURE
        }
    }
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
