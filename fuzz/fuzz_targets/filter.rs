//! FILTER_CRITERIA, and the records it judges.
//!
//! The input is a text and, behind an empty line, the JSON of a record. The text is taken
//! for criteria and for the pattern of a single filter. Invariants: what is compiled is
//! JSON, and criteria judge a record the same whenever they are asked and however often they
//! name a filter. One that is said to ask for an image matches no record without it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use std::sync::LazyLock;
use streamgate::filter::FilterCriteria;
use streamgate::record::{Record, parse_page};

/// All types, an escape, a list of maps, both images.
const RICH: &str = r##"{"awsRegion":"eu-west-1","dynamodb":{"ApproximateCreationDateTime":1.733E9,
    "Keys":{"PK":{"S":"cat#1"},"SK":{"N":"7"}},
    "NewImage":{"PK":{"S":"cat#1"},"SK":{"N":"7"},"age":{"N":"3"},"weight":{"N":"4.50"},
      "name":{"S":"Mau\u00df \"x\""},"tags":{"SS":["quick","grey"]},"doses":{"NS":["1","20","3e2"]},
      "raw":{"B":"AAEC"},"raws":{"BS":["AAEC","/w=="]},"tame":{"BOOL":true},"chip":{"NULL":true},
      "home":{"M":{"city":{"S":"Bern"},"a.b":{"S":"dot"},"deep":{"M":{"er":{"L":[{"L":[{"N":"1"}]}]}}}}},
      "meals":{"L":[{"M":{"at":{"S":"8"},"of":{"S":"fish"}}},{"M":{"at":{"S":"18"},"of":{"S":"hay"}}}]},
      "$or":{"S":"odd"},"":{"S":""},"none":{"L":[]}},
    "OldImage":{"PK":{"S":"cat#1"},"SK":{"N":"7"},"age":{"N":"2"}},
    "SequenceNumber":"100000000000000000001","SizeBytes":300,"StreamViewType":"NEW_AND_OLD_IMAGES"},
    "eventID":"e","eventName":"MODIFY","eventSource":"aws:dynamodb","eventVersion":"1.1",
    "userIdentity":{"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"}}"##;

static FIXED: LazyLock<Record> = LazyLock::new(|| record(RICH).expect("a record"));

/// The same as streams of other view types have it.
static LESSER: LazyLock<Vec<(&'static str, Record)>> = LazyLock::new(|| {
    let without = |view_type, images: &[&str]| {
        let mut json: Value = serde_json::from_str(RICH).expect("JSON");
        let stream_record = json["dynamodb"].as_object_mut().expect("an object");
        stream_record.retain(|name, _| !images.contains(&name.as_str()));
        (view_type, record(&json.to_string()).expect("a record"))
    };
    vec![
        without("KEYS_ONLY", &["NewImage", "OldImage"]),
        without("NEW_IMAGE", &["OldImage"]),
        without("OLD_IMAGE", &["NewImage"]),
    ]
});

fuzz_target!(|input: &[u8]| {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (text, rest) = input.split_once("\n\n").unwrap_or((input, ""));
    let of_the_input = record(rest);
    let records = || std::iter::once(&*FIXED).chain(&of_the_input);

    if let Ok(criteria) = FilterCriteria::parse(text) {
        assert_eq!(FilterCriteria::parse(text).as_ref(), Ok(&criteria));
        records().for_each(|record| {
            judge(&criteria, record);
        });
    }

    let once = match FilterCriteria::parse(&filters(&[text])) {
        Ok(criteria) => criteria,
        Err(fault) => return assert!(fault.starts_with("Filters[0].Pattern"), "{fault}"),
    };
    is_json(text);
    let one_of_two = FilterCriteria::parse(&filters(&[text, text])).expect("as the one");
    for record in records() {
        assert_eq!(judge(&once, record), judge(&one_of_two, record));
    }
    for (view_type, record) in LESSER.iter() {
        let cannot = once.without_image(view_type).is_some();
        assert_eq!(cannot, once.fault_with(view_type).is_some());
        assert!(!(judge(&once, record) && cannot), "{view_type}: cannot match, and does");
    }
});

fn filters(patterns: &[&str]) -> String {
    let filters: Vec<_> = patterns.iter().map(|pattern| json!({"Pattern": pattern})).collect();
    json!({"Filters": filters}).to_string()
}

fn record(json: &str) -> Option<Record> {
    let page = Bytes::from(format!(r#"{{"Records":[{json}]}}"#));
    parse_page(&page).ok()?.records.into_iter().next()
}

fn judge(criteria: &FilterCriteria, record: &Record) -> bool {
    let passes = criteria.passes(record);
    assert_eq!(criteria.passes(record), passes, "another verdict on the same record");
    passes
}

/// That a pattern which was taken is JSON.
fn is_json(pattern: &str) {
    if let Err(error) = serde_json::from_str::<Value>(pattern) {
        let said = error.to_string();
        // Bounds of serde_json's values, not of JSON.
        let bound = ["number out of range", "recursion limit"];
        assert!(bound.iter().any(|bound| said.starts_with(bound)), "taken, and {said}");
    }
}
