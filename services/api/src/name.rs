//! Names that people read: what they may contain.

use crate::error::Error;

/// `text` trimmed, if it is a name that shows as what it is: 1 to `longest` characters, no control characters and
/// none that change the direction of the text around them.
///
/// # Errors
/// [`Error::InvalidField`] that names `field`.
pub fn read(field: &'static str, text: &str, longest: usize) -> Result<String, Error> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > longest {
        return Err(Error::field(field, format!("must be 1 to {longest} characters")));
    }
    if text.chars().any(misleads) {
        return Err(Error::field(field, "must not contain control or text-direction characters"));
    }
    Ok(text.to_owned())
}

/// Control characters, line and paragraph separators, bidirectional controls, zero-width characters but for the
/// joiners that scripts and emoji need, and the byte order mark.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_as_what_they_are() {
        assert_eq!(read("name", "  Grüße 👩‍🚀 ", 64).unwrap(), "Grüße 👩‍🚀");
        for bad in ["", "   ", "a\u{202e}b", "a\nb", "a\u{0}b", "\u{feff}", &"x".repeat(65)] {
            assert!(read("name", bad, 64).is_err(), "{bad:?}");
        }
    }
}
