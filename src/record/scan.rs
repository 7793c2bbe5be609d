//! A forward-only walk over JSON text that notes where values lie and builds nothing.
//!
//! Owns JSON's grammar as far as slicing needs it: structure, literals, numbers and
//! where strings end. It does not decode strings and lets raw control characters in
//! them pass. Invariant: a span it returns holds one complete value, and depth is
//! bounded, so hostile text can neither overflow the stack nor escape its slice.
//!
//! Hand-written because it is the hot loop of the whole program: one pass over a page
//! finds every record, its sequence number, time and keys at close to memory speed. Most of
//! that text is values that are only stepped over, by a loop without calls or spans
//! ([`Scanner::skip`]), and most of those are `{"S":"…"}`, which it takes in one step.

use super::quotes::find_quote_or_backslash;
use std::ops::Range;

/// Nesting beyond which text is refused. DynamoDB allows 32 levels of attribute values,
/// each two JSON levels deep, inside an envelope of four. A bit of [`Kinds`] for each.
pub(crate) const MAX_DEPTH: usize = Kinds::BITS as usize;

/// The brackets that are open, a bit each: set for an object.
type Kinds = u128;

/// Where and why the text stopped being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct ScanError {
    what: &'static str,
    at: usize,
}

impl ScanError {
    pub(crate) fn new(what: &'static str, at: usize) -> Self {
        Self { what, at }
    }

    /// What was found or missed there.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// The byte at which it was.
    pub(crate) fn at(&self) -> usize {
        self.at
    }
}

type Scanned<T> = Result<T, ScanError>;

