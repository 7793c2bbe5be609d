//! Decimal numbers as texts, compared by what they are worth.
//!
//! Owns comparison and nothing else of arithmetic. DynamoDB's numbers have up to 38
//! digits, more than a float or a machine's integer holds, so no digit is dropped here.

use std::cmp::Ordering;

/// A number: `0.DIGITS` times ten to the `exponent`, or zero without digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    exponent: i64,
    /// Neither the first nor the last of them is `0`.
    digits: String,
}

impl Decimal {
    /// Reads what JSON or DynamoDB writes, `-12.50`, `1E+3`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (number, power) = match text.split_once(['e', 'E']) {
            // Far more than DynamoDB's 125, and sums with it cannot overflow.
            Some((number, power)) if power.len() <= 10 => (number, power.parse::<i64>().ok()?),
            Some(_) => return None,
            None => (text, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let zeros = digits.len() - digits.trim_start_matches('0').len();
        digits.drain(..zeros);
        digits.truncate(digits.trim_end_matches('0').len());
        let exponent = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()? + power;
        Some(if digits.is_empty() {
            Self { negative: false, exponent: 0, digits }
        } else {
            Self { negative, exponent, digits }
        })
    }

    /// Sign and magnitude: -1, 0 or 1.
    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        // Digits without zeros at their ends are ordered as text is.
        let magnitude =
            || self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
        self.sign().cmp(&other.sign()).then_with(|| match self.sign() {
            -1 => magnitude().reverse(),
            _ => magnitude(),
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_worth_the_same_is_equal() {
        let number = |text: &str| Decimal::parse(text).unwrap_or_else(|| panic!("{text}"));
        for same in [
            &["300", "300.0", "3.0e2", "3E+2", "0300", "+300", "30000e-2"][..],
            &["0", "-0", "0.000", "0e9", "00"],
            &["-0.5", "-5E-1", "-.5", "-0.50"],
        ] {
            assert!(same.windows(2).all(|pair| number(pair[0]) == number(pair[1])), "{same:?}");
        }
        let large = "99999999999999999999999999999999999998";
        assert!(number(large) < number("99999999999999999999999999999999999999"));
        assert!(number("-1e125") < number("-9.9e124") && number("1e-130") > number("0"));
        for text in ["", "-", "1e", "e1", "1.2.3", "0x1", "NaN", " 1", "1e99999999999", "."] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn are_ordered_as_integers_are(a in -10_000_000_000_i64..10_000_000_000, b: i32, p in 0_u32..6, q in 0_u32..6) {
            // The same scale for both, and texts that differ in where their point stands.
            let text = |n: i64, places: u32| format!("{n}e-{places}");
            let worth = |n: i64, places: u32| i128::from(n) * 10_i128.pow(6 - places);
            let (x, y) = (Decimal::parse(&text(a, p)).unwrap(), Decimal::parse(&text(b.into(), q)).unwrap());
            prop_assert_eq!(x.cmp(&y), worth(a, p).cmp(&worth(b.into(), q)));
        }

        #[test]
        fn whatever_the_text_is_survived(text in ".{0,40}") {
            let _ = Decimal::parse(&text);
        }
    }
}
