//! Pages of lists: `?limit=` and `?next=`, and the address of the page that follows.
//!
//! Pure. Invariant: what `next` carries is a place in the very list that it came from; a
//! client that makes one up reads no other.

use crate::input::Faults;
use crate::items::Key;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::collections::HashMap;

const MOST_ON_A_PAGE: usize = 100;

/// Which page is asked for.
#[derive(Debug)]
pub struct Paging {
    pub limit: usize,
    pub from: Option<Key>,
}

impl Paging {
    /// Reads the query of a request. `is_of_the_list` says whether a place is in the list.
    pub fn of(
        query: &HashMap<String, String>,
        is_of_the_list: impl Fn(&Key) -> bool,
    ) -> Result<Self, Faults> {
        let mut faults = Faults::new();
        let limit = match query.get("limit").map(|text| text.parse()) {
            None => MOST_ON_A_PAGE,
            Some(Ok(limit @ 1..=MOST_ON_A_PAGE)) => limit,
            Some(_) => {
                faults.push(format!("limit is a whole number from 1 to {MOST_ON_A_PAGE}."));
                0
            }
        };
        let from = query.get("next").map(|text| read(text).filter(&is_of_the_list));
        if from == Some(None) {
            faults.push("next is not from an answer of this list.".to_owned());
        }
        if faults.is_empty() { Ok(Self { limit, from: from.flatten() }) } else { Err(faults) }
    }

    /// The address of the page that begins behind `key`; `list` is this one's, with what it
    /// has to ask beside.
    pub fn next(&self, list: &str, key: &Key) -> String {
        let place = BASE64_URL_SAFE_NO_PAD.encode(format!("{}\0{}", key.pk, key.sk));
        let separator = if list.contains('?') { '&' } else { '?' };
        format!("{list}{separator}limit={}&next={place}", self.limit)
    }
}

fn read(text: &str) -> Option<Key> {
    let place = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (pk, sk) = place.split_once('\0')?;
    // What a table's keys have at most; it would refuse others.
    let is_a_key = !pk.is_empty() && !sk.is_empty() && pk.len() <= 2048 && sk.len() <= 1024;
    is_a_key.then(|| Key { pk: pk.to_owned(), sk: sk.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_and_one_that_was_made_up_is_refused() {
        let key = Key { pk: "DONOR#1".to_owned(), sk: "CITY#Den Haag".to_owned() };
        let first = Paging::of(&HashMap::new(), |_| true).unwrap();
        assert_eq!((first.limit, &first.from), (100, &None));
        let address = Paging { limit: 7, from: None }.next("/donors", &key);
        let query: HashMap<_, _> = address
            .strip_prefix("/donors?")
            .unwrap()
            .split('&')
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let page = Paging::of(&query, |key| key.pk.starts_with("DONOR#")).unwrap();
        assert_eq!((page.limit, page.from), (7, Some(key)));
        assert!(Paging::of(&query, |key| key.pk.starts_with("MAIL#")).is_err());
        for bad in ["", "!", "AA", "RE9OT1I"] {
            let query = HashMap::from([("next".to_owned(), bad.to_owned())]);
            assert!(Paging::of(&query, |_| true).is_err(), "{bad}");
        }
        for bad in ["0", "101", "-1", "x", ""] {
            let query = HashMap::from([("limit".to_owned(), bad.to_owned())]);
            assert!(Paging::of(&query, |_| true).is_err(), "{bad}");
        }
    }
}