/// A place in the text that only moves forward.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// Walks an object: `member` is called with where each key lies (between its quotes,
    /// escapes untouched), placed before its value, and must consume exactly that value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Range<usize>) -> Scanned<()>,
    ) -> Scanned<Range<usize>> {
        let start = self.open(b'{', "expected an object")?;
        if self.peek()? == b'}' {
            return Ok(self.close(start));
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "expected ':'")?;
            member(self, key)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => return Ok(self.close(start)),
                _ => return self.fail("expected ',' or '}'"),
            }
        }
    }

    /// Walks an array: `element` is called before each element and must consume it.
    pub(crate) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Scanned<()>,
    ) -> Scanned<Range<usize>> {
        let start = self.open(b'[', "expected an array")?;
        if self.peek()? == b']' {
            return Ok(self.close(start));
        }
        loop {
            element(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => return Ok(self.close(start)),
                _ => return self.fail("expected ',' or ']'"),
            }
        }
    }

    /// A string; the span is what stands between the quotes, escapes untouched.
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Scanned<Range<usize>> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        if let Some(length) = find_quote_or_backslash(&self.text[start..])
            && self.text[start + length] == b'"'
        {
            self.at = start + length + 1;
            return Ok(start..start + length);
        }
        self.escaped_string()
    }

    /// A string from behind its first quote, with escapes in it or without an end.
    #[cold]
    fn escaped_string(&mut self) -> Scanned<Range<usize>> {
        let start = self.at;
        loop {
            let Some(found) = find_quote_or_backslash(&self.text[self.at..]) else {
                return self.fail("unterminated string");
            };
            self.at += found + 1;
            if self.text[self.at - 1] == b'"' {
                return Ok(start..self.at - 1);
            }
            self.escape()?;
        }
    }

    /// Any value; the span is the whole of it.
    #[inline]
    pub(crate) fn value(&mut self) -> Scanned<Range<usize>> {
        self.skip_space();
        let start = self.at;
        self.skip()?;
        Ok(start..self.at)
    }

    /// Steps over a value. What is open inside of it is kept in bits, so that text can nest as
    /// deeply as it may without a call for each level.
    fn skip(&mut self) -> Scanned<()> {
        let (outside, mut kinds) = (self.depth, Kinds::default());
        loop {
            match self.peek()? {
                b'{' if self.skip_typed() => {}
                bracket @ (b'{' | b'[') => {
                    let is_object = bracket == b'{';
                    self.enter()?;
                    kinds = kinds << 1 | Kinds::from(is_object);
                    if self.peek()? != closing(is_object) {
                        if is_object {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                _ => self.skip_plain()?,
            }
            // A value is over, or an empty one about to be, and with it those that end there.
            while self.depth > outside {
                let is_object = kinds & 1 == 1;
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        if is_object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    byte if byte == closing(is_object) => {
                        self.leave();
                        kinds >>= 1;
                    }
                    _ if is_object => return self.fail("expected ',' or '}'"),
                    _ => return self.fail("expected ',' or ']'"),
                }
            }
            if self.depth == outside {
                return Ok(());
            }
        }
    }

    /// Steps over `{"S":"…"}`, whatever the letter, if it stands here just like that. Nearly
    /// every attribute does.
    #[inline(always)]
    fn skip_typed(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let Some((head, value)) = rest.split_first_chunk() else { return false };
        let [brace, quote, letter, close, colon, open] = *head;
        let is_typed = [brace, quote, close, colon, open] == *b"{\"\":\"";
        if !(is_typed && letter.is_ascii_uppercase()) {
            return false;
        }
        let Some(end) = find_quote_or_backslash(value) else { return false };
        let is_whole = value[end..].starts_with(b"\"}") && self.depth < MAX_DEPTH;
        self.at += if is_whole { 6 + end + 2 } else { 0 };
        is_whole
    }

    /// Steps over a key and its colon.
    #[inline(always)]
    fn skip_key(&mut self) -> Scanned<()> {
        self.string()?;
        self.expect(b':', "expected ':'")
    }

    /// Steps over a value that holds no others.
    #[inline]
    fn skip_plain(&mut self) -> Scanned<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    /// A string or `null`.
    pub(crate) fn string_or_null(&mut self) -> Scanned<Option<Range<usize>>> {
        if self.peek()? == b'n' {
            return self.literal(b"null").map(|()| None);
        }
        self.string().map(Some)
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Scanned<()> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.fail("trailing characters") }
    }

    fn number(&mut self) -> Scanned<()> {
        self.accept(b"-");
        if !self.accept(b"0") && self.digits() == 0 {
            return self.fail("expected a value");
        }
        if self.accept(b".") && self.digits() == 0 {
            return self.fail("expected a digit");
        }
        if self.accept(b"eE") {
            self.accept(b"+-");
            if self.digits() == 0 {
                return self.fail("expected a digit");
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.accept(b"0123456789") {}
        self.at - start
    }

    fn accept(&mut self, any_of: &[u8]) -> bool {
        let hit = self.text.get(self.at).is_some_and(|byte| any_of.contains(byte));
        self.at += usize::from(hit);
        hit
    }

    fn literal(&mut self, literal: &'static [u8]) -> Scanned<()> {
        if !self.text[self.at..].starts_with(literal) {
            return self.fail("expected a value");
        }
        self.at += literal.len();
        Ok(())
    }

    /// After a backslash.
    fn escape(&mut self) -> Scanned<()> {
        match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => match self.text.get(self.at + 1..self.at + 5) {
                Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => self.at += 5,
                _ => return self.fail("bad escape"),
            },
            _ => return self.fail("bad escape"),
        }
        Ok(())
    }

    fn open(&mut self, bracket: u8, what: &'static str) -> Scanned<usize> {
        if self.peek()? != bracket {
            return self.fail(what);
        }
        self.enter()?;
        Ok(self.at - 1)
    }

    /// Steps over an opening bracket.
    fn enter(&mut self) -> Scanned<()> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("nested too deeply");
        }
        Ok(())
    }

    fn close(&mut self, start: usize) -> Range<usize> {
        self.leave();
        start..self.at
    }

    /// Steps over a closing bracket.
    fn leave(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8, what: &'static str) -> Scanned<()> {
        if self.peek()? != byte {
            return self.fail(what);
        }
        self.at += 1;
        Ok(())
    }

    /// The byte that comes next, white space aside.
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Scanned<u8> {
        self.skip_space();
        match self.text.get(self.at) {
            Some(&byte) => Ok(byte),
            None => self.fail("unexpected end"),
        }
    }

    #[inline(always)]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn fail<T>(&self, what: &'static str) -> Scanned<T> {
        Err(ScanError::new(what, self.at))
    }
}

fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn accepts(text: &[u8]) -> bool {
        let mut scanner = Scanner::new(text);
        scanner.value().and_then(|_| scanner.end()).is_ok()
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(accepts(nested(MAX_DEPTH).as_bytes()));
        assert!(!accepts(nested(MAX_DEPTH + 1).as_bytes()));
        assert!(!accepts("[".repeat(1_000_000).as_bytes()));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_span_of_a_value_is_the_value(value in json(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let padded = format!(" {text}\n");
            let mut scanner = Scanner::new(padded.as_bytes());
            let span = scanner.value().unwrap();
            prop_assert_eq!(&padded[span], text.as_str());
            prop_assert!(scanner.end().is_ok());
        }

        /// A page with a byte changed or cut off is judged as serde_json judges it;
        /// raw control characters in strings are the one leniency.
        #[test]
        fn agrees_with_serde_json_on_damaged_text(
            value in json(), at: prop::sample::Index, byte in 0x20u8..0x7f, cut: bool,
        ) {
            let mut text = value.to_string().into_bytes();
            let at = at.index(text.len());
            if cut { text.truncate(at) } else { text[at] = byte }
            if let Ok(text) = std::str::from_utf8(&text) {
                let theirs = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
                prop_assert_eq!(accepts(text.as_bytes()), theirs, "{}", text);
            }
        }
    }
}
