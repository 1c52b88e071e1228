//! Configuration: load it from a TOML file, the environment and flags, refuse what it does not know, print it.
//!
//! Later sources win: file, then `TOUCHLINE__SECTION__KEY`, then flags. Every problem is reported at once, with its
//! dotted path and where it came from. Any key can be given as `<key>_file`: then its value is that file's content,
//! which is how secrets come in.
//!
//! A configuration is a tree of plain structs that all carry `#[serde(default, deny_unknown_fields)]`; no `flatten`,
//! no `skip_serializing_if` (its keys are learned from its serialised defaults), no tagged enums around sections.
//!
//! Never depends on another crate of ours.

mod leaves;
mod print;
mod problem;
mod secret;
mod shape;

pub use problem::Problem;
pub use secret::Secret;

use leaves::Leaves;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// What a key's environment variable begins with.
pub const ENVIRONMENT_PREFIX: &str = "TOUCHLINE__";

/// A key given on the command line.
#[derive(Debug, Clone)]
pub struct Flag<'a> {
    /// The flag as the user types it, such as `--http`.
    pub flag: &'a str,
    /// The key it sets, such as `api.http`.
    pub path: &'a str,
    /// Its value.
    pub value: Value,
}

/// A valid configuration and where each key that was given came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The effective configuration.
    pub config: T,
    /// Dotted path to source, such as `touchline.toml:3` or `TOUCHLINE__API__HTTP`.
    pub origins: BTreeMap<String, String>,
}

/// Loads a configuration and holds it to `rules`, which name what a type alone cannot refuse (their paths are dotted
/// from the root).
///
/// # Errors
/// Everything that is wrong, in the order of the sources. Rules are held against what is left when the bad keys are
/// taken away, so one run shows all there is to mend.
pub fn load<T: Default + Serialize + DeserializeOwned>(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &[Flag<'_>],
    rules: impl FnOnce(&T) -> Vec<Problem>,
) -> Result<Loaded<T>, Vec<Problem>> {
    let mut leaves = Leaves::<T>::new();
    if let Some(file) = file {
        leaves.add_file(file)?;
    }
    leaves.add_environment(environment);
    leaves.add_flags(flags);
    let (config, origins, mut problems) = leaves.merge();
    for mut problem in rules(&config) {
        if let Some(origin) = origins.get(&problem.path) {
            problem.what = format!("{} ({origin})", problem.what);
        }
        problems.push(problem);
    }
    if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(problems) }
}

impl<T: Serialize> Loaded<T> {
    /// The effective configuration as TOML: secrets and passwords in URLs hidden, a comment where a value did not
    /// come from the defaults.
    pub fn print(&self) -> String {
        print::to_toml(&shape::to_json(&self.config), &self.origins)
    }
}

#[cfg(test)]
mod tests;
