//! A configuration as TOML, for eyes: what is secret is hidden.

use crate::secret::HIDDEN;
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

/// The tree as TOML. What is unset stands as a comment, where a value was given a comment says where.
pub(crate) fn to_toml(tree: &Value, origins: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    if let Value::Object(table) = tree {
        write_table(&mut out, "", table, origins);
    }
    out
}

fn write_table(out: &mut String, path: &str, table: &Map<String, Value>, origins: &BTreeMap<String, String>) {
    let (sections, keys): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| is_section(value));
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    if !path.is_empty() && !keys.is_empty() {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}[{path}]");
    }
    for (key, value) in keys {
        let origin = origins.get(&join(key)).map(|origin| format!("  # {origin}")).unwrap_or_default();
        let _ = match to_toml_value(value) {
            Some(value) => writeln!(out, "{key} = {value}{origin}"),
            None => writeln!(out, "# {key} is not set{origin}"),
        };
    }
    for (key, value) in sections {
        if let Value::Object(table) = value {
            write_table(out, &join(key), table, origins);
        }
    }
}

fn is_section(value: &Value) -> bool {
    value.as_object().is_some_and(|table| !table.is_empty())
}

fn to_toml_value(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => hide_password(text).into_owned().into(),
        Value::Array(items) => items.iter().filter_map(to_toml_value).collect::<Vec<_>>().into(),
        Value::Object(table) => {
            let entries = table.iter().filter_map(|(key, value)| Some((key.clone(), to_toml_value(value)?)));
            toml::Value::Table(entries.collect())
        }
    })
}

/// `scheme://user:password@host` without the password.
pub(crate) fn hide_password(text: &str) -> Cow<'_, str> {
    let hidden = || {
        let (scheme, rest) = text.split_once("://")?;
        // The last @ of all: a password with an unescaped / is hidden too.
        let at = rest.rfind('@')?;
        let colon = rest[..at].find(':')?;
        Some(format!("{scheme}://{}:{HIDDEN}{}", &rest[..colon], &rest[at..]))
    };
    hidden().map_or(Cow::Borrowed(text), Cow::Owned)
}
