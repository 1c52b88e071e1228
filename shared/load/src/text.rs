//! What a message of a load says: which one it is and when it was sent, so that whoever shows it can take the time.

use serde_json::{Value, json};

/// A text of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text {
    /// Counts the messages of a load.
    pub(crate) number: u64,
    /// When it was sent first, by the load's clock.
    pub(crate) sent: u64,
}

/// Repeated to the length that is wanted.
const FILLER: &str = "The quick brown fox jumps over the lazy dog, and then it does so once more. ";

/// Writes one, with a filler of `length`.
pub(crate) fn write(run: &str, text: Text, length: usize) -> Value {
    let filler: String = FILLER.chars().cycle().take(length).collect();
    json!({"run": run, "number": text.number, "sent": text.sent, "text": filler})
}

/// Reads one, if it is of this run.
pub(crate) fn read(content: &Value, run: &str) -> Option<Text> {
    let content = content.as_object()?;
    if content.get("run")?.as_str()? != run {
        return None;
    }
    Some(Text { number: content.get("number")?.as_u64()?, sent: content.get("sent")?.as_u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_as_it_was_written_and_only_by_its_run() {
        let text = Text { number: 7, sent: 1_000_000 };
        let content = write("a", text, 100);
        assert_eq!(content["text"].as_str().map(str::len), Some(100));
        assert_eq!(read(&content, "a"), Some(text));
        assert_eq!(read(&content, "b"), None);
        assert_eq!(read(&json!("plain"), "a"), None);
        assert_eq!(read(&json!({"run": "a"}), "a"), None);
    }
}
