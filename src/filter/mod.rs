//! Which records the handler gets at all, `FILTER_CRITERIA`: Lambda's filters.
//!
//! Owns the criteria, from their text to the verdict on a record. Rooms: `spanned` reads a
//! pattern's text, `place` knows what a record looks like, `compile` refuses what could
//! never match, `pattern` matches, `condition` and `number` compare. Differences from
//! Lambda stand in `docs/filters.md`. Invariant: a record that cannot be judged is kept.
//!
//! Written here and not with `quamina`, whose paths take a `.` in an attribute's name for
//! a step down, whose numbers are floats, which knows no `$or`, and which loses matches
//! where a pattern has two `exists` (0.7); a property test holds the two to each other
//! where they mean the same.

mod compile;
mod condition;
mod number;
mod pattern;
mod place;
mod spanned;
#[cfg(test)]
mod tests;

use crate::record::Record;
use pattern::Pattern;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most filters that a mapping may have (Lambda's, at its raised quota).
pub const MAX_FILTERS: usize = 10;
/// The most characters of a pattern (Lambda's).
pub const MAX_PATTERN_CHARS: usize = 4096;

/// Filters of which one has to match; none at all let every record through. Cheap to
/// clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterCriteria {
    patterns: Arc<[Pattern]>,
}

impl FilterCriteria {
    /// Reads `{"Filters":[{"Pattern":"{…}"}]}`.
    ///
    /// # Errors
    /// What is wrong, as a fragment that names the filter, the path in its pattern and the
    /// character.
    pub fn parse(text: &str) -> Result<Self, String> {
        let patterns = patterns_of(text)?;
        let count = patterns.len();
        if count > MAX_FILTERS {
            return Err(format!("has {count} filters; at most {MAX_FILTERS} are allowed"));
        }
        let compile = |(index, text): (usize, &String)| {
            let chars = text.chars().count();
            if chars > MAX_PATTERN_CHARS {
                return Err(format!(
                    "Filters[{index}].Pattern has {chars} characters; at most {MAX_PATTERN_CHARS} are allowed"
                ));
            }
            compile::compile(text).map_err(|fault| {
                let path = match fault.path.is_empty() {
                    true => String::new(),
                    false => format!(" at {}", fault.path.join(".")),
                };
                let character = text[..fault.at].chars().count() + 1;
                format!("Filters[{index}].Pattern{path} (character {character}) {}", fault.what)
            })
        };
        let patterns = patterns.iter().enumerate().map(compile);
        Ok(Self { patterns: patterns.collect::<Result<_, _>>()? })
    }

    /// Whether the handler gets `record`.
    pub fn passes(&self, record: &Record) -> bool {
        let matches = |pattern: &Pattern| pattern.matches(record.as_text()).unwrap_or(true);
        self.patterns.is_empty() || self.patterns.iter().any(matches)
    }

    /// The first filter that asks for an image which records of this view type do not
    /// have, so that it can match none of them: its index, and the image.
    pub fn without_image(&self, view_type: &str) -> Option<(usize, &'static str)> {
        let lacks: &[&'static str] = match view_type {
            "KEYS_ONLY" => &["NewImage", "OldImage"],
            "NEW_IMAGE" => &["OldImage"],
            "OLD_IMAGE" => &["NewImage"],
            _ => &[],
        };
        self.patterns.iter().enumerate().find_map(|(index, pattern)| {
            let image = lacks.iter().find(|image| pattern.requires(&["dynamodb", image]))?;
            Some((index, *image))
        })
    }

    /// A sentence about the filter that [`Self::without_image`] finds.
    pub fn fault_with(&self, view_type: &str) -> Option<String> {
        self.without_image(view_type).map(|(index, image)| {
            format!(
                "FILTER_CRITERIA: Filters[{index}].Pattern asks for {image}, but the stream's records have {view_type}, so that it can match none: enable the stream with NEW_AND_OLD_IMAGES, or change the filter"
            )
        })
    }
}

/// The patterns' texts out of Lambda's form. By maps: a struct would take an array, too.
fn patterns_of(text: &str) -> Result<Vec<String>, String> {
    const FORM: &str =
        r#"{"Filters":[{"Pattern":"…"}]} is allowed, with the pattern's JSON as text"#;
    let criteria: BTreeMap<String, Vec<BTreeMap<String, String>>> =
        serde_json::from_str(text).map_err(|error| format!("cannot be read: {error}; {FORM}"))?;
    let stranger = |name: &str| format!("has a member {name:?}; {FORM}");
    let mut patterns = Vec::new();
    for (name, filters) in criteria {
        if name != "Filters" {
            return Err(stranger(&name));
        }
        for mut filter in filters {
            let pattern = filter.remove("Pattern");
            if let Some(name) = filter.keys().next() {
                return Err(stranger(name));
            }
            let missing = || format!("has a filter without Pattern; {FORM}");
            patterns.push(pattern.ok_or_else(missing)?);
        }
    }
    Ok(patterns)
}
