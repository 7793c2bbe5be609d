//! Patterns of the documents and of users, row by row, and another implementation beside ours.

use super::*;
use crate::record::parse_page;
use bytes::Bytes;
use proptest::prelude::*;
use quamina::Quamina;
use serde_json::json;

fn record(json: &str) -> Record {
    let page = Bytes::from(format!(r#"{{"Records":[{json}]}}"#));
    parse_page(&page).unwrap().records.remove(0)
}

fn criteria(patterns: &[&str]) -> Result<FilterCriteria, String> {
    let filters: Vec<_> = patterns.iter().map(|pattern| json!({"Pattern": pattern})).collect();
    FilterCriteria::parse(&json!({"Filters": filters}).to_string())
}

fn passes(patterns: &[&str], json: &str) -> bool {
    criteria(patterns).unwrap_or_else(|fault| panic!("{fault}")).passes(&record(json))
}

/// As GetRecords answers it.
const CAT: &str = r#"{"awsRegion":"eu-west-1","dynamodb":{"ApproximateCreationDateTime":1.733E9,
    "Keys":{"PK":{"S":"cat#1"}},
    "NewImage":{"PK":{"S":"cat#1"},"age":{"N":"3"},"weight":{"N":"4.50"},"name":{"S":"Mau\u00df \"x\""},
      "tags":{"SS":["quick","grey"]},"home":{"M":{"city":{"S":"Bern"},"a.b":{"S":"dot"}}},
      "meals":{"L":[{"M":{"at":{"S":"8"},"of":{"S":"fish"}}},{"M":{"at":{"S":"18"},"of":{"S":"hay"}}}]},
      "tame":{"BOOL":true},"chip":{"NULL":true},"$or":{"S":"odd"},"doses":{"NS":["1","20"]}},
    "SequenceNumber":"100","SizeBytes":300,"StreamViewType":"NEW_IMAGE"},
    "eventID":"e","eventName":"INSERT","eventSource":"aws:dynamodb","eventVersion":"1.1",
    "userIdentity":{"PrincipalId":"dynamodb.amazonaws.com","Type":"Service"}}"#;

