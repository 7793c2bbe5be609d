//! From a pattern's text to one that can be matched, or to what is wrong with it.
//!
//! Owns what may be asked of which place of a record. A pattern that Lambda would take
//! and that could match nothing is refused here: nobody wants one, and it would drop
//! every record without a word. Invariant: what is compiled says the same as the text.

use super::condition::{Comparison, Condition};
use super::number::Decimal;
use super::pattern::{MAX_MEMBERS, Member, Name, Node, Pattern};
use super::place::{Place, Scalars};
use super::spanned::{Json, Spanned, read};

/// What is wrong with a pattern, and at which byte of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: usize,
    pub path: Vec<String>,
    pub what: String,
}

/// Compiles a pattern's text.
///
/// # Errors
/// The first fault.
pub(super) fn compile(text: &str) -> Result<Pattern, Fault> {
    let root = read(text).map_err(|error| {
        let at = error.at();
        Fault { at, path: Vec::new(), what: format!("is not JSON: {}", error.what()) }
    })?;
    let mut compiler = Compiler { path: Vec::new(), names: Vec::new() };
    let mut lifted = Pattern::default();
    let pattern = compiler.object(&root, Place::Record, &mut lifted)?;
    Ok(joined(pattern, lifted))
}

/// A pattern of its own: its tree, with what was lifted out of it.
fn joined(mut pattern: Pattern, lifted: Pattern) -> Pattern {
    pattern.one_of.extend(lifted.one_of);
    pattern.absent.extend(lifted.absent);
    pattern
}

struct Compiler {
    /// From the root, for messages.
    path: Vec<String>,
    /// From where the pattern being compiled begins.
    names: Vec<Name>,
}

