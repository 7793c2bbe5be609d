//! A pattern ready for use, and the walk over a record that decides whether it matches.
//!
//! Owns what matching means, as EventBridge's rules and so Lambda's filters have it: all
//! members of a pattern hold, any condition of a leaf does, and an array stands for each
//! of its elements. Knows nothing of operators or of DynamoDB. Invariant: nothing of the
//! record is copied but names and values with escapes in them.

use super::condition::{Condition, Scalar};
use crate::record::{ScanError, Scanner};
use std::borrow::Cow;
use std::ops::Range;

/// The most members that one object of a pattern may have.
pub(super) const MAX_MEMBERS: usize = 64;

/// What has to hold of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pattern {
    /// Each of these is there and holds; at most [`MAX_MEMBERS`].
    pub members: Vec<Member>,
    /// Of each of these, one holds: `$or`, and leaves that may also be absent.
    pub one_of: Vec<Vec<Pattern>>,
    /// None of these paths leads to a value: `exists: false`.
    pub absent: Vec<Vec<Name>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub name: Name,
    pub node: Node,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Pattern(Pattern),
    /// One of these holds of the value.
    Leaf(Vec<Condition>),
}

/// A member's name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Name {
    pub text: String,
    /// The members of `userIdentity` begin with a capital in GetRecords' answers and not in
    /// Lambda's events.
    pub ignore_case: bool,
}

impl Name {
    fn is(&self, name: &str) -> bool {
        match self.ignore_case {
            true => self.text.eq_ignore_ascii_case(name),
            false => self.text == name,
        }
    }
}

impl Pattern {
    /// Whether the pattern holds of `json`, a complete value.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn matches(&self, json: &str) -> Result<bool, ScanError> {
        let mut scanner = Scanner::new(json.as_bytes());
        self.walk(json, &mut scanner)
    }

    /// Whether every match needs a value somewhere below `path`.
    pub fn requires(&self, path: &[&str]) -> bool {
        let Some((first, rest)) = path.split_first() else { return true };
        let in_member =
            self.members.iter().filter(|member| member.name.is(first)).any(|member| match &member
                .node
            {
                Node::Pattern(pattern) => pattern.requires(rest),
                Node::Leaf(_) => rest.is_empty(),
            });
        let in_each = |group: &Vec<Self>| group.iter().all(|pattern| pattern.requires(path));
        in_member || self.one_of.iter().any(in_each)
    }

    /// Steps over the value that comes next.
    fn walk(&self, json: &str, scanner: &mut Scanner<'_>) -> Result<bool, ScanError> {
        match scanner.peek()? {
            b'{' => self.object(json, scanner),
            b'[' => any(scanner, |scanner| self.walk(json, scanner)),
            _ => scanner.value().map(|_| false),
        }
    }

    fn object(&self, json: &str, scanner: &mut Scanner<'_>) -> Result<bool, ScanError> {
        let mut held = 0_u64;
        let span = scanner.object(|scanner, key| {
            let name = unescaped(json, key);
            let Some(index) = self.members.iter().position(|member| member.name.is(&name)) else {
                return scanner.value().map(drop);
            };
            let holds = match &self.members[index].node {
                Node::Pattern(pattern) => pattern.walk(json, scanner)?,
                Node::Leaf(conditions) => leaf(conditions, json, scanner)?,
            };
            held |= u64::from(holds) << index;
            Ok(())
        })?;
        if held.count_ones() as usize != self.members.len() {
            return Ok(false);
        }
        let json = &json[span];
        for group in &self.one_of {
            let mut holds = false;
            for pattern in group {
                holds = holds || pattern.matches(json)?;
            }
            if !holds {
                return Ok(false);
            }
        }
        for path in &self.absent {
            if leads_to_a_value(path, json, &mut Scanner::new(json.as_bytes()))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether one of an array's elements passes; all are stepped over.
fn any(
    scanner: &mut Scanner<'_>,
    mut passes: impl FnMut(&mut Scanner<'_>) -> Result<bool, ScanError>,
) -> Result<bool, ScanError> {
    let mut found = false;
    scanner.array(|scanner| {
        found |= passes(scanner)?;
        Ok(())
    })?;
    Ok(found)
}

fn leaf(
    conditions: &[Condition],
    json: &str,
    scanner: &mut Scanner<'_>,
) -> Result<bool, ScanError> {
    if scanner.peek()? == b'[' {
        return any(scanner, |scanner| leaf(conditions, json, scanner));
    }
    let value = Scalar::read(&json[scanner.value()?]);
    Ok(value.is_some_and(|value| conditions.iter().any(|condition| condition.holds(&value))))
}

fn leads_to_a_value(
    path: &[Name],
    json: &str,
    scanner: &mut Scanner<'_>,
) -> Result<bool, ScanError> {
    match (scanner.peek()?, path.split_first()) {
        (b'[', _) => any(scanner, |scanner| leads_to_a_value(path, json, scanner)),
        (b'{', Some((first, rest))) => {
            let mut found = false;
            scanner.object(|scanner, key| {
                if first.is(&unescaped(json, key)) {
                    found |= leads_to_a_value(rest, json, scanner)?;
                    return Ok(());
                }
                scanner.value().map(drop)
            })?;
            Ok(found)
        }
        // Only a leaf exists: an object at the end of the path does not.
        (kind, rest) => scanner.value().map(|_| kind != b'{' && rest.is_none()),
    }
}

/// A name, from where it lies between its quotes.
fn unescaped(json: &str, key: Range<usize>) -> Cow<'_, str> {
    let quoted = key.start - 1..key.end + 1;
    match memchr::memchr(b'\\', &json.as_bytes()[key.clone()]) {
        None => Cow::Borrowed(&json[key]),
        Some(_) => Cow::Owned(serde_json::from_str(&json[quoted]).unwrap_or_default()),
    }
}
