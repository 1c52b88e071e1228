//! The keys a configuration has, learned from its serialised defaults.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::marker::PhantomData;

/// The tree of known keys of `T`.
pub(crate) struct Shape<T> {
    defaults: Value,
    of: PhantomData<fn() -> T>,
}

/// What a path names.
#[derive(Debug, PartialEq)]
pub(crate) enum Place {
    /// A table of keys.
    Section,
    /// A key. Tables without known keys count as one: they are free maps.
    Leaf,
    /// Nothing.
    Unknown,
}

/// A configuration as a JSON tree, which shows an unset `Option` where TOML would leave it out.
pub(crate) fn to_json(config: &impl Serialize) -> Value {
    serde_json::to_value(config).expect("a configuration is plain structs with text keys")
}

impl<T: Default + Serialize + DeserializeOwned> Shape<T> {
    pub(crate) fn new() -> Self {
        Self { defaults: to_json(&T::default()), of: PhantomData }
    }

    pub(crate) fn find(&self, path: &str) -> Place {
        let mut at = Some(&self.defaults);
        for key in path.split('.').filter(|key| !key.is_empty()) {
            at = at.and_then(as_section).and_then(|section| section.get(key));
        }
        match at {
            None => Place::Unknown,
            Some(value) if as_section(value).is_some() => Place::Section,
            Some(_) => Place::Leaf,
        }
    }

    /// Whether the key at `path` takes `value`, tried by itself on top of the defaults. The reason never repeats the
    /// value: it may be a secret.
    pub(crate) fn accepts(&self, path: &str, value: Value) -> Result<(), String> {
        let mut tree = Value::Object(Map::new());
        put(&mut tree, path, value);
        serde_json::from_value::<T>(tree).map(drop).map_err(|error| {
            let error = error.to_string();
            error.rsplit_once(", expected ").map_or(error.clone(), |(_, expected)| format!("expected {expected}"))
        })
    }

    /// The known path that an unknown one was most likely meant to be: the nearest name beside it, or the same name
    /// in another section.
    pub(crate) fn nearest(&self, path: &str) -> Option<String> {
        let mut known = Vec::new();
        collect(&self.defaults, String::new(), &mut known);
        let name = last(path);
        let beside = known
            .iter()
            .filter(|candidate| parent(candidate) == parent(path))
            .map(|candidate| (distance(last(candidate), name), candidate))
            .filter(|(distance, _)| *distance <= (name.len() / 3).max(2))
            .min();
        let elsewhere = || known.iter().find(|candidate| last(candidate) == name);
        beside.map(|(_, path)| path).or_else(elsewhere).cloned()
    }
}

/// Sets the value at a dotted path, making the tables on the way.
pub(crate) fn put(tree: &mut Value, path: &str, value: Value) {
    let mut at = tree;
    for key in path.split('.') {
        at = &mut at[key];
    }
    *at = value;
}

fn as_section(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|map| !map.is_empty())
}

fn collect(value: &Value, path: String, known: &mut Vec<String>) {
    for (key, value) in as_section(value).into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        collect(value, path.clone(), known);
        known.push(path);
    }
}

fn last(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, last)| last)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// Levenshtein's edit distance, by bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
