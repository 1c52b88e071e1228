//! How the fields of an event are written as text: with every control character escaped.
//!
//! tracing-subscriber escapes terminal sequences in the message only, and line breaks nowhere: whatever a user wrote
//! into a field could colour the terminal or forge a line. JSON needs none of this.

use std::fmt::{self, Write};
use tracing_subscriber::{
    field::MakeExt as _,
    fmt::{FormatFields, format::debug_fn},
};

pub(crate) fn escaped() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|writer, field, value| match field.name() {
        "message" => write!(Escape(writer), "{value:?}"),
        // What tracing-log adds for itself.
        name if name.starts_with("log.") => Ok(()),
        name => write!(Escape(writer), "{}={value:?}", name.trim_start_matches("r#")),
    })
    .delimited(" ")
}

struct Escape<'a, W>(&'a mut W);

impl<W: Write> Write for Escape<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            write!(self.0, "{}", part[plain.len()..].escape_default())?;
        }
        Ok(())
    }
}