impl Compiler {
    fn fault<T>(&self, at: usize, what: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { at, path: self.path.clone(), what: what.into() })
    }

    /// An object of the pattern. What only holds of the whole record, that there is no
    /// value somewhere, goes to `lifted`.
    fn object(
        &mut self,
        node: &Spanned,
        place: Place,
        lifted: &mut Pattern,
    ) -> Result<Pattern, Fault> {
        let Json::Object(members) = &node.json else {
            return self.fault(node.at, format!("is {}; {}", node.json.kind(), place.expected()));
        };
        if members.is_empty() {
            return self.fault(node.at, "is empty and would say nothing; take it out");
        }
        if members.len() > MAX_MEMBERS {
            let what = format!("has {} members; at most {MAX_MEMBERS} are allowed", members.len());
            return self.fault(node.at, what);
        }
        let mut pattern = Pattern::default();
        for (name, value) in members {
            if let ("$or", Json::Array(alternatives)) = (name.as_str(), &value.json) {
                pattern.one_of.push(self.alternatives(value.at, alternatives, place)?);
                continue;
            }
            let inside = match place.member(name) {
                Ok(inside) => inside,
                Err(what) => return self.fault(value.at, format!("{name:?} {what}")),
            };
            self.path.push(name.clone());
            self.names.push(Name { text: name.clone(), ignore_case: place.ignores_case() });
            let node = match inside {
                Place::Leaf(scalars) => self.leaf(value, scalars, lifted)?.map(Node::Leaf),
                inside => {
                    let inner = self.object(value, inside, lifted)?;
                    (inner != Pattern::default()).then_some(Node::Pattern(inner))
                }
            };
            let name = self.names.pop().expect("pushed above");
            self.path.pop();
            pattern.members.extend(node.map(|node| Member { name, node }));
        }
        Ok(pattern)
    }

    fn alternatives(
        &mut self,
        at: usize,
        alternatives: &[Spanned],
        place: Place,
    ) -> Result<Vec<Pattern>, Fault> {
        self.path.push("$or".to_owned());
        if alternatives.len() < 2 {
            return self.fault(at, "needs two alternatives at least");
        }
        // Each is a pattern of its own, of the object that `$or` stands in.
        let names = std::mem::take(&mut self.names);
        let compiled = alternatives.iter().map(|alternative| {
            let mut lifted = Pattern::default();
            let pattern = self.object(alternative, place, &mut lifted)?;
            Ok(joined(pattern, lifted))
        });
        let compiled = compiled.collect::<Result<Vec<_>, Fault>>()?;
        self.names = names;
        self.path.pop();
        Ok(compiled)
    }

    /// A leaf's conditions; `None` where all of it went to `lifted`.
    fn leaf(
        &mut self,
        node: &Spanned,
        scalars: Scalars,
        lifted: &mut Pattern,
    ) -> Result<Option<Vec<Condition>>, Fault> {
        let Json::Array(elements) = &node.json else {
            return self.fault(
                node.at,
                format!("is {}; an array of what is looked for is expected", node.json.kind()),
            );
        };
        if elements.is_empty() {
            return self.fault(node.at, "is an empty array, which nothing matches");
        }
        let (mut conditions, mut may_be_absent) = (Vec::new(), false);
        for element in elements {
            match self.condition(element, scalars)? {
                Some(condition) => conditions.push(condition),
                None => may_be_absent = true,
            }
        }
        if !may_be_absent {
            return Ok(Some(conditions));
        }
        let absent = Pattern { absent: vec![self.names.clone()], ..Pattern::default() };
        if conditions.is_empty() {
            lifted.absent.extend(absent.absent);
        } else {
            lifted.one_of.push(vec![self.nested(conditions), absent]);
        }
        Ok(None)
    }

    /// The path so far with `conditions` at its end.
    fn nested(&self, conditions: Vec<Condition>) -> Pattern {
        let wrap = |node: Node, name: &Name| {
            let members = vec![Member { name: name.clone(), node }];
            Node::Pattern(Pattern { members, ..Pattern::default() })
        };
        match self.names.iter().rev().fold(Node::Leaf(conditions), wrap) {
            Node::Pattern(pattern) => pattern,
            Node::Leaf(_) => unreachable!("a leaf stands below a name"),
        }
    }

    /// One element of a leaf; `None` for `exists: false`.
    fn condition(&self, node: &Spanned, scalars: Scalars) -> Result<Option<Condition>, Fault> {
        Ok(Some(match &node.json {
            Json::Text(_) | Json::Token(_) => self.literal(node, scalars)?,
            Json::Array(_) => {
                return self.fault(node.at, "is an array inside an array, which nothing matches");
            }
            Json::Object(members) => match &members[..] {
                [(operator, operand)] if operator == "exists" => match &operand.json {
                    Json::Token(token) if token == "true" => Condition::Exists,
                    Json::Token(token) if token == "false" => return Ok(None),
                    _ => return self.fault(operand.at, "\"exists\" takes true or false"),
                },
                [(operator, operand)] => self.operator(node.at, operator, operand, scalars)?,
                _ => {
                    let what = "is an object; one operator is expected in it, as in {\"prefix\":\"a\"}; several stand side by side in the array";
                    return self.fault(node.at, what);
                }
            },
        }))
    }

    fn literal(&self, node: &Spanned, scalars: Scalars) -> Result<Condition, Fault> {
        if let Some(what) = scalars.never_holds(&node.json) {
            return self.fault(node.at, format!("is {}; {what}", node.json.kind()));
        }
        Ok(match &node.json {
            Json::Text(text) => Condition::Text(text.clone()),
            Json::Token(token) => Condition::Token(token.clone()),
            Json::Array(_) | Json::Object(_) => {
                let what = format!(
                    "is {}; text, a number, true, false or null is expected",
                    node.json.kind()
                );
                return self.fault(node.at, what);
            }
        })
    }

    fn operator(
        &self,
        at: usize,
        operator: &str,
        operand: &Spanned,
        scalars: Scalars,
    ) -> Result<Condition, Fault> {
        let text = |make: fn(String) -> Condition| match &operand.json {
            _ if !scalars.is_text() => self.fault(
                at,
                format!("{operator:?} looks at text, and here stands {}", scalars.words()),
            ),
            Json::Text(text) => Ok(make(text.clone())),
            other => {
                self.fault(operand.at, format!("{operator:?} takes text, not {}", other.kind()))
            }
        };
        match operator {
            "prefix" => text(Condition::Prefix),
            "suffix" => text(Condition::Suffix),
            "equals-ignore-case" => text(|text| Condition::IgnoreCase(text.to_lowercase())),
            "anything-but" => {
                let refused = match &operand.json {
                    Json::Array(refused) if refused.is_empty() => {
                        return self.fault(operand.at, "\"anything-but\" has nothing to refuse");
                    }
                    Json::Array(refused) => refused.as_slice(),
                    Json::Object(_) => {
                        let what = "\"anything-but\" takes texts or numbers: Lambda's filters have no operators inside it";
                        return self.fault(operand.at, what);
                    }
                    Json::Text(_) | Json::Token(_) => std::slice::from_ref(operand),
                };
                let refused = refused.iter().map(|one| self.literal(one, scalars));
                Ok(Condition::AnythingBut(refused.collect::<Result<_, _>>()?))
            }
            "numeric" => self.numeric(at, operand, scalars),
            _ => self.fault(
                at,
                format!("{operator:?} is no operator of Lambda's filters; prefix, suffix, equals-ignore-case, anything-but, numeric and exists are"),
            ),
        }
    }

    fn numeric(&self, at: usize, operand: &Spanned, scalars: Scalars) -> Result<Condition, Fault> {
        if !scalars.is_number() {
            let what = format!("\"numeric\" compares numbers, and here stands {}", scalars.words());
            return self.fault(at, what);
        }
        const FORM: &str = "\"numeric\" takes comparisons and numbers in turn, one pair or two, as in [\">\",0,\"<=\",100]; =, <, <=, > and >= are allowed";
        let Json::Array(parts) = &operand.json else { return self.fault(operand.at, FORM) };
        let mut tests = Vec::new();
        for pair in parts.chunks(2) {
            let [comparison, bound] = pair else { return self.fault(operand.at, FORM) };
            let (Json::Text(comparison), Json::Token(digits)) = (&comparison.json, &bound.json)
            else {
                return self.fault(comparison.at, FORM);
            };
            let test = Comparison::parse(comparison).zip(Decimal::parse(digits));
            let Some(test) = test else { return self.fault(bound.at, FORM) };
            tests.push(test);
        }
        if !(1..=2).contains(&tests.len()) {
            return self.fault(operand.at, FORM);
        }
        Ok(Condition::Numeric { tests, in_text: scalars == Scalars::NumberText })
    }
}
