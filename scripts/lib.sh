# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=sh
# Sourced in the project's folder: what several scripts read in its sources.

version() { sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml; }

# The names of the functions, as the version map has them.
exported() { sed -n 's/^ *\(msi_[a-z_]*\);$/\1/p' msiroute.map | sort -u; }

# The README's example in C.
readme_example() { sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d'; }
