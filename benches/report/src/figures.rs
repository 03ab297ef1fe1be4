// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of one run, and the machine that they are of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Result;

#[derive(Serialize, Deserialize)]
pub struct Run {
    pub library: Library,
    pub machine: Machine,
    /// What `./bench` printed. Of a median there are the quartiles too, as `_q1` and `_q3`.
    pub figures: BTreeMap<String, f64>,
}

#[derive(Serialize, Deserialize)]
pub struct Library {
    pub version: String,
    /// Of the sources, and whether they were changed since.
    pub commit: String,
}

#[derive(Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    /// Without it, what KVM runs of the guest in the kernel's stead is emulated.
    pub hardware_virtualization: bool,
    pub kernel: String,
    pub system: String,
    pub rustc: String,
    pub compiler: String,
}

impl Run {
    pub fn gather(folder: &Path, root: &Path) -> Result<Run> {
        let mut figures = BTreeMap::new();
        for file in fs::read_dir(folder)? {
            for line in fs::read_to_string(file?.path())?.lines() {
                let (name, value) =
                    line.split_once('=').ok_or_else(|| format!("no figure: {line}"))?;
                figures.insert(
                    name.to_string(),
                    value.parse().map_err(|_| format!("no number: {line}"))?,
                );
            }
        }
        let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
        let version = field(&manifest, "version", " = \"").unwrap_or("?").trim_end_matches('"');
        Ok(Run {
            library: Library {
                version: version.into(),
                commit: said_by(
                    "git",
                    &["-C", &root.to_string_lossy(), "describe", "--always", "--dirty"],
                ),
            },
            machine: Machine::this()?,
            figures,
        })
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }
}

impl Machine {
    fn this() -> Result<Machine> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let flags = field(&cpus, "flags", ":").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Ok(Machine {
            cpu: field(&cpus, "model name", ":").unwrap_or("?").into(),
            cores: std::thread::available_parallelism()?.get(),
            hardware_virtualization: flags.split(' ').any(|flag| flag == "vmx" || flag == "svm"),
            // The number: what follows is the builder's.
            kernel: release.trim().split('-').next().unwrap_or_default().into(),
            system: field(&system, "PRETTY_NAME", "=").unwrap_or("?").trim_matches('"').into(),
            rustc: said_by("rustc", &["--version"]),
            compiler: said_by("cc", &["--version"]),
        })
    }
}

/// What follows a name at the start of a line.
fn field<'a>(text: &'a str, name: &str, separator: &str) -> Option<&'a str> {
    let after = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(after.split_once(separator)?.1.trim())
}

/// The first line that a command prints.
fn said_by(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let text =
        output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("?").to_string()
}
