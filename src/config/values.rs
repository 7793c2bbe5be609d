//! Texts by name, and the kinds of value they are read as.
//!
//! Owns the sentences about what is allowed. Reads through a lookup, so that tests pass
//! a map and the program its flags over its environment. A variable that is set but
//! empty counts as not set: compose files and charts pass such.

use super::settings::{Command, SETTINGS};
use std::fmt;
use std::time::Duration;

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The variable.
    pub name: &'static str,
    /// A sentence without its subject: what is wrong and what is allowed.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.what)
    }
}

/// Everything that is wrong with the configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Reads settings and collects what is wrong with them.
pub struct Values<'a> {
    command: Command,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<Fault>,
}

impl<'a> Values<'a> {
    /// Reads the settings of `command` through `lookup`.
    pub fn new(command: Command, lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { command, lookup, faults: Vec::new() }
    }

    /// The faults found; `Ok` when there are none.
    ///
    /// # Errors
    /// All faults, in the order found.
    pub fn finish(self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(Faults(self.faults)) }
    }

    /// What `name` is set to, or its default; `None` for neither.
    pub fn text(&self, name: &'static str) -> Option<String> {
        self.get(name).or_else(|| {
            let setting = SETTINGS.iter().find(|setting| setting.name == name)?;
            Some(setting.default_in(self.command))
                .filter(|default| !default.is_empty())
                .map(str::to_owned)
        })
    }

    /// What is not among the settings but read from the same place (`AWS_REGION`).
    pub fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// Notes a fault.
    pub fn fault(&mut self, name: &'static str, what: impl Into<String>) {
        self.faults.push(Fault { name, what: what.into() });
    }

    /// Reads `name` with `read`; its error becomes a fault.
    pub fn read<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name)?;
        read(&text).map_err(|what| self.fault(name, what)).ok()
    }

    /// As [`Self::read`], and a fault when it is not set.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.text(name).is_none() {
            let help = SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.help);
            self.fault(name, format!("is not set. {help}"));
        }
        self.read(name, read)
    }

    /// A whole number within bounds.
    pub fn number(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        self.read(name, |text| {
            let number = text.parse().ok().filter(|number| (min..=max).contains(number));
            number.ok_or_else(|| {
                format!("is {text:?}; a whole number from {min} to {max} is allowed")
            })
        })
    }

    /// A whole number within bounds, or -1, which is `Some(None)`.
    pub fn number_or_never(
        &mut self,
        name: &'static str,
        min: u64,
        max: u64,
    ) -> Option<Option<u64>> {
        self.read(name, |text| {
            if text == "-1" {
                return Ok(None);
            }
            let number = text.parse().ok().filter(|number| (min..=max).contains(number));
            number.map(Some).ok_or_else(|| {
                format!("is {text:?}; -1, or a whole number from {min} to {max} is allowed")
            })
        })
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, |text| {
            text.parse().map_err(|_| format!("is {text:?}; true and false are allowed"))
        })
    }

    /// A duration with a unit, within bounds.
    pub fn duration(
        &mut self,
        name: &'static str,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        self.read(name, |text| {
            humantime::parse_duration(text)
                .ok()
                .filter(|duration| (min..=max).contains(duration))
                .ok_or_else(|| {
                    format!(
                        "is {text:?}; a duration with a unit (500ms, 10s, 5m) from {} to {} is allowed",
                        humantime::format_duration(min),
                        humantime::format_duration(max),
                    )
                })
        })
    }

    /// A size in bytes: a number, or one with KiB, MiB or GiB.
    pub fn size(&mut self, name: &'static str, min: usize, max: usize) -> Option<usize> {
        self.read(name, |text| {
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let unit = match &text[digits.len()..] {
                "" => Some(1usize),
                "KiB" => Some(1 << 10),
                "MiB" => Some(1 << 20),
                "GiB" => Some(1 << 30),
                _ => None,
            };
            unit.and_then(|unit| digits.parse::<usize>().ok()?.checked_mul(unit))
                .filter(|size| (min..=max).contains(size))
                .ok_or_else(|| {
                    format!("is {text:?}; a size in bytes (64MiB, 1GiB, 1048576) from {min} to {max} bytes is allowed")
                })
        })
    }
}
