//! An error with what caused it, as one line for people.

use std::error::Error;

/// The error's text and those of its causes, `connect: tcp connect error: refused`.
/// Libraries differ in whether an error's own text holds its cause's; what was said
/// already is not said again.
pub fn in_a_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    // Some list what they tried over several lines.
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Option<Box<Layer>> {
        let (text, rest) = texts.split_first()?;
        Some(Box::new(Layer { text, source: layers(rest) }))
    }

    #[test]
    fn says_each_cause_once_and_on_one_line() {
        let error =
            layers(&["sending failed", "connect: refused", "refused", "no\n  route"]).unwrap();
        assert_eq!(in_a_line(&*error), "sending failed: connect: refused: no route");
    }
}