#[test]
fn each_operator_keeps_what_it_means_and_drops_the_rest() {
    let image = |inner: &str| format!(r#"{{"dynamodb":{{"NewImage":{{{inner}}}}}}}"#);
    for (kept, inner) in [
        (true, r#""PK":{"S":["cat#1"]}"#),
        (true, r#""PK":{"S":["dog#1","cat#1"]}"#),
        (false, r#""PK":{"S":["cat#"]}"#),
        (false, r#""PK":{"S":["CAT#1"]}"#),
        (true, r#""PK":{"S":[{"equals-ignore-case":"CAT#1"}]}"#),
        (true, r#""name":{"S":[{"equals-ignore-case":"mauß \"X\""}]}"#),
        (true, r#""PK":{"S":[{"prefix":"cat#"}]}"#),
        (false, r#""PK":{"S":[{"prefix":"at#"}]}"#),
        (true, r##""PK":{"S":[{"suffix":"#1"}]}"##),
        (false, r#""PK":{"S":[{"suffix":"cat"}]}"#),
        (true, r#""PK":{"S":[{"anything-but":"dog#1"}]}"#),
        (false, r#""PK":{"S":[{"anything-but":["dog#1","cat#1"]}]}"#),
        (false, r#""gone":{"S":[{"anything-but":["dog#1"]}]}"#),
        (true, r#""name":{"S":["Mau\u00df \"x\""]}"#),
        (true, r#""name":{"S":[{"suffix":"\""}]}"#),
        // DynamoDB's numbers are text, and numeric compares them all the same.
        (true, r#""age":{"N":["3"]}"#),
        (false, r#""age":{"N":["3.0"]}"#),
        (true, r#""age":{"N":[{"numeric":["=",3.0]}]}"#),
        (true, r#""weight":{"N":[{"numeric":[">",4,"<=",4.5]}]}"#),
        (false, r#""weight":{"N":[{"numeric":[">",4.5]}]}"#),
        (true, r#""doses":{"NS":[{"numeric":[">=",20]}]}"#),
        (true, r#""tags":{"SS":["grey"]}"#),
        (false, r#""tags":{"SS":["black"]}"#),
        (true, r#""tame":{"BOOL":[true]}"#),
        (false, r#""tame":{"BOOL":[false]}"#),
        (true, r#""chip":{"NULL":[true]}"#),
        (true, r#""home":{"M":{"city":{"S":["Bern"]}}}"#),
        (true, r#""home":{"M":{"a.b":{"S":["dot"]}}}"#),
        (true, r#""$or":{"S":["odd"]}"#),
        (true, r#""age":{"N":[{"exists":true}]}"#),
        (false, r#""age":{"S":[{"exists":true}]}"#),
        (true, r#""gone":{"S":[{"exists":false}]}"#),
        (false, r#""PK":{"S":[{"exists":false}]}"#),
        (true, r#""age":{"N":[{"exists":false},"3"]}"#),
        (true, r#""gone":{"N":[{"exists":false},"3"]}"#),
        (false, r#""age":{"N":[{"exists":false},"4"]}"#),
        (true, r#""PK":{"S":["cat#1"]},"age":{"N":["3"]}"#),
        (false, r#""PK":{"S":["cat#1"]},"age":{"N":["4"]}"#),
        (true, r#""$or":[{"age":{"N":["4"]}},{"PK":{"S":[{"prefix":"cat"}]}}]"#),
        (false, r#""$or":[{"age":{"N":["4"]}},{"gone":{"S":["x"]}}]"#),
        (true, r#""$or":[{"age":{"N":["4"]}},{"gone":{"S":[{"exists":false}]}}]"#),
        // Two members of one element of a list, not of any two.
        (true, r#""meals":{"L":{"M":{"at":{"S":["8"]},"of":{"S":["fish"]}}}}"#),
        (false, r#""meals":{"L":{"M":{"at":{"S":["8"]},"of":{"S":["hay"]}}}}"#),
        (false, r#""meals":{"L":{"M":{"of":{"S":[{"exists":false}]}}}}"#),
    ] {
        assert_eq!(passes(&[&image(inner)], CAT), kept, "{inner}");
    }
    for (kept, pattern) in [
        (true, r#"{"eventName":["INSERT","MODIFY"]}"#),
        (false, r#"{"eventName":["REMOVE"]}"#),
        (true, r#"{"userIdentity":{"type":["Service"],"principalId":["dynamodb.amazonaws.com"]}}"#),
        (false, r#"{"userIdentity":{"type":[{"exists":false}]}}"#),
        (true, r#"{"dynamodb":{"SizeBytes":[{"numeric":["<",301]}]}}"#),
        (true, r#"{"dynamodb":{"SizeBytes":[300]}}"#),
        (false, r#"{"dynamodb":{"SizeBytes":[300.0]}}"#),
        (true, r#"{"dynamodb":{"OldImage":{"PK":{"S":[{"exists":false}]}}}}"#),
        (
            true,
            r#"{"$or":[{"eventName":["REMOVE"]},{"dynamodb":{"Keys":{"PK":{"S":["cat#1"]}}}}]}"#,
        ),
        (true, r#"{"eventName":["REMOVE"],"eventName":["INSERT"]}"#),
    ] {
        assert_eq!(passes(&[pattern], CAT), kept, "{pattern}");
    }
}

#[test]
fn one_of_several_filters_is_enough_and_none_keep_everything() {
    assert!(passes(&[r#"{"eventName":["REMOVE"]}"#, r#"{"eventName":["INSERT"]}"#], CAT));
    assert!(!passes(&[r#"{"eventName":["REMOVE"]}"#, r#"{"eventName":["MODIFY"]}"#], CAT));
    assert!(passes(&[], CAT));
    assert!(FilterCriteria::parse("{}").unwrap().passes(&record(CAT)));
}

#[test]
fn escapes_hide_nothing() {
    let pattern = r#"{"dynamodb":{"NewImage":{"name":{"S":["b"]}}}}"#;
    let hidden = r#"{"dynamodb":{"SequenceNumber":"1","NewImage":{"n\u0061me":{"S":"\u0062"}}}}"#;
    assert!(passes(&[pattern], hidden));
    assert!(passes(&[r#"{"dynamodb":{"NewImage":{"n\u0061me":{"\u0053":["b"]}}}}"#], hidden));
}

#[test]
fn half_a_surrogate_pair_is_no_text_and_not_the_empty_one() {
    let half = r#"{"dynamodb":{"SequenceNumber":"1","NewImage":{"a":{"S":"x\ud83d"}}}}"#;
    let asks =
        |condition| format!(r#"{{"dynamodb":{{"NewImage":{{"a":{{"S":[{condition}]}}}}}}}}"#);
    for (kept, condition) in [
        (false, r#""""#),
        (false, r#"{"prefix":""}"#),
        (false, r#"{"equals-ignore-case":""}"#),
        (true, r#"{"anything-but":""}"#),
        (true, r#"{"exists":true}"#),
    ] {
        assert_eq!(passes(&[&asks(condition)], half), kept, "{condition}");
    }
}

#[test]
fn a_fault_says_where_it_is_and_what_would_do() {
    for (pattern, fault) in [
        ("", "(character 1) is not JSON: unexpected end"),
        (r#"{"eventName":["INSERT"]"#, "(character 24) is not JSON: unexpected end"),
        // Else it would look for the empty text.
        (
            "{\"eventName\":[\"IN\tSERT\"]}",
            "(character 15) is not JSON: a string with a raw control character",
        ),
        (r#"{"\ud83d":["INSERT"]}"#, "(character 2) is not JSON: a string with a raw control"),
        (
            r#"{"é":1}"#,
            r#"(character 6) "é" stands in no stream record here; an object with dynamodb"#,
        ),
        ("[]", "(character 1) is an array; an object with dynamodb"),
        ("{}", "(character 1) is empty"),
        (
            r#"{"eventName":"INSERT"}"#,
            "at eventName (character 14) is text; an array of what is looked for is expected",
        ),
        (r#"{"eventName":[]}"#, "at eventName (character 14) is an empty array"),
        (
            r#"{"eventName":[["INSERT"]]}"#,
            "at eventName (character 15) is an array inside an array",
        ),
        (r#"{"eventName":[1]}"#, "at eventName (character 15) is a number; text stands here"),
        (
            r#"{"body":{"a":["b"]}}"#,
            r#""body" is where other sources have their data; a stream record has it in dynamodb"#,
        ),
        (r#"{"NewImage":{"a":{"S":["b"]}}}"#, r#""NewImage" stands in dynamodb"#),
        (r#"{"eventSourceARN":["a"]}"#, "the same in every record"),
        (
            r#"{"dynamodb":{"newImage":{"a":{"S":["b"]}}}}"#,
            r#"at dynamodb (character 25) "newImage" stands in no stream record here"#,
        ),
        // The type is forgotten: Lambda takes this and matches nothing.
        (
            r#"{"dynamodb":{"NewImage":{"age":[{"exists":true}]}}}"#,
            "at dynamodb.NewImage.age (character 32) is an array; an attribute's value has its type around it",
        ),
        (
            r#"{"dynamodb":{"NewImage":{"age":{"N":[5]}}}}"#,
            r#"at dynamodb.NewImage.age.N (character 38) is a number; DynamoDB writes numbers as text: "5""#,
        ),
        (
            r#"{"dynamodb":{"NewImage":{"a":{"BOOL":["true"]}}}}"#,
            "is text; true or false stands here, without quotes",
        ),
        (
            r#"{"dynamodb":{"NewImage":{"a":{"S":[{"numeric":["=",1]}]}}}}"#,
            r#""numeric" compares numbers, and here stands text"#,
        ),
        (
            r#"{"dynamodb":{"NewImage":{"a":{"N":[{"numeric":["=="]}]}}}}"#,
            r#""numeric" takes comparisons and numbers in turn"#,
        ),
        (
            r#"{"dynamodb":{"NewImage":{"a":{"N":[{"numeric":[">",1,"<"]}]}}}}"#,
            r#""numeric" takes comparisons"#,
        ),
        (
            r#"{"eventName":[{"wildcard":"I*"}]}"#,
            r#""wildcard" is no operator of Lambda's filters; prefix"#,
        ),
        (
            r#"{"eventName":[{"anything-but":{"prefix":"I"}}]}"#,
            "Lambda's filters have no operators inside it",
        ),
        (r#"{"eventName":[{"prefix":"I","suffix":"T"}]}"#, "one operator is expected"),
        (r#"{"eventName":[{"exists":"yes"}]}"#, r#""exists" takes true or false"#),
        (r#"{"$or":[{"eventName":["INSERT"]}]}"#, "at $or (character 8) needs two alternatives"),
    ] {
        let said = criteria(&[r#"{"eventName":["INSERT"]}"#, pattern]).unwrap_err();
        assert!(said.starts_with("Filters[1].Pattern"), "{said}");
        assert!(said.contains(fault), "{pattern}\n{said}");
    }
    for (text, fault) in [
        ("nonsense", "cannot be read"),
        ("[]", "cannot be read"),
        (r#"{"Filters":[{}]}"#, "has a filter without Pattern"),
        (r#"{"Filters":[{"pattern":"{}"}]}"#, r#"has a member "pattern""#),
        (r#"{"filters":[]}"#, r#"has a member "filters""#),
        (
            r#"{"Filters":[{"Pattern":{"eventName":["INSERT"]}}]}"#,
            "with the pattern's JSON as text",
        ),
    ] {
        let said = FilterCriteria::parse(text).unwrap_err();
        assert!(said.contains(fault), "{said}");
    }
    assert!(criteria(&[r#"{"eventName":["INSERT"]}"#; 11]).unwrap_err().contains("at most 10"));
    let long = format!(r#"{{"eventName":["{}"]}}"#, "x".repeat(5000));
    assert!(criteria(&[&long]).unwrap_err().contains("at most 4096"));
}

#[test]
fn a_filter_on_an_image_that_the_stream_does_not_have_is_found() {
    let old = r#"{"dynamodb":{"OldImage":{"a":{"S":["x"]}}}}"#;
    let either =
        r#"{"dynamodb":{"$or":[{"OldImage":{"a":{"S":["x"]}}},{"NewImage":{"a":{"S":["x"]}}}]}}"#;
    let absent = r#"{"dynamodb":{"OldImage":{"a":{"S":[{"exists":false}]}}}}"#;
    let both = criteria(&[r#"{"eventName":["INSERT"]}"#, old]).unwrap();
    assert_eq!(both.without_image("NEW_IMAGE"), Some((1, "OldImage")));
    assert_eq!(both.without_image("KEYS_ONLY"), Some((1, "OldImage")));
    assert_eq!(both.without_image("NEW_AND_OLD_IMAGES"), None);
    assert_eq!(both.without_image("OLD_IMAGE"), None);
    assert_eq!(criteria(&[either]).unwrap().without_image("NEW_IMAGE"), None);
    assert!(criteria(&[either]).unwrap().without_image("KEYS_ONLY").is_none(), "no one image");
    assert_eq!(criteria(&[absent]).unwrap().without_image("NEW_IMAGE"), None);
}

/// Conditions on text that Quamina and Lambda read alike.
fn condition() -> impl Strategy<Value = serde_json::Value> {
    let text = "[ab]{0,3}";
    prop_oneof![
        3 => text.prop_map(|text| json!(text)),
        1 => text.prop_map(|text| json!({"prefix": text})),
        1 => text.prop_map(|text| json!({"suffix": text})),
        1 => "[abAB]{1,3}".prop_map(|text| json!({"equals-ignore-case": text})),
        1 => prop::collection::vec(text, 1..3).prop_map(|texts| json!({"anything-but": texts})),
    ]
}

fn leaf() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        4 => prop::collection::vec(condition(), 1..3).prop_map(|conditions| json!(conditions)),
        1 => Just(json!([{"exists": true}])),
        1 => Just(json!([{"exists": false}])),
    ]
}

proptest! {
    /// Another implementation of the same language agrees.
    #[test]
    fn quamina_judges_alike(
        pattern in prop::collection::btree_map("[xyz]", leaf(), 1..3),
        item in prop::collection::btree_map("[xyz]", "[ab]{0,3}", 0..3),
        in_a_list in prop::collection::vec(("[ab]{0,2}", "[ab]{0,2}"), 0..3),
        of_the_list in prop::option::of((condition(), condition())),
    ) {
        let typed = |value: &serde_json::Value| json!({"S": value});
        let mut image: serde_json::Map<_, _> =
            pattern.iter().map(|(name, leaf)| (name.clone(), typed(leaf))).collect();
        if let Some((at, of)) = of_the_list {
            image.insert("l".into(), json!({"L": {"M": {"at": {"S": [at]}, "of": {"S": [of]}}}}));
        }
        let pattern = json!({"dynamodb": {"NewImage": image}}).to_string();
        // Quamina 0.7 loses matches where a pattern has two `exists`, or one beside other
        // conditions in an array.
        prop_assume!(pattern.matches("exists").count() < 2);
        let mut image: serde_json::Map<_, _> =
            item.iter().map(|(name, text)| (name.clone(), typed(&json!(text)))).collect();
        let list: Vec<_> =
            in_a_list.iter().map(|(at, of)| json!({"M": {"at": {"S": at}, "of": {"S": of}}})).collect();
        image.insert("l".into(), json!({"L": list}));
        let record = json!({"dynamodb": {"SequenceNumber": "1", "NewImage": image}}).to_string();
        let mut quamina = Quamina::new();
        quamina.add_pattern("it", &pattern).unwrap();
        let theirs = quamina.has_matches(record.as_bytes()).unwrap();
        prop_assert_eq!(passes(&[&pattern], &record), theirs, "{} {}", pattern, record);
    }

    #[test]
    fn whatever_stands_there_is_refused_or_survived(text in ".{0,80}", inner in "[\\[\\]{}\":,a$orextsN0-9]{0,60}") {
        let _ = FilterCriteria::parse(&text);
        for pattern in [text, inner.clone(), format!(r#"{{"dynamodb":{{"NewImage":{{"a":{inner}}}}}}}"#)] {
            if let Ok(criteria) = criteria(&[&pattern]) {
                criteria.passes(&record(CAT));
            }
        }
    }
}
