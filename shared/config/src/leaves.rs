//! The keys that were given, from every source, each tried by itself.

use crate::{
    ENVIRONMENT_PREFIX, Flag, Problem,
    shape::{Place, Shape, put},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fs, path::Path};
use toml::de::{DeTable, DeValue};

/// Good keys by dotted path, and the problems of the others.
pub(crate) struct Leaves<T> {
    shape: Shape<T>,
    good: BTreeMap<String, (Value, String)>,
    problems: Vec<Problem>,
}

/// A value as its source has it.
enum Given {
    /// From a file or flag: it has a type.
    Typed(Value),
    /// From the environment: its type is what the key expects.
    Text(String),
}

impl<T: Default + Serialize + DeserializeOwned> Leaves<T> {
    pub(crate) fn new() -> Self {
        Self { shape: Shape::new(), good: BTreeMap::new(), problems: Vec::new() }
    }

    /// Adds a TOML file. A file that cannot be read or parsed is the only problem there is: without it, every other
    /// one would be noise.
    pub(crate) fn add_file(&mut self, file: &Path) -> Result<(), Vec<Problem>> {
        let name = file.display().to_string();
        let text = fs::read_to_string(file)
            .map_err(|error| vec![Problem::new(&name, format!("the configuration file cannot be read: {error}"))])?;
        let table = text.parse::<toml::Table>().map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            vec![Problem::new(format!("{name}:{line}"), format!("not TOML: {}", error.message().replace('\n', " ")))]
        })?;
        let mut lines = BTreeMap::new();
        if let Ok(spanned) = DeTable::parse(&text) {
            find_lines(spanned.get_ref(), "", &text, &mut lines);
        }
        let origin = |path: &str| match lines.get(path) {
            Some(line) => format!("{name}:{line}"),
            None => name.clone(),
        };
        let table = serde_json::to_value(table).map_err(|error| vec![Problem::new(&name, error.to_string())])?;
        self.walk("", table, &origin);
        Ok(())
    }

    pub(crate) fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let ours: BTreeMap<_, _> = variables.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
        for (name, text) in ours {
            let path = name[ENVIRONMENT_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            self.give(&path, Given::Text(text), &name);
        }
    }

    pub(crate) fn add_flags(&mut self, flags: &[Flag<'_>]) {
        for flag in flags {
            self.give(flag.path, Given::Typed(flag.value.clone()), flag.flag);
        }
    }

    /// The configuration the good keys make, where they came from, and what is wrong with the others.
    pub(crate) fn merge(mut self) -> (T, BTreeMap<String, String>, Vec<Problem>) {
        let mut tree = Value::Object(Map::new());
        let mut origins = BTreeMap::new();
        for (path, (value, origin)) in self.good {
            put(&mut tree, &path, value);
            origins.insert(path, origin);
        }
        let config = serde_json::from_value(tree).unwrap_or_else(|error| {
            self.problems.push(Problem::new("configuration", error.to_string()));
            T::default()
        });
        (config, origins, self.problems)
    }

    /// Follows a table down to the keys the shape knows.
    fn walk(&mut self, path: &str, value: Value, origin: &dyn Fn(&str) -> String) {
        match value {
            Value::Object(table) if self.shape.find(path) == Place::Section => {
                for (key, value) in table {
                    let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                    self.walk(&path, value, origin);
                }
            }
            value => self.give(path, Given::Typed(value), &origin(path)),
        }
    }

    fn give(&mut self, path: &str, given: Given, origin: &str) {
        let result = match self.shape.find(path) {
            Place::Leaf => self.typed(path, given).map(|value| (path, value)),
            Place::Section => Err(format!("is a section: give its keys, such as {path}.…")),
            Place::Unknown => match path.strip_suffix("_file") {
                Some(key) if self.shape.find(key) == Place::Leaf => {
                    self.read_file(key, given).map(|value| (key, value))
                }
                _ => Err(self.unknown(path, origin)),
            },
        };
        match result {
            Ok((key, value)) => {
                if let Some((_, before)) = self.good.insert(key.to_owned(), (value, origin.to_owned()))
                    && source(&before) == source(origin)
                {
                    self.problems.push(Problem::new(key, format!("given twice, as {key} and {key}_file ({origin})")));
                }
            }
            Err(what) => self.problems.push(Problem::new(path, format!("{what} ({origin})"))),
        }
    }

    /// The value as the key's type wants it.
    fn typed(&self, path: &str, given: Given) -> Result<Value, String> {
        let text = match given {
            Given::Typed(value) => return self.shape.accepts(path, value.clone()).map(|()| value),
            Given::Text(text) => text,
        };
        let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        let as_toml = parse_toml(&text);
        // Text first, so that a text key takes 123; a list takes both ["a", "b"] and a,b.
        let readings = [
            Some(Value::from(text.as_str())),
            as_toml.clone(),
            items.iter().map(|item| parse_toml(item)).collect(),
            Some(items.iter().copied().collect()),
        ];
        let fits = |value: &Value| self.shape.accepts(path, value.clone()).is_ok();
        match readings.into_iter().flatten().find(fits) {
            Some(value) => Ok(value),
            None => self.typed(path, Given::Typed(as_toml.unwrap_or_else(|| text.into()))),
        }
    }

    /// The content of the file that `given` names, without the newline at its end.
    fn read_file(&self, key: &str, given: Given) -> Result<Value, String> {
        let (Given::Text(file) | Given::Typed(Value::String(file))) = given else {
            return Err("expected the path of a file".to_owned());
        };
        let text = fs::read_to_string(&file).map_err(|error| format!("{file} cannot be read: {error}"))?;
        self.typed(key, Given::Text(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    fn unknown(&self, path: &str, origin: &str) -> String {
        match self.shape.nearest(path) {
            Some(known) if origin.starts_with(ENVIRONMENT_PREFIX) => {
                let known = known.to_ascii_uppercase().replace('.', "__");
                format!("unknown key; did you mean {ENVIRONMENT_PREFIX}{known}?")
            }
            Some(known) => format!("unknown key; did you mean {known}?"),
            None => "unknown key".to_owned(),
        }
    }
}

/// What two keys of one source have in common: the file, the environment, the command line.
fn source(origin: &str) -> &str {
    match origin {
        _ if origin.starts_with(ENVIRONMENT_PREFIX) => ENVIRONMENT_PREFIX,
        _ if origin.starts_with("--") => "--",
        _ => "file",
    }
}

fn parse_toml(text: &str) -> Option<Value> {
    let table = format!("value = {text}").parse::<toml::Table>().ok()?;
    serde_json::to_value(table.get("value").filter(|_| table.len() == 1)?).ok()
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn find_lines(table: &DeTable<'_>, path: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        lines.insert(path.clone(), line_of(text, key.span().start));
        if let DeValue::Table(table) = value.get_ref() {
            find_lines(table, &path, text, lines);
        }
    }
}
